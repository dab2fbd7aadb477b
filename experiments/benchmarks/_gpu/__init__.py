"""Stages of the GPU benchmark, a file each, in the order in which they run; and what all of them report to.

A stage is a module with `stage(report)`, `COST` and `COST_ON_CPU`: seconds that it is expected to take, which
are also what its loops may take; None where there is no form of it for CPUs. What does not fit into the time
that is left is not begun, and named.
"""

import contextlib
import gc
import importlib
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, TypeVar, get_args

import torch

from experiments.shared import results
from experiments.shared.settings import Count, Device, Out, Positive, Settings, Threads

Stage = Literal[
    "versions",
    "compilation",
    "tests",
    "accuracy",
    "offsets",
    "parity",
    "captures",
    "speed",
    "host",
    "pairs",
    "iteration",
    "memory",
    "precision",
    "tools",
]
STAGES: tuple[Stage, ...] = get_args(Stage)
JOBS = min(12, os.cpu_count() or 1)
WRITING = 10.0  # seconds that are kept for tables and the figure
# What a GPU is asked for, by how the names of its rows begin.
TARGETS = (
    "projection, forward",
    "projection, backward",
    "projection beside torch SVD",
    *(f"polar factor {n} x {n}" for n in (4, 8, 16, 32)),
    "kabsch beside roma",
)
ROOT = Path(__file__).resolve().parents[3]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Config(Settings):
    device: Device = "cuda" if torch.cuda.is_available() else "cpu"
    """cpu or cuda."""
    stages: tuple[Stage, ...] = STAGES
    """All there are, by default."""
    seconds: Positive = 480.0
    """In all: what would begin too late is left out."""
    jobs: Threads = JOBS
    """Processes that compile."""
    resume: bool = False
    """Keep the tables that the folder has: the rest of a run whose GPU had to be begun anew."""
    out: Out = Path("runs/benchmarks/gpu")


@dataclass(frozen=True)
class Sizes:
    """How much of everything: `ON_GPU` for a GPU, `ON_CPU` for a CPU."""

    copies: tuple[Count, ...]  # bytes
    matrices: Count  # whose projection is compared with float64, in portions
    portion: Count
    offsets: Count  # matrices whose entries int32 cannot count
    speeds: tuple[Count, ...]  # rows
    svd: Count  # rows that torch's decomposition is timed for, at most
    squares: tuple[Count, ...]  # sides of larger factors, of which there are `factors`
    factors: Count
    rows: Count  # of maps that are timed, and of errors of maps `samples`
    samples: Count
    clouds: Count  # of 64 points
    points: Count  # of ICP; queries of neighbors, among four times as many
    sides: tuple[Count, ...]  # of Newton-Schulz
    rounds: Count
    pause: float  # seconds that a time may take
    maps: tuple[str, ...]  # all there are where there is none
    functions: tuple[str, ...]  # likewise


ON_GPU = Sizes(
    copies=(1 << 20, 1 << 26, 1 << 30, 1 << 32),
    matrices=1 << 20,
    portion=1 << 18,
    offsets=(1 << 28) + 3,
    speeds=tuple(1 << k for k in (22, 16, 20, 18, 12, 6, 8, 10, 14)),  # the most telling first
    svd=1 << 18,
    squares=(4, 8, 16, 32),
    factors=1 << 14,
    rows=1 << 22,
    samples=4096,
    clouds=1024,
    points=1 << 14,
    sides=(1024, 4096),
    rounds=30,
    pause=0.5,
    maps=(),
    functions=(),
)
ON_CPU = Sizes(
    copies=(1 << 20,),
    matrices=2048,
    portion=1024,
    offsets=4099,
    speeds=(1 << 6, 1 << 10),
    svd=1 << 8,
    squares=(4,),
    factors=16,
    rows=256,
    samples=200,
    clouds=16,
    points=64,
    sides=(64,),
    rounds=3,
    pause=0.02,
    maps=("axis_angle_to_matrix", "geodesic_distance"),
    functions=("svdrot.special_orthogonalize", "svdrot.slerp", "svdrot.registration.kabsch"),
)


