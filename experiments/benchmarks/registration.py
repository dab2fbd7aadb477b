"""How fast is a weighted rigid alignment of pairs, and how far from what the machine allows?

Forward, and forward + backward to points and weights, of (B, N, 3) clouds: `svdrot.registration.kabsch`,
roma 1.8.0's `rigid_points_registration`, the dozen lines that people write around `torch.linalg.svd` (as
PyTorch3D's `corresponding_points_alignment`, but with the weights once), and the floor, reading the same
clouds and, with backward, writing their gradients. All take turns within each round; medians, and ratios of
medians. Errors are those of the rotations against a float64 solution of the same pairs, largest entry.

Expected, on a CPU, float32: at least 6 times faster than both at 64 clouds of 1,024 points, forward and with
backward, and 15 times at 1,024 clouds of 64 points.

    python -m experiments.benchmarks.registration            two minutes on two cores

It makes the published results with --out experiments/results/benchmarks/registration.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import roma
import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from experiments import shared
from experiments.shared.settings import Count, Device, Out, Positive, Settings
from experiments.shared.timing import medians
from svdrot.registration import kabsch

PASSES = ("forward", "forward + backward")
COLORS = {"svdrot": "#0072B2", "roma": "#D55E00", "torch SVD": "#009E73", "floor": "#999999"}


@dataclass(frozen=True)
class Config(Settings):
    device: Device = "cuda" if torch.cuda.is_available() else "cpu"
    """cpu or cuda."""
    sizes: tuple[tuple[Count, Count], ...] = (
        (1, 100),
        (64, 64),
        (1024, 64),
        (64, 1024),
        (1024, 1024),
        (1, 1048576),
    )
    """Clouds in a call, and points of each."""
    dtypes: tuple[Literal["float32", "float64"], ...] = ("float32", "float64")
    rounds: Count = 100
    """At most, for each size."""
    seconds: Positive = 6.0
    """After which no new round begins; there are at least three."""
    out: Out = Path("runs/benchmarks/registration")


def by_kabsch(x: Tensor, y: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    found = kabsch(x, y, w)
    return found.rotation, found.translation


def by_roma(x: Tensor, y: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    return roma.rigid_points_registration(x, y, weights=w)  # type: ignore[return-value]


def by_svd(x: Tensor, y: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    w = (w / w.sum(-1, keepdim=True))[..., None]
    mean_x, mean_y = (w * x).sum(1, keepdim=True), (w * y).sum(1, keepdim=True)
    u, _, vh = torch.linalg.svd((w * (y - mean_y)).mT @ (x - mean_x))
    ones = torch.ones_like(u[..., 0, :2])
    rotation = u * torch.cat((ones, torch.linalg.det(u @ vh)[..., None]), -1)[..., None, :] @ vh
    return rotation, mean_y[:, 0] - (rotation @ mean_x.mT)[..., 0]


ALIGNMENTS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "svdrot": by_kabsch,
    "roma": by_roma,
    "torch SVD": by_svd,
}


def clouds(batch: int, points: int, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator(device).manual_seed(0)
    normal = torch.randn(2, batch, points, 3, dtype=dtype, device=device, generator=generator)
    weights = torch.rand(batch, points, dtype=dtype, device=device, generator=generator)
    return normal[0], normal[0] + 0.1 * normal[1], weights


def contestants(x: Tensor, y: Tensor, w: Tensor, which: str) -> dict[str, Callable[[], object]]:
    leaves = [z.clone().requires_grad_() for z in (x, y, w)]
    gradients = [torch.empty_like(z) for z in (x, y, w)]

    def read() -> None:
        for z in (x, y, w):
            z.sum()

    def read_and_write() -> None:
        read()
        for z, gradient in zip((x, y, w), gradients, strict=True):
            gradient.copy_(z)

    calls: dict[str, Callable[[], object]] = {"floor": read if which == "forward" else read_and_write}
    for name, align in ALIGNMENTS.items():
        if which == "forward":
            calls[name] = lambda align=align: align(x, y, w)
        else:

            def with_backward(align: Any = align) -> None:
                rotation, translation = align(*leaves)
                torch.autograd.grad((rotation.square().sum(-1) * translation).sum(), leaves)

            calls[name] = with_backward
    return calls


def run(config: Config) -> list[dict[str, Any]]:
    cells = [(dtype, size, which) for dtype in config.dtypes for size in config.sizes for which in PASSES]
    rows = []
    for dtype, (batch, points), which in tqdm(cells, unit="cell"):
        x, y, w = clouds(batch, points, getattr(torch, dtype), config.device)
        times, _ = medians(contestants(x, y, w, which), config.device, config.rounds, config.seconds)
        exact = by_svd(x.double(), y.double(), w.double())[0]
        own = times["svdrot"]
        row: dict[str, Any] = {"dtype": dtype, "clouds": batch, "points": points, "pass": which}
        row |= {f"{name} µs": 1e6 * t for name, t in times.items()}
        row |= {f"{name} / svdrot": t / own for name, t in times.items() if name != "svdrot"}
        for name, align in ALIGNMENTS.items():
            row[f"{name} error"] = (align(x, y, w)[0].double() - exact).abs().max().item()
        rows.append(row)
    return rows


def verdict(rows: list[dict[str, Any]]) -> str:
    wanted = {(64, 1024): 6, (1024, 64): 15}
    said = []
    for row in rows:
        target = wanted.get((row["clouds"], row["points"]))
        if target and row["dtype"] == "float32":
            least = min(row["roma / svdrot"], row["torch SVD / svdrot"])
            holds = "holds" if least >= target else "does not hold"
            said.append(
                f"{row['clouds']:,} x {row['points']:,}, {row['pass']}: {least:.3g} times faster than the"
                f" faster of the two, expected {target}: **{holds}**."
            )
    return " ".join(said)


def figure(rows: list[dict[str, Any]]) -> Figure:
    dtypes = list(dict.fromkeys(row["dtype"] for row in rows))
    panels = Figure(figsize=(12, 3.6 * len(dtypes)), layout="constrained")
    axes = panels.subplots(len(dtypes), 2, sharey=True, squeeze=False)
    for line, dtype in zip(axes, dtypes, strict=True):
        for axis, which in zip(line, PASSES, strict=True):
            chosen = [row for row in rows if (row["dtype"], row["pass"]) == (dtype, which)]
            for k, (name, color) in enumerate(COLORS.items()):
                places = [i + 0.2 * (k - 1.5) for i in range(len(chosen))]
                each = [1e3 * row[f"{name} µs"] / (row["clouds"] * row["points"]) for row in chosen]
                axis.bar(places, each, 0.2, color=color, label=name)
            labels = [f"{row['clouds']:,} x\n{row['points']:,}" for row in chosen]
            axis.set_xticks(range(len(chosen)), labels)
            axis.set(yscale="log", title=f"{which}, {dtype}")
            axis.grid(alpha=0.3, axis="y")
        line[0].set_ylabel("nanoseconds per pair")
    axes[-1, 0].set_xlabel("clouds x points")
    axes[0, 0].legend(fontsize=8)
    return panels


def main(config: Config) -> None:
    rows = run(config)
    tables = {
        f"{dtype}, {which}": [
            {k: v for k, v in row.items() if k not in ("dtype", "pass")}
            for row in rows
            if (row["dtype"], row["pass"]) == (dtype, which)
        ]
        for dtype in config.dtypes
        for which in PASSES
    }
    shared.results.write(config.out, config, tables, figure(rows), verdict(rows))


if __name__ == "__main__":
    shared.run.main(main, Config(), __doc__)
