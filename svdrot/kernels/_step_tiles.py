# pyright: reportUndefinedVariable=false, reportPrivateImportUsage=false
r"""What a step of ICP needs of its pairs, in one pass over them, for numba. Float64.

Each pair (p, q) of weight w gives rows of seven numbers: $\sqrt w\,(1, p - o, q - o)$, about an origin o near
the pairs, and for each of its residuals r with the derivative j by a small motion about o, $\sqrt w\,(j, r)$.
The sums of products of the first are the moments of the pairs, those of the others the normal equations.

A row of the batch is a segment of an item: `length` of its n points. Its sums are the two matrices of 7 x 7,
how many points have a neighbour, the squares of their distances, and how many count for the step. The sizes
of the residuals, for robust weights, are written on the way. The steps from the sums are those of
`svdrot.registration._steps`, where their symbols are defined.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from . import so3

TILE = 256  # pairs at a time
RESIDUAL = 28  # the row after four of seven numbers
ROWS = RESIDUAL + 1
SCRATCH = ROWS * TILE
SUMS = 49 + 49 + 3

# Points of the source where they are now, indices of their neighbours, weights; for each item its place among
# the targets, rotation and origin; points of the target, which of them count; normals or packed covariances
# of source and target, unused where the method needs none; residuals and sums; n, points of a target,
# segments, length.
PAIRS = (*("pointer",) * 12, *("intp",) * 4, "pointer", "intp", "intp")
KERNELS = {"sum_points": PAIRS, "sum_planes": PAIRS, "sum_symmetric": PAIRS, "sum_covariances": PAIRS}
INTERLEAVE: dict[str, int] = {}
# Sums, segments, origins, rotations and translations of before, steps.
STEPS = ("pointer", "intp", "pointer", "pointer", "pointer", "pointer", "pointer", "intp", "intp")
KERNELS |= {"step_points": STEPS, "step_planes": STEPS, "step_symmetric": STEPS}

# Numbers of a step: the rotation and translation after it, H, pivot, radius, what was counted, the chord of
# its angle, the way of the pivot, and whether it is finite.
STEP = 9 + 3 + 36 + 3 + 1 + 3 + 1 + 1 + 1
OBSERVABLE = 1e-6  # normals that scatter by a milliradian determine no motion
SWEEPS = 30  # of Jacobi's method at most: it converges quadratically, in six or seven


def sum_points(
    x, near, weight, items, rotations, origin, y, counts, source, target, residuals, sums,
    n, m, segments, length, scratch, start, stop,
):  # fmt: skip
    sum_pairs(
        points, 0, x, near, weight, items, rotations, origin, y, counts, source, target, residuals, sums,
        n, m, segments, length, scratch, start, stop,
    )  # fmt: skip


def sum_planes(
    x, near, weight, items, rotations, origin, y, counts, source, target, residuals, sums,
    n, m, segments, length, scratch, start, stop,
):  # fmt: skip
    sum_pairs(
        planes, 1, x, near, weight, items, rotations, origin, y, counts, source, target, residuals, sums,
        n, m, segments, length, scratch, start, stop,
    )  # fmt: skip


def sum_symmetric(
    x, near, weight, items, rotations, origin, y, counts, source, target, residuals, sums,
    n, m, segments, length, scratch, start, stop,
):  # fmt: skip
    sum_pairs(
        symmetric, 1, x, near, weight, items, rotations, origin, y, counts, source, target, residuals, sums,
        n, m, segments, length, scratch, start, stop,
    )  # fmt: skip


def sum_covariances(
    x, near, weight, items, rotations, origin, y, counts, source, target, residuals, sums,
    n, m, segments, length, scratch, start, stop,
):  # fmt: skip
    sum_pairs(
        generalized, 3, x, near, weight, items, rotations, origin, y, counts, source, target, residuals, sums,
        n, m, segments, length, scratch, start, stop,
    )  # fmt: skip


def sum_pairs(
    rows, count, x, near, weight, items, rotations, origin, y, counts, source, target, residuals, sums,
    n, m, segments, length, scratch, start, stop,
):  # fmt: skip
    """What all methods share; `rows` writes the (w j, w r) of a tile of pairs, `count` for each pair."""
    use_widest_vectors()
    tile, result = carray(scratch, (ROWS, TILE)), carray(sums, (stop, SUMS))
    for row in range(start, stop):
        item, at, last = segment(row, n, segments, length)
        to, rotation = carray(integers(items), (item + 1,))[item] * m, turn(rotations, item)
        while at < last:
            live, first = min(TILE, last - at), item * n + at
            read(x, near, weight, origin, y, counts, m, item, first, live, to, tile, result[row])
            rows(near, rotation, source, target, m, first, live, to, tile)
            write_residuals(residuals, first, live, tile)
            add_products(tile, 0, live, result[row], 0)
            for k in range(count):
                add_products(tile, 7 * (1 + k), live, result[row], 49)
            at += TILE


def points(near, rotation, source, target, m, first, live, to, tile):
    """No normal equations: the step follows from the moments."""
    for i in range(live):
        _, p, q = pair(tile, i)
        tile[RESIDUAL, i] = norm(difference(p, q))


def planes(near, rotation, source, target, m, first, live, to, tile):
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
        w = math_sqrt(w)
        tile[0, i] = w
        for a in range(3):
            tile[1 + a, i] = where(w == ZERO, ZERO, w * (xs[k, a] - o[a]))
            tile[4 + a, i] = where(w == ZERO, ZERO, w * (ys[j, a] - o[a]))
    result[98] += found
    result[99] += squares
    result[100] += used


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
    return math_sqrt(dot(x, x))


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


def step_points(sums, segments, origins, rotations, translations, steps, scratch, start, stop):
    """The nearest rotation to the covariance of the pairs; H of the linear problem, for the report."""
    work, result = carray(scratch, (4, 7, 7)), carray(steps, (stop, STEP))
    m, h = work[0], work[2]
    for item in range(start, stop):
        counted = merge(sums, segments, item, scratch)
        p, q, radius, share = means(m)
        a, b, c = covariance(m, 1, p, q, share), covariance(m, 2, p, q, share), covariance(m, 3, p, q, share)
        a, b, c = nearest_rotation(a, b, c)
        r, s, t = (a[0], b[0], c[0]), (a[1], b[1], c[1]), (a[2], b[2], c[2])
        pivot, centre = add(at(origins, item), p), add(at(origins, item), q)
        factor, nothing = m[0, 0] / (radius * radius), ZERO * m[0, 0]  # not a constant: see `diagonalize`
        for i in range(3):
            for j in range(3):
                h[i, j] = -factor * (share * m[1 + i, 1 + j] - p[i] * p[j])
                h[i, 3 + j] = h[3 + i, j] = h[3 + i, 3 + j] = nothing
        trace = h[0, 0] + h[1, 1] + h[2, 2]
        for i in range(3):
            h[i, i] -= trace
            h[3 + i, 3 + i] = m[0, 0]
        shift = difference(centre, (dot(r, pivot), dot(s, pivot), dot(t, pivot)))
        motion = (r, s, t), shift
        write_step(result[item], counted, rotations, translations, item, motion, pivot, radius, h)


def step_planes(sums, segments, origins, rotations, translations, steps, scratch, start, stop):
    """Of sums over planes or covariances."""
    work, result = carray(scratch, (4, 7, 7)), carray(steps, (stop, STEP))
    for item in range(start, stop):
        counted = merge(sums, segments, item, scratch)
        p, _, radius, _ = means(work[0])
        pivot = add(at(origins, item), p)
        omega, u = solution(work, p, (ZERO, ZERO, ZERO), radius)
        r, s, t = exponential(omega)
        shift = difference(add(pivot, u), (dot(r, pivot), dot(s, pivot), dot(t, pivot)))
        motion = (r, s, t), shift
        write_step(result[item], counted, rotations, translations, item, motion, pivot, radius, work[2])


def step_symmetric(sums, segments, origins, rotations, translations, steps, scratch, start, stop):
    """The two halves of the turn, each by the angle whose tangent was solved for."""
    work, result = carray(scratch, (4, 7, 7)), carray(steps, (stop, STEP))
    for item in range(start, stop):
        counted = merge(sums, segments, item, scratch)
        p, q, radius, _ = means(work[0])
        pivot, centre = add(at(origins, item), p), add(at(origins, item), q)
        tangent, u = solution(work, add(p, q), difference(p, q), radius)
        square = dot(tangent, tangent)
        cosine = ONE / math_sqrt(ONE + square)
        # Of half the turn and of the whole: sin a = tan a cos a, 1 - cos a = sin² a / (1 + cos a).
        r, s, t = turned(tangent, cosine, cosine * cosine / (ONE + cosine), square)
        u = scaled(cosine, (dot(r, u), dot(s, u), dot(t, u)))
        r, s, t = turned(tangent, TWO * cosine * cosine, TWO * cosine * cosine, square)
        shift = difference(add(centre, u), (dot(r, pivot), dot(s, pivot), dot(t, pivot)))
        motion = (r, s, t), shift
        write_step(result[item], counted, rotations, translations, item, motion, pivot, radius, work[2])


def merge(sums, segments, item, scratch):
    """Sums of segments, the matrices at the beginning of the scratch; returns what was counted."""
    work = carray(scratch, (SUMS,))
    rows = carray(sums, ((item + 1) * segments, SUMS))
    first, end = item * segments, (item + 1) * segments
    for k in range(SUMS):
        total = rows[first, k]
        for row in range(first + 1, end):
            total += rows[row, k]
        work[k] = total
    return work[98], work[99], work[100]


def means(m):
    """Of source and target about the origin, the mean distance of the source from its own, and 1 / weight."""
    share = ONE / where(m[0, 0] > ZERO, m[0, 0], ONE)
    p = share * m[0, 1], share * m[0, 2], share * m[0, 3]
    q = share * m[0, 4], share * m[0, 5], share * m[0, 6]
    second = share * (m[1, 1] + m[2, 2] + m[3, 3])
    # Far from the origin a smaller spread is rounding, which must not become the unit of length.
    square = max(second - dot(p, p), LEAST * second)
    return p, q, where(square > ZERO, math_sqrt(where(square > ZERO, square, ONE)), ONE), share


def covariance(m, k, p, q, share):
    """Column k of that of target by source."""
    x = p[k - 1]
    return share * m[4, k] - q[0] * x, share * m[5, k] - q[1] * x, share * m[6, k] - q[2] * x


def solution(work, e, d, radius):
    """Rotation vector and translation, of the equations in work[1]; H goes to work[2]."""
    g, h, v = work[1], work[2], work[3]
    change(g, e, d, ONE / radius)
    change(g.T, e, d, ONE / radius)
    for i in range(6):
        for j in range(6):
            h[i, j] = g[i, j]
    diagonalize(g, v)
    top = g[0, 0]
    for i in range(6):
        top = max(top, g[i, i])
    for i in range(6):
        along = ZERO
        for j in range(6):
            along += v[j, i] * g[j, 6]
        # A comparison that NaN passes: it must come out.
        v[6, i] = where(g[i, i] <= OBSERVABLE * top, ZERO, -along / where(g[i, i] == ZERO, ONE, g[i, i]))
    for i in range(6):
        along = ZERO
        for j in range(6):
            along += v[i, j] * v[6, j]
        g[6, i] = along
    return scaled(ONE / radius, (g[6, 0], g[6, 1], g[6, 2])), (g[6, 3], g[6, 4], g[6, 5])


def change(g, e, d, inverse):
    r"""Rows $s \times n$, n, r become $(s - e) \times n / \rho$, n, $r - d\,n$."""
    for k in range(7):
        x, y, z = g[3, k], g[4, k], g[5, k]
        g[0, k] = inverse * (g[0, k] - (e[1] * z - e[2] * y))
        g[1, k] = inverse * (g[1, k] - (e[2] * x - e[0] * z))
        g[2, k] = inverse * (g[2, k] - (e[0] * y - e[1] * x))
        g[6, k] -= d[0] * x + d[1] * y + d[2] * z


def diagonalize(a, v):
    """Jacobi's method for the upper left 6 x 6: eigenvalues on the diagonal, vectors in the columns of v."""
    nothing = ZERO * a[0, 0]  # of constants LLVM would make a call of memset, which is not linked
    for i in range(6):
        for j in range(6):
            v[i, j] = where(i == j, ONE, nothing)
    for _ in range(SWEEPS):
        off, all_ = ZERO, ZERO
        for i in range(6):
            for j in range(6):
                square = a[i, j] * a[i, j]
                all_ += square
                off += where(i == j, ZERO, square)
        if not off > ROUNDING * all_:
            break
        for i in range(5):
            for j in range(i + 1, 6):
                if a[i, j] != ZERO:
                    x = HALF * (a[j, j] - a[i, i]) / a[i, j]
                    t = where(x < ZERO, -ONE, ONE) / (abs(x) + math_sqrt(x * x + ONE))
                    c = ONE / math_sqrt(t * t + ONE)
                    s = t * c
                    for k in range(6):
                        y, z = a[i, k], a[j, k]
                        a[i, k], a[j, k] = c * y - s * z, s * y + c * z
                    for k in range(6):
                        y, z = a[k, i], a[k, j]
                        a[k, i], a[k, j] = c * y - s * z, s * y + c * z
                        y, z = v[k, i], v[k, j]
                        v[k, i], v[k, j] = c * y - s * z, s * y + c * z


