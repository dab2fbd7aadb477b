"""All public functions on both devices: values and gradients of typical calls.

On a CPU a few of them, in a process that pretends to have a GPU.
"""

import json
import math
import os
import shutil
import subprocess
import sys
from typing import Any

import torch

from experiments.benchmarks import _calls
from experiments.benchmarks._gpu import ROOT, Report

COST, COST_ON_CPU = 35, 30
RANDOM = "draws at random"
# Relative to the largest number of a result. Not all calls are well conditioned: refining a factor that
# is not near loses five digits.
LIMITS = {"float32": 1e3 * 2.0**-23, "float64": 1e6 * 2.0**-52}


def stage(report: Report) -> None:
    if not report.gpu:
        pretended(report)
        return
    report.omit("parity of heads, whose weights are on the CPU in the typical call")
    todo = [(*each, dtype) for dtype in LIMITS for each in _calls.functions(report.sizes.functions)]
    rows = []
    for row in _calls.in_parallel(both_sides, todo, report):
        rows.append(row)
        report.details.setdefault("Parity", []).append(row)
    for dtype, limit in LIMITS.items():
        mine = [row for row in rows if row["dtype"] == dtype]
        wrong = [row for row in mine if row["note"] != RANDOM and not row["difference"] <= limit]
        off = sum(row["function"] not in _calls.AMBIGUOUS for row in wrong)
        for row in wrong[:30]:
            report.add("Not the same on both devices", **row)
        report.add("Parity", dtype=dtype, functions=len(mine), differ=off, limit=limit)
        report.judge(f"functions that differ, {dtype}", "0", off, off == 0 and bool(mine), "Checks")


def both_sides(name: str, size: int, dtype: str) -> dict[str, Any]:
    """The difference of results and gradients; infinite where one side raises."""
    row: dict[str, Any] = {"function": name, "size": size, "dtype": dtype, "difference": math.inf}
    note = "determines no pose" if name in _calls.AMBIGUOUS else ""
    stored = getattr(torch, dtype)
    try:
        if _calls.draws(name, size, stored, "cuda"):
            note = RANDOM
        sides = [_calls.made(name, size, stored, device).both() for device in ("cpu", "cuda")]
    except Exception as error:
        return {**row, "note": " ".join(f"{type(error).__name__}: {error}".split())[:200]}
    return {**row, "difference": _calls.difference(*sides), "note": note}


def pretended(report: Report) -> None:
    if shutil.which("g++") is None or torch.version.cuda is not None:
        report.omit("parity, for which a GPU is pretended by g++ and a torch without CUDA")
        return
    command = [sys.executable, "-m", "tests.support.pretended_gpu", "--json", *report.sizes.functions]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    limit = 2.0 * COST_ON_CPU
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=limit, check=True
    )
    for name, row in json.loads(done.stdout).items():
        report.add("Parity with a pretended GPU", function=name, difference=row["error"])
