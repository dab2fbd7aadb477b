# pyright: reportUndefinedVariable=false
"""Many poses of one cloud on another: steps of point-to-plane ICP for each, and how far points then are from
planes, for numba. Float64.

The target is in the order of its cells (`cells`), with a table from columns of cells to where these begin
and end. What is nearest to a point is looked for in its own column, then in those beside it that may hold
something nearer.
"""

import math
from typing import Any

import torch

from svdrot._kernels.records import ALIGNED

REACH = 2  # columns beside: distances of up to 1.5 cells
EFFICIENT, DEVIATION = 4.685, 1.4826  # of Tukey's weights; a standard deviation over the median
DAMPING = 1e-6

# points, their number, target, normals, its number, grid, edge, columns, runs, bits
CLOUDS = ("pointer", "intp", "pointer", "pointer", "intp", "pointer", "double", "pointer", "pointer", "intp")
KERNELS = {
    # ..., poses (3, 4), what is known of each, largest distance, steps, tolerance
    "align_poses": (*CLOUDS, "pointer", "pointer", "double", "intp", "double", "pointer", "intp", "intp"),
    # ..., poses, largest distance, heights
    "measure_poses": (*CLOUDS, "pointer", "double", "pointer", "pointer", "intp", "intp"),
}
FIXED = 6 * 6 + 6 + 6


def scratch(n: int) -> int:
    """Numbers that `align_poses` needs for n points."""
    return FIXED + 6 * n


def align_poses(
    points, n, target, normals, m, grid, edge, columns, runs, bits, poses, reports, distance, steps,
    tolerance,
    scratch, start, stop,
):  # fmt: skip
    """Improve poses in place by steps of Gauss and Newton, with Tukey's weights at the scale of the median,
    until a step moves the pairs by less than the tolerance.
    """
    x, pose_, report = (
        carray(points, (n, 3)),
        carray(poses, (stop, 3, 4)),
        carray(reports, (stop, ALIGNED_SIZE)),
    )
    y, normal = carray(target, (m, 3)), carray(normals, (m, 3))
    memory = carray(scratch, (FIXED + 6 * n,))
    a, g, row = memory[:36], memory[36:42], memory[42:48]
    place, rest = carray(integers(scratch), (FIXED + 6 * n,))[48 : 48 + n], memory[48 + n :]
    residual, size, moved = rest[:n], rest[n : 2 * n], rest[2 * n :]
    table = (
        carray(integers(columns), (1 << bits,)),
        carray(integers(runs), (1 << bits, 2)),
        carray(integers(grid), (6,)),
    )
    for h in range(start, stop):
        pose = pose_[h]
        for p in range(n):
            place[p] = -1
        for k in range(ALIGNED_SIZE):
            report[h, k] = ZERO
        for _ in range(steps):
            count, cx, cy, cz = 0, ZERO, ZERO, ZERO
            for p in range(n):
                u, v, w = image(pose, x[p])
                moved[3 * p], moved[3 * p + 1], moved[3 * p + 2] = u, v, w
                q, _ = nearest(u, v, w, y, table, bits, edge, distance * distance, place[p])
                place[p] = q
                if q >= 0:
                    height = above(u, v, w, y, normal, q)
                    residual[p], size[count] = height, abs(height)
                    count += 1
                    cx, cy, cz = cx + u, cy + v, cz + w
            if count < 6:
                break
            bound = EFFICIENT * DEVIATION * median(size, count)
            if not bound > ZERO:
                break
            cx, cy, cz = cx / count, cy / count, cz / count
            for k in range(42):
                memory[k] = ZERO
            reach, total, squares = ZERO, ZERO, ZERO
            for p in range(n):
                q = place[p]
                if q < 0 or abs(residual[p]) >= bound:
                    continue
                share = residual[p] / bound
                weight = (ONE - share * share) * (ONE - share * share)
                u, v, w = moved[3 * p] - cx, moved[3 * p + 1] - cy, moved[3 * p + 2] - cz
                reach += weight * (u * u + v * v + w * w)
                total, squares = total + weight, squares + weight * residual[p] * residual[p]
                k0, k1, k2 = normal[q, 0], normal[q, 1], normal[q, 2]
                row[0], row[1], row[2] = v * k2 - w * k1, w * k0 - u * k2, u * k1 - v * k0
                row[3], row[4], row[5] = k0, k1, k2
                for i in range(6):
                    scaled = weight * row[i]
                    for j in range(i + 1):
                        a[6 * i + j] += scaled * row[j]
                    g[i] -= scaled * residual[p]
            radius = sqrt(reach / total)
            scale_to_lengths(a, g, radius)
            write(report[h], total, squares, cx, cy, cz, radius, a)
            if not solve(a, g, radius):
                break
            turn(pose, g, cx, cy, cz)
            turned = g[0] * g[0] + g[1] * g[1] + g[2] * g[2]
            shifted = g[3] * g[3] + g[4] * g[4] + g[5] * g[5]
            if sqrt(turned) * radius + sqrt(shifted) < tolerance:
                break


