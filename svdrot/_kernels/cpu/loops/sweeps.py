# pyright: reportUndefinedVariable=false
"""What lies around each point of a cloud in the order of its cells, and its normal there, for numba. Float64.

Points are in the order of their keys (`cells`). For a given column of cells beside a point, what lies in it
is a run of the list, and from one point to the next the beginnings of all runs only go forward: a search
for neighbors is a sweep with one finger for each column, without a tree.
"""

import math
from typing import Any

import torch

CAPACITY = 2048  # neighbors that are held at a time; the farther ones go when they are as many
COLUMNS = 128  # most columns beside a point

KERNELS = {
    # points, keys, their number, offsets and heights of columns, their number, square of the radius, most
    # neighbors, how many there are, which, squares of their distances
    "find_around": (
        *("pointer", "pointer", "intp", "pointer", "pointer", "intp", "double", "intp"),
        *("pointer", "pointer", "pointer", "pointer", "intp", "intp"),
    ),
    # points, how many neighbors, which, most, normals
    "fit_planes": ("pointer", "pointer", "pointer", "intp", "pointer", "pointer", "intp", "intp"),
    # points, normals, coarse points (3, m), their weights, m, 1 / reach²
    "turn_outward": (*("pointer",) * 4, "intp", "double", "pointer", "intp", "intp"),
}
SCRATCH = 2 * CAPACITY + COLUMNS


def find_around(
    points, keys, n, offsets, heights, columns, limit, most, numbers, places, squares, scratch, start, stop
):
    """For each point the nearest `most` of the others within the radius, in no order."""
    x, key, number = carray(points, (n, 3)), carray(integers(keys), (n,)), carray(integers(numbers), (n,))
    place, square = carray(integers(places), (n, most)), carray(squares, (n, most))
    offset, height = carray(integers(offsets), (columns,)), carray(integers(heights), (columns,))
    near, at = carray(scratch, (2 * CAPACITY,))[:CAPACITY], carray(integers(scratch), (SCRATCH,))[CAPACITY:]
    finger = at[CAPACITY:]
    for c in range(columns):
        finger[c] = first_from(key, n, key[start] + offset[c] - height[c])
    for p in range(start, stop):
        a, b, c_ = x[p, 0], x[p, 1], x[p, 2]
        found = 0
        for c in range(columns):
            low = key[p] + offset[c] - height[c]
            high = low + 2 * height[c]
            q = finger[c]
            while q < n and key[q] < low:
                q += 1
            finger[c] = q
            while q < n and key[q] <= high:
                u, v, w = x[q, 0] - a, x[q, 1] - b, x[q, 2] - c_
                d = u * u + v * v + w * w
                if d <= limit and q != p:
                    if found == CAPACITY:
                        select(near, at, found, most)
                        found = most
                    near[found], at[found] = d, q
                    found += 1
                q += 1
        if found > most:
            select(near, at, found, most)
            found = most
        number[p] = found
        for k in range(found):
            place[p, k], square[p, k] = at[k], near[k]


