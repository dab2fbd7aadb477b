"""The tests that need a GPU, by pytest in a process of its own."""

import importlib.util
import os
import subprocess
import sys

from experiments.benchmarks._gpu import ROOT, Report

COST, COST_ON_CPU = 70, None
FILES = ("tests/svdrot/test_gpu.py", "tests/svdrot/engine/test_gpu_writer.py")
# Compiling for other GPUs needs none, and has been done where there is none.
CHOSEN = "not compile_with and not compiles_for_each"
OPTIONS = ("--require-gpu", "-q", "-p", "no:cacheprovider", "--tb=line", "-k", CHOSEN)


def stage(report: Report) -> None:
    for name in ("pytest", "hypothesis", "mpmath"):
        if importlib.util.find_spec(name) is None:
            report.omit(f"the GPU tests, which need {name}")
            return
    at_once = ("-n", str(min(report.config.jobs, 8))) if importlib.util.find_spec("xdist") else ()
    for file in report.each(FILES, "files of GPU tests"):
        command = [sys.executable, "-m", "pytest", file, *OPTIONS, *at_once]
        limit = max(report.remaining(), 5)
        environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
        environment["PYTHONPATH"] = str(ROOT)
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=limit
            )
            code, lines = str(done.returncode), (done.stdout + done.stderr).splitlines()
        except subprocess.TimeoutExpired as late:
            out = late.stdout or b""
            text = out.decode(errors="replace") if isinstance(out, bytes) else out
            code, lines = f"none after {limit:.0f} s", text.splitlines()
        wrong = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
        report.details.setdefault("Output of tests", []).append({"file": file, "lines": lines[-200:]})
        said = next((line.strip("= ") for line in reversed(lines) if line.strip()), "")
        report.add("GPU tests", file=file, exit=code, said=said)
        for line in wrong[:20]:
            report.add("GPU tests that fail", test=line[:300])
        report.judge(f"tests of {file}", "pass", float(code == "0"), code == "0", "Checks")
