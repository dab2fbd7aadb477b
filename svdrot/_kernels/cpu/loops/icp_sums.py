# pyright: reportUndefinedVariable=false, reportPrivateImportUsage=false
r"""What a step of ICP needs of its pairs, in one pass over them, for numba. Float64.

Each pair (p, q) of weight w gives rows of seven numbers: $\sqrt w\,(1, p - o, q - o)$, about an origin o near
the pairs, and for each of its residuals r with the derivative j by a small motion about o, $\sqrt w\,(j, r)$.
The sums of products of the first are the moments of the pairs, those of the others the normal equations.

A row of the batch is a segment of an item: `length` of its n points. Its sums are the two matrices of 7 x 7,
how many points have a neighbor, the squares of their distances, and how many count for the step. The sizes
of the residuals, for robust weights, are written on the way. The steps from the sums are in `icp_steps`.
"""

import math
from typing import Any

import numpy as np
import torch

from svdrot._formulas import projection
from svdrot._kernels import pairs
from svdrot._kernels.records import SUMS

TILE = 256  # pairs at a time
RESIDUAL = 28  # the row after four of seven numbers
ROWS = RESIDUAL + 1
SCRATCH = ROWS * TILE

# Methods, by their residuals.
POINTS, PLANES, SYMMETRIC, COVARIANCES = range(4)

# Points of the source where they are now, indices of their neighbors, weights; for each item its place among
# the targets, rotation and origin; points of the target, which of them count; normals or packed covariances
# of source and target, unused where the method needs none; residuals and sums; n, points of a target,
# segments, length, and the method.
KERNELS = {"sum_pairs": (*("pointer",) * 12, *("intp",) * 5, "pointer", "intp", "intp")}


def sum_pairs(
    x, near, weight, items, rotations, origin, y, counts, source, target, residuals, sums,
    n, m, segments, length, method, scratch, start, stop,
):  # fmt: skip
    use_widest_vectors()
    tile, result = carray(scratch, (ROWS, TILE)), carray(sums, (stop, SUMS_SIZE))
    for row in range(start, stop):
        item, at, last = segment(row, n, segments, length)
        to, rotation = carray(integers(items), (item + 1,))[item] * m, turn(rotations, item)
        while at < last:
            live, first = min(TILE, last - at), item * n + at
            read(x, near, weight, origin, y, counts, m, item, first, live, to, tile, result[row])
            count = write_rows(method, near, rotation, source, target, m, first, live, to, tile)
            write_residuals(residuals, first, live, tile)
            add_products(tile, 0, live, result[row], SUMS_MOMENTS)
            for k in range(count):
                add_products(tile, 7 * (1 + k), live, result[row], SUMS_EQUATIONS)
            at += TILE


def write_rows(method, near, rotation, source, target, m, first, live, to, tile):
    """The (w j, w r) and the size of the residual of each pair of a tile; returns the rows of a pair."""
    if method == POINTS:
        points(live, tile)
        return 0
    if method == PLANES:
        planes(near, target, m, first, live, to, tile)
        return 1
    if method == SYMMETRIC:
        symmetric(near, rotation, source, target, m, first, live, to, tile)
        return 1
    generalized(near, rotation, source, target, m, first, live, to, tile)
    return 3


def points(live, tile):
    """No normal equations: the step follows from the moments."""
    for i in range(live):
        _, p, q = pair(tile, i)
        tile[RESIDUAL, i] = norm(difference(p, q))


def planes(near, target, m, first, live, to, tile):
    """Residuals (p - q) b, b the normal at q."""
    index, normals = carray(integers(near), (first + live,)), carray(target, (to + m, 3))
    for i in range(live):
        b = normals[to + min(index[first + i], m - 1)]
        w, p, q = pair(tile, i)
        put_plane(tile, i, w, p, difference(p, q), (b[0], b[1], b[2]))


