"""compute-sanitizer and ncu on a few kernels, where they are installed."""

import os
import shutil
import subprocess
import sys

from experiments.benchmarks._gpu import ROOT, Report

COST, COST_ON_CPU = 29, None
CODE = """
import torch, svdrot
m = torch.randn(100_003, 3, 3, device="cuda", requires_grad=True)
x = torch.randn(5, 1000, 3, device="cuda", requires_grad=True)
fit = svdrot.registration.kabsch(x, x.detach().flip(-1))
distances, _ = svdrot.registration.nearest(x.detach()[0], x.detach()[1])
(svdrot.special_orthogonalize(m).sum() + fit.rotation.sum()).backward()
torch.cuda.synchronize()
"""
METRICS = ("gpu__time_duration.sum", "dram__throughput.avg.pct_of_peak_sustained_elapsed")
TOOLS = {
    "compute-sanitizer": ("--tool", "memcheck", "--error-exitcode", "9"),
    "ncu": ("--metrics", ",".join(METRICS), "--kernel-name", "regex:map_.*|_moments.*|_nearest.*"),
}


def stage(report: Report) -> None:
    for name in report.each(TOOLS, "tools"):
        if not (program := shutil.which(name)):
            report.omit(f"{name}, which is not installed")
            continue
        command = [program, *TOOLS[name], sys.executable, "-c", CODE]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        limit = max(report.remaining() / 2 if name != [*TOOLS][-1] else report.remaining(), 1)
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=limit
            )
        except subprocess.TimeoutExpired:
            report.add("Tools", tool=name, exit=f"none after {limit:.0f} s", said="")
            continue
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        report.details.setdefault("Output of tools", []).append({"tool": name, "lines": lines[-300:]})
        told = [line for line in lines if "ERROR SUMMARY" in line or "dram__throughput" in line]
        said = "; ".join(" ".join(line.split()) for line in told)[:300]
        report.add("Tools", tool=name, exit=str(done.returncode), said=said)
        if name == "compute-sanitizer":
            code = done.returncode
            report.judge("exit code of compute-sanitizer", "0", code, code == 0, "Checks")
