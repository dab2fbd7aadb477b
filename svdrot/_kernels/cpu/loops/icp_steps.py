# pyright: reportUndefinedVariable=false, reportPrivateImportUsage=false
"""The steps of ICP from the sums of `icp_sums`, an item at a time, for numba. Float64.

They are those of `svdrot.registration.clouds._steps`, where their symbols are defined.
"""

from typing import Any

import numpy as np
import torch

from svdrot._formulas import projection
from svdrot._kernels import pairs
from svdrot._kernels.records import STEP, SUMS

# Sums, segments, origins, rotations and translations of before, limits, steps.
STEPS = ("pointer", "intp", *["pointer"] * 6, "intp", "intp")
KERNELS = {"step_points": STEPS, "step_planes": STEPS, "step_symmetric": STEPS}

SCRATCH = 4 * 7 * 7
OBSERVABLE = 1e-6  # normals that scatter by a milliradian determine no motion
SWEEPS = 30  # of Jacobi's method at most: it converges quadratically, in six or seven


def step_points(sums, segments, origins, rotations, translations, limits, steps, scratch, start, stop):
    """The nearest rotation to the covariance of the pairs; H of the linear problem, for the report."""
    work, result = carray(scratch, (4, 7, 7)), carray(steps, (stop, STEP_SIZE))
    m, h = work[0], work[2]
    for item in range(start, stop):
        counted = merge(sums, segments, item, scratch)
        p, q, radius, share = means(m)
        a, b, c = covariance(m, 1, p, q, share), covariance(m, 2, p, q, share), covariance(m, 3, p, q, share)
        axis, kind = limit(limits, item)
        if kind > ZERO:
            r, s, t = nearest_about(axis, a, b, c)
        else:
            a, b, c = nearest_rotation(a, b, c)
            r, s, t = (a[0], b[0], c[0]), (a[1], b[1], c[1]), (a[2], b[2], c[2])
        pivot, center = add(at(origins, item), p), add(at(origins, item), q)
        factor, nothing = m[0, 0] / (radius * radius), ZERO * m[0, 0]  # not a constant: see `diagonalize`
        for i in range(3):
            for j in range(3):
                h[i, j] = -factor * (share * m[1 + i, 1 + j] - p[i] * p[j])
                h[i, 3 + j] = h[3 + i, j] = h[3 + i, 3 + j] = nothing
        trace = h[0, 0] + h[1, 1] + h[2, 2]
        for i in range(3):
            h[i, i] -= trace
            h[3 + i, 3 + i] = m[0, 0]
        shift = difference(center, (dot(r, pivot), dot(s, pivot), dot(t, pivot)))
        if kind > ZERO:
            restrict(h, axis, kind)
            restrict(h.T, axis, kind)
        if kind > ONE:
            shift = across(axis, shift)
        motion = (r, s, t), shift
        write_step(result[item], counted, rotations, translations, item, motion, pivot, radius, h)


def step_planes(sums, segments, origins, rotations, translations, limits, steps, scratch, start, stop):
    """The step that the normal equations of planes or covariances give."""
    work, result = carray(scratch, (4, 7, 7)), carray(steps, (stop, STEP_SIZE))
    for item in range(start, stop):
        counted = merge(sums, segments, item, scratch)
        p, _, radius, _ = means(work[0])
        pivot = add(at(origins, item), p)
        axis, kind = limit(limits, item)
        omega, u = solution(work, p, (ZERO, ZERO, ZERO), radius, axis, kind)
        r, s, t = exponential(omega)
        shift = difference(add(pivot, u), (dot(r, pivot), dot(s, pivot), dot(t, pivot)))
        motion = (r, s, t), shift
        write_step(result[item], counted, rotations, translations, item, motion, pivot, radius, work[2])


