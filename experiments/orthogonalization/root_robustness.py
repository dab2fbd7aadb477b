r"""Does a schedule for each shape orthogonalize better, and does clipping outliers help?

He, Han, Zhou, Chen, Liu, Chen and Wang, "ROOT: Robust Orthogonalized Optimizer for Neural Network Training",
arXiv 2511.20626, replaces the one polynomial of Muon by one for each shape of its network (a table of four),
and clips the momentum at a quantile of its entries. The paper's figures for both are not known here; what
follows from its published code can be checked.

1. Error of the schedules on the singular values of Gaussian matrices of the four shapes, taken as the
   quantiles of the law of Marchenko and Pastur (so the smallest of a square matrix, too, has its typical
   size). Published schedules divide by the Frobenius norm; they are shown with the Schatten-8 norm as well,
   which the generated ones use, to tell the two effects apart. Expected: ROOT's table beats Keller Jordan's
   polynomial on all shapes; `newton_schulz_schedule` with the aspect ratio beats ROOT's table on all four,
   with a mean square of p - 1 of at most 3e-4 on the rectangular ones, both at five steps.
2. Outliers: a 128 x 256 signal of rank 8 with noise, a fraction of the entries with outliers, and the cosine
   between the polar factors with and without them, raw and clipped at the 0.9 quantile of the absolute
   entries. Expected: clipping hurts clean matrices (cosine near 0.67), and pays from a crossover between
   0.1 % and 1 % of outliers on.
3. A network of two layers learns a random teacher by Muon, raw and clipped, from exact gradients and from
   gradients with Student-t noise (1.5 degrees of freedom) in one entry out of a hundred, each with its best
   step. Expected: clipping ends lower with the noise and not lower without.

    python -m experiments.orthogonalization.root_robustness            twenty seconds on one core

It makes the published results with --out experiments/results/orthogonalization/root_robustness.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from experiments import shared
from experiments.shared.settings import Count, NotNegative, Out, Positive, Settings, Share
from experiments.shared.statistics import holds
from svdrot.polar import newton_schulz
from svdrot.schedules import (
    KELLER_JORDAN,
    POLAR_EXPRESS,
    POLAR_EXPRESS_5,
    YOU,
    Schedule,
    newton_schulz_schedule,
)

Rows = list[dict[str, Any]]

# huawei-noah/noah-research, ROOT/examples/example_train.py, July 2026; five steps each. Other shapes there
# fall back to Keller Jordan's polynomial.
ROOT = {
    (2048, 2048): (3.4916, -4.8224, 2.1095),
    (2048, 3072): (3.4509, -4.5790, 1.9325),
    (2048, 8192): (2.9794, -3.6674, 1.6207),
    (2048, 16384): (3.1943, -3.8221, 1.5322),
}
GRID = tuple(2.0**i for i in range(-7, 0))  # steps of the network


@dataclass(frozen=True)
class Config(Settings):
    lower: Positive = 3e-3
    """Of the generated schedules; the aspect ratio raises it for rectangular matrices."""
    lowers: tuple[Positive, ...] = (5e-4, 1e-3, 2e-3, 3e-3, 5e-3, 1e-2, 3e-2)
    """Tried on the square shape, at five steps."""
    fractions: tuple[Share, ...] = (0.0, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03)
    """Of entries with an outlier."""
    outlier: NotNegative = 30.0
    """Standard deviation of the outliers; that of the noise is 0.3."""
    signals: tuple[Positive, ...] = (8.0, 1.0)
    """Variances of the entries of the signal."""
    quantile: Share = 0.9
    noise: NotNegative = 30.0
    """Of the gradients of the network, over their root mean square."""
    seeds: Count = 5
    """Of the matrices with outliers."""
    network_seeds: Count = 12
    iterations: Count = 200
    """Of the trainings of the network."""
    out: Out = Path("runs/orthogonalization/root_robustness")


def gaussian_spectrum(short: int, long: int) -> NDArray[np.float64]:
    r"""Return typical singular values of a short x long matrix of independent normal entries, of norm 1.

    The eigenvalues of the Gram matrix over `long` are $1 + q - 2 \sqrt q \cos t$, q = short / long, where t
    in $[0, \pi]$ has a density in proportion to $\sin^2 t / (1 + q - 2 \sqrt q \cos t)$.
    """
    q = short / long
    t = (np.arange(400_000) + 0.5) * math.pi / 400_000
    eigenvalues = 1 + q - 2 * math.sqrt(q) * np.cos(t)
    cumulative = np.cumsum(np.sin(t) ** 2 / eigenvalues)
    levels = (np.arange(short) + 0.5) / short
    s = np.sqrt(np.interp(levels, cumulative / cumulative[-1], eigenvalues))
    return s / np.linalg.norm(s)


def apply(schedule: Schedule, s: NDArray[np.float64], schatten: int) -> NDArray[np.float64]:
    """Return what `newton_schulz` makes of the singular values."""
    s = s / np.sum(s**schatten) ** (1 / schatten)
    for step in schedule:
        s = sum((c * s ** (2 * i + 1) for i, c in enumerate(step)), np.zeros_like(s))
    return s


def errors(schedule: Schedule, s: NDArray[np.float64], schatten: int) -> dict[str, Any]:
    gap = apply(schedule, s, schatten) - 1
    return {"steps": len(schedule), "mse": float(np.mean(gap**2)), "max": float(np.abs(gap).max())}


def shapes(config: Config) -> tuple[Rows, Rows]:
    rows, ranges = [], []
    for (short, long), root in ROOT.items():
        s = gaussian_spectrum(short, long)
        shape, aspect = f"{short} x {long}", long / short
        generated = newton_schulz_schedule(config.lower, aspect=aspect)
        minimax = newton_schulz_schedule(config.lower, aspect=aspect, cap=0.0)
        published: dict[str, Schedule] = {
            "Keller Jordan": KELLER_JORDAN,
            "ROOT": (root,) * 5,
            "You": YOU,
            "Polar Express 5": POLAR_EXPRESS_5,
            "Polar Express 8": POLAR_EXPRESS,
        }
        for schatten in (2, 8):
            for name, schedule in published.items():
                row = {"shape": shape, "schedule": name, "norm": f"Schatten-{schatten}"}
                rows.append({**row, **errors(schedule, s, schatten)})
        for name, schedule in {
            "generated, first 5": generated[:5],
            "generated, all": generated,
            "generated, to 0.01": newton_schulz_schedule(config.lower, aspect=aspect, tolerance=1e-2),
            "generated without cap, first 5": minimax[:5],
        }.items():
            row = {"shape": shape, "schedule": name, "norm": "Schatten-8"}
            rows.append({**row, **errors(schedule, s, 8)})
        eighth = s / np.sum(s**8) ** (1 / 8)
        row = {"shape": shape, "smallest, Frobenius": s[0], "largest, Frobenius": s[-1]}
        row |= {"smallest, Schatten-8": eighth[0], "largest, Schatten-8": eighth[-1]}
        ranges.append({name: v if name == "shape" else float(v) for name, v in row.items()})
    return rows, ranges


def square(config: Config) -> Rows:
    """Find where the generated schedule for the square shape should begin, if it ends after five steps."""
    s = gaussian_spectrum(*next(iter(ROOT)))
    rows = []
    for lower in config.lowers:
        row: dict[str, Any] = {"lower": lower}
        for cap in (0.2, 0.0):
            schedule = newton_schulz_schedule(lower, cap=cap)[:5]
            row[f"mse, cap {cap:g}"] = errors(schedule, s, 8)["mse"]
        rows.append(row)
    return rows


def clipped(m: Tensor, quantile: float) -> Tensor:
    """Apply ROOT's soft threshold: entries end at the quantile of the absolute entries of their matrix."""
    limit = torch.quantile(m.abs().flatten(-2), quantile, dim=-1)[..., None, None]
    return m.clamp(-limit, limit)


