# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false
"""Nearest neighbors on GPU in Triton: programs run over all points, running minima in registers."""

import torch
import triton
import triton.language as tl
from torch import Tensor

QUERIES, POINTS = 32, 32  # in a tile: eight pairs to a thread of four warps, with their minima in registers


def nearest(queries: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Squared distances and indices (B, N, k) of the nearest of (B, M, d), infinite and M past the last.

    Of equally near points the smallest index comes first. The k-th pass over all pairs finds the first one
    after the one before, in the order of distance and index: no lists, and any k.
    """
    (size, n, d), m = queries.shape, points.shape[1]
    squares = queries.new_empty(size, n, k)
    indices = torch.empty(size, n, k, dtype=torch.int64, device=queries.device)
    grid = (triton.cdiv(n, QUERIES), size)
    if n and size:
        for slot in range(k):
            _nearest[grid](
                queries.contiguous(),
                points.contiguous(),
                squares,
                indices,
                n,
                m,
                k,
                slot,
                slot > 0,
                d,
                QUERIES,
                POINTS,
            )
    return squares, indices


@triton.jit
def _nearest(
    queries,
    points,
    squares,
    indices,
    n,
    m,
    k,
    slot,
    AGAIN: tl.constexpr,
    D: tl.constexpr,
    QUERIES: tl.constexpr,
    POINTS: tl.constexpr,
):
    item = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0).to(tl.int64) * QUERIES + tl.arange(0, QUERIES)
    live = row < n
    q = queries + (item * n + row) * D
    p = points + item * m * D
    out = (item * n + row) * k + slot
    best = tl.zeros((QUERIES, POINTS), q.dtype.element_ty) + float("inf")
    at = tl.zeros((QUERIES, POINTS), tl.int32) + m
    for start in range(0, m, POINTS):
        column = start + tl.arange(0, POINTS)
        inside = column < m
        square = tl.zeros((QUERIES, POINTS), q.dtype.element_ty)
        if D <= 3:
            for a in tl.static_range(D):
                square = _add_square(square, q + a, live, p + column.to(tl.int64) * D + a, inside)
        else:  # a loop: unrolled, 33 coordinates spill their registers
            for a in range(D):
                square = _add_square(square, q + a, live, p + column.to(tl.int64) * D + a, inside)
        column = column[None, :]
        # A NaN compares false: neither what is not finite nor what lies past the end is ever better.
        better = square < best
        if AGAIN:
            before = tl.load(squares + out - 1, live, 0.0)[:, None]
            last = tl.load(indices + out - 1, live, 0)[:, None]
            better = better & ((square > before) | ((square == before) & (column > last)))
        best = tl.where(better, square, best)
        at = tl.where(better, column, at)
    least = tl.min(best, 1)
    first = tl.min(tl.where((best == least[:, None]) & (best < float("inf")), at, m), 1)
    tl.store(squares + out, least, live)
    tl.store(indices + out, first.to(tl.int64), live)


@triton.jit
def _add_square(square, x, live, y, inside):
    difference = tl.load(x, live, 0.0)[:, None] - tl.load(y, inside, float("nan"))[None, :]
    return square + difference * difference
