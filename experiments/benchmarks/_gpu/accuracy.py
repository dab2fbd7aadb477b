"""How exact projections and maps are, beside float64.

Projections: Gaussian matrices, and hard ones: singular values over four decades, reflections, entries from
1e-15 to 1e10, and ill-conditioned gaps. The truth comes from a decomposition in float64, its derivative from
three linear equations. Errors are in units of eps s1 / (s2 + s3), plus a rounding of the result where that is
of 16 bits; of the derivative relative to |dM| / (s2 + s3). Only rows count where a unit is below 0.1.

Maps: errors in units of what roundings of the arguments change plus one rounding of the result.
"""

import contextlib
import importlib
import math
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

import svdrot
from experiments.benchmarks import _maps
from experiments.benchmarks._gpu import Report
from svdrot.engine.program import Program

COST, COST_ON_CPU = 40, 25
DTYPES = ("float32", "float64", "bfloat16", "float16")
ALLOWED = 16.0  # units of a projection, which docs/projection.md promises
UNITS = 4.0  # of a map
DRAWS = 16  # roundings of the arguments
FEWER = ("float32", "float64")  # interpreted, bfloat16 is cut off, not rounded


def stage(report: Report) -> None:
    sizes = report.sizes
    if report.gpu:
        for kind, dtype in report.each([(k, d) for k in KINDS for d in DTYPES], "projections"):
            _judged(report, projections(kind, dtype, sizes.matrices, sizes.portion, "cuda"))
        for name in report.each(_maps.names(sizes.maps), "errors of maps"):
            report.add("Errors of maps", **errors(name, DTYPES, "cuda", sizes.samples))
    else:
        with interpreter() as pool:
            for kind, dtype in report.each([(k, d) for k in KINDS for d in FEWER], "projections"):
                done = pool.submit(projections, kind, dtype, sizes.matrices, sizes.portion, "cpu")
                _judged(report, done.result())
            for name in report.each(_maps.names(sizes.maps), "errors of maps"):
                row = pool.submit(errors, name, FEWER, "cpu", sizes.samples).result()
                report.add("Errors of maps", **row)
    found = [v for row in report.tables.get("Errors of maps", []) for k, v in row.items() if k != "map"]
    if found:
        report.judge("errors of maps, units", f"at most {UNITS:g}", max(found), max(found) <= UNITS, "Checks")


def _judged(report: Report, row: dict[str, Any]) -> None:
    report.add("Errors of projections", **row)
    worst = max(row["value, units"], row["derivative, units"])
    name = f"{row['matrices']} matrices, {row['dtype']}, units"
    met = worst <= ALLOWED and row["not finite"] == 0
    report.judge(name, f"at most {ALLOWED:g}", worst, met, "Checks")


@contextlib.contextmanager
def interpreter() -> Iterator[ProcessPoolExecutor]:
    """Start a process in which Triton interprets: it may be imported here, and it decides on import."""
    before = os.environ.get("TRITON_INTERPRET")
    os.environ["TRITON_INTERPRET"] = "1"
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            yield pool
    finally:
        if before is None:
            del os.environ["TRITON_INTERPRET"]
        else:
            os.environ["TRITON_INTERPRET"] = before


# Projections ----------------------------------------------------------------------------------------------


def gaussian(count: int, here: dict[str, Any], wide: bool) -> Tensor:
    return torch.randn(count, 3, 3, **here)


def hard(count: int, here: dict[str, Any], wide: bool) -> Tensor:
    """U diag(s) V^T with s of four decades, each sign, and scales that the dtype has."""
    q = torch.nn.functional.normalize(torch.randn(2, count, 4, **here), dim=-1)
    u, v = svdrot.quaternion_to_matrix(q[0]), svdrot.quaternion_to_matrix(q[1])
    s = 10 ** (-4 * torch.rand(count, 3, **here)).sort(-1, descending=True).values
    s[:, 2] *= torch.where(torch.rand(count, **here) < 0.5, -1.0, 1.0)
    m = (u * s[:, None, :]) @ v.mT
    return 10 ** (25 * torch.rand(count, 1, 1, **here) - 15) * m if wide else m


KINDS = {"Gaussian": gaussian, "hard": hard}


def projections(kind: str, dtype: str, count: int, portion: int, device: str) -> dict[str, Any]:
    """Worst errors of values and derivatives over all matrices of a kind."""
    stored = getattr(torch, dtype)
    generator = torch.Generator(device).manual_seed(0)
    here: dict[str, Any] = {"generator": generator, "dtype": torch.float64, "device": device}
    worst = torch.zeros(3, dtype=torch.float64)
    broken = counted = 0
    for start in range(0, count, portion):
        number = min(portion, count - start)
        m = KINDS[kind](number, here, dtype in FEWER).to(stored)
        w = torch.randn(m.shape, **here).to(stored)
        r, d = projected(m, w)
        found, good, finite = compared(m, w, r, d)
        worst = torch.maximum(worst, found.cpu())
        counted, broken = counted + int(good), broken + number - int(finite)
    value, derivative, orthogonality = worst.tolist()
    row = {"matrices": kind, "dtype": dtype, "number": count, "compared": counted, "not finite": broken}
    row |= {"value, units": value, "derivative, units": derivative, "orthogonality, eps": orthogonality}
    return row


