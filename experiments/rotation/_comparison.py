"""What the trainings of an experiment say of its heads: tables, a figure, and which of two is the better."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from experiments import shared
from experiments.shared.results import Rows
from experiments.shared.statistics import DECIDING, decide, metrics, spread, told

RATE = "one learning rate for all heads"
FREE = ("heads",)  # settings on which no training depends

Results = dict[shared.training.Key, dict[str, Any]]  # by head and seed, as `shared.training.run` returns them


def write(
    folder: Path,
    config: Any,
    results: Results,
    *,
    unit: str,
    expected: Iterable[tuple[str, str]],
    setting: str,
    note: str = "",
) -> Rows:
    """Write tables, a figure and results.json, and return a row of figures for each head and seed.

    Args:
        folder: of the results.
        config: of the experiment.
        results: with the tensor `errors` in `examined`, in the unit.
        unit: of the errors; of degrees, the percent below 5 and 10 are told.
        expected: pairs of heads, of which the first should come out ahead.
        setting: what was trained, in a sentence.
        note: what the verdict should end with.
    """
    limits = (5, 10) if unit == "degrees" else ()
    rows = [
        {"head": head, "seed": seed, **metrics(result["examined"]["errors"], limits)}
        | {"steps": result["step"], "seconds": result["seconds"]}
        for (head, seed), result in results.items()
    ]
    decisions = decide(rows, expected)
    lines = summary(rows)
    few = min(line["seeds"] for line in lines) < DECIDING
    over = (
        f"mean and range of fewer than {DECIDING} seeds"
        if few
        else "mean ± standard deviation over the seeds"
    )
    tables = {
        f"Errors in {unit}, {over}; {RATE}. {setting}": lines,
        f"Mean errors of two heads, in {unit}, seed by seed": decisions,
        f"Each training, errors in {unit}": rows,
    }
    tables = {caption: table for caption, table in tables.items() if table}
    verdict = " ".join(filter(None, (told(decisions), note)))
    shared.results.write(folder, config, tables, figure(results, unit), verdict)
    return rows


SUMMED_UP = ("mean", "median", "p95", "p99", "max", "acc@5", "acc@10", "seconds")


def summary(rows: Rows) -> Rows:
    """Make a line per head, best mean error first, of means over the seeds and their `spread`."""
    heads = {head: [row for row in rows if row["head"] == head] for head in {row["head"] for row in rows}}
    lines = []
    for head, trainings in heads.items():
        names = [name for name in SUMMED_UP if name in trainings[0]]
        line = {"head": head, "seeds": len(trainings)}
        line |= {name: spread([row[name] for row in trainings]) for name in names}
        lines.append((sum(row["mean"] for row in trainings) / len(trainings), line))
    return [line for _, line in sorted(lines, key=lambda pair: pair[0])]


def figure(results: Results, unit: str) -> Figure:
    """Draw the error of each head while it learns, and its percentiles in the end."""
    panels = Figure(figsize=(12, 4.6), layout="constrained")
    left, right = panels.subplots(1, 2)
    q = torch.linspace(0.005, 1, 200, dtype=torch.float64)
    for head, style in shared.heads.styles(head for head, _ in results).items():
        of_head = [result for (name, _), result in results.items() if name == head]
        look = {"color": style.color, "ls": style.dashes, "label": shared.heads.label(head)}
        curves = [result["curve"] for result in of_head]
        shared.figures.curve_band(left, curves, [*curves[0][0]][shared.training.FIGURE], **look)
        errors = [result["examined"]["errors"].flatten().double().quantile(q) for result in of_head]
        shared.figures.band(right, 100 * q, torch.stack(errors), **look)
    left.set(xlabel="step", ylabel=f"mean error while learning ({unit})", yscale="log")
    right.set(
        xlabel="percentile of the test", ylabel=f"error at the end ({unit})", yscale="log", xlim=(0, 100)
    )
    for axis in (left, right):
        shared.figures.plain_log(axis.yaxis)
        axis.grid(which="major", alpha=0.3)
    shared.figures.seconds_axis(left, results.values())
    right.legend(fontsize=8, ncols=2)
    return panels
