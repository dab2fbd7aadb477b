"""Pairs of points on a CPU: tiles of them, threads for large batches. Contract: `operations.pairs`."""

import torch
from torch import Tensor

from svdrot._kernels import cpu
from svdrot._kernels.operations.pairs import merged
from svdrot._kernels.records import MOMENTS

from .loops.pairs import SCRATCH

SEGMENT = 16384  # most pairs that one call goes over, so that threads can share a large cloud


def moments(x: Tensor, y: Tensor, w: Tensor | None, centered: bool) -> tuple[Tensor, Tensor]:
    segments, layout = _layout(x, w)
    result = torch.empty(len(x) * segments, MOMENTS.size, dtype=torch.float64, device="cpu")
    pivots = torch.empty(len(x), 6, dtype=torch.float64, device="cpu")
    _run("pair_moments", x, segments, x, y, _or_null(w), int(centered), pivots, result, *layout)
    return merged(result.unflatten(0, (len(x), segments))) if segments > 1 else result, pivots


def moments_gradient(
    x: Tensor, y: Tensor, w: Tensor | None, pivots: Tensor, m: Tensor, g: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    segments, layout = _layout(x, w)
    gx, gy = cpu.empty(x.shape, x.dtype), cpu.empty(y.shape, y.dtype)
    gw = None if w is None else torch.empty_like(w)
    _run("pair_gradients", x, segments, x, y, _or_null(w), pivots, m, g, gx, gy, _or_null(gw), *layout)
    return gx, gy, gw


def misfit(
    x: Tensor, y: Tensor, w: Tensor | None, pivots: Tensor, m: Tensor, scaled_rotation: Tensor
) -> Tensor:
    segments, layout = _layout(x, w)
    result = torch.empty(len(x) * segments, dtype=torch.float64, device="cpu")
    _run("pair_misfits", x, segments, x, y, _or_null(w), pivots, m, scaled_rotation, result, *layout)
    return result.view(len(x), segments).sum(1)


def _layout(x: Tensor, w: Tensor | None) -> tuple[int, tuple[int, ...]]:
    """Segments of each item, and what the kernels want to know: weighted, points, segments, length."""
    points = x.shape[1]
    segments = max(1, -(-points // SEGMENT))
    return segments, (int(w is not None), points, segments, SEGMENT)


def _run(kernel: str, x: Tensor, segments: int, *arguments: Tensor | float) -> None:
    rows = len(x) * segments
    numbers = min(x.shape[1], SEGMENT)  # not thrice as many: a pair takes as long as a number of a matrix
    cpu.run_rows(kernel, x.dtype, rows, numbers, arguments, SCRATCH, 1)


def _or_null(x: Tensor | None) -> Tensor | int:
    return 0 if x is None else x
