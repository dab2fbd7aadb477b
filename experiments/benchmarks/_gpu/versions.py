"""What is measured on: versions, the device, and how fast it copies."""

import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version

import torch

from experiments.benchmarks._device import Call
from experiments.benchmarks._gpu import Report
from experiments.shared.timing import medians

COST, COST_ON_CPU = 8, 4
NAMES = ("torch", "triton", "numpy", "llvmlite", "numba", "roma", "matplotlib", "pytest")


def stage(report: Report) -> None:
    row = {name: _version(name) for name in NAMES}
    for name in ("roma", "matplotlib", "pytest"):
        if row[name] == "none":
            report.omit(f"whatever takes {name}, which is not installed")
    if report.gpu:
        about = torch.cuda.get_device_properties(0)
        row |= {"GPU": about.name, "memory GiB": f"{about.total_memory / 2**30:.1f}"}
        row |= {"runtime": str(torch.version.cuda or torch.version.hip), "driver and clocks": _driver()}
    report.add("Versions", **row)
    for size in report.each(report.sizes.copies, "sizes of copies"):
        source = torch.zeros(size // 4, device=report.config.device)
        target = torch.empty_like(source)
        calls: dict[str, Call] = {"copy": lambda target=target, source=source: target.copy_(source)}
        found, _ = medians(calls, report.config.device, report.sizes.rounds, report.sizes.pause)
        report.add("Copy", MiB=size / 2**20, **{"GB/s, read and written": 2e-9 * size / found["copy"]})


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _driver() -> str:
    if not shutil.which("nvidia-smi"):
        return "unknown"
    asked = "--query-gpu=driver_version,clocks.max.sm,clocks.max.mem,power.limit"
    done = subprocess.run(
        ["nvidia-smi", asked, "--format=csv,noheader"], capture_output=True, text=True, timeout=20
    )
    return done.stdout.strip() or "unknown"
