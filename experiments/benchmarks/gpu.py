"""Do the kernels of a GPU give what those of the CPU give, in one launch each way, at the speed of memory?

All maps that the library declares as formulas: values and gradients beside float64 on the CPU, kernels that a
forward and a backward launch, and times beside a copy of the same bytes and beside roma 1.8.0, taking turns.
Errors are in units of what roundings of the arguments change plus one rounding of the result, the largest of
all rows. The files are written again after each map, so that a run that is killed leaves what it had.

Without a GPU errors alone are there, of few rows, by Triton's interpreter.

Expected: errors of at most 4 units, one kernel each way, and forward 70 % of the speed of the copy for 2^22
rows of float32.

    python -m experiments.benchmarks.gpu            four minutes at most

The results of a GPU are published with --out experiments/results/benchmarks/gpu_NAME after its name.
"""

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.figure import Figure

from experiments import shared
from experiments.benchmarks import _maps
from experiments.shared.settings import Count, Device, Out, Positive, Settings
from experiments.shared.statistics import met
from experiments.shared.timing import medians
from svdrot.engine import cpu
from svdrot.engine.maps import Map
from svdrot.engine.program import Program

PASSES = ("forward", "forward + backward")
COLORS = {"svdrot": "#0072B2", "roma": "#D55E00"}
UNITS, SHARE = 4.0, 0.7  # what is expected
DRAWS = 16  # roundings of the arguments
REDUCED = "No GPU: errors alone, by Triton's interpreter on the CPU; no launches, no times."


@dataclass(frozen=True)
class Config(Settings):
    device: Device = "cuda" if torch.cuda.is_available() else "cpu"
    """cpu or cuda."""
    maps: tuple[str, ...] = tuple(_maps.maps())
    """All there are, by default."""
    dtypes: tuple[Literal["bfloat16", "float32", "float64"], ...] = ("float32", "float64", "bfloat16")
    """For errors; times are of the first."""
    batches: tuple[Count, ...] = (1 << 22, 4096)
    """Rows of a call that is timed, the most telling first."""
    rounds: Count = 50
    """At most, for each time."""
    seconds: Positive = 220.0
    """In all: what would begin later is left out."""
    out: Out = Path("runs/benchmarks/gpu")

    def __post_init__(self):
        super().__post_init__()
        known = _maps.maps()
        for name in self.maps:
            if name not in known:
                raise ValueError(f"`maps` must be among {', '.join(known)}; got {name}.")


@dataclass
class Report:
    """What is known so far, on disk after each row."""

    config: Config
    start: float = field(default_factory=perf_counter)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def add(self, table: str, row: dict[str, Any]) -> None:
        self.tables.setdefault(table, []).append(row)
        shared.results.record(
            self.config.out, self.config, self.tables, "Unfinished.", left_out=self.left_out
        )

    def maps(self, stage: str, share: float) -> Iterator[tuple[str, Map]]:
        """Yield the maps one by one, until this share of the time is over."""
        known = _maps.maps()
        for name in self.config.maps:
            if perf_counter() - self.start > share * self.config.seconds:
                self.left_out.append(f"{stage} of {name}")
            else:
                yield name, known[name]


def versions(report: Report) -> None:
    row = {}
    for name in ("torch", "triton", "roma", "numpy", "llvmlite"):
        try:
            row[name] = version(name)
        except PackageNotFoundError:
            row[name] = "none"
    if report.config.device == "cuda":
        about = torch.cuda.get_device_properties(0)
        runtime = torch.version.cuda or torch.version.hip or ""
        row |= {"GPU": about.name, "memory GiB": about.total_memory / 2**30, "runtime": runtime}
    report.add("Versions", row)


# Errors ---------------------------------------------------------------------------------------------------


def parity(report: Report) -> None:
    """Compare values and gradients of the kernels, run directly, with float64 on the CPU."""
    device, dtypes = report.config.device, report.config.dtypes
    if device == "cuda":
        for name, _ in report.maps("errors", 0.4):
            report.add("Errors", errors(name, dtypes, "cuda", 4096))
        return
    dtypes = tuple(dtype for dtype in dtypes if dtype != "bfloat16")  # interpreted it is cut off, not rounded
    with interpreter() as pool:
        for name, _ in report.maps("errors", 0.9):
            report.add("Errors", pool.submit(errors, name, dtypes, "cpu", 200).result())


@contextlib.contextmanager
def interpreter() -> Iterator[ProcessPoolExecutor]:
    """Start a process in which Triton interprets: torch has imported it here, and it decides on import."""
    before = os.environ.get("TRITON_INTERPRET")
    os.environ["TRITON_INTERPRET"] = "1"
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            yield pool
    finally:
        if before is None:
            del os.environ["TRITON_INTERPRET"]


def errors(name: str, dtypes: Sequence[str], device: str, batch: int) -> dict[str, Any]:
    m = _maps.maps()[name]
    programs = {"value": m.program, "gradient": _maps.gradient(m)}
    found = {
        f"{which}, {dtype}": units(program, getattr(torch, dtype), device, batch)
        for which, program in programs.items()
        for dtype in dtypes
    }
    return {"map": name, **found}


def units(program: Program, dtype: torch.dtype, device: str, batch: int) -> float:
    from svdrot.engine import gpu  # Triton, which not every machine has

    x = _maps.drawn(program, batch, "cpu", dtype)
    with np.errstate(all="ignore"):  # the interpreter's numpy warns of 1 / 0
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
        worst = max(worst, ((y - result).abs() / (change + torch.finfo(dtype).eps * size)).max().item())
    return worst


# Launches -------------------------------------------------------------------------------------------------