def projected(m: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Rotations and gradients; on a CPU by the kernels of a GPU, interpreted."""
    if m.is_cpu:
        from svdrot.engine import gpu  # Triton, which not every machine has

        program = _maps.projection().program
        with np.errstate(all="ignore"):  # the interpreter's numpy warns of 1 / 0
            (r,) = gpu.run(program, (), [m])
            (d,) = gpu.run(program.vjp((True,), (True,), True), (), [m, r, w])
        return r, d
    x = m.clone().requires_grad_()
    r = svdrot.special_orthogonalize(x)
    return r.detach(), torch.autograd.grad(r, x, w)[0]


def compared(m: Tensor, w: Tensor, r: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Worst errors of value, derivative and orthogonality; how many rows count, and how many are finite."""
    eps = torch.finfo(torch.float64 if m.dtype == torch.float64 else torch.float32).eps
    last = torch.finfo(m.dtype).eps if m.dtype.itemsize < 4 else 0.0
    exact, derivative, s1, gap = truth(m.double(), w.double())
    unit = eps * s1 / gap
    good = (unit < 0.1 / ALLOWED) & (gap > 0)
    # A derivative may leave the range of float16.
    beyond = derivative.abs().amax((-2, -1)) > torch.finfo(m.dtype).max / 2
    finite = r.isfinite().all(-1).all(-1) & (d.isfinite().all(-1).all(-1) | beyond)
    r, d, one = r.double(), d.double(), torch.eye(3, dtype=torch.float64, device=r.device)
    value = _norm(r - exact) / (unit + last)
    slope = (_norm(w.double()) + 1e-300) / gap
    change = _norm(d - derivative) / (slope * (unit + last))
    off = _norm(r.mT @ r - one) / (eps + last)
    worst = [torch.where(good & finite & ~beyond, x, 0.0).max() for x in (value, change)]
    return torch.stack([*worst, torch.where(finite, off, 0.0).max()]), good.sum(), finite.sum()


def truth(m: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Nearest rotations, derivatives along w, largest singular values and gaps, in float64.

    Two corrections mend what the decomposition rounds, which is more than the projection does.
    """
    u, s, vh = torch.linalg.svd(m / m.abs().amax((-2, -1), keepdim=True))
    sign = torch.linalg.det(u @ vh).sign()
    flip = torch.stack((torch.ones_like(sign), torch.ones_like(sign), sign), -1)
    r = (u * flip[:, None, :]) @ vh
    scale = m.abs().amax((-2, -1)) * s[:, 0]
    p = m / scale[:, None, None]
    for _ in range(2):
        r = r + turned(p, r, p)
        r = 1.5 * r - 0.5 * r @ (r.mT @ r)
    gap = (s[:, 1] + sign * s[:, 2]) / s[:, 0]
    return r, turned(p, r, w) / scale[:, None, None], scale, gap * scale


def turned(m: Tensor, r: Tensor, w: Tensor) -> Tensor:
    """R [a] with (tr(P) 1 - P) a = vee(R^T w - w^T R) and P = R^T M: the derivative along w.

    Along M itself it is zero where R is exact, else minus the error of R.
    """
    p, skew = r.mT @ m, r.mT @ w - w.mT @ r
    axial = torch.stack((skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]), -1)
    trace = p.diagonal(dim1=-2, dim2=-1).sum(-1)
    k = trace[:, None, None] * torch.eye(3, dtype=m.dtype, device=m.device) - (p + p.mT) / 2
    x, y, z = torch.linalg.solve_ex(k, axial[..., None])[0][..., 0].unbind(-1)
    zero = torch.zeros_like(trace)
    return r @ torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).view(-1, 3, 3)


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=(-2, -1))


# Maps -----------------------------------------------------------------------------------------------------


def errors(name: str, dtypes: Sequence[str], device: str, batch: int) -> dict[str, Any]:
    """Compare values and gradients of kernels, run directly, with float64 on the CPU."""
    m = _maps.maps()[name]
    programs = {"value": m.program, "gradient": _maps.gradient(m)}
    found = {
        f"{which}, {dtype}": units(program, getattr(torch, dtype), device, batch)
        for which, program in programs.items()
        for dtype in dtypes
    }
    return {"map": name, **found}


def units(program: Program, dtype: torch.dtype, device: str, batch: int) -> float:
    gpu, cpu = (importlib.import_module(f"svdrot.engine.{side}") for side in ("gpu", "cpu"))
    x = _maps.drawn(program, batch, "cpu", dtype)
    with np.errstate(all="ignore"):
        found = [t.cpu().double() for t in gpu.run(program, (), [t.to(device) for t in x])]
    x = [t.double() for t in x]
    exact = cpu.run(program, (), x)
    eps = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
    generator = torch.Generator().manual_seed(1)
    signs = [torch.randint(0, 2, (DRAWS, *t.shape), generator=generator).double() * 2 - 1 for t in x]
    rounded = cpu.run(program, (), [t * (1 + eps * s) for t, s in zip(x, signs, strict=True)])
    worst = 0.0
    for y, near, result, shape in zip(found, rounded, exact, program.graph.shapes, strict=True):
        dims = tuple(range(-len(shape), 0))
        change, size = (near - result).abs().amax(0), result.abs()
        if dims:
            change, size = change.amax(dims, keepdim=True), size.amax(dims, keepdim=True)
        off = ((y - result).abs() / (change + torch.finfo(dtype).eps * size)).max().item()
        worst = max(worst, math.inf if math.isnan(off) else off)
    return worst