def exponential(omega):
    """Rows of the rotation, by a quaternion: the polynomials of a part of the angle, then doubled."""
    square, part = dot(omega, omega), HALF
    while part * part * square > 0.04:  # to which the polynomials are exact
        part *= HALF
    y = part * part * square
    c = ONE - y / 2.0 * (ONE - y / 12.0 * (ONE - y / 30.0 * (ONE - y / 56.0 * (ONE - y / 90.0))))
    s = ONE - y / 6.0 * (ONE - y / 20.0 * (ONE - y / 42.0 * (ONE - y / 72.0 * (ONE - y / 110.0))))
    x = scaled(part * s, omega)
    while part < HALF:
        c, x = c * c - dot(x, x), scaled(TWO * c, x)
        part *= TWO
    return turned(x, TWO * c, TWO, dot(x, x))


def turned(x, sine, versine, square):
    """Rows of 1 + sine [x] + versine [x]², for sine and 1 - cosine over |x| and |x|²."""
    a, b, c = scaled(sine, x)
    y = scaled(versine, x)
    one = ONE - versine * square
    return (
        (one + y[0] * x[0], y[0] * x[1] - c, y[0] * x[2] + b),
        (y[1] * x[0] + c, one + y[1] * x[1], y[1] * x[2] - a),
        (y[2] * x[0] - b, y[2] * x[1] + a, one + y[2] * x[2]),
    )


