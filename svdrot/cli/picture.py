"""Two clouds before and after an alignment, from three sides."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from torch import Tensor

from svdrot.transform import Transform

SOURCE, TARGET = "#D55E00", "#0072B2"  # Okabe and Ito's: told apart by every kind of eye
VIEWS = (("x", "y", "z"), ("x", "z", "y"), ("y", "z", "x"))  # across, up, towards the eye or away
SHOWN = 10_000  # points of each cloud
LAYERS = 10  # of each, by turns, or the cloud drawn last would hide the other


def draw(source: Tensor, target: Tensor, transform: Transform, title: str) -> Figure:
    """A figure of two rows, the source as it came and moved by `transform`, in three orthogonal views.

    Args:
        source: shape (N, 3).
        target: shape (M, 3).
        transform: of the source.
        title: above both rows.
    """
    random = np.random.default_rng(0)
    shown = [cloud[random.permutation(len(cloud))[:SHOWN]] for cloud in (source, target)]
    moved = transform.apply(shown[0].to(transform.rotation))
    figure = Figure(figsize=(13.5, 9), layout="constrained", dpi=110)
    figure.suptitle(title, fontsize=12)
    for row, (name, first) in enumerate((("before", shown[0]), ("after", moved))):
        clouds = [cloud.double().numpy() for cloud in (first, shown[1])]
        for column, view in enumerate(VIEWS):
            axes = figure.add_subplot(2, 3, 3 * row + column + 1)
            panel(axes, clouds, view)
            axes.set_title(f"{name}, along {view[2]}", fontsize=10)
    marks = [Line2D([], [], color=color, marker="o", linestyle="none") for color in (SOURCE, TARGET)]
    names = [f"source, {len(source):,} points", f"target, {len(target):,} points"]
    figure.legend(marks, names, loc="outside lower center", ncols=2, frameon=False)
    return figure


def panel(axes: Axes, clouds: Sequence[NDArray], view: tuple[str, str, str]) -> None:
    """Source and target (N, 3), seen along the last axis of `view`, the others across and up."""
    flat = [cloud[:, ["xyz".index(axis) for axis in view[:2]]] for cloud in clouds]
    for layer in range(LAYERS):
        for points, color in zip(flat, (SOURCE, TARGET), strict=True):
            size = min(4.0, max(0.9, 220 * len(points) ** -0.5))
            axes.plot(*points[layer::LAYERS].T, "o", color=color, markersize=size, markeredgewidth=0)
    # All but the few that lie far from the others, for whom these would have to shrink.
    low, high = np.percentile(np.concatenate(flat), [1, 99], axis=0)
    middle, half = (low + high) / 2, 0.55 * (high - low).max() or 1.0
    axes.set_xlim(middle[0] - half, middle[0] + half)
    axes.set_ylim(middle[1] - half, middle[1] + half)
    axes.set_aspect("equal")
    axes.set_xlabel(view[0])
    axes.set_ylabel(view[1])
    axes.tick_params(labelsize=8)