def step_symmetric(sums, segments, origins, rotations, translations, limits, steps, scratch, start, stop):
    """The two halves of the turn, each by the angle whose tangent was solved for."""
    work, result = carray(scratch, (4, 7, 7)), carray(steps, (stop, STEP_SIZE))
    for item in range(start, stop):
        counted = merge(sums, segments, item, scratch)
        p, q, radius, _ = means(work[0])
        axis, kind = limit(limits, item)
        if kind > ONE:  # the target's center at the height of the source's: then u has none
            q = add(along(axis, p), across(axis, q))
        pivot, center = add(at(origins, item), p), add(at(origins, item), q)
        tangent, u = solution(work, add(p, q), difference(p, q), radius, axis, kind)
        square = dot(tangent, tangent)
        cosine = ONE / sqrt(ONE + square)
        # Of half the turn and of the whole: sin a = tan a cos a, 1 - cos a = sin² a / (1 + cos a).
        r, s, t = turned(tangent, cosine, cosine * cosine / (ONE + cosine), square)
        u = scaled(cosine, (dot(r, u), dot(s, u), dot(t, u)))
        r, s, t = turned(tangent, TWO * cosine * cosine, TWO * cosine * cosine, square)
        shift = difference(add(center, u), (dot(r, pivot), dot(s, pivot), dot(t, pivot)))
        motion = (r, s, t), shift
        write_step(result[item], counted, rotations, translations, item, motion, pivot, radius, work[2])


def merge(sums, segments, item, scratch):
    """Sums of segments, the matrices at the beginning of the scratch; returns what was counted."""
    work = carray(scratch, (SUMS_SIZE,))
    rows = carray(sums, ((item + 1) * segments, SUMS_SIZE))
    first, end = item * segments, (item + 1) * segments
    for k in range(SUMS_SIZE):
        total = rows[first, k]
        for row in range(first + 1, end):
            total += rows[row, k]
        work[k] = total
    return work[SUMS_FOUND], work[SUMS_SQUARES], work[SUMS_USED]


def means(m):
    """Means of source and target about the origin, the radius of the source about its own, and 1 / weight."""
    share = ONE / where(m[0, 0] > ZERO, m[0, 0], ONE)
    p = share * m[0, 1], share * m[0, 2], share * m[0, 3]
    q = share * m[0, 4], share * m[0, 5], share * m[0, 6]
    second = share * (m[1, 1] + m[2, 2] + m[3, 3])
    # Far from the origin a smaller spread is rounding, which must not become the unit of length.
    square = max(second - dot(p, p), LEAST * second)
    return p, q, where(square > ZERO, sqrt(where(square > ZERO, square, ONE)), ONE), share


def covariance(m, k, p, q, share):
    """Column k of that of target by source."""
    x = p[k - 1]
    return share * m[4, k] - q[0] * x, share * m[5, k] - q[1] * x, share * m[6, k] - q[2] * x


def solution(work, e, d, radius, axis, kind):
    """Rotation vector and translation, of the equations in work[1]; H goes to work[2]."""
    g, h, v = work[1], work[2], work[3]
    change(g, e, d, ONE / radius)
    change(g.T, e, d, ONE / radius)
    if kind > ZERO:  # H is 0 along what is not allowed, where nothing goes
        restrict(g, axis, kind)
        restrict(g.T, axis, kind)
    for i in range(6):
        for j in range(6):
            h[i, j] = g[i, j]
    diagonalize(g, v)
    top = g[0, 0]
    for i in range(6):
        top = max(top, g[i, i])
    for i in range(6):
        pull = ZERO
        for j in range(6):
            pull += v[j, i] * g[j, 6]
        # A comparison that NaN passes: it must come out.
        v[6, i] = where(g[i, i] <= OBSERVABLE * top, ZERO, -pull / where(g[i, i] == ZERO, ONE, g[i, i]))
    for i in range(6):
        total = ZERO
        for j in range(6):
            total += v[i, j] * v[6, j]
        g[6, i] = total
    omega, u = scaled(ONE / radius, (g[6, 0], g[6, 1], g[6, 2])), (g[6, 3], g[6, 4], g[6, 5])
    if kind > ZERO:  # rounding would add up over the iterations
        omega = along(axis, omega)
    if kind > ONE:
        u = across(axis, u)
    return omega, u


def limit(limits, item):
    """The axis that a motion is about, and its kind: 0 free, 1 yaw, 2 planar."""
    x = carray(limits, (item + 1, 4))
    return (x[item, 0], x[item, 1], x[item, 2]), x[item, 3]


def along(axis, x):
    return scaled(dot(axis, x), axis)


def across(axis, x):
    return difference(x, along(axis, x))


def restrict(g, axis, kind):
    """Rows of rotations become their parts along the axis; of a planar motion those of translations the parts
    across it."""
    for k in range(7):
        x, y, z = along(axis, (g[0, k], g[1, k], g[2, k]))
        g[0, k], g[1, k], g[2, k] = x, y, z
        if kind > ONE:
            x, y, z = across(axis, (g[3, k], g[4, k], g[5, k]))
            g[3, k], g[4, k], g[5, k] = x, y, z