@dataclass
class Report:
    """What is known so far, on disk after each row."""

    config: Config
    sizes: Sizes
    start: float = field(default_factory=perf_counter)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    details: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # in results.json alone
    left_out: list[str] = field(default_factory=list)
    running: str = ""
    written: float = -1.0
    end: float = float("inf")  # of the stage, on the clock of `elapsed`

    @property
    def gpu(self) -> bool:
        return self.config.device == "cuda"

    def elapsed(self) -> float:
        return perf_counter() - self.start

    def remaining(self) -> float:
        """Return the seconds that are left to the stage."""
        return min(self.end, self.config.seconds - WRITING) - self.elapsed()

    def add(self, table: str, **row: Any) -> None:
        self.tables.setdefault(table, []).append(row)
        if self.elapsed() - self.written > 0.5:  # which takes a moment, and the device waits
            self.flush(f"Unfinished, in {self.running or 'the beginning'}.")

    def judge(self, what: str, wanted: str, found: float, met: bool, table: str = "Targets") -> None:
        """Say whether a number is what was wanted; where there is no GPU, nothing is said."""
        if self.gpu:
            self.add(table, target=what, wanted=wanted, found=found, judged="met" if met else "NOT MET")

    def omit(self, what: str) -> None:
        self.left_out.append(what)

    def each(self, items: Iterable[Item], what: str) -> Iterator[Item]:
        """Yield items until the time of the stage is over; name how many are left out then."""
        items = list(items)
        for k, item in enumerate(items):
            if self.remaining() < 0:
                self.omit(
                    f"{len(items) - k} of {len(items)} {what}, from {_named(item)} on, for want of time"
                )
                return
            yield item

    def flush(self, verdict: str) -> None:
        self.written = self.elapsed()
        more = {"left_out": self.left_out, "details": self.details, "seconds": self.elapsed()}
        results.record(self.config.out, self.config, self.tables, verdict, **more)


def _named(item: Any) -> str:
    return " ".join(map(str, item)) if isinstance(item, tuple) else str(item)


# One after the other --------------------------------------------------------------------------------------


def run(report: Report, name: str) -> bool:
    """Run a stage, if there is time, and write what went wrong; False if the device is lost after it."""
    module = importlib.import_module(f"{__name__}.{name}")
    cost = module.COST if report.gpu else module.COST_ON_CPU
    if cost is None:
        report.omit(f"{name}: it takes a GPU")
        return True
    if report.elapsed() + cost + WRITING > report.config.seconds:
        report.omit(f"{name}: it would end too late")
        return True
    # Loops end by themselves, and what does not has as long again; the last stage has what is left.
    left = report.config.seconds - WRITING - report.elapsed()
    last = report.gpu and name == report.config.stages[-1]
    start, limit = report.elapsed(), left if last else min(2 * cost + 5, left)
    report.running, report.end = name, start + (left if last else cost)
    print(f"{report.elapsed():6.1f} s  {name}", flush=True)
    try:
        with _ended_after(limit):
            module.stage(report)
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        report.add("What failed", stage=name, error=said)
    report.running, took = "", report.elapsed() - start
    report.details.setdefault("Stages", []).append({"stage": name, "expected s": cost, "s": took})
    sound = _free(report)
    report.flush(f"Unfinished, after {name}.")
    return sound


def _free(report: Report) -> bool:
    """Give back memory, and settings of torch's; False if the device does not answer any more."""
    gc.collect()
    if not report.gpu:
        return True
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        report.add("What failed", stage="the device, which is begun anew", error=said)
        return False
    return True


@contextlib.contextmanager
def _ended_after(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block; calls into C end first, and other systems have no such clock."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_: Any) -> None:
        raise TimeoutError(f"it was ended after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.1))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