def launches(report: Report) -> None:
    """Count the kernels that torch's profiler sees, forward and backward."""
    for name, m in report.maps("launches", 0.5):
        x = [t.requires_grad_() for t in _maps.drawn(m.program, 1000, report.config.device, torch.float32)]
        row: dict[str, Any] = {"map": name}
        backward(m, x)()  # compiles
        for which, call in zip(PASSES, (lambda m=m, x=x: m(*x), backward(m, x)), strict=True):
            torch.cuda.synchronize()
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
                call()
                torch.cuda.synchronize()
            row[which] = sum(event.device_type.name == "CUDA" for event in profile.events() or ())
        report.add("Launches", row)


def backward(f: Callable[..., Any], x: list[torch.Tensor]) -> Callable[[], object]:
    w = torch.randn_like(f(*x))
    return lambda: torch.autograd.grad(f(*x), x, w)


# Times ----------------------------------------------------------------------------------------------------


def times(report: Report) -> None:
    config = report.config
    dtype = getattr(torch, config.dtypes[0])
    for batch in config.batches:
        for name, m in report.maps(f"times of {batch:,} rows", 1.0):
            for which in PASSES:
                calls = contestants(name, m, which, batch, dtype, config.device)
                cells = 2 * len(config.maps) * len(config.batches)
                found, rounds = medians(calls, config.device, config.rounds, 0.4 * config.seconds / cells)
                ours = found["svdrot"]
                row: dict[str, Any] = {"map": name, "pass": which, "rows": batch, "µs": 1e6 * ours}
                row |= {"of the copy's speed": found["copy"] / ours}
                row |= {"roma / svdrot": found["roma"] / ours if "roma" in found else "–", "rounds": rounds}
                report.add("Times", row)


def contestants(
    name: str, m: Map, which: str, batch: int, dtype: torch.dtype, device: str
) -> dict[str, Callable[[], object]]:
    x = _maps.drawn(m.program, batch, device, dtype)
    given, results = (sum(t[0].numel() for t in group) for group in (x, [m(*x)]))
    # Read and written: arguments and results; with backward, once more those, cotangents and gradients.
    moved = given + results if which == PASSES[0] else 3 * given + 2 * results
    source = torch.zeros(batch * moved // 2, device=device, dtype=dtype)
    target = torch.empty_like(source)
    calls: dict[str, Callable[[], object]] = {"copy": lambda: target.copy_(source)}
    functions: dict[str, Callable[..., Any]] = {"svdrot": m}
    if name in (peers := _maps.of_roma()):
        functions["roma"] = peers[name]
    for who, f in functions.items():
        if which == PASSES[0]:
            calls[who] = lambda f=f: f(*x)
        else:
            with contextlib.suppress(torch.OutOfMemoryError):
                calls[who] = backward(f, [t.clone().requires_grad_() for t in x])
    return calls


# What is said of it ---------------------------------------------------------------------------------------


def verdict(report: Report) -> str:
    tables = report.tables
    errors = [v for row in tables.get("Errors", []) for k, v in row.items() if k != "map"]
    said = []
    if errors:
        said.append(f"Errors of {max(errors):.2g} units at most: {met(max(errors) <= UNITS)}.")
    if "Launches" in tables:
        one = all((row[PASSES[0]], row[PASSES[1]]) == (1, 2) for row in tables["Launches"])
        said.append(f"One kernel each way: {met(one)}.")
    large = [
        row["of the copy's speed"]
        for row in tables.get("Times", [])
        if row["pass"] == PASSES[0] and row["rows"] == max(report.config.batches)
    ]
    if large:
        said.append(f"{min(large):.0%} of the copy's speed at least: {met(min(large) >= SHARE)}.")
    if report.config.device == "cpu":
        said.append(REDUCED)
    if report.left_out:
        said.append(f"Left out for want of time: {', '.join(report.left_out)}.")
    return " ".join(said)


def figure(report: Report) -> Figure:
    """Draw the errors, and the speed of the largest batch, forward, beside a copy."""
    rows = report.tables.get("Times", [])
    panel = Figure(figsize=(10 if rows else 6, 5), layout="constrained")
    axes = np.atleast_1d(panel.subplots(1, 2 if rows else 1))
    errors = report.tables.get("Errors", [])
    for which, color in (("value", COLORS["svdrot"]), ("gradient", COLORS["roma"])):
        cells = [
            (row["map"], v) for row in errors for k, v in row.items() if k.startswith(which) and "32" in k
        ]
        if cells:
            axes[0].plot(*zip(*[(v, k) for k, v in cells], strict=True), "o", color=color, label=which)
    axes[0].axvline(UNITS, color="#444444", lw=0.8, ls="--")
    axes[0].set(xlabel="largest error of float32, units", xlim=(0, None))
    axes[0].legend()
    if rows:
        large = [r for r in rows if r["pass"] == PASSES[0] and r["rows"] == max(report.config.batches)]
        axes[1].barh(
            [r["map"] for r in large], [r["of the copy's speed"] for r in large], color=COLORS["svdrot"]
        )
        axes[1].axvline(SHARE, color="#444444", lw=0.8, ls="--")
        axes[1].set(xlabel="of the copy's speed, forward")
    for axis in axes:
        axis.invert_yaxis()
        axis.grid(alpha=0.3, axis="x")
    return panel


def main(config: Config) -> None:
    report = Report(config)
    try:
        import triton  # noqa: F401
    except ImportError as error:
        raise shared.run.UserError(f"this needs Triton, which does not load: {error}.") from error
    if config.device == "cpu":
        print(REDUCED)
    versions(report)
    parity(report)
    if config.device == "cuda":
        launches(report)
        times(report)
    shared.results.write(config.out, config, report.tables, figure(report), verdict(report))


if __name__ == "__main__":
    shared.run.main(main, Config(), __doc__)
