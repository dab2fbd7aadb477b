"""What does a head cost a training?

The whole step of the training of `experiments.shared.alignment`, from the drawing of
clouds to the optimizer, with each head; raw is svd that learns nine numbers, and projects at inference only.
All take turns within each round, on one thread, as the trainings run; medians.

Expected: with svd at most 3 % more than with raw numbers.

    python -m experiments.benchmarks.heads            a minute

It makes the published results with --out experiments/results/benchmarks/heads.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from experiments import shared
from experiments.shared import alignment
from experiments.shared.heads import HEADS, Head, check, styles
from experiments.shared.settings import Count, Out, Positive, Settings, Threads
from experiments.shared.timing import medians

TARGET = 1.03  # of the step with raw numbers


@dataclass(frozen=True)
class Config(Settings):
    heads: tuple[Head, ...] = ("raw", "svd", "6d", "10d", "quaternion", "axis_angle", "euler")
    rounds: Count = 500
    seconds: Positive = 120.0
    """After which no new round begins; there are at least three."""
    threads: Threads = 1
    out: Out = Path("runs/benchmarks/heads")

    def __post_init__(self):
        super().__post_init__()
        check(self.heads)


def step(head: str) -> Callable[[], object]:
    representation, strategy = HEADS[head]
    settings = alignment.Config(strategy=strategy)  # pyright: ignore[reportArgumentType]
    return shared.training.Training(settings, alignment.prepare(settings, representation, 0), 0).advance


def run(config: Config) -> tuple[list[dict[str, Any]], int]:
    torch.set_num_threads(config.threads)
    steps = {head: step(head) for head in config.heads}
    times, rounds = medians(steps, "cpu", config.rounds, config.seconds)
    raw = times["raw"]
    rows = [
        {"head": head, "step ms": 1e3 * t, "over raw µs": 1e6 * (t - raw), "over raw %": 100 * (t / raw - 1)}
        for head, t in times.items()
    ]
    return rows, rounds


def verdict(rows: list[dict[str, Any]]) -> str:
    (share,) = (row["over raw %"] for row in rows if row["head"] == "svd")
    holds = "holds" if 1 + share / 100 <= TARGET else "does not hold"
    return (
        f"With svd a step takes {share:.2g} % longer than with raw numbers, expected at most 3: **{holds}**."
    )


def figure(rows: list[dict[str, Any]]) -> Figure:
    panel = Figure(figsize=(7, 3.4), layout="constrained")
    axis = panel.subplots()
    colors = {head: style.color for head, style in styles(row["head"] for row in rows).items()}
    for place, row in enumerate(rows):
        axis.barh(place, row["over raw %"], color=colors[row["head"]])
    axis.axvline(100 * (TARGET - 1), color="#444444", lw=0.8, ls="--")
    axis.set_yticks(range(len(rows)), [row["head"] for row in rows])
    axis.invert_yaxis()
    axis.set(xlabel="longer than with raw numbers, %", title="a step of training")
    axis.grid(alpha=0.3, axis="x")
    return panel


def main(config: Config) -> None:
    rows, rounds = run(config)
    tables = {f"Medians of {rounds} rounds, {config.threads} thread": rows}
    shared.results.write(config.out, config, tables, figure(rows), verdict(rows))


if __name__ == "__main__":
    shared.run.main(main, Config(), __doc__)
