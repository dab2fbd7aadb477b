# pyright: reportUndefinedVariable=false
"""Fast point feature histograms, from the neighbors of each point, for numba. Float64.

(Rusu, Blodow and Beetz 2009, "Fast Point Feature Histograms (FPFH) for 3D Registration".)
"""

import math
from typing import Any

import torch

BINS = 11
SIZE = 3 * BINS

KERNELS = {
    # points, normals, how many neighbors, which, squares of their distances, most, histograms
    "pair_histograms": (*("pointer",) * 5, "intp", "pointer", "pointer", "intp", "intp"),
    # histograms, how many neighbors, which, squares of their distances, most, features
    "blend_histograms": (*("pointer",) * 4, "intp", "pointer", "pointer", "intp", "intp"),
}
SCRATCH = SIZE
EXACT = True  # where a number falls between two bins, all that compute it must round alike


def pair_histograms(points, normals, numbers, places, squares, most, histograms, scratch, start, stop):
    """Bins of three numbers of each pair of a point with a neighbor, 100 in each third, (stop, 33).

    Of a pair with connection d the first point is the one whose normal n is nearer to the line; then with v
    = d x n / |d x n|, w = n x v and m the other normal the numbers are atan2(w m, n m), v m, n d / |d|, or
    zeros for d x n = 0. Which normal is nearer is decided by n d / |d|: by d n / |d| in another order equal
    normals would differ.
    """
    number, place = carray(integers(numbers), (stop,)), carray(integers(places), (stop, most))
    square, histogram = carray(squares, (stop, most)), carray(histograms, (stop, SIZE))
    for p in range(start, stop):
        for b in range(SIZE):
            histogram[p, b] = ZERO
        count = number[p]
        share = HUNDRED / max(count, 1)
        here, normal = carray(points, (p + 1, 3))[p], carray(normals, (p + 1, 3))[p]
        for k in range(count):
            q = place[p, k]
            there, other = carray(points, (q + 1, 3))[q], carray(normals, (q + 1, 3))[q]
            dx, dy, dz = there[0] - here[0], there[1] - here[1], there[2] - here[2]
            length = sqrt(square[p, k])
            nx, ny, nz = normal[0], normal[1], normal[2]
            mx, my, mz = other[0], other[1], other[2]
            divisor = where(length > ZERO, length, ONE)
            along, across = (nx * dx + ny * dy + nz * dz) / divisor, (mx * dx + my * dy + mz * dz) / divisor
            if abs(along) < abs(across):
                nx, ny, nz, mx, my, mz = mx, my, mz, nx, ny, nz
                dx, dy, dz = -dx, -dy, -dz
                along = -across
            vx, vy, vz = dy * nz - dz * ny, dz * nx - dx * nz, dx * ny - dy * nx
            size = sqrt(vx * vx + vy * vy + vz * vz)
            first = second = third = MIDDLE
            if size > ZERO and length > ZERO:
                vx, vy, vz = vx / size, vy / size, vz / size
                wx, wy, wz = ny * vz - nz * vy, nz * vx - nx * vz, nx * vy - ny * vx
                first = sector(nx * mx + ny * my + nz * mz, wx * mx + wy * my + wz * mz)
                second, third = bin_of(vx * mx + vy * my + vz * mz), bin_of(along)
            histogram[p, first] += share
            histogram[p, BINS + second] += share
            histogram[p, 2 * BINS + third] += share


def sector(x, y):
    """floor(11 (atan2(y, x) + pi) / 2 pi), by the sides of five lines on which (x, |y|) lies."""
    up, passed = abs(y), 0
    passed += 1 if C1 * up - S1 * x >= ZERO else 0
    passed += 1 if C3 * up - S3 * x >= ZERO else 0
    passed += 1 if C5 * up - S5 * x >= ZERO else 0
    passed += 1 if C7 * up - S7 * x >= ZERO else 0
    passed += 1 if C9 * up - S9 * x >= ZERO else 0
    return MIDDLE + passed if y >= ZERO else MIDDLE - passed


def bin_of(x):
    """floor(11 (x + 1) / 2), for x in [-1, 1] up to rounding."""
    return min(max(int(floor(BINS * (x + ONE) * HALF)), 0), BINS - 1)


def blend_histograms(histograms, numbers, places, squares, most, features, scratch, start, stop):
    """Each histogram plus the sum of its neighbors' over d², of which every third is brought to 100 first."""
    number, place = carray(integers(numbers), (stop,)), carray(integers(places), (stop, most))
    square, feature = carray(squares, (stop, most)), carray(features, (stop, SIZE))
    total = carray(scratch, (SIZE,))
    for p in range(start, stop):
        for b in range(SIZE):
            total[b] = ZERO
        for k in range(number[p]):
            q, d = place[p, k], square[p, k]
            near = carray(histograms, (q + 1, SIZE))[q]
            weight = where(d > ZERO, ONE / where(d > ZERO, d, ONE), ZERO)
            for b in range(SIZE):
                total[b] += weight * near[b]
        own = carray(histograms, (p + 1, SIZE))[p]
        for third in range(3):
            size = ZERO
            for b in range(BINS):
                size += total[BINS * third + b]
            scale = where(size > ZERO, HUNDRED / where(size > ZERO, size, ONE), ZERO)
            for b in range(BINS):
                feature[p, BINS * third + b] = total[BINS * third + b] * scale + own[BINS * third + b]


HELPERS = (sector, bin_of)


def vocabulary(dtype: torch.dtype, scalar: Any) -> dict[str, Any]:
    from svdrot._kernels.cpu.compiler.simd import integers

    words = {"integers": integers, "floor": math.floor, "BINS": BINS, "SIZE": SIZE, "MIDDLE": BINS // 2}
    for k in (1, 3, 5, 7, 9):  # the borders of sectors at k pi / 11
        words |= {f"C{k}": math.cos(k * math.pi / BINS), f"S{k}": math.sin(k * math.pi / BINS)}
    words |= {"HUNDRED": scalar(100), "HALF": scalar(0.5)}
    return words | {"ZERO": scalar(0), "ONE": scalar(1)}
