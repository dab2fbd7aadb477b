# pyright: reportUndefinedVariable=false, reportPrivateImportUsage=false
r"""What a step of ICP needs of its pairs, in one pass over them, for numba. Float64.

Each pair (p, q) of weight w gives rows of seven numbers: $\sqrt w\,(1, p - o, q - o)$, about an origin o near
the pairs, and for each of its residuals r with the derivative j by a small motion about o, $\sqrt w\,(j, r)$.
The sums of products of the first are the moments of the pairs, those of the others the normal equations.

A row of the batch is a segment of an item: `length` of its n points. Its sums are how many have a neighbour,
the squares of their distances, how many count for the step, and the two matrices of 7 x 7.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from . import so3

TILE = 256  # pairs at a time
ROWS = 28  # of seven numbers, up to four
SCRATCH = ROWS * TILE
SUMS = 3 + 49 + 49

# Points of the source where they are now, indices of their neighbours, weights; for each item its place among
# the targets, rotation and origin; points of the target, and which of them count.
PAIRS = ("pointer",) * 8
# Sums; n, points of a target, segments, length.
LAYOUT = ("pointer", "intp", "intp", "intp", "intp", "pointer", "intp", "intp")
KERNELS = {
    "sum_points": (*PAIRS, *LAYOUT),
    # Normals of the target.
    "sum_planes": (*PAIRS, "pointer", *LAYOUT),
    # Normals, packed covariances of source and target.
    "sum_symmetric": (*PAIRS, "pointer", "pointer", *LAYOUT),
    "sum_covariances": (*PAIRS, "pointer", "pointer", *LAYOUT),
}
INTERLEAVE: dict[str, int] = {}


def sum_points(
    x, near, weight, items, rotations, origin, y, counts,
    sums, n, m, segments, length, scratch, start, stop,
):  # fmt: skip
    use_widest_vectors()
    tile, result = carray(scratch, (ROWS, TILE)), carray(sums, (stop, SUMS))
    for row in range(start, stop):
        item, first, last = segment(row, n, segments, length)
        for at in range(first, last, TILE):
            live = min(TILE, last - at)
            read(x, near, weight, items, origin, y, counts, n, m, item, at, live, tile, result[row])
            add_products(tile, 0, live, result[row], 3)


def sum_planes(
    x, near, weight, items, rotations, origin, y, counts, normals,
    sums, n, m, segments, length, scratch, start, stop,
):  # fmt: skip
    """Residuals (p - q) b, b the normal at q."""
    use_widest_vectors()
    tile, result = carray(scratch, (ROWS, TILE)), carray(sums, (stop, SUMS))
    index, to = carray(integers(near), (stop * n,)), carray(integers(items), (stop,))
    for row in range(start, stop):
        item, first, last = segment(row, n, segments, length)
        b = carray(normals, ((to[item] + 1) * m, 3))
        for at in range(first, last, TILE):
            live = min(TILE, last - at)
            read(x, near, weight, items, origin, y, counts, n, m, item, at, live, tile, result[row])
            for i in range(live):
                j = to[item] * m + min(index[item * n + at + i], m - 1)
                w, p, q = pair(tile, i)
                put_plane(tile, i, w, p, difference(p, q), (b[j, 0], b[j, 1], b[j, 2]))
            add_products(tile, 0, live, result[row], 3)
            add_products(tile, 7, live, result[row], 52)


def sum_symmetric(
    x, near, weight, items, rotations, origin, y, counts, source, target,
    sums, n, m, segments, length, scratch, start, stop,
):  # fmt: skip
    """Residuals (p - q)(a + b), a and b the normals at p and q, with signs that agree."""
    use_widest_vectors()
    tile, result = carray(scratch, (ROWS, TILE)), carray(sums, (stop, SUMS))
    index, to = carray(integers(near), (stop * n,)), carray(integers(items), (stop,))
    normals = carray(source, (stop * n, 3))
    for row in range(start, stop):
        item, first, last = segment(row, n, segments, length)
        r, s, t = turn(rotations, item)
        others = carray(target, ((to[item] + 1) * m, 3))
        for at in range(first, last, TILE):
            live = min(TILE, last - at)
            read(x, near, weight, items, origin, y, counts, n, m, item, at, live, tile, result[row])
            for i in range(live):
                k = item * n + at + i
                j = to[item] * m + min(index[k], m - 1)
                c, b = normals[k], (others[j, 0], others[j, 1], others[j, 2])
                a = dot(r, c), dot(s, c), dot(t, c)
                sign = where(dot(a, b) < ZERO, -ONE, ONE)
                w, p, q = pair(tile, i)
                put_plane(tile, i, w, add(p, q), difference(p, q), add(scaled(sign, a), b))
            add_products(tile, 0, live, result[row], 3)
            add_products(tile, 7, live, result[row], 52)


def sum_covariances(
    x, near, weight, items, rotations, origin, y, counts, source, target,
    sums, n, m, segments, length, scratch, start, stop,
):  # fmt: skip
    """Three residuals, K⁻¹ (p - q), with K Kᵀ the covariance of p - q, K lower triangular."""
    use_widest_vectors()
    tile, result = carray(scratch, (ROWS, TILE)), carray(sums, (stop, SUMS))
    index, to = carray(integers(near), (stop * n,)), carray(integers(items), (stop,))
    covariances = carray(source, (stop * n, 6))
    for row in range(start, stop):
        item, first, last = segment(row, n, segments, length)
        r, s, t = turn(rotations, item)
        others = carray(target, ((to[item] + 1) * m, 6))
        for at in range(first, last, TILE):
            live = min(TILE, last - at)
            read(x, near, weight, items, origin, y, counts, n, m, item, at, live, tile, result[row])
            for i in range(live):
                k = item * n + at + i
                j = to[item] * m + min(index[k], m - 1)
                a, b = covariances[k], others[j]
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
            add_products(tile, 0, live, result[row], 3)
            add_products(tile, 7, live, result[row], 52)
            add_products(tile, 14, live, result[row], 52)
            add_products(tile, 21, live, result[row], 52)


def segment(row, n, segments, length):
    """The item of a row, and from where to where its points are."""
    first = (row % segments) * length
    return row // segments, first, min(first + length, n)


def read(x, near, weight, items, origin, y, counts, n, m, item, at, live, tile, result):
    """The first seven numbers of each pair, 0 for those that do not count, and what is to be counted."""
    end, to = item * n + at + live, carray(integers(items), (item + 1,))[item]
    xs, ys, o = carray(x, (end, 3)), carray(y, ((to + 1) * m, 3)), carray(origin, (item + 1, 3))[item]
    index, ws, cs = carray(integers(near), (end,)), carray(weight, (end,)), carray(counts, ((to + 1) * m,))
    found, squares, used = ZERO, ZERO, ZERO
    for i in range(live):
        k = item * n + at + i
        paired = index[k] < m
        j = to * m + min(index[k], m - 1)
        p, q = (xs[k, 0], xs[k, 1], xs[k, 2]), (ys[j, 0], ys[j, 1], ys[j, 2])
        d = difference(p, q)
        found += where(paired, ONE, ZERO)
        squares += where(paired, dot(d, d), ZERO)
        w = where(paired and cs[j] > ZERO, ws[k], ZERO)
        used += where(w > ZERO, ONE, ZERO)
        w = math_sqrt(w)
        tile[0, i] = w
        for a in range(3):
            tile[1 + a, i] = where(w == ZERO, ZERO, w * (xs[k, a] - o[a]))
            tile[4 + a, i] = where(w == ZERO, ZERO, w * (ys[j, a] - o[a]))
    result[0] += found
    result[1] += squares
    result[2] += used


def pair(tile, i):
    return tile[0, i], (tile[1, i], tile[2, i], tile[3, i]), (tile[4, i], tile[5, i], tile[6, i])


def put_plane(tile, i, w, p, d, n):
    """The residual d n and its derivative by a motion of p."""
    put(tile, 7, i, cross(p, n), scaled(w, n), dot(d, n))


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


def less(x, factor, y):
    return x[0] - factor * y[0], x[1] - factor * y[1], x[2] - factor * y[2]


def rsqrt_or_zero(x):
    return where(x > ZERO, ONE / math_sqrt(where(x > ZERO, x, ONE)), ZERO)


def where3(condition, x):
    return where(condition, x[0], ZERO), where(condition, x[1], ZERO), where(condition, x[2], ZERO)


def where(condition, x, y):
    return x if condition else y


def difference(x, y):
    return x[0] - y[0], x[1] - y[1], x[2] - y[2]


HELPERS = (
    *(where, where3, difference, less, rsqrt_or_zero, times, turn),
    *(pair, put, put_plane, segment, read, add_products),
)


def vocabulary(dtype: torch.dtype, scalar: Any, inline: Callable) -> dict[str, Any]:
    from ._simd import integers

    words = {"TILE": TILE, "ROWS": ROWS, "SUMS": SUMS, "math_sqrt": math.sqrt, "integers": integers}
    words |= {"ZERO": scalar(0), "ONE": scalar(1)}
    so3.bind(words, inline, [so3.dot, so3.cross, so3.add, so3.scaled])
    return words
