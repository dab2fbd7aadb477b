# pyright: reportUndefinedVariable=false
"""The loops of the CPU backend over pairs of points, for numba; see `loops`. Moments are float64.

A row is a segment of an item of the batch: `length` of its `points` pairs. Moments are a weight, two
centroids relative to the pivots, and second moments: 1 + 3 + 3 + 9 + 1 numbers. Within a tile all is computed
in the type of the points, about a center near their mean, so that nothing cancels; between tiles in float64.
"""

from typing import Any

import numpy as np
import torch

from svdrot._formulas import projection
from svdrot._kernels import pairs
from svdrot._kernels.records import MOMENTS

TILE = 256  # pairs at a time: they stay in the first cache
SCRATCH = 7 * TILE
TRIALS = 5  # of a tile: as it is, mended, about its mean, and to scale

# Points by address, numbers in float64 by address (wide), whether there are weights, how rows are laid out.
LAYOUT = ("intp", "intp", "intp", "intp", "pointer", "intp", "intp")
KERNELS = {
    # x, y, w, centered, pivots, moments
    "pair_moments": ("pointer", "pointer", "pointer", "intp", "wide", "wide", *LAYOUT),
    # x, y, w, pivots, moments, their gradient, gradients of x, y, w
    "pair_gradients": (*("pointer",) * 3, *("wide",) * 3, *("pointer",) * 3, *LAYOUT),
    # x, y, w, pivots, moments, scaled rotations, sums
    "pair_misfits": (*("pointer",) * 3, *("wide",) * 4, *LAYOUT),
}


def pair_moments(
    x, y, w, centered, pivots, moments, weighted, points, segments, length, scratch, start, stop
):
    use_widest_vectors()
    result = carray(moments, (stop, MOMENTS_SIZE))
    for row in range(start, stop):
        item = row // segments
        p, q = NOTHING, NOTHING
        if centered:
            p, q = first_that_counts(x, y, w, weighted, item * points, (item + 1) * points)
        first = (row - item * segments) * length
        last = min(first + length, points)
        if first == 0:
            write_six(pivots, 6 * item, p, q)
        n, v = ZERO, ZERO
        a, b, c, d, e = NOTHING, NOTHING, NOTHING, NOTHING, NOTHING
        for at in range(first, last, TILE):
            live = min(TILE, last - at)
            fill(x, y, w, weighted, item * points + at, live, scratch)
            total = weight_of(scratch, padded(live))
            if total != ZERO:  # else whatever the points are
                a2, b2, c2, d2, e2, v2 = moments_of(scratch, padded(live), total, centered, p, q, a, b)
                if n == ZERO:
                    n, a, b, c, d, e, v = total, a2, b2, c2, d2, e2, v2
                else:
                    n, a, b, c, d, e, v = merged(n, a, b, c, d, e, v, total, a2, b2, c2, d2, e2, v2)
        inverse = ONE / where(n == ZERO, ONE, n)
        result[row, MOMENTS_WEIGHT], result[row, MOMENTS_SPREAD] = n, inverse * v
        write_six(moments, MOMENTS_SIZE * row + MOMENTS_SOURCE, a, b)
        for k in range(3):
            column = MOMENTS_COVARIANCE + 3 * k
            result[row, column] = inverse * c[k]
            result[row, column + 1] = inverse * d[k]
            result[row, column + 2] = inverse * e[k]


def first_that_counts(x, y, w, weighted, pair, end):
    """The first pair from `pair` on whose weight is not 0; zeros if there is none."""
    if weighted:
        ws = carray(w, (end,))
        while pair < end and ws[pair] == NONE:
            pair += 1
    if pair == end:
        return NOTHING, NOTHING
    u, z = carray(x, (end, 3))[pair], carray(y, (end, 3))[pair]
    return (wide(u[0]), wide(u[1]), wide(u[2])), (wide(z[0]), wide(z[1]), wide(z[2]))