def first_from(key, n, wanted):
    """The first place whose key is at least the wanted one, by bisection."""
    low, high = 0, n
    while low < high:
        middle = (low + high) >> 1
        if key[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low


def select(value, other, n, k):
    """Quickselect: the least k of n values come first, and `other` with them."""
    first, last = 0, n - 1
    while first < last:
        a, b, c = value[first], value[(first + last) >> 1], value[last]
        pivot = max(min(a, b), min(max(a, b), c))
        i, j = first, last
        while i <= j:
            while value[i] < pivot:
                i += 1
            while value[j] > pivot:
                j -= 1
            if i <= j:
                value[i], value[j] = value[j], value[i]
                other[i], other[j] = other[j], other[i]
                i += 1
                j -= 1
        if k <= j:
            last = j
        elif k >= i:
            first = i
        else:
            break


def fit_planes(points, numbers, places, most, normals, scratch, start, stop):
    """The direction in which a point and its neighbors vary least; NaN for fewer than three, or on a line."""
    number, place = carray(integers(numbers), (stop,)), carray(integers(places), (stop, most))
    normal = carray(normals, (stop, 3))
    for p in range(start, stop):
        count = number[p]
        own = carray(points, (p + 1, 3))[p]
        sx = sy = sz = xx = xy = xz = yy = yz = zz = ZERO
        for k in range(count):
            q = place[p, k]
            other = carray(points, (q + 1, 3))[q]
            u, v, w = other[0] - own[0], other[1] - own[1], other[2] - own[2]
            sx, sy, sz = sx + u, sy + v, sz + w
            xx, xy, xz = xx + u * u, xy + u * v, xz + u * w
            yy, yz, zz = yy + v * v, yz + v * w, zz + w * w
        share = ONE / (count + 1)
        sx, sy, sz = sx * share, sy * share, sz * share
        a, b, c = least_direction(
            xx * share - sx * sx,
            xy * share - sx * sy,
            xz * share - sx * sz,
            yy * share - sy * sy,
            yz * share - sy * sz,
            zz * share - sz * sz,
        )
        defined = count >= 2
        normal[p, 0], normal[p, 1], normal[p, 2] = (
            where(defined, a, NAN),
            where(defined, b, NAN),
            where(defined, c, NAN),
        )


def least_direction(xx, xy, xz, yy, yz, zz):
    """As `svdrot.registration.clouds.surfaces.least_direction`, of one matrix."""
    trace = xx + yy + zz
    sound = trace > ZERO
    s = ONE / where(sound, trace, ONE)
    xx, xy, xz, yy, yz, zz = xx * s, xy * s, xz * s, yy * s, yz * s, zz * s
    third = ONE / 3
    bx, by, bz = xx - third, yy - third, zz - third
    p = sqrt((bx * bx + by * by + bz * bz + 2 * (xy * xy + xz * xz + yz * yz)) / 6)
    det = bx * (by * bz - yz * yz) - xy * (xy * bz - yz * xz) + xz * (xy * yz - by * xz)
    cosine = where(p > ZERO, det / (2 * where(p > ZERO, p * p * p, ONE)), ONE)
    cosine = min(ONE, max(-ONE, cosine))
    least = third + 2 * p * cos(acos(cosine) / 3 + TURN)
    xx, yy, zz = xx - least, yy - least, zz - least
    a0, a1, a2 = xy * yz - xz * yy, xz * xy - xx * yz, xx * yy - xy * xy
    b0, b1, b2 = yy * zz - yz * yz, yz * xz - xy * zz, xy * yz - yy * xz
    c0, c1, c2 = xy * zz - xz * yz, xz * xz - xx * zz, xx * yz - xy * xz
    a, b, c = a0 * a0 + a1 * a1 + a2 * a2, b0 * b0 + b1 * b1 + b2 * b2, c0 * c0 + c1 * c1 + c2 * c2
    second = b > a and b >= c
    last = (not second) and c > a
    a = where(second, b, where(last, c, a))
    a0, a1, a2 = (
        where(second, b0, where(last, c0, a0)),
        where(second, b1, where(last, c1, a1)),
        where(second, b2, where(last, c2, a2)),
    )
    size = sqrt(a)
    sound = sound and size > LINE
    scale = where(sound, ONE / where(sound, size, ONE), NAN)
    return a0 * scale, a1 * scale, a2 * scale


def turn_outward(points, normals, coarse, weights, m, inverse, scratch, start, stop):
    """Turn normals away from the mean of the coarse points around, of weights w (1 - d²/reach²)²."""
    use_widest_vectors()
    x, normal = carray(points, (stop, 3)), carray(normals, (stop, 3))
    y, weight = carray(coarse, (3, m)), carray(weights, (m,))
    for p in range(start, stop):
        a, b, c = x[p, 0], x[p, 1], x[p, 2]
        sx = sy = sz = ZERO
        for q in range(m):
            u, v, w = y[0, q] - a, y[1, q] - b, y[2, q] - c
            g = max(ZERO, ONE - (u * u + v * v + w * w) * inverse)
            g = g * g * weight[q]
            sx, sy, sz = sx + g * u, sy + g * v, sz + g * w
        sign = where(sx * normal[p, 0] + sy * normal[p, 1] + sz * normal[p, 2] > ZERO, -ONE, ONE)
        for k in range(3):
            normal[p, k] *= sign


HELPERS = (first_from, select, least_direction)


def vocabulary(dtype: torch.dtype, scalar: Any) -> dict[str, Any]:
    from svdrot._kernels.cpu.compiler.simd import integers

    words = {
        "integers": integers,
        "CAPACITY": CAPACITY,
        "SCRATCH": SCRATCH,
        "cos": math.cos,
        "acos": math.acos,
    }
    words |= {"TURN": 2 * math.pi / 3, "LINE": 1e-7, "NAN": scalar(math.nan)}
    return words | {"ZERO": scalar(0), "ONE": scalar(1)}
