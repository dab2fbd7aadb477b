"""What the trainings of an experiment say of its heads: tables, a figure, and which of two is the better."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from torch import Tensor

from experiments import _results, _training
from experiments.rotation._alignment_report import STYLES as HEAD_STYLES
from experiments.rotation._alignment_report import seconds_axis, spread
from svdrot.nn import REPRESENTATIONS

# Names of heads: a representation and a strategy. "raw" learns nine numbers and projects at inference only.
HEADS: dict[str, tuple[str, str]] = {
    **{name: (name, "always") for name in REPRESENTATIONS},
    "raw": ("svd", "inference"),
}
STYLES = {**HEAD_STYLES, "raw": ("#D55E00", "--")}
DECIDING = 5  # seeds
FREE = ("heads",)  # settings on which no training depends

Results = dict[_training.Key, dict[str, Any]]  # by head and seed, as `_training.run` returns them
Rows = list[dict[str, Any]]


def check_heads(heads: Iterable[str]) -> None:
    heads = list(heads)
    if len(set(heads)) < len(heads):
        raise ValueError(f"`heads` must differ; got {', '.join(heads)}.")
    unknown = [head for head in heads if head not in HEADS]
    if unknown or not heads:
        raise ValueError(f"`heads` must be some of {', '.join(HEADS)}; got {', '.join(unknown) or 'none'}.")


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
        unit: of the errors.
        expected: pairs of heads, of which the first should come out ahead.
        setting: what was trained, in a sentence.
        note: what the verdict should end with.
    """
    rows = [
        {"head": head, "seed": seed, **metrics(result["examined"]["errors"])}
        | {"steps": result["step"], "seconds": result["seconds"]}
        for (head, seed), result in results.items()
    ]
    decisions = decide(rows, expected)
    tables = {
        f"Errors in {unit}, mean ± standard deviation over the seeds. {setting}": summary(rows),
        f"Mean errors of two heads, in {unit}, seed by seed": decisions,
        f"Each training, errors in {unit}": rows,
    }
    tables = {caption: table for caption, table in tables.items() if table}
    verdict = " ".join(filter(None, (told(decisions), note)))
    _results.write(folder, config, tables, figure(results, unit), verdict)
    return rows


def metrics(errors: Tensor) -> dict[str, float]:
    errors = errors.flatten().double()
    quantiles = {"median": 0.5, "p95": 0.95, "p99": 0.99}
    return (
        {"mean": errors.mean().item()}
        | {name: errors.quantile(q).item() for name, q in quantiles.items()}
        | {"max": errors.max().item()}
    )


def summary(rows: Rows) -> Rows:
    """A line per head, best mean error first."""
    heads = {head: [row for row in rows if row["head"] == head] for head in {row["head"] for row in rows}}
    lines = []
    for head, trainings in heads.items():
        line = {"head": head, "seeds": len(trainings)}
        for name in ("mean", "median", "p95", "p99", "max", "seconds"):
            line[name] = spread([row[name] for row in trainings])
        lines.append((sum(row["mean"] for row in trainings) / len(trainings), line))
    return [line for _, line in sorted(lines, key=lambda pair: pair[0])]


def deviation(values: list[float]) -> float:
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def decide(rows: Rows, expected: Iterable[tuple[str, str]]) -> Rows:
    """For each pair, which is ahead, on seeds that both have.

    Decided is what holds for at least `DECIDING` seeds without overlap: every training of the one has a
    smaller mean error than every training of the other.
    """
    lines = []
    means = {(row["head"], row["seed"]): row["mean"] for row in rows}
    for first, second in expected:
        seeds = sorted({seed for head, seed in means if head == first and (second, seed) in means})
        if not seeds:
            continue
        a, b = ([means[head, seed] for seed in seeds] for head in (first, second))
        ahead = [y - x for x, y in zip(a, b, strict=True)]
        error = deviation(ahead) / math.sqrt(len(ahead)) if len(ahead) > 1 else math.nan
        apart = "yes" if max(a) < min(b) else "the contrary" if max(b) < min(a) else "no: they overlap"
        lines.append(
            {"expected ahead": first, "of": second, "seeds": len(seeds)}
            | {"ahead by": sum(ahead) / len(ahead), "standard error": error}
            | {"ahead in": sum(value > 0 for value in ahead)}
            | {"decided": apart if len(seeds) >= DECIDING else f"no: fewer than {DECIDING} seeds"}
        )
    return lines


def told(decisions: Rows) -> str:
    """The decisions in words."""

    def pairs(decided: str) -> str:
        kept = [row for row in decisions if row["decided"].startswith(decided)]
        return ", ".join(f"{row['expected ahead']} before {row['of']}" for row in kept)

    parts = {
        "Decided, as expected": pairs("yes"),
        "Decided against the expectation": pairs("the contrary"),
        "Not decided, the seeds overlap": pairs("no: they"),
        f"Not decided with fewer than {DECIDING} seeds": pairs("no: fewer"),
    }
    return " ".join(f"{kind}: {which}." for kind, which in parts.items() if which)


def figure(results: Results, unit: str) -> Figure:
    panels = Figure(figsize=(12, 4.6), layout="constrained")
    left, right = panels.subplots(1, 2)
    q = torch.linspace(0.005, 1, 200, dtype=torch.float64)
    for head, (colour, dashes) in STYLES.items():
        of_head = [result for (name, _), result in results.items() if name == head]
        if not of_head:
            continue
        style = {"color": colour, "ls": dashes, "label": head}
        shortest = min(len(result["curve"]) for result in of_head)  # some may have ended early
        steps = [point["step"] for point in of_head[0]["curve"][:shortest]]
        curves = torch.tensor(
            [
                [list(point.values())[_training.FIGURE] for point in result["curve"][:shortest]]
                for result in of_head
            ]
        )
        errors = torch.stack(
            [result["examined"]["errors"].flatten().double().quantile(q) for result in of_head]
        )
        for axis, x, y in ((left, steps, curves), (right, 100 * q, errors)):
            axis.fill_between(x, y.amin(0), y.amax(0), color=colour, alpha=0.15, lw=0)
            axis.plot(x, y.mean(0), **style)
    left.set(xlabel="step", ylabel=f"mean error while learning ({unit})", yscale="log")
    right.set(
        xlabel="percentile of the test", ylabel=f"error at the end ({unit})", yscale="log", xlim=(0, 100)
    )
    for axis in (left, right):
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_locator(NullLocator())
        axis.grid(which="major", alpha=0.3)
    seconds_axis(left, results.values())
    right.legend(fontsize=8, ncols=2)
    return panels