def symmetric(near, rotation, source, target, m, first, live, to, tile):
    """Residuals (p - q)(a + b), a and b the normals at p and q, with signs that agree."""
    index = carray(integers(near), (first + live,))
    own, normals = carray(source, (first + live, 3)), carray(target, (to + m, 3))
    r, s, t = rotation
    for i in range(live):
        c, b = own[first + i], normals[to + min(index[first + i], m - 1)]
        a, b = (dot(r, c), dot(s, c), dot(t, c)), (b[0], b[1], b[2])
        sign = where(dot(a, b) < ZERO, -ONE, ONE)
        w, p, q = pair(tile, i)
        put_plane(tile, i, w, add(p, q), difference(p, q), add(scaled(sign, a), b))


def generalized(near, rotation, source, target, m, first, live, to, tile):
    """Three residuals, K⁻¹ (p - q), with K Kᵀ the covariance of p - q, K lower triangular."""
    index = carray(integers(near), (first + live,))
    own, covariances = carray(source, (first + live, 6)), carray(target, (to + m, 6))
    r, s, t = rotation
    for i in range(live):
        a, b = own[first + i], covariances[to + min(index[first + i], m - 1)]
        ar, as_, at_ = times(a, r), times(a, s), times(a, t)
        xx, xy, xz = dot(r, ar) + b[0], dot(r, as_) + b[1], dot(r, at_) + b[2]
        yy, yz, zz = dot(s, as_) + b[3], dot(s, at_) + b[4], dot(t, at_) + b[5]
        k0 = rsqrt_or_zero(xx)
        l, h = xy * k0, xz * k0
        k1 = rsqrt_or_zero(yy - l * l)
        f = (yz - l * h) * k1
        k2 = rsqrt_or_zero(zz - h * h - f * f)
        w, p, q = pair(tile, i)
        w = where(k0 * k1 * k2 > ZERO, w, ZERO)
        p, d = where3(w > ZERO, p), where3(w > ZERO, difference(p, q))
        # The rows of (-[p]x, I, d), and K⁻¹ times them.
        u, v, z = (ZERO, p[2], -p[1]), (-p[2], ZERO, p[0]), (p[1], -p[0], ZERO)
        e0, e1, e2 = (w, ZERO, ZERO), (ZERO, w, ZERO), (ZERO, ZERO, w)
        u, e0 = scaled(k0, u), scaled(k0, e0)
        d0 = k0 * d[0]
        v, e1 = scaled(k1, less(v, l, u)), scaled(k1, less(e1, l, e0))
        d1 = k1 * (d[1] - l * d0)
        z = scaled(k2, less(less(z, h, u), f, v))
        e2 = scaled(k2, less(less(e2, h, e0), f, e1))
        d2 = k2 * (d[2] - h * d0 - f * d1)
        put(tile, 7, i, u, e0, d0)
        put(tile, 14, i, v, e1, d1)
        put(tile, 21, i, z, e2, d2)
        tile[RESIDUAL, i] = norm((d0, d1, d2))


def segment(row, n, segments, length):
    """The item of a row, and from where to where its points are."""
    first = (row % segments) * length
    return row // segments, first, min(first + length, n)


def read(x, near, weight, origin, y, counts, m, item, first, live, to, tile, result):
    """The first seven numbers of each pair, 0 for those that do not count, and what is to be counted."""
    end = first + live
    xs, ys, o = carray(x, (end, 3)), carray(y, (to + m, 3)), carray(origin, (item + 1, 3))[item]
    index, ws, cs = carray(integers(near), (end,)), carray(weight, (end,)), carray(counts, (to + m,))
    found, squares, used = ZERO, ZERO, ZERO
    for i in range(live):
        k = first + i
        paired = index[k] < m
        j = to + min(index[k], m - 1)
        p, q = (xs[k, 0], xs[k, 1], xs[k, 2]), (ys[j, 0], ys[j, 1], ys[j, 2])
        d = difference(p, q)
        found += where(paired, ONE, ZERO)
        squares += where(paired, dot(d, d), ZERO)
        w = where(paired and cs[j] > ZERO, ws[k], ZERO)
        used += where(w > ZERO, ONE, ZERO)
        w = sqrt(w)
        tile[0, i] = w
        for a in range(3):
            tile[1 + a, i] = where(w == ZERO, ZERO, w * (xs[k, a] - o[a]))
            tile[4 + a, i] = where(w == ZERO, ZERO, w * (ys[j, a] - o[a]))
    result[SUMS_FOUND] += found
    result[SUMS_SQUARES] += squares
    result[SUMS_USED] += used


