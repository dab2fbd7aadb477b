"""What every public function would do on a GPU, counted without one: launches, waits, copies.

What is counted stands in gpu_counts.csv. More is a defect; less is written there by

    python -m tests.support.pretended_gpu --write
"""

import csv
import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="triton comes with CUDA builds of torch, and from PyPI on Linux")

TABLE = Path(__file__).parent / "gpu_counts.csv"
COUNTED_WITH = "2.13"  # of torch: another one may make other operations of the same call
# Typical arguments, which are drawn at random, determine no pose in some item of these.
AMBIGUOUS = ("svdrot.registration.icp 3", "svdrot.registration.robust_kabsch 3")

pytestmark = [
    pytest.mark.long,
    pytest.mark.xdist_group("gpu counts"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler to pretend a GPU with"),
    pytest.mark.skipif(torch.version.cuda is not None, reason="this torch has a real CUDA"),
]


@cache
def found() -> dict[str, dict]:
    """On the second GPU: what forgets to say where it is goes to the first."""
    command = [sys.executable, "-m", "tests.support.pretended_gpu", "--json", "--device", "cuda:1"]
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def allowed() -> dict[str, tuple[str, str]]:
    with TABLE.open() as file:
        return {f"{r['function']} {r['size']}": (r["forward"], r["backward"]) for r in csv.DictReader(file)}


def numbers(cell: str) -> list[int]:
    return [] if cell == "-" else [int(word) for word in cell.split()]


def test_every_function_runs_on_any_gpu_and_gives_what_the_cpu_gives():
    wrong = {name: row for name, row in found().items() if "forward" not in row or row["elsewhere"]}
    assert not wrong
    off = {name: row["error"] for name, row in found().items() if not row["error"] <= 1e-4}
    assert set(off) <= set(AMBIGUOUS), off


def test_nothing_launches_waits_or_copies_more_than_it_did():
    table, more = allowed(), []
    assert set(table) == set(found()), "the table of counts is of other functions: write it anew"
    if not torch.__version__.startswith(COUNTED_WITH):
        pytest.skip(f"counted with torch {COUNTED_WITH}")
    for name, row in found().items():
        for which, cell in zip(("forward", "backward"), table[name], strict=True):
            known, now = numbers(cell), row[which] or []
            if len(known) != len(now) or any(n > k for n, k in zip(now, known, strict=True)):
                more.append(f"{name}, {which}: {now}, {known} in the table")
    assert not more, "\n".join(more)


def test_maps_are_one_kernel_each_way():
    """All that the engine makes, which are most."""
    one = [name for name, row in found().items() if row["forward"] == row["backward"] == [1, 0, 0]]
    assert len(one) > 150
    assert {"svdrot.special_orthogonalize 3", "svdrot.slerp 3", "svdrot.se3_log 3"} <= set(one)