def weight_of(scratch, count):
    """Total weight of a tile; NaN if one is negative, 0 if it has no reciprocal."""
    use_widest_vectors()
    tile = carray(scratch, (7, TILE))
    total, negative = ZERO, NONE
    for i in range(count):
        total += wide(tile[6, i])
        negative += where(tile[6, i] >= NONE, NONE, UNIT)
    return where(negative == NONE, where(total < LEAST, ZERO, total), ZERO / ZERO)


def moments_of(scratch, count, total, centered, p, q, a, b):
    """Centroids of a tile relative to the pivots p and q, and second moments about them, over all its weight.

    If the centroids are not near a and b, or the squares leave the type, the tile is gone over once more.
    """
    use_widest_vectors()
    tile = carray(scratch, (7, TILE))
    size, extent = ONE, ONE
    x0, x1, x2 = narrow(p[0] + a[0]), narrow(p[1] + a[1]), narrow(p[2] + a[2])
    y0, y1, y2 = narrow(q[0] + b[0]), narrow(q[1] + b[1]), narrow(q[2] + b[2])
    p, q = difference(NOTHING, p), difference(NOTHING, q)
    inverse = narrow(ONE / total)
    trial = 0
    while True:
        a0, a1, a2, b0, b1, b2, v, u = NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE
        c0, c1, c2, d0, d1, d2, e0, e1, e2 = NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE
        for i in range(count):
            share = tile[6, i] * inverse
            x = tile[0, i] - x0, tile[1, i] - x1, tile[2, i] - x2
            y = tile[3, i] - y0, tile[4, i] - y1, tile[5, i] - y2
            f, g, h, s = second_moments(share, x, y)
            c0, c1, c2, d0, d1, d2 = c0 + f[0], c1 + f[1], c2 + f[2], d0 + g[0], d1 + g[1], d2 + g[2]
            e0, e1, e2, v, u = e0 + h[0], e1 + h[1], e2 + h[2], v + s, u + share * dot(y, y)
            a0, a1, a2 = a0 + share * x[0], a1 + share * x[1], a2 + share * x[2]
            b0, b1, b2 = b0 + share * y[0], b1 + share * y[1], b2 + share * y[2]
        trial += 1
        if trial == TRIALS or total != total:
            break
        if not (LEAST_SQUARE < v < LARGEST_SQUARE and LEAST_SQUARE < u < LARGEST_SQUARE):
            p = add(p, scaled(ONE / size, (wide(x0), wide(x1), wide(x2))))
            q = add(q, scaled(ONE / extent, (wide(y0), wide(y1), wide(y2))))
            size *= wide(to_scale(scratch, 0, count, x0, x1, x2))
            extent *= wide(to_scale(scratch, 3, count, y0, y1, y2))
            x0, x1, x2, y0, y1, y2 = NONE, NONE, NONE, NONE, NONE, NONE
        elif centered and (a0 * a0 + a1 * a1 + a2 * a2 > FAR * v or b0 * b0 + b1 * b1 + b2 * b2 > FAR * u):
            x0, x1, x2, y0, y1, y2 = x0 + a0, x1 + a1, x2 + a2, y0 + b0, y1 + b1, y2 + b2
        else:
            break
    k, l = ONE / size, ONE / extent
    a, b = (wide(a0), wide(a1), wide(a2)), (wide(b0), wide(b1), wide(b2))
    p = add(p, scaled(k, (wide(x0), wide(x1), wide(x2))))
    q = add(q, scaled(l, (wide(y0), wide(y1), wide(y2))))
    p = as_written(p[0]), as_written(p[1]), as_written(p[2])
    q = as_written(q[0]), as_written(q[1]), as_written(q[2])
    if not centered:
        a, b = NOTHING, NOTHING
    c = difference((wide(c0), wide(c1), wide(c2)), scaled(a[0], b))
    d = difference((wide(d0), wide(d1), wide(d2)), scaled(a[1], b))
    e = difference((wide(e0), wide(e1), wide(e2)), scaled(a[2], b))
    variance = total * (k * k * (wide(v) - dot(a, a)))
    a, b = add(p, scaled(k, a)), add(q, scaled(l, b))
    factor = total * (k * l)
    return a, b, scaled(factor, c), scaled(factor, d), scaled(factor, e), variance


