"""Typical calls of all public functions, as the tests make them, on a device."""

import concurrent.futures
import contextlib
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from experiments.benchmarks._gpu import Report

SUPPORT = Path(__file__).resolve().parents[2] / "tests" / "support"
WEIGHTS = "Head.forward"  # what ends so has weights, which are on the CPU in these calls
# Typical arguments, which are drawn at random, determine no pose in some item of these.
AMBIGUOUS = ("svdrot.registration.icp", "svdrot.registration.robust_kabsch")


def _typical() -> Any:
    if str(SUPPORT) not in sys.path:
        sys.path.insert(0, str(SUPPORT))
    import typical  # pyright: ignore[reportMissingImports]

    return typical


@cache
def functions(names: tuple[str, ...] = ()) -> list[tuple[str, int]]:
    """Return functions that take tensors, all by default, with sizes: points and matrices of any size are
    also of one without a formula."""
    typical = _typical()
    sized = {*typical.of_any_size()}
    known = [name for name in typical.found() if not names or name in names]
    known = [name for name in known if not name.endswith(WEIGHTS)]
    known = [name for name in known if typical.Typical(name).tensors]
    return [(name, size) for name in known for size in (3, 4)[: 1 + (name in sized)]]


@dataclass
class Made:
    """A function and arguments: tensors of the device, which want gradients where they can."""

    function: Any
    tensors: list[Tensor]
    ones: list[Tensor] | None = None  # cotangents, which are made once: that is a launch, too

    def forward(self) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return self.function(*self.tensors)

    def both(self) -> tuple[Tensor, ...]:
        """Return results and gradients of their sum; those that there are."""
        results = self.function(*self.tensors)
        roots, leaves = [r for r in results if r.requires_grad], [t for t in self.tensors if t.requires_grad]
        if not roots or not leaves:
            return results
        if self.ones is None:
            self.ones = [torch.ones_like(r) for r in roots]
        found = torch.autograd.grad(roots, leaves, self.ones, allow_unused=True)
        return (*(r.detach() for r in results), *(g for g in found if g is not None))


def made(name: str, size: int, dtype: torch.dtype, device: str, seed: int = 0) -> Made:
    function = _typical().Typical(name, dtype=dtype, size=size, seed=seed)
    # An expanded tensor could not be written to, as a replay on other arguments asks for.
    there = [t.detach().to(device).contiguous() for t in function.tensors]
    return Made(function, [t.requires_grad_(t.is_floating_point()) for t in there])


def draws(name: str, size: int, dtype: torch.dtype, device: str) -> bool:
    """Whether a function draws at random, so that no two devices agree."""
    found = []
    with contextlib.suppress(Exception):
        for seed in (0, 1):
            torch.manual_seed(seed)
            found.append(made(name, size, dtype, device).forward())
        return difference(*found) > 0
    return False


def difference(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> float:
    """Return the largest difference, relative to the largest number of each; infinite for other shapes."""
    if len(a) != len(b):
        return float("inf")
    worst = 0.0
    for x, y in zip(a, b, strict=True):
        x, y = x.detach().cpu().double(), y.detach().cpu().double()
        if x.shape != y.shape or not torch.equal(x.isnan(), y.isnan()):
            return float("inf")
        if x.numel():
            size = x.abs().nan_to_num(0, 0, 0).max().item() or 1
            off = torch.where(x == y, 0, (x - y).abs()).nan_to_num(0, float("inf"))
            worst = max(worst, off.max().item() / size)
    return worst


# Many at once ---------------------------------------------------------------------------------------------

Found = TypeVar("Found")


def in_parallel(work: Callable[..., Found], todo: list[tuple[Any, ...]], report: Report) -> Iterator[Found]:
    """Yield what `work` finds of each, from processes, until the time of the stage is over."""
    jobs = report.config.jobs
    if jobs == 1:
        for each in report.each(todo, "calls"):
            yield work(*each)
        return
    # Small portions: some functions take a hundred times as long as others. A fork would share the device.
    portions = [todo[k : k + 4] for k in range(0, len(todo), 4)]
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"))
    done = 0
    try:
        waiting = [pool.submit(_portion, work, portion) for portion in portions]
        for each in as_completed(waiting, timeout=max(report.remaining(), 1)):
            done += 1
            yield from each.result()
    except concurrent.futures.TimeoutError:
        report.omit(f"{len(portions) - done} of {len(portions)} portions of calls: for want of time")
    finally:
        for process in list((pool._processes or {}).values()):
            process.terminate()  # what is not done would hold the device
        pool.shutdown(wait=True, cancel_futures=True)


def _portion(work: Callable[..., Found], portion: list[tuple[Any, ...]]) -> list[Found]:
    torch.set_num_threads(1)
    return [work(*each) for each in portion]