def write_step(row, counted, rotations, translations, item, motion, pivot, radius, h):
    """Pairs that were `counted`, and the pose after the motion, (rows, shift)."""
    old, way = carray(rotations, (item + 1, 3, 3))[item], at(translations, item)
    found, squares, used = counted
    (r, s, t), shift = motion
    finite = (sum_of(r) + sum_of(s) + sum_of(t) + sum_of(shift)) * ZERO == ZERO
    moves = finite and used > TWO
    for k in range(3):
        x = old[0, k], old[1, k], old[2, k]
        row[k] = where(moves, dot(r, x), old[0, k])
        row[3 + k] = where(moves, dot(s, x), old[1, k])
        row[6 + k] = where(moves, dot(t, x), old[2, k])
        row[48 + k] = pivot[k]
    row[9] = where(moves, dot(r, way) + shift[0], way[0])
    row[10] = where(moves, dot(s, way) + shift[1], way[1])
    row[11] = where(moves, dot(t, way) + shift[2], way[2])
    for i in range(6):
        for j in range(6):
            row[12 + 6 * i + j] = where(moves, h[i, j], ZERO)
    row[51], row[52], row[53], row[54] = radius, found, squares, used
    a, b, c = (r[0] - ONE, r[1], r[2]), (s[0], s[1] - ONE, s[2]), (t[0], t[1], t[2] - ONE)
    row[55] = math_sqrt(dot(a, a) + dot(b, b) + dot(c, c))
    d = add(difference((dot(r, pivot), dot(s, pivot), dot(t, pivot)), pivot), shift)
    row[56] = math_sqrt(dot(d, d))
    row[57] = where(finite, ONE, ZERO)


