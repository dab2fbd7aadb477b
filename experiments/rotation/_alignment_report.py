"""What an alignment run leaves: tables, errors and figures, all made from its finished trainings."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from experiments import _run

Results = dict[tuple[str, int], dict[str, Any]]  # by head and seed, as `_training.run` returns them

# Okabe and Ito's colours, which colour-blind readers can tell apart, and a dash pattern each for print.
STYLES = {
    "svd": ("#D55E00", "-"),
    "6d": ("#0072B2", "-"),
    "10d": ("#009E73", "-"),
    "quaternion": ("#CC79A7", "--"),
    "axis_angle": ("#E69F00", "-."),
    "euler": ("#444444", ":"),
    "5d": ("#56B4E9", "-"),
    "2vec": ("#0072B2", "--"),
    "mrp": ("#E69F00", ":"),
}


def write(folder: Path, results: Results, setting: str) -> list[dict]:
    """Write two tables, the errors and two figures; print the table; return the metrics."""
    errors = {key: result["examined"]["errors"].numpy() for key, result in results.items()}
    rows = [{"head": head, "seed": seed, **metrics(errors[head, seed])} for head, seed in results]
    _run.write_csv(folder / "metrics.csv", rows)
    with _run.replacing(folder / "errors.npz") as new:
        np.savez_compressed(new, **{f"{head}-{seed}": values for (head, seed), values in errors.items()})
    seconds = [result["seconds"] for result in results.values()]
    table = aggregate([{**row, "seconds": s} for row, s in zip(rows, seconds, strict=True)])
    with _run.replacing(folder / "table.md") as new:
        new.write_text(markdown(table, setting))
    for name, figure in {
        "learning_curves": learning_curves(results),
        "error_percentiles": percentiles(errors),
    }.items():
        with _run.replacing(folder / f"{name}.png") as new:
            figure.savefig(new, dpi=150)
    show(table, setting, folder)
    return rows


def metrics(errors: NDArray) -> dict[str, float]:
    """Of geodesic errors in degrees: their spread, and the shares in percent below 5 and 10 degrees."""
    errors = errors.ravel().astype(np.float64)
    return {
        "mean": float(errors.mean()),
        "median": float(np.median(errors)),
        "std": float(errors.std()),
        **{f"p{q}": float(np.percentile(errors, q)) for q in (5, 25, 75, 95, 99)},
        "max": float(errors.max()),
        **{f"acc@{limit}": 100 * float((errors < limit).mean()) for limit in (5, 10)},
    }


COLUMNS = {
    "mean": "mean °",
    "median": "median °",
    "p95": "p95 °",
    "acc@5": "< 5° %",
    "acc@10": "< 10° %",
    "seconds": "s",
}


def aggregate(rows: list[dict]) -> list[list[str]]:
    """A line per head, best mean error first: each column as mean ± standard deviation over the seeds."""
    heads = {head: [row for row in rows if row["head"] == head] for head in {row["head"] for row in rows}}
    best_first = sorted(heads, key=lambda head: np.mean([row["mean"] for row in heads[head]]))
    return [
        [head, str(len(heads[head])), *(spread([row[column] for row in heads[head]]) for column in COLUMNS)]
        for head in best_first
    ]


def spread(values: list[float]) -> str:
    digits = 0 if np.mean(values) >= 100 else 1 if np.mean(values) >= 10 else 2
    deviation = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{deviation}"


HEADER = ["head", "seeds", *COLUMNS.values()]


def markdown(table: list[list[str]], setting: str) -> str:
    lines = [HEADER, ["---"] + ["---:"] * (len(HEADER) - 1), *table]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    note = (
        "Geodesic errors; mean ± standard deviation over the seeds; s: seconds of the steps of one training."
    )
    return f"{body}\n\n{note}\n\n{setting}\n\n    {_run.command()}\n"


def show(table: list[list[str]], setting: str, folder: Path) -> None:
    drawn = Table(*HEADER, caption=setting)
    for column in drawn.columns:
        column.no_wrap = True
        column.justify = "left" if column.header == "head" else "right"
    for line in table:
        drawn.add_row(*line)
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(drawn)
    console.print(f"Tables, figures and checkpoints: {folder}", highlight=False, soft_wrap=True)


def learning_curves(results: Results) -> Figure:
    figure, axes = _axes("Validation error while learning", "step", "mean error (degrees)")
    for head in _ordered(head for head, _ in results):
        curves = [result["curve"] for (other, _), result in results.items() if other == head]
        shortest = min(curves, key=len)
        seeds = [[point["mean_deg"] for point in curve[: len(shortest)]] for curve in curves]
        _line(axes, head, [point["step"] for point in shortest], np.array(seeds))
    seconds_axis(axes, results.values())
    figure.legend(frameon=False, loc="outside right center")
    return figure


def seconds_axis(axes: Any, results: Iterable[dict[str, Any]]) -> None:
    """Above an axis of steps the time they take: of every head about the same, so one median serves all."""
    a_step = float(np.median([result["seconds"] / result["step"] for result in results]))
    top = axes.secondary_xaxis("top", functions=(lambda step: step * a_step, lambda time: time / a_step))
    top.set_xlabel("seconds of one training", fontsize="small")
    top.tick_params(labelsize="small")


def percentiles(errors: dict[tuple[str, int], NDArray]) -> Figure:
    figure, axes = _axes("Errors on held-out clouds", "percentile of the validation pairs", "error (degrees)")
    q = np.linspace(0.5, 100, 200)
    for head in _ordered(head for head, _ in errors):
        seeds = [np.percentile(values, q) for (other, _), values in errors.items() if other == head]
        _line(axes, head, q, np.array(seeds))
    axes.set_xlim(0, 100)
    figure.legend(frameon=False, loc="outside right center")
    return figure


def _axes(title: str, x: str, y: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=x, ylabel=y, yscale="log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(which="major", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _line(axes: Any, head: str, x: Any, seeds: NDArray) -> None:
    """The mean over the seeds, on a band from the least to the greatest."""
    colour, dashes = STYLES[head]
    axes.fill_between(x, seeds.min(0), seeds.max(0), color=colour, alpha=0.15, linewidth=0)
    axes.plot(x, seeds.mean(0), color=colour, linestyle=dashes, label=head.replace("_", "-"))


def _ordered(heads: Iterable[str]) -> list[str]:
    present = set(heads)
    return [head for head in STYLES if head in present]