def measure_poses(
    points, n, target, normals, m, grid, edge, columns, runs, bits, poses, distance, heights, scratch,
    start, stop
):  # fmt: skip
    """Distances of points from the plane at the nearest point, NaN where there is none, (stop, n)."""
    x, pose_ = carray(points, (n, 3)), carray(poses, (stop, 3, 4))
    y, normal = carray(target, (m, 3)), carray(normals, (m, 3))
    height = carray(heights, (stop, n))
    table = (
        carray(integers(columns), (1 << bits,)),
        carray(integers(runs), (1 << bits, 2)),
        carray(integers(grid), (6,)),
    )
    for h in range(start, stop):
        for p in range(n):
            u, v, w = image(pose_[h], x[p])
            q, _ = nearest(u, v, w, y, table, bits, edge, distance * distance, -1)
            height[h, p] = NAN
            if q >= 0:
                height[h, p] = above(u, v, w, y, normal, q)


def image(pose, x):
    return (
        pose[0, 0] * x[0] + pose[0, 1] * x[1] + pose[0, 2] * x[2] + pose[0, 3],
        pose[1, 0] * x[0] + pose[1, 1] * x[1] + pose[1, 2] * x[2] + pose[1, 3],
        pose[2, 0] * x[0] + pose[2, 1] * x[1] + pose[2, 2] * x[2] + pose[2, 3],
    )


def above(u, v, w, y, normal, q):
    return (u - y[q, 0]) * normal[q, 0] + (v - y[q, 1]) * normal[q, 1] + (w - y[q, 2]) * normal[q, 2]


def nearest(x, y, z, target, table, bits, edge, limit, hint):
    """The place of the point nearest to (x, y, z) by less than the root of `limit`, or -1; and the square."""
    column, run, g = table
    best, at = limit, -1
    if hint >= 0:
        u, v, w = target[hint, 0] - x, target[hint, 1] - y, target[hint, 2] - z
        square = u * u + v * v + w * w
        if square < best:
            best, at = square, hint
    a, b = x / edge, y / edge
    i0, j0 = floor(a), floor(b)
    a, b = a - i0, b - j0
    if not (abs(i0 - g[0]) < FAR and abs(j0 - g[1]) < FAR):
        return at, best
    i, j = int(i0) - g[0], int(j0) - g[1]
    unit = edge * edge
    for ring in range(2 * REACH + 1):
        for di in range(max(-REACH, -ring), min(REACH, ring) + 1):
            rest = ring - abs(di)
            if rest > REACH or i + di < 0 or i + di >= g[3]:
                continue
            p = di - a if di > 0 else (a - di - ONE if di < 0 else ZERO)
            for side in range(2 if rest > 0 else 1):
                dj = rest if side == 0 else -rest
                q = dj - b if dj > 0 else (b - dj - ONE if dj < 0 else ZERO)
                if (p * p + q * q) * unit >= best or j + dj < 0 or j + dj >= g[4]:
                    continue
                slot = slot_of((i + di) * g[4] + j + dj, column, bits)
                if column[slot] == EMPTY:
                    continue
                first, last = run[slot, 0], run[slot, 1]
                if last - first > TALL:
                    first = first_above(target, first, last, z - sqrt(best) - edge)
                for r in range(first, last):
                    w = target[r, 2] - z
                    if (
                        w > edge and (w - edge) * (w - edge) >= best
                    ):  # whose cell is above all that may be near
                        break
                    u, v = target[r, 0] - x, target[r, 1] - y
                    square = u * u + v * v + w * w
                    if square < best:
                        best, at = square, r
    return at, best


def first_above(target, first, last, low):
    """By bisection; within a column points are in the order of their cells, not of their heights."""
    while first < last:
        middle = (first + last) >> 1
        if target[middle, 2] < low:
            first = middle + 1
        else:
            last = middle
    return first


def slot_of(wanted, column, bits):
    mask = (1 << bits) - 1
    slot = ((wanted * GOLDEN) >> (64 - bits)) & mask
    while column[slot] != wanted and column[slot] != EMPTY:
        slot = (slot + 1) & mask
    return slot