def sum_of(x):
    return x[0] + x[1] + x[2]


def at(vectors, item):
    x = carray(vectors, (item + 1, 3))
    return x[item, 0], x[item, 1], x[item, 2]


HELPERS = (
    *(where, where3, difference, norm, less, rsqrt_or_zero, times, turn, sum_of, at),
    *(pair, put, put_plane, points, planes, symmetric, generalized),
    *(segment, read, write_residuals, add_products, sum_pairs),
    *(merge, means, covariance, change, diagonalize, solution, exponential, turned, write_step),
)


def vocabulary(dtype: torch.dtype, scalar: Any, inline: Callable) -> dict[str, Any]:
    from ._simd import integers

    words = {"TILE": TILE, "ROWS": ROWS, "SUMS": SUMS, "STEP": STEP, "SWEEPS": SWEEPS, "integers": integers}
    words |= {"RESIDUAL": RESIDUAL, "INFINITY": math.inf, "OBSERVABLE": OBSERVABLE, "LEAST": 1e-12}
    words |= {"math_sqrt": math.sqrt, "TWO": 2.0, "ROUNDING": 2.0**-106}
    words |= {"sqrt": math.sqrt, "absolute": abs, "where": inline(where)}
    words |= {name: np.float64(value) for name, value in so3.constants(torch.float64).items()}
    so3.bind(words, inline, so3.FORMULAS)
    return words