def polar(m: Tensor) -> Tensor:
    u, _, vh = torch.linalg.svd(m, full_matrices=False)
    return u @ vh


def outliers(config: Config) -> Rows:
    def cosine(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum((-2, -1)) / torch.linalg.matrix_norm(a) / torch.linalg.matrix_norm(b)

    rows = []
    for variance in config.signals:
        drawn = []
        for seed in range(config.seeds):
            generator = torch.Generator().manual_seed(seed)
            signal = torch.randn(128, 8, generator=generator) @ torch.randn(8, 256, generator=generator)
            noise, spikes = torch.randn(2, 128, 256, generator=generator)
            clean = signal * (variance / 8) ** 0.5 + 0.3 * noise
            drawn.append(torch.stack((clean, spikes, torch.rand(128, 256, generator=generator))))
        clean, spikes, chance = torch.stack(drawn, 1)
        wanted = polar(clean)
        for fraction in config.fractions:
            dirty = clean + config.outlier * spikes * (chance < fraction)
            raw = cosine(polar(dirty), wanted)
            clip = cosine(polar(clipped(dirty, config.quantile)), wanted)
            row = {"signal variance": variance, "fraction": fraction}
            row |= {"raw": raw.mean().item(), "raw sd": raw.std().item()}
            rows.append({**row, "clipped": clip.mean().item(), "clipped sd": clip.std().item()})
    return rows


def crossovers(rows: Rows) -> dict[float, float | None]:
    """Find by signal variance the fraction of outliers from which on clipping pays, by interpolation."""
    found: dict[float, float | None] = {}
    for variance in dict.fromkeys(row["signal variance"] for row in rows):
        chosen = [row for row in rows if row["signal variance"] == variance]
        x = np.array([row["fraction"] for row in chosen])
        gain = np.array([row["clipped"] - row["raw"] for row in chosen])
        pays = [i for i in range(1, len(x)) if gain[i - 1] < 0 <= gain[i]]
        found[variance] = None
        if pays:
            i = pays[-1]
            found[variance] = float(x[i - 1] - gain[i - 1] * (x[i] - x[i - 1]) / (gain[i] - gain[i - 1]))
    return found


def train(config: Config, noise: float, clip: bool) -> Tensor:
    """Return final losses, (steps of the grid, seeds)."""
    grid = torch.tensor(GRID)
    schedule = newton_schulz_schedule(1e-2, tolerance=1e-2)
    generators = [torch.Generator().manual_seed(seed) for seed in range(config.network_seeds)]
    sizes = ((32, 32), (8, 32))
    drawn = [
        [torch.stack([torch.randn(size, generator=g) for g in generators]) / size[1] ** 0.5 for size in sizes]
        for _ in range(2)
    ]
    x = torch.stack([torch.randn(256, 32, generator=g) for g in generators])
    y = torch.relu(x @ drawn[0][0].mT) @ drawn[0][1].mT
    weights = [w.expand(len(grid), -1, -1, -1).clone().requires_grad_() for w in drawn[1]]
    momenta = [torch.zeros_like(w) for w in weights]

    def losses() -> Tensor:
        return ((torch.relu(x @ weights[0].mT) @ weights[1].mT - y) ** 2).mean((-2, -1))

    def heavy(shape: tuple[int, ...]) -> Tensor:
        """Draw Student-t with 1.5 degrees of freedom (Bailey's polar method) in one entry of a hundred."""
        draws = torch.stack([torch.rand(3, *shape, generator=generator) for generator in generators], 1)
        radius, angle, chance = draws.clamp(min=1e-7)
        t = (1.5 * (radius ** (-2 / 1.5) - 1)).sqrt() * torch.cos(2 * math.pi * angle)
        return t * (chance < 0.01)

    for t in range(config.iterations):
        gradients = torch.autograd.grad(losses().sum(), weights)
        step = grid[:, None, None, None] * (1 - t / config.iterations)
        with torch.no_grad():
            for w, momentum, gradient in zip(weights, momenta, gradients, strict=True):
                size = gradient.square().mean((-2, -1), keepdim=True).sqrt()
                momentum.mul_(0.95).add_(gradient + noise * size * heavy(gradient.shape[2:]))
                m = clipped(momentum, config.quantile) if clip else momentum
                w.sub_(step * newton_schulz(m, schedule, schatten=8))
    return losses().detach()


def network(config: Config) -> Rows:
    rows = []
    for noise in (0.0, config.noise):
        raw = torch.zeros(0)
        for clip in (False, True):
            losses = train(config, noise, clip).log()
            best = int(losses.mean(1).argmin())
            row: dict[str, Any] = {"noise": noise, "momentum": "clipped" if clip else "raw"}
            row["loss"] = losses[best].mean().exp().item()
            row["lowest"], row["highest"] = losses[best].min().exp().item(), losses[best].max().exp().item()
            row["step"], row["inside the grid"] = GRID[best], 0 < best < len(GRID) - 1
            raw = raw if clip else losses[best]
            gain = losses[best] - raw
            row["log of loss over raw"] = gain.mean().item()
            row["standard error"] = (gain.std() / len(gain) ** 0.5).item()
            rows.append(row)
    return rows


def run(config: Config) -> dict[str, Rows]:
    by_shape, ranges = shapes(config)
    return {
        "shapes": by_shape,
        "ranges": ranges,
        "square": square(config),
        "outliers": outliers(config),
        "network": network(config),
    }


def figure(rows: dict[str, Rows]) -> Figure:
    panels = Figure(figsize=(14, 4.6), layout="constrained")
    shape, outlier, network = panels.subplots(1, 3, width_ratios=(1.5, 1.2, 0.8))

    shown = {
        ("Keller Jordan", "Schatten-2"): ("#E69F00", "o", "Keller Jordan, 5 steps"),
        ("ROOT", "Schatten-2"): ("#D55E00", "s", "ROOT, 5 steps"),
        ("You", "Schatten-2"): ("#CC79A7", "^", "You, 5 steps"),
        ("You", "Schatten-8"): ("#CC79A7", "v", "You, Schatten-8 norm"),
        ("Polar Express 5", "Schatten-2"): ("#009E73", "d", "Polar Express, 5 steps"),
        ("generated, first 5", "Schatten-8"): ("#0072B2", "o", "generated, at most 5 steps"),
        ("generated, to 0.01", "Schatten-8"): ("#56B4E9", "x", "generated to 0.01 (steps beside it)"),
    }
    names = list(dict.fromkeys(row["shape"] for row in rows["shapes"]))
    floor = 1e-13
    for i, ((schedule, norm), (color, marker, label)) in enumerate(shown.items()):
        chosen = [row for row in rows["shapes"] if (row["schedule"], row["norm"]) == (schedule, norm)]
        places = [j + 0.11 * (i - 3) for j in range(len(names))]
        heights = [max(row["mse"], floor) for row in chosen]
        shape.plot(places, heights, marker, color=color, label=label, ms=6)
        if schedule == "generated, to 0.01":
            for place, height, row in zip(places, heights, chosen, strict=True):
                shape.annotate(str(row["steps"]), (place, height), (4, 4), textcoords="offset points", size=8)
    shape.axhline(3e-4, color="gray", ls=":", lw=1)
    shape.text(len(names) - 0.5, 3e-4, "3e-4", color="gray", size=8, ha="right", va="bottom")
    shape.set_xticks(range(len(names)), [name.replace(" x ", " × ") for name in names])
    shape.set(yscale="log", ylim=(floor / 5, 1), xlim=(-0.5, len(names) - 0.5))
    shape.set_ylabel(f"mean (p(σ) - 1)², {floor:g} for anything less")
    shape.set_title("Gaussian matrices: error of the schedules", size=10)
    shape.legend(fontsize=8, loc="center left", bbox_to_anchor=(0.0, 0.42))

    found = crossovers(rows["outliers"])
    for variance, style in zip(found, ("-", "--", ":"), strict=False):
        chosen = [row for row in rows["outliers"] if row["signal variance"] == variance]
        x = [100 * row["fraction"] for row in chosen]
        for name, color in (("raw", "#D55E00"), ("clipped", "#0072B2")):
            outlier.errorbar(
                x,
                [row[name] for row in chosen],
                yerr=[row[f"{name} sd"] for row in chosen],
                ls=style,
                marker="o",
                ms=3,
                capsize=2,
                color=color,
                label=f"{name}, signal of variance {variance:g}",
            )
        crossover = found[variance]
        if crossover is not None:
            outlier.axvline(100 * crossover, color="gray", ls=style, lw=1)
    outlier.set_xscale("symlog", linthresh=0.05, linscale=0.5)
    ticks = [0, 0.05, 0.1, 0.3, 1, 3]
    outlier.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    outlier.set_xticks([], minor=True)
    outlier.set(xlabel="entries with an outlier, %", xlim=(-0.01, 3.5), ylim=(0, 1.05))
    outlier.set_ylabel("cosine with the polar factor without them")
    outlier.set_title("outliers; gray: from here on clipping pays", size=10)
    outlier.legend(fontsize=8, loc="lower left")

    for i, row in enumerate(rows["network"]):
        color = "#0072B2" if row["momentum"] == "clipped" else "#D55E00"
        spread = ([row["loss"] - row["lowest"]], [row["highest"] - row["loss"]])
        network.errorbar(i, row["loss"], yerr=spread, fmt="o", color=color, capsize=4)
    labels = [f"{row['momentum']},\n{'noisy' if row['noise'] else 'exact'}" for row in rows["network"]]
    network.set_xticks(range(len(labels)), labels, size=8)
    network.set(
        yscale="log", xlim=(-0.5, len(labels) - 0.5), ylabel="final loss, geometric mean and range of seeds"
    )
    network.set_title("network: momentum, gradients", size=10)
    for axis in (shape, outlier, network):
        axis.grid(alpha=0.3, axis="y")
    return panels


def verdict(rows: dict[str, Rows]) -> str:
    mse = {(row["shape"], row["schedule"], row["norm"]): row["mse"] for row in rows["shapes"]}
    names = list(dict.fromkeys(row["shape"] for row in rows["shapes"]))
    kj, root, you = (
        [mse[name, schedule, "Schatten-2"] for name in names] for schedule in ("Keller Jordan", "ROOT", "You")
    )
    ours = [mse[name, "generated, first 5", "Schatten-8"] for name in names]
    rectangular = [value for name, value in zip(names, ours, strict=True) if len(set(name.split(" x "))) == 2]
    text = [
        "ROOT's mean square is below Keller Jordan's by factors of "
        + ", ".join(f"{a / b:.3g}" for a, b in zip(kj, root, strict=True))
        + f" ({', '.join(names)}).",
        holds(all(a > b for a, b in zip(kj, root, strict=True))),
        "The schedule of You, the same for all shapes, is below ROOT's on "
        + f"{sum(a > b for a, b in zip(root, you, strict=True))} of {len(names)}.",
        "The generated one, at most five steps, has "
        + ", ".join(f"{a:.2g} against {b:.2g}" for a, b in zip(ours, root, strict=True))
        + " of ROOT.",
        holds(all(a < b for a, b in zip(ours, root, strict=True))),
        f"On the rectangular shapes it is at most {max(rectangular):.2g}; 3e-4 expected.",
        holds(max(rectangular) <= 3e-4),
    ]
    square = names[0]
    text.append(
        f"Part of that is the norm: on {square} You's schedule has {mse[square, 'You', 'Schatten-8']:.2g}"
        f" with the Schatten-8 norm, the generated one {ours[0]:.2g} with the cap and"
        f" {mse[square, 'generated without cap, first 5', 'Schatten-8']:.2g} without."
    )

    best = min(rows["square"], key=lambda row: row["mse, cap 0.2"])
    text.append(f"There, five steps do best if they begin at {best['lower']:g}: {best['mse, cap 0.2']:.2g}.")

    for variance, crossover in crossovers(rows["outliers"]).items():
        clean = next(r for r in rows["outliers"] if r["signal variance"] == variance and r["fraction"] == 0)
        line = f"Signal of variance {variance:g}: clipping takes a clean matrix to {clean['clipped']:.3f} and"
        if crossover is None:
            text += [line + " pays nowhere.", holds(False)]
        else:
            text.append(line + f" pays from {crossover:.2%} of outliers on; 0.1 to 1 % expected.")
            text.append(holds(0.001 <= crossover <= 0.01))

    for row in rows["network"]:
        if row["momentum"] == "clipped":
            change, error = row["log of loss over raw"], row["standard error"]
            text.append(
                f"Network, {'noisy' if row['noise'] else 'exact'} gradients: clipping changes the log of the"
                f" final loss by {change:+.2f} (standard error {error:.2f});"
            )
            text.append("lower expected." if row["noise"] else "not lower expected.")
            text.append(holds(change < -2 * error if row["noise"] else change > -2 * error))
    return " ".join(text)


def main(config: Config) -> None:
    rows = run(config)
    tables = {
        "Errors of the schedules on Gaussian matrices": rows["shapes"],
        "Singular values of these matrices over the two norms": rows["ranges"],
        "Square shape, generated schedule, first five steps: where it begins": rows["square"],
        "Cosine with the polar factor without outliers": rows["outliers"],
        "Network, final loss, geometric mean over the seeds": rows["network"],
    }
    shared.results.write(config.out, config, tables, figure(rows), verdict(rows))


if __name__ == "__main__":
    shared.run.main(main, Config(), __doc__)