def to_scale(scratch, first, count, x0, x1, x2):
    """Make coordinates relative to a center, and about 1 at most by a power of two, which is returned.

    Nothing is kept where the weight is 0: there, anything may be.
    """
    use_widest_vectors()
    tile = carray(scratch, (7, TILE))
    largest = NONE
    for i in range(count):
        live = tile[6, i] != NONE
        x = where(live, tile[first, i] - x0, NONE)
        y = where(live, tile[first + 1, i] - x1, NONE)
        z = where(live, tile[first + 2, i] - x2, NONE)
        largest = max(largest, max(absolute(x), max(absolute(y), absolute(z))))
        tile[first, i], tile[first + 1, i], tile[first + 2, i] = x, y, z
    size = UNIT
    while largest * size > DOUBLE and size > BRINK:
        size *= HALVED
    while NONE < largest * size < HALVED and size < UNIT / BRINK:
        size *= DOUBLE
    for i in range(count):
        tile[first, i] *= size
        tile[first + 1, i] *= size
        tile[first + 2, i] *= size
    return size


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
        inverse = ONE / where(n == ZERO, ONE, n)
        constant = narrow(gn - inverse * (dot(gc, c) + dot(gd, d) + dot(ge, e) + gv * v))
        size, extent = sizes(c, d, e, v)
        hc, hd, he = narrowed(gc, extent), narrowed(gd, extent), narrowed(ge, extent)
        gc, gd, ge, gv = narrowed(gc, size), narrowed(gd, size), narrowed(ge, size), narrow(size * gv)
        a, b = narrowed(a, ONE / size), narrowed(b, ONE / extent)
        ga, gb, share = narrowed(ga, ONE), narrowed(gb, ONE), narrow(inverse)
        by_x, by_y = narrow(inverse * size), narrow(inverse * extent)
        first = (row - item * segments) * length
        last = min(first + length, points)
        for at in range(first, last, TILE):
            live = min(TILE, last - at)
            begin = item * points + at
            fill(x, y, w, weighted, begin, live, scratch)
            make_relative(scratch, padded(live), p, q, size, extent)
            check = NONE
            for i in range(padded(live)):
                u, z = coordinates(tile, i, a, b)
                u, z, s, t = pair_gradient(tile[6, i] * share, u, z, ga, gb, gc, gd, ge, gv, hc, hd, he)
                tile[0, i], tile[1, i], tile[2, i] = u
                tile[3, i], tile[4, i], tile[5, i] = z
                s = by_x * s + by_y * t + constant
                check += s
                tile[6, i] = s
            spill(scratch, gx, gy, gw, weighted, begin, live)
            if weighted and not absolute(check) <= LARGEST:
                blank(x, y, w, gx, gy, gw, begin, live)


def blank(x, y, w, gx, gy, gw, at, live):
    """No gradients to pairs of weight 0 whose coordinates are not finite."""
    end = at + live
    xs, ys, ws = carray(x, (end, 3)), carray(y, (end, 3)), carray(w, (end,))
    us, zs, ts = carray(gx, (end, 3)), carray(gy, (end, 3)), carray(gw, (end,))
    for i in range(at, end):
        u, z = xs[i], ys[i]
        if ws[i] == NONE and not absolute(sum_of(u) + sum_of(z)) <= LARGEST:
            for k in range(3):
                us[i, k], zs[i, k] = NONE, NONE
            ts[i] = NONE


