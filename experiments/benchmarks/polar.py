"""How fast, how exact and how heavy is the polar factor by products?

Rotation grade: batches of n x n Gaussian matrices through `svdrot.polar.polar` (the engine, which chooses),
through the bare iteration (`newton_schulz`), the eight steps of Polar Express, and the factor from
`torch.linalg.svd`; the nearest rotation beside the one from the SVD and a determinant; the same for one
matrix at a time; forward and backward. Optimizer grade: five steps of the same polynomial by `newton_schulz`
and by `torch.optim.Muon`, in bfloat16 as there, and in float32. Errors are distances from the factor in
float64, over matrices whose smallest singular value is above 1e-3 of the norm; memory is what is kept for the
backward pass.

Expected on two cores, float32: batches of n = 4 at least 4 times faster than by the SVD, n = 8 to 32 at
least 5 times; errors at most those of the SVD, and below those of Polar Express. No single matrix takes
longer than 1.05 times the best of the others; a large one gains nothing on a CPU, where LAPACK is hard to
beat. Five steps cost what they cost in torch.

    python -m experiments.benchmarks.polar            three minutes on two cores

It makes the published results with --out experiments/results/benchmarks/polar.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.optim._muon import _zeropower_via_newtonschulz as torch_iteration  # pyright: ignore
from tqdm import tqdm

from experiments import shared
from experiments.shared.settings import Count, Device, Out, Positive, Settings
from experiments.shared.timing import medians
from svdrot.polar import newton_schulz, polar, polar_refinement
from svdrot.schedules import KELLER_JORDAN, POLAR_EXPRESS, newton_schulz_schedule


@dataclass(frozen=True)
class Config(Settings):
    device: Device = "cuda" if torch.cuda.is_available() else "cpu"
    """cpu or cuda."""
    sides: tuple[Count, ...] = (3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
    """Of the matrices of a batch."""
    numbers: Count = 1 << 18
    """In a batch: 4,096 matrices of 8 x 8."""
    single: tuple[Count, ...] = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 160, 256, 512, 1024)
    """Sides of matrices one at a time."""
    shapes: tuple[tuple[Count, Count], ...] = ((64, 64), (256, 256), (256, 1024), (512, 512), (1024, 1024))
    """Of gradients."""
    products: tuple[Count, ...] = (512, 1024, 2048, 4096, 8192)
    """Sides of symmetric products, on a GPU alone."""
    rounds: Count = 100
    """At most, for each size."""
    seconds: Positive = 2.0
    """After which no new round begins; there are at least three."""
    out: Out = Path("runs/benchmarks/polar")


ROTATION_GRADE = newton_schulz_schedule(1e-3)


def by_svd(m: Tensor) -> Tensor:
    u, _, vh = torch.linalg.svd(m, full_matrices=False)
    return u @ vh


def by_svd_special(m: Tensor) -> Tensor:
    u, _, vh = torch.linalg.svd(m)
    u[..., -1] *= torch.linalg.det(u @ vh)[:, None]
    return u @ vh


FACTORS: dict[str, Callable[[Tensor], Tensor]] = {
    "svdrot": polar,
    "iteration": lambda m: newton_schulz(m, ROTATION_GRADE),
    "Polar Express": lambda m: newton_schulz(m, POLAR_EXPRESS),
    "torch SVD": by_svd,
}
if hasattr(torch.linalg, "polar"):  # from torch 2.14 on
    FACTORS["torch polar"] = lambda m: torch.linalg.polar(m)[0]  # pyright: ignore


def rotation_grade(config: Config, side: int, batch: int) -> dict[str, Any]:
    # Of single matrices several, one after the other: those that do not converge take longer.
    several = min(256, max(1, 2048 // side)) if batch == 1 else 1
    matrices = torch.randn(several, batch, side, side, device=config.device)
    functions = FACTORS | {"svdrot special": lambda m: polar(m, special=True), "SVD special": by_svd_special}
    calls: dict[str, Callable[[], object]] = {
        name: (lambda f=f: [f(m) for m in matrices]) for name, f in functions.items()
    }
    times, _ = medians(calls, config.device, config.rounds, config.seconds)
    row: dict[str, Any] = {"n": side, "batch": batch}
    row |= {f"{name} us": 1e6 * time / (batch * several) for name, time in times.items()}
    row |= {"SVD / svdrot": times["torch SVD"] / times["svdrot"]}
    row |= {"special": times["SVD special"] / times["svdrot special"]}
    return row


def both_ways(config: Config, side: int, batch: int) -> dict[str, Any]:
    """Go forward and backward: the SVD keeps its factors, and needs no other on the way back."""
    m = torch.randn(batch, side, side, device=config.device, requires_grad=True)
    g = torch.randn_like(m)
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "svdrot": polar,
        "svdrot special": lambda m: polar(m, special=True),
        "torch SVD": by_svd,
    }
    calls: dict[str, Callable[[], object]] = {
        name: (lambda f=f: torch.autograd.grad(f(m), m, g)) for name, f in functions.items()
    }
    times, _ = medians(calls, config.device, config.rounds, config.seconds)
    row: dict[str, Any] = {"n": side, "batch": batch}
    row |= {f"{name} us": 1e6 * time / batch for name, time in times.items()}
    row |= {"SVD / svdrot": times["torch SVD"] / times["svdrot"]}
    return row | {"SVD / special": times["torch SVD"] / times["svdrot special"]}


def errors(config: Config, side: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(side)
    m = torch.randn(max(60, min(20000, config.numbers // side**2)), side, side, generator=generator)
    u, s, vh = torch.linalg.svd(m.double())
    kept = s[:, -1] > 1e-3 * torch.linalg.vector_norm(s, dim=-1)
    truth, m = (u @ vh)[kept], m[kept].to(config.device)
    coarse = newton_schulz(m, newton_schulz_schedule(1e-3, safety=1.02), dtype=torch.bfloat16)
    factors = {name: f(m) for name, f in FACTORS.items()}
    factors |= {"refined": polar_refinement(m, factors["iteration"]), "bfloat16": coarse}
    factors["bfloat16 refined"] = polar_refinement(m, coarse)
    row: dict[str, Any] = {"n": side}
    for name, q in factors.items():
        distance = torch.linalg.matrix_norm(q.cpu().double() - truth)
        row[name] = f"{distance.median():.1e} / {distance.max():.1e}"
    return row


def optimizer_grade(config: Config, rows: int, columns: int) -> dict[str, Any]:
    g = torch.randn(rows, columns, device=config.device)
    step = KELLER_JORDAN[0]
    calls: dict[str, Callable[[], object]] = {
        "torch bf16": lambda: torch_iteration(g.clone(), (step[0], step[1], step[2]), 5, 1e-7),
        "svdrot bf16": lambda: newton_schulz(g, KELLER_JORDAN, dtype=torch.bfloat16),
        "svdrot float32": lambda: newton_schulz(g, KELLER_JORDAN),
    }
    times, _ = medians(calls, config.device, config.rounds, config.seconds)
    row: dict[str, Any] = {"shape": f"{rows} x {columns}"}
    row |= {f"{name} ms": 1e3 * time for name, time in times.items()}
    return row | {"torch / svdrot bf16": times["torch bf16"] / times["svdrot bf16"]}


def symmetric_products(config: Config, side: int) -> dict[str, Any]:
    """Time I - X Xᵀ of one matrix on a GPU, of which Triton computes one half."""
    from svdrot._kernels.gpu import gram

    row: dict[str, Any] = {"n": side}
    for name, dtype in (("bf16", torch.bfloat16), ("float32", torch.float32)):
        x = torch.randn(1, side, side, device=config.device, dtype=dtype) / side**0.5
        one = torch.eye(side, device=config.device, dtype=dtype)
        calls: dict[str, Callable[[], object]] = {
            "torch": lambda x=x, one=one: torch.baddbmm(one, x, x.mT, alpha=-1),
            "svdrot": lambda x=x, one=one: gram.gram(x, -1.0, one, 1.0),
        }
        times, _ = medians(calls, config.device, config.rounds, config.seconds)
        row |= {f"{call} {name} ms": 1e3 * time for call, time in times.items()}
        row |= {f"torch / svdrot {name}": times["torch"] / times["svdrot"]}
    return row


def memory(side: int) -> dict[str, Any]:
    """Count the numbers kept for the backward pass of an n x n matrix, in units of n²."""

    def kept(f: Callable[[Tensor], Tensor]) -> float:
        tensors: dict[int, int] = {}
        m = torch.randn(1, side, side, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x: tensors.__setitem__(x.data_ptr(), x.numel()) or x, lambda x: x
        ):
            f(m)
        return sum(tensors.values()) / side**2

    return {"n": side, **{name: kept(f) for name, f in FACTORS.items()}}


def run(config: Config) -> dict[str, list[dict[str, Any]]]:
    torch.manual_seed(0)
    batched = [(n, max(1, config.numbers // n**2)) for n in config.sides]
    tables = {
        "Batches, microseconds a matrix": [rotation_grade(config, *size) for size in tqdm(batched)],
        "One matrix, microseconds": [rotation_grade(config, n, 1) for n in tqdm(config.single)],
        "Distance from the exact factor, median / maximum": [errors(config, n) for n in tqdm(config.sides)],
        "Five steps of Muon, milliseconds": [
            optimizer_grade(config, *shape) for shape in tqdm(config.shapes)
        ],
        "Kept for backward, in n²": [memory(n) for n in (4, 32)],
        "Forward and backward, microseconds a matrix": [both_ways(config, *size) for size in tqdm(batched)],
    }
    if config.device == "cuda":
        sizes = tqdm(config.products)
        tables["Symmetric products, milliseconds"] = [symmetric_products(config, n) for n in sizes]
    return tables


def figure(tables: dict[str, list[dict[str, Any]]]) -> Figure:
    drawing = Figure(figsize=(10, 4), layout="constrained")
    colors = "#0072B2 #56B4E9 #E69F00 #009E73 #CC79A7 #D55E00 #000000".split()
    for axis, (title, rows) in zip(drawing.subplots(1, 2), list(tables.items())[:2], strict=True):
        sides = [row["n"] for row in rows]
        names = [name.removesuffix(" us") for name in rows[0] if name.endswith(" us")]
        for name, color in zip(names, colors, strict=False):
            times = [row[f"{name} us"] for row in rows]
            axis.loglog(sides, times, "o-", c=color, label=name, ms=4)
        axis.set(title=title, xlabel="n", xticks=sides, xticklabels=sides)
        axis.minorticks_off()
        axis.tick_params(axis="x", labelsize=7)
        axis.grid(alpha=0.3)
        axis.legend()
    return drawing


def verdict(tables: dict[str, list[dict[str, Any]]]) -> str:
    batches, single, _, muon, _, back, *_ = tables.values()
    ratios = ("SVD / svdrot", "special")
    least = {
        n: [min(r[ratio] for r in batches if a <= r["n"] <= n) for ratio in ratios]
        for a, n in ((4, 4), (8, 32))
    }
    slower = [
        f"{r['n']} ({', '.join(f'{r[ratio]:.3g}' for ratio in ratios)})"
        for r in single
        if min(r[ratio] for ratio in ratios) < 1 / 1.05
    ]
    back = min(r["SVD / svdrot"] for r in back if r["n"] > 3)
    slowest = min(r["torch / svdrot bf16"] for r in muon)
    return (
        f"Batches: {least[4][0]:.3g} times faster than by the SVD for n = 4 (expected 4), at least "
        f"{least[32][0]:.3g} times for n = 8 to 32 (expected 5); rotations {least[4][1]:.3g} and "
        f"{least[32][1]:.3g} times faster than by the SVD and a determinant. One matrix takes more than 1.05 "
        f"times as long as by the SVD for n = {'; '.join(slower) or 'none of those above'} (in brackets "
        "how many times faster the factor and the rotation are). Forward and backward are at least "
        f"{back:.3g} times faster. Five steps of Muon: at least "
        f"{slowest:.3g} times as fast as by torch."
    )


def main(config: Config) -> None:
    tables = run(config)
    shared.results.write(config.out, config, tables, figure(tables), verdict(tables))


if __name__ == "__main__":
    shared.run.main(main, Config(), __doc__)
