"""What do the answers of a verdict look like?

A plane, a cylinder, a box, a stone and two scans of a laser scanner, each in two parts that were moved apart,
aligned by `register` and judged. Expected: two slides and a turn of the plane, a slide and a turn of the
cylinder, three other poses of the box, and the stone and the scans aligned; a stone and its mirror image are
doubtful.

    python -m experiments.registration.verdict_gallery --scans data/registration

Without the scans (`lidar_small_gicp`) their column is left out. The published picture is by --out
experiments/results/registration/verdict_gallery.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from experiments import shared
from experiments.registration import _verdict_shapes as shapes
from experiments.registration._verdict_shapes import Array
from experiments.shared.settings import Out, Seed, Settings
from svdrot.io import read_points
from svdrot.registration import Transform, Verdict, judge, register

SOURCE, TARGET, RIVAL = shared.figures.VERMILLION, shared.figures.BLUE, shared.figures.GREEN
SHOWN = 3000  # points of each cloud
SCANS = ("source.ply", "target.ply")


@dataclass(frozen=True)
class Config(Settings):
    seed: Seed = 0
    scans: Path = Path("data/registration")
    """With the folder lidar_small_gicp; may be missing."""
    out: Out = Path("runs/registration/verdict_gallery")


@dataclass(frozen=True)
class Example:
    name: str
    source: Tensor
    target: Tensor
    verdict: Verdict


def examples(config: Config) -> Iterator[Example]:
    for name, source, target in _clouds(config):
        x, y = (torch.from_numpy(np.ascontiguousarray(cloud)) for cloud in (source, target))
        found = register(x, y, verdict=False).transform
        yield Example(name, x, y, judge(x, y, found))


def _clouds(config: Config) -> Iterator[tuple[str, Array, Array]]:
    random = np.random.default_rng(config.seed)

    def plane(n: int) -> Array:
        return np.c_[random.uniform(-0.5, 0.5, (n, 2)) * (1, 0.6), np.zeros(n)]

    def cylinder(n: int) -> Array:
        angle, z = random.uniform(0, 2 * np.pi, n), random.uniform(-0.5, 0.5, n)
        return np.c_[0.2 * np.cos(angle), 0.2 * np.sin(angle), z]

    triangles = {"box": shapes.box(np.array((0.9, 0.55, 0.3)))}
    stone = shapes.blob(np.random.default_rng(12)).sample
    for name, make in (
        ("plane", plane),
        ("cylinder", cylinder),
        ("box", lambda n: shapes.on_triangles(triangles["box"], n, random)),
        ("stone", lambda n: stone(n, random)),
    ):
        yield name, *_apart(make(2000), make(2000), random)
    mirrored = stone(2000, random) * (-1, 1, 1)
    yield "stone and mirror image", *_apart(stone(2000, random), mirrored, random)
    folder = config.scans / "lidar_small_gicp"
    if all((folder / name).is_file() for name in SCANS):
        source, target = (read_points(folder / name).double().numpy() for name in SCANS)
        yield "laser scans", source @ shapes.rotation((0, 0, 1), 2.0).T, target


def _apart(a: Array, b: Array, random: np.random.Generator) -> tuple[Array, Array]:
    a, b = (x + 0.004 * random.normal(size=x.shape) for x in (a, b))
    return a @ shapes.random_rotation(random).T + (0.5, 0.3, 0.2), b


def figure(found: list[Example]) -> Figure:
    """Draw before and after, what may move, and where else the source fits; one end of it is black."""
    panels = Figure(figsize=(2.9 * len(found), 9.4), layout="constrained")
    grid = panels.subplots(3, len(found), squeeze=False)
    for column, one in zip(grid.T, found, strict=True):
        told = one.verdict
        after = told.transform.apply(one.source)
        view, end = _view(one.target), _end(one.source)
        target = one.target, TARGET
        _panel(column[0], ((one.source, SOURCE), target, (one.source[end], "black")), view)
        _panel(column[1], ((after, SOURCE), target, (after[end], "black")), view)
        _arrows(column[1], told, view)
        others = [Transform(*parts).apply(one.source) for parts in _parts(told.rivals)][:1]
        others += [_slid(after, told, twist) for twist in told.free[-1:]]
        if others:
            (other,) = others
            _panel(column[2], ((other, RIVAL), target, (other[end], "black")), view)
        else:
            column[2].set(xticks=[], yticks=[])
            column[2].text(0.5, 0.5, "none", ha="center", va="center", transform=column[2].transAxes)
        column[0].set_title(one.name, fontsize=11)
        column[1].set_title(told.answer, fontsize=11, weight="bold")
        text = told.reasons[-1] if told.reasons else f"misfit {told.misfit:.2f}, cover {told.cover:.0%}"
        column[2].set_title(_wrapped(text), fontsize=7.5)
    for axes, label in zip(grid[:, 0], ("before", "after, and free motions", "fits as well"), strict=True):
        axes.set_ylabel(label, fontsize=11)
    return panels


def _end(source: Tensor) -> Tensor:
    """Return which points lie at one end, so that turns can be seen."""
    x = source.numpy() - source.numpy().mean(0)
    along = x @ np.linalg.svd(x, full_matrices=False)[2].T @ (1.0, 0.8, 0.5)
    return torch.from_numpy(along > np.quantile(along, 0.9))


def _slid(points: Tensor, told: Verdict, twist: Tensor) -> Tensor:
    """Move points along a free motion, by about the radius."""
    w, v = told.radius * twist[:3].numpy(), told.radius * twist[3:].numpy()
    x = points.numpy() - told.center.numpy()
    if np.linalg.norm(w) < 0.3:
        return points + torch.from_numpy(v)
    at = np.cross(w, v) / (w @ w)
    turned = (x - at) @ shapes.rotation(w, float(np.linalg.norm(w))).T + at
    return torch.from_numpy(turned + told.center.numpy())


def _parts(poses: Transform) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    yield from zip(poses.rotation, poses.translation, poses.scale, strict=True)


def _wrapped(text: str, width: int = 46) -> str:
    lines = [""]
    for word in text.split():
        lines = [*lines, word] if len(lines[-1]) + len(word) > width else [*lines[:-1], f"{lines[-1]} {word}"]
    return "\n".join(line.strip() for line in lines)


def _view(target: Tensor) -> Array:
    """Return two directions, (2, 3), aslant to the principal axes of a cloud."""
    x = target.numpy()
    axes = np.linalg.svd(x - x.mean(0), full_matrices=False)[2]
    turn = shapes.rotation((1, 0, 0), -0.9) @ shapes.rotation((0, 0, 1), 0.5)
    return (turn @ axes)[:2]


def _panel(axes: Any, clouds: Any, view: Array) -> None:
    step = max(1, max(len(points) for points, _ in clouds) // SHOWN)
    drawn = [points.numpy()[::step] @ view.T for points, _ in clouds]
    for layer in range(10):
        for flat, (_, color) in zip(drawn, clouds, strict=True):
            axes.plot(*flat[layer::10].T, ".", ms=1.6 if color != "black" else 2.4, color=color, mew=0)
    low, high = np.quantile(np.concatenate(drawn), (0.01, 0.99), axis=0)
    middle, half = (low + high) / 2, 0.62 * (high - low).max()
    axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half))
    axes.set(aspect="equal", xticks=[], yticks=[])


def _arrows(axes: Any, told: Verdict, view: Array) -> None:
    """Draw slides as straight arrows, and turns as arcs about their axes."""
    center, length = told.center.numpy(), 1.1 * told.radius
    for twist in told.free.numpy():
        w, v = twist[:3], twist[3:]
        if np.linalg.norm(w) * told.radius < 0.3:
            way = length * v / np.linalg.norm(v)
            path = np.linspace(-1, 1, 20)[:, None] * way + center
        else:
            axis, at = w / np.linalg.norm(w), center + np.cross(w, v) / (w @ w)
            across = np.cross(axis, np.eye(3)[np.abs(axis).argmin()])
            across *= length / np.linalg.norm(across)
            path = np.array([at + shapes.rotation(axis, angle) @ across for angle in np.linspace(0, 4.4, 60)])
        flat = path @ view.T
        axes.plot(*flat.T, color="black", lw=1.6)
        for end, before in ((flat[-1], flat[-2]), (flat[0], flat[1])):
            axes.annotate("", end, before, arrowprops={"arrowstyle": "-|>", "color": "black", "lw": 1.6})


def main(config: Config) -> None:
    torch.set_num_threads(1)
    found = list(examples(config))
    rows = [
        {
            "clouds": one.name,
            "answer": one.verdict.answer,
            "free motions": len(one.verdict.free),
            "other poses": len(one.verdict.rivals.scale),
            "misfit": one.verdict.misfit,
            "cover": one.verdict.cover,
            "reasons": "; ".join(one.verdict.reasons),
        }
        for one in found
    ]
    wanted = {
        "plane": ("free", 3, 0),
        "cylinder": ("free", 2, 0),
        "box": ("ambiguous", 0, 3),
        "stone": ("aligned", 0, 0),
        "stone and mirror image": ("doubtful", 0, 0),
        "laser scans": ("aligned", 0, 0),
    }
    as_expected = all(
        (row["answer"], row["free motions"], row["other poses"]) == wanted[row["clouds"]] for row in rows
    )
    said = f"{shared.statistics.holds(as_expected)} Noise of 0.4 % of the size on all but the scans."
    shared.results.write(config.out, config, {"Answers": rows}, figure(found), said)


if __name__ == "__main__":
    shared.run.main(main, Config(), __doc__)
