"""How fast the projection, larger factors and all maps are: beside a copy of the same bytes, torch and roma.

On a GPU all that can be is replayed as a CUDA graph, so that no host is timed: that is another stage.
The backward pass alone is the difference of both and the forward pass.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import svdrot
from experiments.benchmarks import _device, _maps
from experiments.benchmarks._device import Call
from experiments.benchmarks._gpu import Report
from experiments.shared.timing import medians
from svdrot.engine.maps import Map

COST, COST_ON_CPU = 70, 12
SHARE, OF_SVD, TELLING = 0.85, 100.0, 1 << 16
SHARES = {"projections": 0.45, "factors": 0.6, "maps": 1.0}  # of the stage's time, when each ends
PASSES = ("forward", "forward + backward")


def stage(report: Report) -> None:
    start, end = report.elapsed(), report.end
    for part in (projections, factors, maps):
        report.end = start + SHARES[part.__name__] * (end - start)
        part(report)


def timed(report: Report, calls: dict[str, Call]) -> dict[str, float]:
    """Seconds of each, taking turns; what runs out of memory has none."""
    calls = _device.replays(calls) if report.gpu else calls
    found, _ = medians(calls, report.config.device, report.sizes.rounds, report.sizes.pause)
    return found


def eager(report: Report, call: Call) -> float:
    """Seconds without a graph: where the host is slower than the device, those of the host."""
    return medians({"": call}, report.config.device, report.sizes.rounds, report.sizes.pause / 4)[0][""]


def copy(numbers: int, dtype: torch.dtype, device: str) -> Call:
    """Make a copy that reads and writes so many numbers in all."""
    source = torch.zeros(numbers // 2, dtype=dtype, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def with_backward(f: Callable[..., Any], x: list[Tensor]) -> Call:
    x = [t.detach().clone().requires_grad_() for t in x]
    w = torch.randn_like(f(*x))
    return lambda: torch.autograd.grad(f(*x), x, w)


# Projections of 3x3 matrices ------------------------------------------------------------------------------


def by_svd(m: Tensor) -> Tensor:
    u, _, vh = torch.linalg.svd(m)
    sign = torch.linalg.det(u @ vh)
    return torch.cat((u[..., :2], u[..., 2:] * sign[..., None, None]), -1) @ vh


def contenders(rows: int, most: int) -> dict[str, Callable[[Tensor], Any]]:
    found: dict[str, Callable[[Tensor], Any]] = {"svdrot": svdrot.special_orthogonalize}
    if rows > most:
        return found
    found["torch SVD"] = by_svd
    if polar := getattr(torch.linalg, "polar", None):
        found["torch polar"] = polar
    if roma := _device.optional("roma"):
        found["roma"] = roma.special_procrustes
    return found


def projections(report: Report) -> None:
    device = report.config.device
    for rows in report.each(report.sizes.speeds, "numbers of projections"):
        m = torch.randn(rows, 3, 3, device=device)
        others = contenders(rows, report.sizes.svd)
        forward: dict[str, Call] = {name: lambda f=f, m=m: f(m) for name, f in others.items()}
        both = {name: with_backward(f, [m]) for name, f in others.items() if name != "torch polar"}
        # Forward reads M and writes R; backward reads M, R and the cotangent, and writes the gradient.
        copied = {"copy": copy(18 * rows, m.dtype, device), "copy back": copy(36 * rows, m.dtype, device)}
        first, second = timed(report, {**forward, **copied}), timed(report, both)
        back = second["svdrot"] - first["svdrot"]
        shares = first["copy"] / first["svdrot"], first["copy back"] / max(back, 1e-9)
        for which, found in zip(PASSES, (first, second), strict=True):
            row = {"rows": rows, "pass": which, "svdrot µs": 1e6 * found["svdrot"]}
            if report.gpu:
                call = (forward if which == PASSES[0] else both)["svdrot"]
                row["as it comes µs"] = 1e6 * eager(report, call)
            row |= {f"{name} / svdrot": found[name] / found["svdrot"] for name in others if name in found}
            row.pop("svdrot / svdrot")
            row["of the copy's speed"] = shares[which == PASSES[1]]
            report.add("Projections", **row)
        judged(report, rows, shares, first)
        del m, forward, both, copied


def judged(report: Report, rows: int, shares: tuple[float, float], forward: dict[str, float]) -> None:
    if rows == max(report.sizes.speeds):
        for which, share in zip(("forward", "backward"), shares, strict=True):
            name = f"projection, {which} alone, of {rows:,} matrices, of the copy's speed"
            report.judge(name, f"at least {SHARE:.0%}", share, share >= SHARE)
    if rows == TELLING and "torch SVD" in forward:
        ratio = forward["torch SVD"] / forward["svdrot"]
        name = f"projection beside torch SVD, {rows:,} matrices, times as fast"
        report.judge(name, f"at least {OF_SVD:g}", ratio, ratio >= OF_SVD)


# Larger factors -------------------------------------------------------------------------------------------


def by_jacobi(m: Tensor) -> Tensor:
    """By cuSOLVER's gesvdjBatched, which is what torch calls for matrices up to 32 x 32."""
    u, _, vh = torch.linalg.svd(m, full_matrices=False, driver="gesvdj" if m.is_cuda else None)
    return u @ vh


