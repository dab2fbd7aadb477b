"""Is the library right and fast on a GPU? All that takes a GPU to know, in one command of eight minutes.

Stages, of `_gpu/`, run one after the other: versions and the speed of copies; everything compiled in
parallel; the GPU tests; errors of projections and maps; more matrices than int32 counts; parity of all public
functions with the CPU; each as a CUDA graph, with launches and waits; speed beside a copy, torch and roma;
what the host costs, eager, compiled and as a graph; pairs, ICP and neighbors; Newton-Schulz and Muon; peak
memory; autocast and TF32; compute-sanitizer and ncu. It needs torch, Triton, numpy and what svdrot itself
does, no network and no data. What is missing, what there is no time for and what fails is named, and the rest
goes on; results.json is written again after each row, so that a deadline loses only what came after.

Without a GPU a few of each, by Triton's interpreter and the kernels of the CPU: no target is judged then.

Expected on one H200: forward and backward of 2^22 projections in float32 at 85 % of the speed of a copy, 2^16
projections 100 times as fast as `torch.linalg.svd`, polar factors faster than gesvdjBatched at n = 4 ... 32,
1,024 alignments of 64 points 10 times as fast as roma.

    python -m experiments.benchmarks.gpu --out FOLDER           eight minutes at most
    python -m experiments.benchmarks.gpu --device cpu           a minute

The results of a GPU are published with --out experiments/results/benchmarks/gpu_NAME after its name.
"""

import argparse
import json
import os
import sys
import threading
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from experiments import shared
from experiments.benchmarks import _gpu
from experiments.benchmarks._gpu import ON_CPU, ON_GPU, STAGES, TARGETS, Config, Report, Sizes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNMEASURED = "not measured"
NO_GPU = "No GPU: a few of each, by Triton's interpreter and on the CPU; no target is judged."


def main(config: Config, sizes: Sizes | None = None) -> None:
    report = Report(config, sizes or (ON_GPU if config.device == "cuda" else ON_CPU))
    if config.resume:
        resume(report)
    if config.device == "cpu":
        print(NO_GPU)
    elif sizes is None:
        torch.cuda.init()
    watch = threading.Timer(config.seconds - report.elapsed(), give_up, [report])
    watch.daemon = True
    watch.start()
    try:
        for k, name in enumerate(config.stages):
            if not _gpu.run(report, name):
                begin_anew(report, config.stages[k + 1 :])
    finally:
        watch.cancel()
    name_unmeasured(report)
    shared.results.write(
        config.out,
        config,
        report.tables,
        figure(report),
        verdict(report),
        left_out=report.left_out,
        details=report.details,
        seconds=report.elapsed(),
    )


def give_up(report: Report) -> None:
    """End the program, whatever the device does: what is known is on disk."""
    report.flush(f"Ended at its deadline, in {report.running}. {verdict(report)}")
    print(
        f"gpu: ended at its deadline, in {report.running}: see {report.config.out}.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)


def begin_anew(report: Report, stages: tuple[str, ...]) -> None:
    """Go on with the other stages in a new process: some errors make a device deaf to the old one."""
    left = report.config.seconds - report.elapsed()
    if not stages or left < _gpu.WRITING:
        return
    options = ["--device", report.config.device, "--out", str(report.config.out), "--resume"]
    options += ["--jobs", str(report.config.jobs)]
    options += ["--seconds", f"{left:.1f}", "--stages", *stages]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "experiments.benchmarks.gpu", *options])


def resume(report: Report) -> None:
    file = report.config.out / "results.json"
    if file.exists():
        before = json.loads(file.read_text())
        report.tables, report.details = before["tables"], before["details"]
        report.left_out = before["left_out"]


# What is said of it ---------------------------------------------------------------------------------------


def name_unmeasured(report: Report) -> None:
    """Add a row for each target that no stage came to."""
    known = [row["target"] for row in report.tables.get("Targets", [])]
    for target in TARGETS if report.gpu else ():
        if not any(name.startswith(target) for name in known):
            row = {"target": target, "wanted": "–", "found": "–", "judged": UNMEASURED}
            report.tables.setdefault("Targets", []).append(row)


def verdict(report: Report) -> str:
    said = []
    for table in ("Targets", "Checks"):
        rows = report.tables.get(table, [])
        of = {
            what: [r["target"] for r in rows if r["judged"] == what]
            for what in ("met", "NOT MET", UNMEASURED)
        }
        if rows:
            said.append(f"{table}: {len(of['met'])} of {len(rows)} met.")
        said += [
            f"{what.capitalize()}: {'; '.join(of[what])}." for what in ("NOT MET", UNMEASURED) if of[what]
        ]
    if failed := [row["stage"] for row in report.tables.get("What failed", [])]:
        said.append(f"Failed: {', '.join(failed)}.")
    if not report.gpu:
        said.append(NO_GPU)
    if report.left_out:
        said.append(f"Left out: {'; '.join(report.left_out)}.")
    return " ".join(said)


def figure(report: Report) -> "Figure | None":
    """Draw the speed of projections, and errors of maps in float32; None without matplotlib."""
    try:
        from matplotlib.figure import Figure

        from experiments.shared.figures import BLUE, VERMILLION
    except ImportError:
        report.omit("the figure, which takes matplotlib")
        return None
    panel = Figure(figsize=(10, 5), layout="constrained")
    left, right = panel.subplots(1, 2)
    rows = sorted(report.tables.get("Projections", []), key=lambda row: row["rows"])
    for which, color in (("forward", BLUE), ("forward + backward", VERMILLION)):
        shown = [(row["rows"], row["svdrot µs"]) for row in rows if row["pass"] == which]
        if shown:
            left.loglog(*zip(*shown, strict=True), "o-", color=color, label=which)
    left.set(xlabel="matrices", ylabel="µs of their projections")
    errors = report.tables.get("Errors of maps", [])
    for which, color in (("value", BLUE), ("gradient", VERMILLION)):
        cells = [(row[f"{which}, float32"], row["map"]) for row in errors]
        if cells:
            right.plot(*zip(*cells, strict=True), "o", color=color, label=which)
    right.set(xlabel="largest error of float32, units", xlim=(0, None))
    right.invert_yaxis()
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    return panel


def parsed(arguments: list[str]) -> Config:
    """Read the command line without the packages that other experiments read theirs with."""
    default = Config()
    parser = argparse.ArgumentParser(
        "gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--stages", nargs="+", choices=STAGES)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--out", type=Path)
    given: dict[str, Any] = {k: v for k, v in vars(parser.parse_args(arguments)).items() if v is not None}
    if "stages" in given:
        given["stages"] = tuple(given["stages"])
    try:
        return Config(**{f.name: given.get(f.name, getattr(default, f.name)) for f in fields(Config)})
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main(parsed(sys.argv[1:]))