def pair_misfits(
    x, y, w, pivots, moments, rotations, sums, weighted, points, segments, length, scratch, start, stop
):
    use_widest_vectors()
    tile = carray(scratch, (7, TILE))
    result, matrices = carray(sums, (stop,)), carray(rotations, (stop, 3, 3))
    for row in range(start, stop):
        item = row // segments
        p, q = pivot(pivots, item)
        _, a, b, c, d, e, v = read_moments(moments, item)
        size, _ = sizes(c, d, e, v)
        m = matrices[item]
        r, s, t = (m[0, 0], m[1, 0], m[2, 0]), (m[0, 1], m[1, 1], m[2, 1]), (m[0, 2], m[1, 2], m[2, 2])
        r, s, t = narrowed(r, size), narrowed(s, size), narrowed(t, size)
        a, b = narrowed(a, ONE / size), narrowed(b, ONE)
        first = (row - item * segments) * length
        last = min(first + length, points)
        total = ZERO
        for at in range(first, last, TILE):
            live = min(TILE, last - at)
            fill(x, y, w, weighted, item * points + at, live, scratch)
            make_relative(scratch, padded(live), p, q, size, ONE)
            for i in range(padded(live)):
                u, z = coordinates(tile, i, a, b)
                z = difference(apply(r, s, t, u), z)
                square = wide(z[0]) * wide(z[0]) + wide(z[1]) * wide(z[1]) + wide(z[2]) * wide(z[2])
                total += where(tile[6, i] == NONE, ZERO, wide(tile[6, i]) * square)
        result[row] = total


def fill(x, y, w, weighted, at, live, scratch):
    """Pairs from `at` on by coordinate, then their weights, zeros past the end."""
    use_widest_vectors()
    tile = carray(scratch, (7, TILE))
    full = live // WIDTH * WIDTH
    if full < live:
        for k in range(7):
            for i in range(WIDTH):
                tile[k, full + i] = NONE
        xs, ys = carray(x, (at + live, 3)), carray(y, (at + live, 3))
        for i in range(full, live):
            for k in range(3):
                tile[k, i] = xs[at + i, k]
                tile[3 + k, i] = ys[at + i, k]
    for i in range(0, full, WIDTH):
        gather(x, 3 * (at + i), scratch, i)
        gather(y, 3 * (at + i), scratch, 3 * TILE + i)
    if weighted:
        ws = carray(w, (at + live,))
        for i in range(0, full, WIDTH):
            copy(w, at + i, scratch, 6 * TILE + i)
        for i in range(full, live):
            tile[6, i] = ws[at + i]
    else:
        for i in range(live):
            tile[6, i] = UNIT


def spill(scratch, x, y, w, weighted, at, live):
    use_widest_vectors()
    tile = carray(scratch, (7, TILE))
    full = live // WIDTH * WIDTH
    for i in range(0, full, WIDTH):
        scatter(scratch, i, x, 3 * (at + i))
        scatter(scratch, 3 * TILE + i, y, 3 * (at + i))
        if weighted:
            copy_back(scratch, 6 * TILE + i, w, at + i)
    if full < live:
        xs, ys = carray(x, (at + live, 3)), carray(y, (at + live, 3))
        for i in range(full, live):
            for k in range(3):
                xs[at + i, k] = tile[k, i]
                ys[at + i, k] = tile[3 + k, i]
        if weighted:
            ws = carray(w, (at + live,))
            for i in range(full, live):
                ws[at + i] = tile[6, i]


def sum_of(v):
    return v[0] + v[1] + v[2]


def padded(live):
    return (live + WIDTH - 1) // WIDTH * WIDTH


def make_relative(scratch, count, p, q, size, extent):
    """Pairs relative to the pivots, over the sizes given.

    Through memory, or LLVM makes (x - p) - a of this and of what follows into x - (p + a), and rounds p + a.
    """
    use_widest_vectors()
    tile = carray(scratch, (7, TILE))
    k, l = narrow(ONE / size), narrow(ONE / extent)
    p, q = scaled(k, narrowed(p, ONE)), scaled(l, narrowed(q, ONE))  # powers of two: exact
    for i in range(count):
        tile[0, i] = k * tile[0, i] - p[0]
        tile[1, i] = k * tile[1, i] - p[1]
        tile[2, i] = k * tile[2, i] - p[2]
        tile[3, i] = l * tile[3, i] - q[0]
        tile[4, i] = l * tile[4, i] - q[1]
        tile[5, i] = l * tile[5, i] - q[2]


