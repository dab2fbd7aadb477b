# pyright: reportUndefinedVariable=false
"""The loops of the CPU backend from moments of pairs to transforms, and back, for numba; see `_tiles`.

Moments are those of `_pair_tiles`. All is float64; what users see has the type of the points.
"""

from typing import Any

import numpy as np
import torch

from svdrot.formulas import projection

from ._pair_tiles import MOMENTS

LANES = 16  # transforms in a tile, always computed whole
SCRATCH = 2 * 27 * LANES  # in numbers of the points: room for as many of float64

KERNELS = {
    # pivots, moments, centred, scaled, rotations, translations, scales, covariances, nearest rotations
    "pair_poses": (
        *("wide",) * 2, "intp", "intp", *("pointer",) * 3, *("wide",) * 2, "wide", "intp", "intp",
    ),
    # pivots, moments, nearest rotations, centred, scaled, damping, gradients of rotations, translations,
    # scales and covariances, whether there are those, gradients of moments
    "pair_pose_gradients": (
        *("wide",) * 3, "intp", "intp", "double", *("pointer",) * 3, "wide", *("intp",) * 4, "wide",
        "wide", "intp", "intp",
    ),
}  # fmt: skip
INTERLEAVE = {"pair_poses": 2}  # as `_tiles`


def pair_poses(
    pivots, moments, centred, scaled_, rotations, translations, scales, covariances, nearest,
    scratch, start, stop,
):  # fmt: skip
    """R nearest to C, s = <R, C> / v and t = q - s R p, for the centroids p and q."""
    use_widest_vectors()
    x = carray(scratch, (9, LANES))
    r, covariance = carray(nearest, (stop, 9)), carray(covariances, (stop, 9))
    rotation, translation = carray(rotations, (stop, 9)), carray(translations, (stop, 3))
    scale = carray(scales, (stop,))
    for first in range(start, stop, LANES):
        live = min(LANES, stop - first)
        clear(x, live)
        for i in range(live):
            row = carray(moments, (stop, MOMENTS))[first + i]
            for k in range(9):
                x[k, i] = covariance[first + i, k] = row[7 + k]
        for i in range(LANES):
            a, b, c = columns(x, i)
            a, b, c = nearest_rotation(a, b, c)
            put(a, b, c, x, i)
        for i in range(live):
            row = first + i
            p, q, v = read_pose(pivots, moments, row)
            s = scale_of(x, i, covariance[row], v, scaled_)
            scale[row] = s
            for k in range(9):
                r[row, k] = rotation[row, k] = x[k, i]
            for k in range(3):
                turned = x[3 * k, i] * p[0] + x[3 * k + 1, i] * p[1] + x[3 * k + 2, i] * p[2]
                translation[row, k] = q[k] - s * turned if centred else ZERO


def pair_pose_gradients(
    pivots, moments, nearest, centred, scaled_, damping, rotations, translations, scales, covariances,
    turns, moves, stretches, spreads, of_moments, scratch, start, stop,
):  # fmt: skip
    use_widest_vectors()
    tiles = carray(scratch, (3, 9, LANES))
    x, y, z = tiles[0], tiles[1], tiles[2]  # C, R and the gradient of R
    r, result = carray(nearest, (stop, 9)), carray(of_moments, (stop, MOMENTS))
    rotation, translation = carray(rotations, (stop, 9)), carray(translations, (stop, 3))
    scale, covariance = carray(scales, (stop,)), carray(covariances, (stop, 9))
    for first in range(start, stop, LANES):
        live = min(LANES, stop - first)
        clear(x, live)
        clear(y, live)
        clear(z, live)
        for i in range(live):
            row = first + i
            p, _, v = read_pose(pivots, moments, row)
            c = carray(moments, (stop, MOMENTS))[row, 7:16]
            for k in range(9):
                x[k, i], y[k, i] = c[k], r[row, k]
            s, gs = scale_of(y, i, c, v, scaled_), wide(scale[row]) if stretches else ZERO
            for k in range(7):
                result[row, k] = ZERO
            for k in range(3):
                gt = wide(translation[row, k]) if moves and centred else ZERO
                result[row, 4 + k] = gt
                for l in range(3):
                    result[row, 1 + l] -= s * y[3 * k + l, i] * gt
                    z[3 * k + l, i] = -s * gt * p[l] + (wide(rotation[row, 3 * k + l]) if turns else ZERO)
                    gs -= y[3 * k + l, i] * gt * p[l]
            share = gs / v if scaled_ and v != ZERO else ZERO
            result[row, 16] = -share * s
            for k in range(9):
                z[k, i] += share * c[k]
                result[row, 7 + k] = share * y[k, i] + (covariance[row, k] if spreads else ZERO)
        for i in range(LANES):
            a, b, c = columns(x, i)
            d, e, f = columns(y, i)
            da, db, dc = columns(z, i)
            da, db, dc = nearest_rotation_differential(a, b, c, d, e, f, da, db, dc, damping)
            put(da, db, dc, z, i)
        for i in range(live):
            for k in range(9):
                result[first + i, 7 + k] += z[k, i]


def columns(x, i):
    return (x[0, i], x[3, i], x[6, i]), (x[1, i], x[4, i], x[7, i]), (x[2, i], x[5, i], x[8, i])


def put(a, b, c, x, i):
    x[0, i], x[3, i], x[6, i] = a
    x[1, i], x[4, i], x[7, i] = b
    x[2, i], x[5, i], x[8, i] = c


def clear(x, live):
    """The lanes past the last; see `_tiles.read`."""
    for k in range(9):
        for i in range(live, LANES):
            x[k, i] = ZERO


def scale_of(x, i, c, v, scaled_):
    """<R, C> / v for R in lane i, or 1."""
    if not scaled_ or v == ZERO:
        return ONE
    total = ZERO
    for k in range(9):
        total += x[k, i] * c[k]
    return total / v


def read_pose(pivots, moments, row):
    """Centroids and variance."""
    o, m = carray(pivots, (row + 1, 6))[row], carray(moments, (row + 1, MOMENTS))[row]
    return (o[0] + m[1], o[1] + m[2], o[2] + m[3]), (o[3] + m[4], o[4] + m[5], o[5] + m[6]), m[16]


HELPERS = (clear, columns, put, scale_of, read_pose)
FORMULAS = projection.FORMULAS


def vocabulary(dtype: torch.dtype, scalar: Any) -> dict[str, Any]:
    import numba

    words: dict[str, Any] = {"LANES": LANES, "MOMENTS": MOMENTS, "wide": numba.float64}
    return words | {name: np.float64(value) for name, value in projection.constants(torch.float64).items()}
