# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
"""Features of points in Triton: a program for each point. Contract: `operations.features`.

Nothing is fused: where a number falls between two bins, it must round as on a CPU.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from svdrot._kernels.operations import features as features_reference

BINS = tl.constexpr(features_reference.BINS)
SIZE = tl.constexpr(features_reference.SIZE)
ROW = tl.constexpr(64)  # lanes of a histogram
MIDDLE = tl.constexpr(features_reference.BINS // 2)
C1, C3, C5, C7, C9 = (tl.constexpr(math.cos(k * math.pi / features_reference.BINS)) for k in (1, 3, 5, 7, 9))
S1, S3, S5, S7, S9 = (tl.constexpr(math.sin(k * math.pi / features_reference.BINS)) for k in (1, 3, 5, 7, 9))


def describe(points: Tensor, normals: Tensor, numbers: Tensor, places: Tensor, squares: Tensor) -> Tensor:
    batch, n, most = places.shape
    histograms, features = points.new_empty(2, batch, n, features_reference.SIZE)
    if batch * n:
        x, normals, numbers, places, squares = (
            value.contiguous() for value in (points, normals, numbers, places, squares)
        )
        around = numbers, places, squares
        with torch.cuda.device_of(points):
            options = {"NEAR": triton.next_power_of_2(max(most, 2)), "enable_fp_fusion": False}
            _pairs[(batch * n,)](x, normals, *around, histograms, n, most, **options, num_warps=2)
            _blended[(batch * n,)](
                histograms, *around, features, n, most, enable_fp_fusion=False, num_warps=1
            )
    return features


@triton.jit
def _pairs(points, normals, numbers, places, squares, histograms, n, most, NEAR: tl.constexpr):
    """Bins of three numbers of each pair of a point with a neighbor, 100 in each third."""
    p = tl.program_id(0).to(tl.int64)
    first = p // n * n  # of the points of the same cloud
    count = tl.load(numbers + p)
    k = tl.arange(0, NEAR)
    live = k < count
    q = first + tl.load(places + p * most + k, live, 0)
    length = tl.sqrt(tl.load(squares + p * most + k, live, 0.0))
    nx, ny, nz = _three(normals, p)
    x, y, z = _three(points, p)
    mx, my, mz = _some(normals, q, live)
    dx, dy, dz = _some(points, q, live)
    dx, dy, dz = dx - x, dy - y, dz - z
    divisor = tl.where(length > 0.0, length, 1.0)
    along, across = (nx * dx + ny * dy + nz * dz) / divisor, (mx * dx + my * dy + mz * dz) / divisor
    swapped = tl.abs(along) < tl.abs(across)
    along = tl.where(swapped, -across, along)
    ax, ay, az = tl.where(swapped, mx, nx), tl.where(swapped, my, ny), tl.where(swapped, mz, nz)
    bx, by, bz = tl.where(swapped, nx, mx), tl.where(swapped, ny, my), tl.where(swapped, nz, mz)
    dx, dy, dz = tl.where(swapped, -dx, dx), tl.where(swapped, -dy, dy), tl.where(swapped, -dz, dz)
    vx, vy, vz = dy * az - dz * ay, dz * ax - dx * az, dx * ay - dy * ax
    size = tl.sqrt(vx * vx + vy * vy + vz * vz)
    sound = (size > 0.0) & (length > 0.0)
    size = tl.where(sound, size, 1.0)
    vx, vy, vz = vx / size, vy / size, vz / size
    wx, wy, wz = ay * vz - az * vy, az * vx - ax * vz, ax * vy - ay * vx
    angle = _sector(ax * bx + ay * by + az * bz, wx * bx + wy * by + wz * bz)
    angle = tl.where(sound, angle, MIDDLE)
    second = tl.where(sound, _bin_of(vx * bx + vy * by + vz * bz), MIDDLE)
    third = tl.where(sound, _bin_of(along), MIDDLE)
    share = 100.0 / tl.maximum(count, 1).to(tl.float64)
    out = histograms + p * SIZE
    for b in range(BINS):
        tl.store(out + b, share * tl.sum((live & (angle == b)).to(tl.int32)))
        tl.store(out + BINS + b, share * tl.sum((live & (second == b)).to(tl.int32)))
        tl.store(out + 2 * BINS + b, share * tl.sum((live & (third == b)).to(tl.int32)))


@triton.jit
def _blended(histograms, numbers, places, squares, features, n, most):
    """Each histogram plus the sum of its neighbors' over d², of which every third is brought to 100 first."""
    p = tl.program_id(0).to(tl.int64)
    first = p // n * n
    lane = tl.arange(0, ROW)
    inside = lane < SIZE
    total = tl.zeros((ROW,), tl.float64)
    for k in range(tl.load(numbers + p).to(tl.int32)):
        q, d = first + tl.load(places + p * most + k), tl.load(squares + p * most + k)
        weight = tl.where(d > 0.0, 1.0 / tl.where(d > 0.0, d, 1.0), 0.0)
        total += weight * tl.load(histograms + q * SIZE + lane, inside, 0.0)
    part = lane // BINS
    scale = tl.zeros((ROW,), tl.float64)
    for third in range(3):
        size = tl.sum(tl.where(part == third, total, 0.0))
        size = tl.where(size > 0.0, 100.0 / tl.where(size > 0.0, size, 1.0), 0.0)
        scale = tl.where(part == third, size, scale)
    own = tl.load(histograms + p * SIZE + lane, inside, 0.0)
    tl.store(features + p * SIZE + lane, total * scale + own, inside)


@triton.jit
def _three(values, p):
    return tl.load(values + 3 * p), tl.load(values + 3 * p + 1), tl.load(values + 3 * p + 2)


@triton.jit
def _some(values, q, live):
    values += 3 * q
    return tl.load(values, live, 0.0), tl.load(values + 1, live, 0.0), tl.load(values + 2, live, 0.0)


@triton.jit
def _sector(x, y):
    """floor(11 (atan2(y, x) + pi) / 2 pi), by the sides of five lines on which (x, |y|) lies."""
    up = tl.abs(y)
    passed = (up * C1 - x * S1 >= 0.0).to(tl.int32) + (up * C3 - x * S3 >= 0.0).to(tl.int32)
    passed += (up * C5 - x * S5 >= 0.0).to(tl.int32) + (up * C7 - x * S7 >= 0.0).to(tl.int32)
    passed += (up * C9 - x * S9 >= 0.0).to(tl.int32)
    return tl.where(y >= 0.0, passed, -passed) + MIDDLE


@triton.jit
def _bin_of(x):
    place = tl.floor((x + 1.0) * BINS * 0.5).to(tl.int32)
    return tl.minimum(tl.maximum(place, 0), BINS - 1)