def coordinates(tile, i, a, b):
    x = tile[0, i] - a[0], tile[1, i] - a[1], tile[2, i] - a[2]
    return x, (tile[3, i] - b[0], tile[4, i] - b[1], tile[5, i] - b[2])


def narrowed(v, size):
    return narrow(v[0] * size), narrow(v[1] * size), narrow(v[2] * size)


def pivot(pivots, item):
    p = carray(pivots, (item + 1, 6))[item]
    return (p[0], p[1], p[2]), (p[3], p[4], p[5])


def write_six(target, at, a, b):
    result = carray(target, (at + 6,))
    for k in range(3):
        result[at + k], result[at + 3 + k] = a[k], b[k]


def sizes(c, d, e, v):
    """Powers of two near the sizes of x and y: over them, products of coordinates stay within the type."""
    x = power_near(sqrt(v))
    return x, power_near(sqrt(dot(c, c) + dot(d, d) + dot(e, e)) / x)


def power_near(size):
    power = ONE
    while power < size < HUGE:
        power *= TWO
    while power > size > TINY:
        power *= HALF
    return power


def read_moments(moments, item):
    m = carray(moments, (item + 1, MOMENTS_SIZE))[item]
    a, b = MOMENTS_SOURCE, MOMENTS_TARGET
    first, second, third = MOMENTS_COVARIANCE, MOMENTS_COVARIANCE + 3, MOMENTS_COVARIANCE + 6
    c = m[first], m[second], m[third]
    d = m[first + 1], m[second + 1], m[third + 1]
    e = m[first + 2], m[second + 2], m[third + 2]
    x, y = (m[a], m[a + 1], m[a + 2]), (m[b], m[b + 1], m[b + 2])
    return m[MOMENTS_WEIGHT], x, y, c, d, e, m[MOMENTS_SPREAD]


HELPERS = (
    padded, sum_of, fill, spill, narrowed, make_relative, coordinates, power_near, sizes, pivot, read_moments,
    write_six, first_that_counts, weight_of, to_scale, moments_of, blank,
)  # fmt: skip
FORMULAS = (*projection.FORMULAS, *pairs.FORMULAS)


def vocabulary(dtype: torch.dtype, scalar: Any) -> dict[str, Any]:
    import numba

    from svdrot._kernels.cpu.compiler import simd

    number = {torch.float32: np.float32, torch.float64: np.float64}[dtype]
    limits = np.finfo(number)
    words: dict[str, Any] = {"TILE": TILE, "TRIALS": TRIALS, "NOTHING": (0.0, 0.0, 0.0)}
    words |= {"MOMENTS_SIZE": MOMENTS.size} | MOMENTS.words("moments_")
    words |= {"wide": numba.float64, "narrow": scalar, "as_written": simd.as_written}
    words |= {"NONE": number(0), "UNIT": number(1), "HALVED": number(0.5), "DOUBLE": number(2)}
    words |= {"LARGEST": limits.max, "BRINK": number(8 * limits.tiny), "LEAST": float(limits.tiny)}
    # Squares between these lose nothing to the range of the type. Of a centroid's square, four fifths of the
    # second moment make the variance a fifth: what is subtracted amplifies rounding five times at most.
    words["LEAST_SQUARE"] = number(limits.tiny / limits.eps**2)
    words["LARGEST_SQUARE"] = number(limits.max * limits.eps**2)
    words["FAR"] = number(0.8)
    words |= simd.transpositions(scalar, TILE, 3)
    copies = simd.transpositions(scalar, TILE, 1)
    words |= {"copy": copies["gather"], "copy_back": copies["scatter"]}
    return projection.with_constants(words, np.float64)
