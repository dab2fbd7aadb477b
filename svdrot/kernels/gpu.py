# pyright: reportGeneralTypeIssues=false
"""GPU backend in Triton: one lane per matrix, every entry in a register. Contract: `svdrot.kernels`."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from svdrot.formulas import projection

BLOCK = 128  # lanes per program


def special_orthogonalize(m: Tensor) -> Tensor:
    r = torch.empty_like(m)
    _launch(_project, "nearest_rotation", m, r)
    return r


def special_orthogonalize_differential(m: Tensor, r: Tensor, t: Tensor, damping: float) -> Tensor:
    d = torch.empty_like(m)
    _launch(_differentiate, "nearest_rotation_differential", m, r, t, d, damping)
    return d


def projection_gap(m: Tensor) -> tuple[Tensor, Tensor]:
    gap, g = m.new_empty(len(m)), torch.empty_like(m)
    _launch(_measure_gap, "gap_and_derivative", m, gap, g)
    return gap, g


def _launch(kernel, formula: str, m: Tensor, *arguments: Tensor | float) -> None:
    if len(m):
        with torch.cuda.device_of(m):
            grid = (triton.cdiv(len(m), BLOCK),)
            kernel[grid](m, *arguments, len(m), FORMULAS[m.dtype][formula], BLOCK, enable_fp_fusion=True)


@triton.jit
def _sqrt(x):
    return tl.sqrt(x)


@triton.jit
def _absolute(x):
    return tl.abs(x)


@triton.jit
def _where(condition, x, y):
    return tl.where(condition, x, y)


def _bound(dtype: torch.dtype) -> dict[str, Any]:
    vocabulary = {"__name__": __name__, "tl": tl, "sqrt": _sqrt, "absolute": _absolute, "where": _where}
    constant = (
        tl.constexpr if isinstance(_where, triton.JITFunction) else float
    )  # which Triton's interpreter needs
    vocabulary |= {name: constant(value) for name, value in projection.constants(dtype).items()}
    projection.bind(vocabulary, triton.jit)
    return vocabulary


FORMULAS = {dtype: _bound(dtype) for dtype in (torch.float32, torch.float64)}


@triton.jit
def _project(m, r, batch, nearest_rotation: tl.constexpr, BLOCK: tl.constexpr):
    lane = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    a, b, c = _read(m, lane, batch)
    a, b, c = nearest_rotation(a, b, c)
    _write(a, b, c, r, lane, batch)


@triton.jit
def _differentiate(m, r, t, d, damping, batch, differential: tl.constexpr, BLOCK: tl.constexpr):
    lane = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    a, b, c = _read(m, lane, batch)
    e, f, g = _read(r, lane, batch)
    x, y, z = _read(t, lane, batch)
    x, y, z = differential(a, b, c, e, f, g, x, y, z, damping)
    _write(x, y, z, d, lane, batch)


@triton.jit
def _measure_gap(m, gap, g, batch, gap_and_derivative: tl.constexpr, BLOCK: tl.constexpr):
    lane = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    a, b, c = _read(m, lane, batch)
    s, a, b, c = gap_and_derivative(a, b, c)
    tl.store(gap + lane, s, lane < batch)
    _write(a, b, c, g, lane, batch)


@triton.jit
def _read(m, lane, batch):
    """The columns of matrix `lane`; past the end, zeros."""
    m, live = m + lane * 9, lane < batch
    a = (tl.load(m + 0, live, 0.0), tl.load(m + 3, live, 0.0), tl.load(m + 6, live, 0.0))
    b = (tl.load(m + 1, live, 0.0), tl.load(m + 4, live, 0.0), tl.load(m + 7, live, 0.0))
    c = (tl.load(m + 2, live, 0.0), tl.load(m + 5, live, 0.0), tl.load(m + 8, live, 0.0))
    return a, b, c


@triton.jit
def _write(a, b, c, m, lane, batch):
    """Eight entries through shared memory, so that a warp stores whole runs of memory, and the ninth by
    itself: stored one entry at a time, each 32-byte sector would go to L2 up to eight times."""
    even = tl.join(tl.join(a[0], b[1]), tl.join(c[0], a[2]))
    odd = tl.join(tl.join(b[0], c[1]), tl.join(a[1], b[2]))
    entry, live = tl.arange(0, 8)[None, :], lane < batch
    tl.store(m + lane[:, None] * 9 + entry, tl.join(even, odd).reshape(lane.shape[0], 8), live[:, None])
    tl.store(m + lane * 9 + 8, c[2], live)
