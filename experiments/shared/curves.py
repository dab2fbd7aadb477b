"""The learning curves of a run folder: a table, and event files for TensorBoard."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments.shared import run

Curve = list[dict[str, float]]  # points with step, loss, seconds, and figures


def write(folder: Path, results: Mapping[tuple[str, int], dict[str, Any]]) -> None:
    """Write curves.csv, and the seconds apart in times.csv: no two runs take the same."""
    points = [
        {"variant": variant, "seed": seed, **point}
        for (variant, seed), result in results.items()
        for point in result["curve"]
    ]
    curves = [{name: value for name, value in point.items() if name != "seconds"} for point in points]
    times = [{name: point[name] for name in ("variant", "seed", "step", "seconds")} for point in points]
    run.write_csv(folder / "curves.csv", curves)
    run.write_csv(folder / "times.csv", times)


@contextmanager
def scalars(folder: Path, curve: Curve) -> Iterator[Callable[[dict[str, float]], None]]:
    """Give a function that adds points to the event file of a training, made anew from its curve so far.

    What another command left there may be ahead of the checkpoint: its points come again, and are not to be
    there twice.
    """
    if run.rank() > 0:
        yield lambda point: None
        return
    from torch.utils.tensorboard import SummaryWriter

    for old in folder.glob("events.*"):
        old.unlink()
    with SummaryWriter(folder) as writer:

        def add(point: dict[str, float]) -> None:
            for name in point.keys() - {"step"}:
                writer.add_scalar(name, point[name], int(point["step"]))

        for point in curve:
            add(point)
        yield add