def write_residuals(residuals, first, live, tile):
    """Infinite for pairs that do not count."""
    result = carray(residuals, (first + live,))
    for i in range(live):
        w = tile[0, i]
        result[first + i] = where(w > ZERO, tile[RESIDUAL, i] / where(w > ZERO, w, ONE), INFINITY)


def pair(tile, i):
    return tile[0, i], (tile[1, i], tile[2, i], tile[3, i]), (tile[4, i], tile[5, i], tile[6, i])


def put_plane(tile, i, w, p, d, n):
    """The residual d n and its derivative by a motion of p."""
    put(tile, 7, i, cross(p, n), scaled(w, n), dot(d, n))
    tile[RESIDUAL, i] = abs(dot(d, n))


def put(tile, row, i, turning, moving, residual):
    tile[row, i], tile[row + 1, i], tile[row + 2, i] = turning
    tile[row + 3, i], tile[row + 4, i], tile[row + 5, i] = moving
    tile[row + 6, i] = residual


def add_products(tile, first, live, result, to):
    """Sums of products of seven rows of the tile."""
    for a in range(7):
        for b in range(a, 7):
            total = ZERO
            for i in range(live):
                total += tile[first + a, i] * tile[first + b, i]
            result[to + 7 * a + b] += total
            if b > a:
                result[to + 7 * b + a] += total


def turn(rotations, item):
    """Rows of the rotation."""
    r = carray(rotations, (item + 1, 3, 3))[item]
    return (r[0, 0], r[0, 1], r[0, 2]), (r[1, 0], r[1, 1], r[1, 2]), (r[2, 0], r[2, 1], r[2, 2])


def times(c, x):
    """A packed matrix times a vector."""
    return (
        c[0] * x[0] + c[1] * x[1] + c[2] * x[2],
        c[1] * x[0] + c[3] * x[1] + c[4] * x[2],
        c[2] * x[0] + c[4] * x[1] + c[5] * x[2],
    )


def norm(x):
    return sqrt(dot(x, x))


def less(x, factor, y):
    return x[0] - factor * y[0], x[1] - factor * y[1], x[2] - factor * y[2]


def rsqrt_or_zero(x):
    return where(x > ZERO, ONE / sqrt(where(x > ZERO, x, ONE)), ZERO)


def where3(condition, x):
    return where(condition, x[0], ZERO), where(condition, x[1], ZERO), where(condition, x[2], ZERO)


HELPERS = (
    *(where3, norm, less, rsqrt_or_zero, times, turn, pair, put, put_plane),
    *(points, planes, symmetric, generalized, segment, read, write_rows, write_residuals, add_products),
)
FORMULAS = (*projection.FORMULAS, pairs.difference)


def vocabulary(dtype: torch.dtype, scalar: Any) -> dict[str, Any]:
    from svdrot._kernels.cpu.compiler.simd import integers

    words = {"TILE": TILE, "ROWS": ROWS, "RESIDUAL": RESIDUAL, "SUMS_SIZE": SUMS.size, "INFINITY": math.inf}
    words |= SUMS.words("sums_")
    words |= {"POINTS": POINTS, "PLANES": PLANES, "SYMMETRIC": SYMMETRIC}
    return projection.with_constants(words | {"integers": integers}, np.float64)
