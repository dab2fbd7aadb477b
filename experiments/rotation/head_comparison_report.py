"""What do all experiments on rotation heads say together? One page, made from their results alone.

Reads every `results.json` below a folder. Trainings are the rows that
name a head (or a strategy of one), a seed and a mean error; for each experiment the heads are ordered by it,
and two of them are called apart if both have at least five seeds and every training of the one beats every
training of the other. Nothing is trained here, and nothing is said that the files do not hold: experiments
that are missing are named, with the command that makes them.

    python -m experiments.rotation.head_comparison_report

It makes the published results with --out experiments/results/rotation/head_comparison_report.
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise, product, zip_longest
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments import shared
from experiments.shared.settings import Out, Settings
from experiments.shared.statistics import DECIDING, decide, spread


@dataclass(frozen=True)
class Config(Settings):
    results: Path = Path("experiments/results/rotation")
    """Folder of the experiments' folders."""
    out: Out = Path("runs/rotation/head_comparison_report")


QUESTIONS = {
    "noise_svd_vs_gs": "how much noise survives the projection",
    "gradient_conditioning": "what projections do to gradients",
    "sanity_autoencoder": "putting out the rotation that is shown",
    "pointcloud_alignment": "aligning clouds of points",
    "pointcloud_alignment_self_supervised": "aligning clouds, told by their points alone",
    "train_vs_inference": "projecting in training or at inference only",
    "inverse_kinematics": "the joints of people from where they are",
    "cube_image_pose": "the pose of a cube from its image",
}
ARGUMENTS = {"pointcloud_alignment_self_supervised": "pointcloud_alignment --loss clouds"}


@dataclass(frozen=True)
class Experiment:
    folder: Path
    command: str
    machine: str
    commit: str
    verdict: str
    tables: list[shared.results.Rows]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def subject(self) -> str:
        """Return what the trainings compare: "head", "strategy" or nothing."""
        return next((subject for subject, _, _ in self._trained()), "")

    @property
    def trainings(self) -> shared.results.Rows:
        """Return rows with head (or strategy, under that name), seed and mean; empty if nothing was
        trained.
        """
        return next(
            (
                [{"head": row[subject], "seed": row["seed"], "mean": row[mean]} for row in rows]
                for subject, mean, rows in self._trained()
            ),
            [],
        )

    def _trained(self) -> Iterator[tuple[str, str, shared.results.Rows]]:
        for rows in self.tables:
            for subject, mean in product(("head", "strategy"), ("mean", "mean deg")):
                if rows and {subject, "seed", mean} <= rows[0].keys():
                    yield subject, mean, rows

    @property
    def heads(self) -> dict[str, list[float]]:
        """Return mean errors of the trainings of each head, the best head first."""
        found: dict[str, list[float]] = {}
        for row in self.trainings:
            found.setdefault(row["head"], []).append(row["mean"])
        return dict(sorted(found.items(), key=lambda pair: _mean(pair[1])))


def read(config: Config) -> list[Experiment]:
    """Read the experiments that are there, in the order of `QUESTIONS`, others after them by name.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: with the file, if one is not the results of an experiment.
    """
    experiments = [read_results(file) for file in sorted(config.results.glob("*/results.json"))]
    if not experiments:
        raise FileNotFoundError(
            f"no */results.json in {config.results.resolve()}: run the experiments first."
        )
    order = list(QUESTIONS)
    return sorted(experiments, key=lambda e: (order.index(e.name) if e.name in order else len(order), e.name))


def read_results(file: Path) -> Experiment:
    try:
        content = json.loads(file.read_text())
        texts = {name: str(content[name]) for name in ("command", "machine", "commit", "verdict")}
        return Experiment(file.parent, **texts, tables=list(content["tables"].values()))
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise shared.run.UserError(f"{file} is not the results of an experiment: {error!r}.") from error


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def ordered(experiment: Experiment) -> str:
    """Write the heads, best first; `<` where a head is apart from the next one, `~` where it is not."""
    heads = list(experiment.heads)
    text = heads[0]
    for head, following in pairwise(heads):
        (line,) = decide(experiment.trainings, [(head, following)]) or [{"decided": "no"}]
        text += f" {'<' if line['decided'] == 'yes' else '~'} {following}"
    return text


def of_heads(experiments: Iterable[Experiment]) -> list[Experiment]:
    return [experiment for experiment in experiments if experiment.subject == "head"]


def all_heads(experiments: Iterable[Experiment]) -> list[str]:
    """List the heads of any experiment, in the order of the library's; others after them."""
    return shared.heads.ordered(head for experiment in of_heads(experiments) for head in experiment.heads)


def ratios(experiments: list[Experiment]) -> shared.results.Rows:
    """Make a row for each head: its mean errors over that of the best, in every experiment that trains."""
    rows = []
    for head in all_heads(experiments):
        row: dict[str, Any] = {"head": head}
        for experiment in of_heads(experiments):
            heads = experiment.heads
            best = _mean(next(iter(heads.values())))
            values = [value / best for value in heads.get(head, [])]
            row[experiment.name] = f"{spread(values)} ({len(values)})" if values else "-"
        rows.append(row)
    return rows


AHEAD = ("svd", "6d")  # which are compared with every other head
COLUMNS = {"yes": "the head is ahead in", "the contrary": "the other is ahead in", "no": "not apart in"}