def nearest_about(axis, a, b, c):
    """Rows of the rotation about the axis nearest to the matrix of columns a, b and c.

    As in `svdrot._formulas.axes`, where e, f and the rule of what is rounding are explained.
    """
    x, y, z = axis
    e = (-y, x, ZERO) if abs(x) > HALF else (ZERO, -z, y)
    e = scaled(ONE / sqrt(dot(e, e)), e)
    f = cross(axis, e)
    me, mf = apply(a, b, c, e), apply(a, b, c, f)
    ee, fe, ef, ff = dot(e, me), dot(f, me), dot(e, mf), dot(f, mf)
    a, b, c, e, f = sizes(a), sizes(b), sizes(c), sizes(e), sizes(f)
    me, mf = apply(a, b, c, e), apply(a, b, c, f)
    products = max(max(dot(e, me), dot(f, me)), max(dot(e, mf), dot(f, mf)))
    largest = max(max(abs(ee), abs(fe)), max(abs(ef), abs(ff)))
    cosine, sine = ee + ff, fe - ef
    if largest <= NOTHING * products:
        cosine, sine = ONE, ZERO * sine
    else:
        k = ONE / largest
        cosine, sine = k * cosine, k * sine
    size = sqrt(cosine * cosine + sine * sine)
    if size == ZERO:
        cosine, size = ONE, ONE
    return turned(axis, sine / size, ONE - cosine / size, ONE)


def sizes(x):
    return abs(x[0]), abs(x[1]), abs(x[2])


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
                    t = where(x < ZERO, -ONE, ONE) / (abs(x) + sqrt(x * x + ONE))
                    c = ONE / sqrt(t * t + ONE)
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
        row[STEP_ROTATION + k] = where(moves, dot(r, x), old[0, k])
        row[STEP_ROTATION + 3 + k] = where(moves, dot(s, x), old[1, k])
        row[STEP_ROTATION + 6 + k] = where(moves, dot(t, x), old[2, k])
        row[STEP_PIVOT + k] = pivot[k]
    row[STEP_TRANSLATION] = where(moves, dot(r, way) + shift[0], way[0])
    row[STEP_TRANSLATION + 1] = where(moves, dot(s, way) + shift[1], way[1])
    row[STEP_TRANSLATION + 2] = where(moves, dot(t, way) + shift[2], way[2])
    for i in range(6):
        for j in range(6):
            row[STEP_MATRIX + 6 * i + j] = where(moves, h[i, j], ZERO)
    row[STEP_RADIUS] = radius
    row[STEP_FOUND], row[STEP_SQUARES], row[STEP_USED] = found, squares, used
    a, b, c = (r[0] - ONE, r[1], r[2]), (s[0], s[1] - ONE, s[2]), (t[0], t[1], t[2] - ONE)
    row[STEP_CHORD] = sqrt(dot(a, a) + dot(b, b) + dot(c, c))
    d = add(difference((dot(r, pivot), dot(s, pivot), dot(t, pivot)), pivot), shift)
    row[STEP_LENGTH] = sqrt(dot(d, d))
    row[STEP_FINITE] = where(finite, ONE, ZERO)


def sum_of(x):
    return x[0] + x[1] + x[2]


def at(vectors, item):
    x = carray(vectors, (item + 1, 3))
    return x[item, 0], x[item, 1], x[item, 2]


HELPERS = (
    *(sum_of, sizes, at, limit, along, across, restrict, merge, means, covariance, change, diagonalize),
    *(solution, exponential, turned, nearest_about, write_step),
)
FORMULAS = (*projection.FORMULAS, pairs.difference)


def vocabulary(dtype: torch.dtype, scalar: Any) -> dict[str, Any]:
    words = {"SUMS_SIZE": SUMS.size, "STEP_SIZE": STEP.size, "SWEEPS": SWEEPS, "OBSERVABLE": OBSERVABLE}
    words |= SUMS.words("sums_") | STEP.words("step_")
    words |= {"LEAST": 1e-12, "ROUNDING": 2.0**-106, "NOTHING": 32 * 2.0**-52}
    return projection.with_constants(words, np.float64)