def factors(report: Report) -> None:
    for n in report.each(report.sizes.squares, "sizes of larger factors"):
        m = torch.randn(report.sizes.factors, n, n, device=report.config.device)
        calls: dict[str, Call] = {
            "svdrot": lambda m=m: svdrot.polar.polar(m),
            "SVD": lambda m=m: by_jacobi(m),
        }
        if polar := getattr(torch.linalg, "polar", None):
            calls["torch polar"] = lambda m=m, polar=polar: polar(m)
        found = timed(report, calls)
        off = (svdrot.polar.polar(m) - by_jacobi(m)).abs().amax((-2, -1)).median().item()
        row = {"n": n, "matrices": len(m), "svdrot µs": 1e6 * found["svdrot"]}
        row |= {f"{k} / svdrot": v / found["svdrot"] for k, v in found.items() if k != "svdrot"}
        report.add("Polar factors", **row, **{"median difference": off})
        ratio = found["SVD"] / found["svdrot"]
        name = f"polar factor {n} x {n} beside gesvdjBatched, times as fast"
        report.judge(name, "above 1", ratio, ratio > 1)


# Maps -----------------------------------------------------------------------------------------------------


def maps(report: Report) -> None:
    for name in report.each(_maps.names(report.sizes.maps), "maps to time"):
        m = _maps.maps()[name]
        for which in PASSES:
            found = timed(report, contestants(name, m, which, report.sizes.rows, report.config.device))
            ours = found["svdrot"]
            row: dict[str, Any] = {"map": name, "pass": which, "rows": report.sizes.rows, "µs": 1e6 * ours}
            row["of the copy's speed"] = found["copy"] / ours
            row["roma / svdrot"] = found["roma"] / ours if "roma" in found else "–"
            report.add("Maps", **row)


def contestants(name: str, m: Map, which: str, rows: int, device: str) -> dict[str, Call]:
    x = _maps.drawn(m.program, rows, device, torch.float32)
    given, results = (sum(t[0].numel() for t in group) for group in (x, [m(*x)]))
    # Read and written: arguments and results; with backward, once more arguments, cotangents and gradients.
    moved = given + results if which == PASSES[0] else 3 * given + 2 * results
    calls: dict[str, Call] = {"copy": copy(rows * moved, torch.float32, device)}
    functions: dict[str, Callable[..., Any]] = {"svdrot": m}
    peers = _maps.of_roma() if _device.optional("roma") else {}
    if name in peers:
        functions["roma"] = peers[name]
    for who, f in functions.items():
        calls[who] = (lambda f=f: f(*x)) if which == PASSES[0] else with_backward(f, x)
    return calls
