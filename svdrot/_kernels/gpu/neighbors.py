# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false
"""Nearest neighbors in Triton: programs run over all points, running minima in registers. Contract:
`operations.neighbors`.

The k-th pass over all points finds the first one after the one before, in the order of distance and index: no
lists, any k, and one launch.
"""

import struct

import torch
import triton
import triton.language as tl
from torch import Tensor

from svdrot._precision import compute_dtype

QUERIES, POINTS = 32, 32  # in a tile: eight pairs to a thread of four warps, with their minima in registers
COMPUTED = {torch.float32: tl.float32, torch.float64: tl.float64}
_COUNTS = ("tiles", "n", "m", "k", "limit_high", "limit_low")


def nearest(queries: Tensor, points: Tensor, k: int, limit: float) -> tuple[Tensor, Tensor]:
    (size, n, d), m = queries.shape, points.shape[1]
    distances = queries.new_empty(size, n, k)
    indices = torch.empty(size, n, k, dtype=torch.int64, device=queries.device)
    tiles = -(-n // QUERIES)
    if n and size:
        low, high = struct.unpack("=2i", struct.pack("=d", limit))  # Triton makes a float64 a float32
        clouds = queries.contiguous(), points.contiguous()
        constants = k > 1, d, COMPUTED[compute_dtype(queries)], QUERIES, POINTS
        arguments = (*clouds, distances, indices, tiles, n, m, k, high, low, *constants)
        with torch.cuda.device_of(queries):
            _nearest[(tiles * size,)](*arguments, enable_fp_fusion=True)
    return distances, indices


@triton.jit(do_not_specialize=_COUNTS)
def _nearest(
    queries,
    points,
    distances,
    indices,
    tiles,
    n,
    m,
    k,
    limit_high,
    limit_low,
    SEVERAL: tl.constexpr,
    D: tl.constexpr,
    DTYPE: tl.constexpr,
    QUERIES: tl.constexpr,
    POINTS: tl.constexpr,
):
    item = (tl.program_id(0) // tiles).to(tl.int64)
    row = (tl.program_id(0) % tiles).to(tl.int64) * QUERIES + tl.arange(0, QUERIES)
    live = row < n
    q = queries + (item * n + row) * D
    p = points + item * m * D
    out = (item * n + row) * k
    bits = (limit_high.to(tl.int64) << 32) | (limit_low.to(tl.int64) & 0xFFFFFFFF)
    limit = bits.to(tl.float64, bitcast=True)
    before = tl.zeros((QUERIES,), DTYPE) - 1.0
    last = tl.zeros((QUERIES,), tl.int32)
    for slot in range(k):
        best = tl.zeros((QUERIES, POINTS), DTYPE) + float("inf")
        at = tl.zeros((QUERIES, POINTS), tl.int32) + m
        for start in range(0, m, POINTS):
            column = start + tl.arange(0, POINTS)
            inside = column < m
            square = tl.zeros((QUERIES, POINTS), DTYPE)
            if D <= 3:
                for a in tl.static_range(D):
                    square = _add_square(square, q + a, live, p + column.to(tl.int64) * D + a, inside, DTYPE)
            else:  # a loop: unrolled, 33 coordinates spill their registers
                for a in range(D):
                    square = _add_square(square, q + a, live, p + column.to(tl.int64) * D + a, inside, DTYPE)
            column = column[None, :]
            # A NaN compares false: neither what is not finite nor what lies past the end is ever better.
            better = square < best
            if SEVERAL:
                tied = (square == before[:, None]) & (column > last[:, None])
                better = better & ((square > before[:, None]) | tied)
            best = tl.where(better, square, best)
            at = tl.where(better, column, at)
        least = tl.min(best, 1)
        first = tl.min(tl.where((best == least[:, None]) & (best < float("inf")), at, m), 1)
        distance = _root(least, DTYPE)
        found = (distance.to(tl.float64) <= limit) & (first < m)
        distance = tl.where(found, distance, float("inf"))
        tl.store(distances + out + slot, distance.to(distances.dtype.element_ty), live)
        tl.store(indices + out + slot, tl.where(found, first, m).to(tl.int64), live)
        before, last = least, first


@triton.jit
def _add_square(square, x, live, y, inside, DTYPE: tl.constexpr):
    a, b = tl.load(x, live, 0.0).to(DTYPE), tl.load(y, inside, float("nan")).to(DTYPE)
    difference = a[:, None] - b[None, :]
    return square + difference * difference


@triton.jit
def _root(x, DTYPE: tl.constexpr):
    """Rounded as IEEE 754 asks for, which `tl.sqrt` is in float64 alone."""
    if DTYPE == tl.float64:
        return tl.sqrt(x)
    else:
        return tl.sqrt_rn(x)