def pairs(experiments: list[Experiment]) -> shared.results.Rows:
    """Tell in which experiments two heads are apart, and which way."""
    rows = []
    for number, first in enumerate(AHEAD):
        for second in all_heads(experiments):
            if second in AHEAD[: number + 1]:
                continue
            where: dict[str, list[str]] = {key: [] for key in COLUMNS}
            for experiment in of_heads(experiments):
                for line in decide(experiment.trainings, [(first, second)]):
                    where["no" if line["decided"].startswith("no") else line["decided"]].append(
                        experiment.name
                    )
            if any(where.values()):
                told = {title: ", ".join(where[key]) or "-" for key, title in COLUMNS.items()}
                rows.append({"head": first, "other": second} | told)
    return rows


def figure(experiments: list[Experiment]) -> Figure:
    """Draw a panel for each experiment that trains: the mean error of every training, by head."""
    trained = [experiment for experiment in experiments if experiment.heads]
    columns = max(1, min(3, len(trained)))
    rows = max(1, -(-len(trained) // columns))
    panels = Figure(figsize=(4.6 * columns, 3.8 * rows), layout="constrained")
    axes = panels.subplots(rows, columns, squeeze=False).flat
    styles = shared.heads.styles(head for experiment in trained for head in experiment.heads)
    for axis, experiment in zip_longest(axes, trained):
        if experiment is None:
            axis.set_axis_off()
            continue
        for place, (head, values) in enumerate(experiment.heads.items()):
            axis.plot(values, [place] * len(values), "o", color=styles[head].color, alpha=0.6, ms=5)
            axis.plot([_mean(values)], [place], "|", color="black", ms=14)
        axis.set_yticks(range(len(experiment.heads)), list(experiment.heads))
        axis.invert_yaxis()
        axis.set(xscale="log", xlabel="mean error of a training", title=experiment.name)
        shared.figures.plain_log(axis.xaxis)
        axis.grid(axis="x", alpha=0.3)
    return panels


def page(experiments: list[Experiment], out: Path) -> str:
    """Write the report in Markdown, with links from the folder `out`."""
    names = {experiment.name for experiment in experiments}
    missing = [name for name in QUESTIONS if name not in names]
    parts = [f"# Which head for rotations?\n\n`{shared.run.command()}`"]
    if of_heads(experiments):
        parts += ["## Trainings\n\n" + TRAININGS, "![mean errors](figure.png)"]
        parts += [shared.results.markdown(ratios(experiments))]
        parts += ["\n".join(f"* {e.name}: {ordered(e)}" for e in experiments if e.heads)]
        parts += ["## What is decided\n\n" + DECIDED, shared.results.markdown(pairs(experiments))]
    parts += ["## What is not\n\n" + "\n".join(f"* {line}" for line in limits(experiments, missing))]
    parts += ["## Each experiment", *(section(experiment, out) for experiment in experiments)]
    return "\n\n".join(parts) + "\n"


TRAININGS = (
    "Mean errors over that of the best head of the experiment, mean ± standard deviation over the seeds (of"
    f" fewer than {DECIDING} the range), and in brackets how many these are; within an experiment one"
    " learning rate for all heads. Below, heads from best to worst: `<` where every training of a head beats"
    f" every training of the next one, with {DECIDING} seeds or more of each, `~` where not."
)
DECIDED = "Two heads are apart where `<` would stand between them."


def limits(experiments: list[Experiment], missing: list[str]) -> list[str]:
    module = "python -m experiments.rotation."
    lines = [
        f"No results of {name} ({QUESTIONS[name]}) are here: `{module}{ARGUMENTS.get(name, name)}`."
        for name in missing
    ]
    for experiment in experiments:
        few = [head for head, values in experiment.heads.items() if len(values) < DECIDING]
        if few:
            lines.append(f"{experiment.name}: fewer than {DECIDING} seeds of {', '.join(few)}.")
    return [*lines, *ALWAYS]


ALWAYS = (
    "The trainings are short ones unless their command says `--full`. What is ahead after minutes need not"
    " be ahead after days; the learning curves say how far from their end the heads are.",
    "The spread is over initial weights and batches. Other data, other networks, learning rates tuned head"
    " by head are not in it: all heads are trained with the same settings.",
    "Mean errors are ruled by the few worst cases. Where a usual error is to choose the head, look at the"
    " medians and percentiles of each experiment.",
    "What noise and Jacobians say is of the maps alone: nothing is trained there.",
)


def section(experiment: Experiment, out: Path) -> str:
    name = experiment.name
    files = [experiment.folder / "table.md", *sorted(experiment.folder.glob("*.png"))]
    links = ", ".join(f"[{file.name}]({Path(os.path.relpath(file, out)).as_posix()})" for file in files)
    return (
        f"### {f'{name}: {QUESTIONS[name]}' if name in QUESTIONS else name}\n\n{experiment.verdict}\n\n"
        f"`{experiment.command}`, {experiment.machine}, commit {experiment.commit[:12]}: {links}."
    )


def main(config: Config) -> None:
    experiments = read(config)
    text, picture = page(experiments, config.out), shared.results.drawn(figure(experiments))
    with shared.run.replacing(config.out / "report.md") as new:
        new.write_text(text)
    with shared.run.replacing(config.out / "figure.png") as new:
        new.write_bytes(picture)
    print(text)
    print(f"In {config.out}: report.md, figure.png.")


if __name__ == "__main__":
    shared.run.main(main, Config(), __doc__)
