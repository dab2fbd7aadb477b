"""Each public function as a CUDA graph, and what it launches and waits for, by the profiler.

A function that waits cannot be captured, and is named. Graphs are replayed on other arguments than those they
were captured with.
"""

import csv
from typing import Any

import torch

from experiments.benchmarks import _calls, _device
from experiments.benchmarks._gpu import ROOT, Report

COST, COST_ON_CPU = 45, None
COUNTED = ROOT / "tests" / "svdrot" / "gpu_counts.csv"
LIMIT = 1e-5  # of a replay beside the call itself, both in float32


def stage(report: Report) -> None:
    allowed = counted()
    rows = []
    for name, size in report.each(_calls.functions(report.sizes.functions), "functions to capture"):
        try:
            row = shown(name, size)
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            row = {"launches": -1, "with backward": -1, "waits": -1, "captured": said}
            torch.cuda.synchronize()  # raises where the device is lost
        more = row["with backward"] - allowed.get((name, size), row["with backward"])
        row = {"function": name, "size": size, **row, "more launches than counted": more}
        rows.append(row)
        report.details.setdefault("Captures", []).append(row)
        if row["captured"] not in ("yes", "it waits") or more > 0:
            report.add("Captures that need a look", **row)
    maps = [row for row in rows if (row["launches"], row["with backward"]) == (1, 2)]
    yes = sum(row["captured"] == "yes" for row in rows)
    waits = sum(row["captured"] == "it waits" for row in rows)
    summary = {"functions": len(rows), "captured": yes, "wait": waits, "one kernel each way": len(maps)}
    report.add("Captures", **summary)
    report.judge("captured, of those that do not wait", "all", yes, yes == len(rows) - waits, "Checks")


def counted() -> dict[tuple[str, int], int]:
    """Launches forward and backward as they were counted without a GPU; library calls may be several."""
    with COUNTED.open() as file:
        rows = [*csv.DictReader(file)]
    return {
        (row["function"], int(row["size"])): sum(
            int(cell.split()[0]) for cell in (row["forward"], row["backward"]) if cell != "-"
        )
        for row in rows
    }


def shown(name: str, size: int) -> dict[str, Any]:
    made = _calls.made(name, size, torch.float32, "cuda")
    made.both()  # compiles, and makes what is kept
    row: dict[str, Any] = {
        "launches": _device.launches(made.forward),
        "with backward": _device.launches(made.both),
        "waits": _device.waits(made.both),
    }
    return {**row, "captured": "it waits" if row["waits"] else replayed(name, size, made)}


def replayed(name: str, size: int, made: _calls.Made) -> str:
    """Capture a call, replay it on other arguments, and compare it with the call."""
    torch.manual_seed(0)
    graph, results = _device.captured(made.both)
    other = _calls.made(name, size, torch.float32, "cuda", seed=1)
    with torch.no_grad():
        for mine, its in zip(made.tensors, other.tensors, strict=True):
            if mine.shape == its.shape:
                mine.copy_(its)
    graph.replay()
    torch.cuda.synchronize()
    if _calls.draws(name, size, torch.float32, "cuda"):
        return "yes"
    off = _calls.difference(results, made.both())
    return "yes" if off <= LIMIT else f"off by {off:.2g}"
