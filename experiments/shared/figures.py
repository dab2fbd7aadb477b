"""What figures share: colors, axes of errors and of time, and lines with the range of their seeds."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator, NullLocator

# Okabe and Ito's colors, which color-blind readers can tell apart.
VERMILLION, BLUE, GREEN, PINK, ORANGE, SKY = "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
COLORS = (VERMILLION, BLUE, GREEN, PINK, ORANGE, SKY, "#444444")
DASHES = ("-", "--", "-.", ":")


def plain_log(axis: Any) -> None:
    """Label a logarithmic axis (`axes.xaxis`, `axes.yaxis`) with 1, 2, 5, 10, ..., not with powers of ten."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def band(axes: Any, x: Any, seeds: Any, color: str, **style: Any) -> None:
    """Draw the mean over the seeds (seeds, points), on a band from the least to the greatest."""
    seeds = np.asarray(seeds)
    axes.fill_between(x, seeds.min(0), seeds.max(0), color=color, alpha=0.15, lw=0)
    axes.plot(x, seeds.mean(0), color=color, **style)


def curve_band(axes: Any, curves: list[list[dict[str, float]]], name: str, color: str, **style: Any) -> None:
    """Draw a number along the learning curves of several seeds, up to the end of the shortest."""
    shortest = min(map(len, curves))  # some may have ended early
    steps = [point["step"] for point in curves[0][:shortest]]
    band(axes, steps, [[point[name] for point in curve[:shortest]] for curve in curves], color, **style)


def seeds_and_mean(axes: Any, place: float, values: list[float], color: str) -> None:
    """Draw the values of the seeds as rings in the row `place`, and their mean as a stroke."""
    axes.plot(values, [place] * len(values), "o", color=color, mfc="none")
    axes.plot(np.mean(values), place, "|", ms=18, mew=2.5, color=color)


def seconds_axis(axes: Any, results: Iterable[dict[str, Any]]) -> None:
    """Show above an axis of steps the time they take: of all heads about the same, so one median serves."""
    a_step = float(np.median([result["seconds"] / result["step"] for result in results]))
    top = axes.secondary_xaxis("top", functions=(lambda step: step * a_step, lambda time: time / a_step))
    top.set_xlabel("seconds of one training", fontsize="small")
    top.tick_params(labelsize="small")
