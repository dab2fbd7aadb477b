# pyright: reportUndefinedVariable=false
"""The loops of the CPU backend over pairs of points, for numba; see `_tiles`. Data in, float64 out.

A row is a segment of an item of the batch: `length` of its `points` pairs. Moments are a weight, two
centroids relative to the pivots, and second moments: 1 + 3 + 3 + 9 + 1 numbers.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from . import pairs, so3

TILE = 256  # pairs at a time: they stay in the first cache while they are gone over twice
SCRATCH = 7 * TILE
MOMENTS = 17

# Points by address, numbers in float64 by address (wide), whether there are weights, how rows are laid out.
LAYOUT = ("intp", "intp", "intp", "intp", "pointer", "intp", "intp")
KERNELS = {
    # x, y, w, pivots
    "pair_pivots": ("pointer", "pointer", "pointer", "wide", *LAYOUT),
    # x, y, w, pivots, moments, centred
    "pair_moments": ("pointer", "pointer", "pointer", "wide", "wide", "intp", *LAYOUT),
    # x, y, w, pivots, moments, their gradient, gradients of x, y, w
    "pair_gradients": (*("pointer",) * 3, *("wide",) * 3, *("pointer",) * 3, *LAYOUT),
    # x, y, w, pivots, moments, scaled rotations, sums
    "pair_misfits": (*("pointer",) * 3, *("wide",) * 4, *LAYOUT),
}
INTERLEAVE: dict[str, int] = {}


def pair_pivots(x, y, w, pivots, weighted, points, segments, length, scratch, start, stop):
    """Of items, whatever their segments."""
    result = carray(pivots, (stop, 6))
    xs, ys, ws = carray(x, (stop * points, 3)), carray(y, (stop * points, 3)), carray(w, (stop * points,))
    for item in range(start, stop):
        pair, end = item * points, (item + 1) * points
        if weighted:
            while pair < end and ws[pair] == NONE:
                pair += 1
        for k in range(3):
            result[item, k] = xs[pair, k] if pair < end else ZERO
            result[item, 3 + k] = ys[pair, k] if pair < end else ZERO


def pair_moments(x, y, w, pivots, moments, centred, weighted, points, segments, length, scratch, start, stop):
    use_widest_vectors()
    tile = carray(scratch, (7, TILE))
    result = carray(moments, (stop, 17))
    for row in range(start, stop):
        item = row // segments
        p, q = pivot(pivots, item)
        n, v = ZERO, ZERO
        a, b, c, d, e = NOTHING, NOTHING, NOTHING, NOTHING, NOTHING
        first = (row - item * segments) * length
        last = min(first + length, points)
        for at in range(first, last, TILE):
            live = min(TILE, last - at)
            fill(x, y, w, weighted, item * points + at, live, scratch)
            count = padded(live)
            total, x0, x1, x2, y0, y1, y2 = ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO
            for i in range(count):
                weight, u, z = pair(tile, i, p, q)
                total += weight
                if centred:
                    x0, x1, x2 = x0 + weight * u[0], x1 + weight * u[1], x2 + weight * u[2]
                    y0, y1, y2 = y0 + weight * z[0], y1 + weight * z[1], y2 + weight * z[2]
            inverse = ONE / where(total == ZERO, ONE, total)
            a2, b2 = scaled(inverse, (x0, x1, x2)), scaled(inverse, (y0, y1, y2))
            c0, c1, c2, d0, d1, d2, e0, e1, e2, v2 = (
                ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO
            )  # fmt: skip
            for i in range(count):
                weight, u, z = pair(tile, i, p, q)
                f, g, h, s = second_moments(weight, u, z, a2, b2)
                c0, c1, c2 = c0 + f[0], c1 + f[1], c2 + f[2]
                d0, d1, d2 = d0 + g[0], d1 + g[1], d2 + g[2]
                e0, e1, e2 = e0 + h[0], e1 + h[1], e2 + h[2]
                v2 += s
            n, a, b, c, d, e, v = merged(
                n, a, b, c, d, e, v, total, a2, b2, (c0, c1, c2), (d0, d1, d2), (e0, e1, e2), v2
            )
        inverse = ONE / where(n == ZERO, ONE, n)
        result[row, 0], result[row, 16] = n, inverse * v
        for k in range(3):
            result[row, 1 + k], result[row, 4 + k] = a[k], b[k]
            result[row, 7 + 3 * k] = inverse * c[k]
            result[row, 8 + 3 * k] = inverse * d[k]
            result[row, 9 + 3 * k] = inverse * e[k]


def pair_gradients(
    x, y, w, pivots, moments, g, gx, gy, gw, weighted, points, segments, length, scratch, start, stop
):
    use_widest_vectors()
    tile = carray(scratch, (7, TILE))
    for row in range(start, stop):
        item = row // segments
        p, q = pivot(pivots, item)
        n, a, b, c, d, e, v = read_moments(moments, item)
        gn, ga, gb, gc, gd, ge, gv = read_moments(g, item)
        constant = -(dot(gc, c) + dot(gd, d) + dot(ge, e) + gv * v)
        first = (row - item * segments) * length
        last = min(first + length, points)
        for at in range(first, last, TILE):
            live = min(TILE, last - at)
            begin = item * points + at
            fill(x, y, w, weighted, begin, live, scratch)
            for i in range(padded(live)):
                weight, u, z = pair(tile, i, p, q)
                u, z, s = pair_gradient(weight, u, z, a, b, n, gn, ga, gb, gc, gd, ge, gv, constant)
                tile[0, i], tile[1, i], tile[2, i] = u
                tile[3, i], tile[4, i], tile[5, i] = z
                tile[6, i] = s
            spill(scratch, 0, gx, begin, live)
            spill(scratch, 3, gy, begin, live)
            if weighted:
                weights, result = carray(w, (begin + live,)), carray(gw, (begin + live,))
                xs, ys = carray(x, (begin + live, 3)), carray(y, (begin + live, 3))
                for i in range(live):
                    u, z = xs[begin + i], ys[begin + i]
                    ignored = is_ignored(weights[begin + i], u[0] + u[1] + u[2] + z[0] + z[1] + z[2])
                    result[begin + i] = where(ignored, NONE, tile[6, i])


def pair_misfits(
    x, y, w, pivots, moments, rotations, sums, weighted, points, segments, length, scratch, start, stop
):
    use_widest_vectors()
    tile = carray(scratch, (7, TILE))
    result, matrices = carray(sums, (stop,)), carray(rotations, (stop, 3, 3))
    for row in range(start, stop):
        item = row // segments
        p, q = pivot(pivots, item)
        _, a, b, _, _, _, _ = read_moments(moments, item)
        m = matrices[item]
        r, s, t = (m[0, 0], m[1, 0], m[2, 0]), (m[0, 1], m[1, 1], m[2, 1]), (m[0, 2], m[1, 2], m[2, 2])
        first = (row - item * segments) * length
        last = min(first + length, points)
        total = ZERO
        for at in range(first, last, TILE):
            live = min(TILE, last - at)
            fill(x, y, w, weighted, item * points + at, live, scratch)
            for i in range(padded(live)):
                weight, u, z = pair(tile, i, p, q)
                total += weight * squared_distance(u, z, a, b, r, s, t)
        result[row] = total


def fill(x, y, w, weighted, at, live, scratch):
    """Pairs from `at` on by coordinate, then their weights, zeros past the end and for what is ignored.

    A negative weight becomes NaN.
    """
    tile = carray(scratch, (7, TILE))
    full = live // WIDTH * WIDTH
    for i in range(0, full, WIDTH):
        gather(x, 3 * (at + i), scratch, i)
        gather(y, 3 * (at + i), scratch, 3 * TILE + i)
    xs, ys = carray(x, (at + live, 3)), carray(y, (at + live, 3))
    for i in range(full, live):
        for k in range(3):
            tile[k, i] = xs[at + i, k]
            tile[3 + k, i] = ys[at + i, k]
    if weighted:
        ws = carray(w, (at + live,))
        for i in range(live):
            weight = ws[at + i]
            tile[6, i] = where(weight >= NONE, weight, NAN)
            total = tile[0, i] + tile[1, i] + tile[2, i] + tile[3, i] + tile[4, i] + tile[5, i]
            ignored = is_ignored(weight, total)
            for k in range(6):
                tile[k, i] = where(ignored, NONE, tile[k, i])
    else:
        for i in range(live):
            tile[6, i] = ONE
    for k in range(7):
        for i in range(live, padded(live)):
            tile[k, i] = NONE


def spill(scratch, first, points, at, live):
    tile, result = carray(scratch, (7, TILE)), carray(points, (at + live, 3))
    full = live // WIDTH * WIDTH
    for i in range(0, full, WIDTH):
        scatter(scratch, first * TILE + i, points, 3 * (at + i))
    for i in range(full, live):
        for k in range(3):
            result[at + i, k] = tile[first + k, i]


def is_ignored(weight, total):
    """Whether a pair has weight 0 and coordinates that are not finite."""
    return (weight == NONE) & ~(absolute(total) <= LARGEST)


def padded(live):
    return (live + WIDTH - 1) // WIDTH * WIDTH


def pair(tile, i, p, q):
    """Weight and coordinates, relative to the pivots, in float64."""
    x = (wide(tile[0, i]) - p[0], wide(tile[1, i]) - p[1], wide(tile[2, i]) - p[2])
    y = (wide(tile[3, i]) - q[0], wide(tile[4, i]) - q[1], wide(tile[5, i]) - q[2])
    return wide(tile[6, i]), x, y


def pivot(pivots, item):
    p = carray(pivots, (item + 1, 6))[item]
    return (p[0], p[1], p[2]), (p[3], p[4], p[5])


def read_moments(moments, item):
    m = carray(moments, (item + 1, 17))[item]
    c, d, e = (m[7], m[10], m[13]), (m[8], m[11], m[14]), (m[9], m[12], m[15])
    return m[0], (m[1], m[2], m[3]), (m[4], m[5], m[6]), c, d, e, m[16]


def where(condition, x, y):
    return x if condition else y


HELPERS = (padded, is_ignored, fill, spill, pair, pivot, read_moments)


def vocabulary(dtype: torch.dtype, scalar: Any, inline: Callable) -> dict[str, Any]:
    import numba

    from . import _simd

    number = {torch.float32: np.float32, torch.float64: np.float64}[dtype]
    words: dict[str, Any] = {"TILE": TILE, "wide": numba.float64, "NONE": number(0), "NAN": number(np.nan)}
    words["LARGEST"] = np.finfo(number).max
    words |= _simd.transpositions(scalar, TILE, 3)
    words |= {"sqrt": math.sqrt, "absolute": abs, "where": inline(where), "NOTHING": (0.0, 0.0, 0.0)}
    words |= {name: np.float64(value) for name, value in so3.constants(torch.float64).items()}
    so3.bind(words, inline, [*so3.FORMULAS, *pairs.FORMULAS])
    return words
