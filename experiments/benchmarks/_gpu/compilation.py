"""Compile everything in parallel, so that the stages after this one find kernels on disk.

On a CPU two kernels are compiled for an H200, which needs no GPU.
"""

import sys
from time import perf_counter

import torch

from experiments.benchmarks import _calls
from experiments.benchmarks._gpu import Report

COST, COST_ON_CPU = 55, 10
DTYPES = ("float32", "float64")


def stage(report: Report) -> None:
    if not report.gpu:
        offline(report)
        return
    start = perf_counter()
    todo = [(*each, dtype) for dtype in DTYPES for each in _calls.functions(report.sizes.functions)]
    jobs, found, failed = report.config.jobs, [], []
    for name, size, dtype, took, error in _calls.in_parallel(called, todo, report):
        found.append((took, f"{name} {size} {dtype}"))
        if error:
            failed.append({"function": name, "size": size, "dtype": dtype, "error": error})
    slowest, name = max(found, default=(0.0, "none"))
    row = {"calls": len(found), "of": len(todo), "processes": jobs, "s": perf_counter() - start}
    row |= {"slowest": name, "its s": slowest, "failed": len(failed)}
    for each in failed:
        report.details.setdefault("Failed calls", []).append(each)
    for each in failed[:20]:
        report.add("Failed calls", **each)
    report.add("Compilation", **row)


def called(name: str, size: int, dtype: str) -> tuple[str, int, str, float, str]:
    """Call a function forward and backward; seconds, and what went wrong."""
    start, error = perf_counter(), ""
    try:
        _calls.made(name, size, getattr(torch, dtype), "cuda").both()
        torch.cuda.synchronize()
    except Exception as wrong:
        error = " ".join(f"{type(wrong).__name__}: {wrong}".split())[:300]
    return name, size, dtype, perf_counter() - start, error


def offline(report: Report) -> None:
    sys.path[:0] = [] if str(_calls.SUPPORT) in sys.path else [str(_calls.SUPPORT)]
    from offline_gpu import compiled  # pyright: ignore[reportMissingImports]

    options = ("--dtype=float32", "--kinds=value,vjp", "--targets=90")
    for row in compiled("formulas", report.sizes.maps[0], *options):
        shown = ("map", "kind", "target", "instructions", "registers", "local")
        report.add("Compiled without a GPU", **{name: row[name] for name in shown})