def median(value, n):
    """Of the first n, which are put in another order."""
    k, first, last = n >> 1, 0, n - 1
    while first < last:
        pivot = value[(first + last) >> 1]
        i, j = first, last
        while i <= j:
            while value[i] < pivot:
                i += 1
            while value[j] > pivot:
                j -= 1
            if i <= j:
                value[i], value[j] = value[j], value[i]
                i += 1
                j -= 1
        if k <= j:
            last = j
        elif k >= i:
            first = i
        else:
            break
    return value[k]


def scale_to_lengths(a, g, radius):
    for i in range(6):
        for j in range(i + 1):
            a[6 * i + j] /= (radius if i < 3 else ONE) * (radius if j < 3 else ONE)
        g[i] /= radius if i < 3 else ONE


def write(report, count, squares, cx, cy, cz, radius, a):
    report[ALIGNED_COUNT], report[ALIGNED_SQUARE], report[ALIGNED_RADIUS] = count, squares / count, radius
    report[ALIGNED_CENTER], report[ALIGNED_CENTER + 1], report[ALIGNED_CENTER + 2] = cx, cy, cz
    for i in range(6):
        for j in range(i + 1):
            report[ALIGNED_MATRIX + 6 * i + j] = report[ALIGNED_MATRIX + 6 * j + i] = a[6 * i + j]


def solve(a, g, radius):
    """g becomes the solution of A x = g, both scaled to lengths, by Cholesky with a little damping."""
    trace = ZERO
    for i in range(6):
        trace += a[7 * i]
    for i in range(6):
        for j in range(i + 1):
            total = a[6 * i + j] + (DAMPING * trace if i == j else ZERO)
            for k in range(j):
                total -= a[6 * i + k] * a[6 * j + k]
            if i > j:
                a[6 * i + j] = total / a[7 * j]
            elif total > ZERO:
                a[7 * i] = sqrt(total)
            else:
                return False
    for i in range(6):
        for k in range(i):
            g[i] -= a[6 * i + k] * g[k]
        g[i] /= a[7 * i]
    for l in range(6):
        i = 5 - l
        for k in range(i + 1, 6):
            g[i] -= a[6 * k + i] * g[k]
        g[i] /= a[7 * i]
    for i in range(3):
        g[i] /= radius
    return True


def turn(pose, g, cx, cy, cz):
    """x -> c + dR (x - c) + step after the pose, for the rotation vector and the step in g."""
    for k in range(3):
        a, b, c = rotated(g[0], g[1], g[2], pose[0, k], pose[1, k], pose[2, k])
        pose[0, k], pose[1, k], pose[2, k] = a, b, c
    a, b, c = rotated(g[0], g[1], g[2], pose[0, 3] - cx, pose[1, 3] - cy, pose[2, 3] - cz)
    pose[0, 3], pose[1, 3], pose[2, 3] = cx + a + g[3], cy + b + g[4], cz + c + g[5]


def rotated(wx, wy, wz, x, y, z):
    """A vector turned by a rotation vector."""
    square = wx * wx + wy * wy + wz * wz
    angle = sqrt(square)
    some = square > SMALL_SQUARE
    s = where(some, sin(angle) / where(some, angle, ONE), ONE - square / 6)
    c = where(some, (ONE - cos(angle)) / where(some, square, ONE), HALF)
    ux, uy, uz = wy * z - wz * y, wz * x - wx * z, wx * y - wy * x
    vx, vy, vz = wy * uz - wz * uy, wz * ux - wx * uz, wx * uy - wy * ux
    return x + s * ux + c * vx, y + s * uy + c * vy, z + s * uz + c * vz


HELPERS = (image, above, first_above, slot_of, nearest, median, scale_to_lengths, write, solve, rotated, turn)


def vocabulary(dtype: torch.dtype, scalar: Any) -> dict[str, Any]:
    from svdrot._kernels.cpu.compiler.simd import integers

    from . import cells

    words = {
        "integers": integers,
        "floor": math.floor,
        "sin": math.sin,
        "cos": math.cos,
        "EMPTY": cells.EMPTY,
    }
    words |= {"GOLDEN": cells.GOLDEN, "REACH": REACH, "TALL": 12, "FIXED": FIXED, "FAR": scalar(1 << 40)}
    words |= ALIGNED.words("aligned_") | {"ALIGNED_SIZE": ALIGNED.size}
    words |= {"EFFICIENT": EFFICIENT, "DEVIATION": DEVIATION, "DAMPING": DAMPING, "NAN": scalar(math.nan)}
    return words | {"ZERO": scalar(0), "ONE": scalar(1), "HALF": scalar(0.5), "SMALL_SQUARE": 1e-16}
