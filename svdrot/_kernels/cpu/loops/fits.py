# pyright: reportUndefinedVariable=false
"""Many poses of a few points on planes that a coarse grid finds: steps of point-to-plane ICP, and what then
fits, for numba. Float64.

A plane is a row (unit normal, height of the plane along it, point). The grid has one of them for each cell,
or -1: the one whose point is nearest to the middle. From far away that is near enough, and takes no search.
"""

import math
from typing import Any

import torch

from . import poses as others

DAMPING = 1e-3  # of the normal matrix, over its mean eigenvalue
MOST = 0.4  # radians that a step turns at most

# points, their number, planes, their number, cells, corner and edge of the grid, its sides, poses (3, 4)
PLANES = ("pointer", "intp", "pointer", "intp", "pointer", "pointer", "pointer", "pointer")
KERNELS = {
    # ..., the largest distance at each step, how many steps
    "refine_poses": (*PLANES, "pointer", "intp", "pointer", "intp", "intp"),
    # ..., largest distance, standard deviation of a height, what fits
    "fit_poses": (*PLANES, "double", "double", "pointer", "pointer", "intp", "intp"),
}
FIXED = 6 * 6 + 6 + 6


def scratch(n: int) -> int:
    """Numbers that `refine_poses` needs for n points."""
    return FIXED + 5 * n


def refine_poses(
    points, n, planes, m, cells, grid, sides, poses, limits, steps, scratch, start, stop
):  # fmt: skip
    """Take steps of all poses, in place. The weight of a pair falls with the square of its distance, to 0 at
    the limit.
    """
    x, pose_, limit = carray(points, (n, 3)), carray(poses, (stop, 3, 4)), carray(limits, (steps,))
    plane, corner, side = carray(planes, (m, 7)), carray(grid, (4,)), carray(integers(sides), (3,))
    cell = carray(integers(cells), (side[0] * side[1] * side[2],))
    memory = carray(scratch, (FIXED + 5 * n,))
    a, g, row = memory[:36], memory[36:42], memory[42:48]
    place, pair = carray(integers(scratch), (FIXED + 5 * n,))[48 : 48 + n], memory[48 + n :]
    for h in range(start, stop):
        pose = pose_[h]
        for s in range(steps):
            unit = ONE / (limit[s] * limit[s])
            count, total, cx, cy, cz = 0, ZERO, ZERO, ZERO, ZERO
            for p in range(n):
                u, v, w = image(pose, x[p])
                q = beneath(u, v, w, cell, corner, side)
                if q < 0:
                    continue
                weight = ONE - distance(u, v, w, plane[q]) * unit
                if weight > ZERO:
                    place[count] = q
                    pair[4 * count], pair[4 * count + 1], pair[4 * count + 2] = u, v, w
                    pair[4 * count + 3] = weight
                    total, cx, cy, cz = total + weight, cx + weight * u, cy + weight * v, cz + weight * w
                    count += 1
            if count == 0:
                break
            cx, cy, cz = cx / total, cy / total, cz / total
            for k in range(42):
                memory[k] = ZERO
            reach = ZERO
            for p in range(count):
                q, weight = place[p], pair[4 * p + 3]
                height = above(pair[4 * p], pair[4 * p + 1], pair[4 * p + 2], plane[q])
                u, v, w = pair[4 * p] - cx, pair[4 * p + 1] - cy, pair[4 * p + 2] - cz
                reach += weight * (u * u + v * v + w * w)
                k0, k1, k2 = plane[q, 0], plane[q, 1], plane[q, 2]
                row[0], row[1], row[2] = v * k2 - w * k1, w * k0 - u * k2, u * k1 - v * k0
                row[3], row[4], row[5] = k0, k1, k2
                for i in range(6):
                    scaled = weight * row[i]
                    for j in range(i + 1):
                        a[6 * i + j] += scaled * row[j]
                    g[i] -= scaled * height
            radius = sqrt(reach / total)
            if not radius > ZERO:
                break
            scale_to_lengths(a, g, radius)
            if not solve(a, g, radius):
                break
            angle = sqrt(g[0] * g[0] + g[1] * g[1] + g[2] * g[2])
            if angle > MOST:
                g[0], g[1], g[2] = g[0] * MOST / angle, g[1] * MOST / angle, g[2] * MOST / angle
            turn(pose, g, cx, cy, cz)


def fit_poses(
    points, n, planes, m, cells, grid, sides, poses, reach, deviation, shares, scratch, start, stop
):  # fmt: skip
    """Set about which share of the points lies on the planes at each pose."""
    x, pose_, share = carray(points, (n, 3)), carray(poses, (stop, 3, 4)), carray(shares, (stop,))
    plane, corner, side = carray(planes, (m, 7)), carray(grid, (4,)), carray(integers(sides), (3,))
    cell = carray(integers(cells), (side[0] * side[1] * side[2],))
    for h in range(start, stop):
        total = ZERO
        for p in range(n):
            u, v, w = image(pose_[h], x[p])
            q = beneath(u, v, w, cell, corner, side)
            if q >= 0 and distance(u, v, w, plane[q]) < reach * reach:
                z = above(u, v, w, plane[q]) / deviation
                total += exp(-z * z / 2)
        share[h] = total / n


def beneath(u, v, w, cell, corner, side):
    """The plane of the cell of a place, -1 for none."""
    a, b, c = (u - corner[0]) / corner[3], (v - corner[1]) / corner[3], (w - corner[2]) / corner[3]
    if not (a >= ZERO and b >= ZERO and c >= ZERO and a < side[0] and b < side[1] and c < side[2]):
        return -1
    return cell[(int(a) * side[1] + int(b)) * side[2] + int(c)]


def distance(u, v, w, plane):
    """Squared, from the point of a plane."""
    u, v, w = u - plane[4], v - plane[5], w - plane[6]
    return u * u + v * v + w * w


def above(u, v, w, plane):
    return u * plane[0] + v * plane[1] + w * plane[2] - plane[3]


HELPERS = (
    *(beneath, distance, above),
    *(others.image, others.scale_to_lengths, others.solve, others.rotated, others.turn),
)


def vocabulary(dtype: torch.dtype, scalar: Any) -> dict[str, Any]:
    from svdrot._kernels.cpu.compiler.simd import integers

    words = {"integers": integers, "sin": math.sin, "cos": math.cos, "exp": math.exp}
    words |= {"DAMPING": DAMPING / 6, "MOST": MOST, "FIXED": FIXED}  # of the trace of six eigenvalues
    return words | {"ZERO": scalar(0), "ONE": scalar(1), "HALF": scalar(0.5), "SMALL_SQUARE": 1e-16}
