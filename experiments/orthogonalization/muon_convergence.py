r"""How many Newton-Schulz steps does Muon need, and what does it gain over SGD where the rank is high?

Kim and Oh, "Convergence of Muon with Newton-Schulz", ICLR 2026, arXiv 2601.19156. With the Taylor polynomial
of order kappa, the residual $\delta = \|\Pi - X X^\top\|$ after q steps is at most $\delta_0^{(\kappa+1)^q}$;
Muon's rate, in the nuclear norm of the gradient, is that of Muon with the exact polar factor up to a factor
that tends to 1 doubly exponentially in q, and lacks the $\sqrt r$ of SGD with momentum (SGD-M).

The paper trains CIFAR-10 networks; here is what two cores can check of it.

1. The law itself, kappa = 1 ... 5 and q = 1 ... 8, on random matrices. Expected: it holds in every cell; for
   kappa = 2, q = 8 and a smallest singular value of 0.01, the residual is 0.111 and the bound 0.519.
2. A network of three layers learns a random teacher, labels drawn from the teacher's probabilities. Expected,
   from the paper's curves: q = 2 and 3 end within 2 % of the exact polar factor, and q = 1 ahead of SGD-M.
   Every optimizer has its own step, the best of a grid, and all steps fall linearly to 0.
3. Least squares with a planted solution of rank r and inputs of unit power in r dimensions; the curvature
   constant L of the theorem and the first gap D are then the same for every r. Average nuclear norm of the
   gradient over the run, against r, with one step for all ranks (the best for the smallest), and with the
   best step for each. Expected: a log-log slope above 0.2 for SGD-M (0.3 in the paper's figure) and within
   0.1 of 0 for Muon. The bounds compare steps given by theory; how the paper tuned its figure is not known.

The paper divides by max(1, Frobenius norm), `newton_schulz` by the Frobenius norm.

    python -m experiments.orthogonalization.muon_convergence            half a minute on one core

It makes the published results with --out experiments/results/orthogonalization/muon_convergence.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import cross_entropy

from experiments import shared
from experiments.shared.settings import Count, Out, Settings
from experiments.shared.statistics import holds
from svdrot.polar import newton_schulz
from svdrot.schedules import kim_oh_step

Rows = list[dict[str, Any]]

ROUNDING = 1e-13  # what float64 may add to a residual that the law sends to 0
MUON_GRID = tuple(2.0**i for i in range(-8, 0))
SGD_GRID = tuple(2.0**i for i in range(-7, 3))
COLORS = {"SGD-M": "#D55E00", "q = 1": "#E69F00", "q = 2": "#56B4E9", "q = 3": "#0072B2", "exact": "#000000"}


@dataclass(frozen=True)
class Config(Settings):
    kappas: tuple[Count, ...] = (1, 2, 3, 4, 5)
    steps: tuple[Count, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
    """Newton-Schulz steps q of the residual law."""
    matrices: Count = 20
    """Random matrices of each shape for the law."""
    seeds: Count = 3
    """Of teacher, initial weights and data."""
    width: Count = 32
    """Of the network's layers, and of its input."""
    batch: Count = 128
    iterations: Count = 300
    """Of a training."""
    ranks: tuple[Count, ...] = (4, 8, 16, 32, 64)
    """Of the least squares; the largest is the size of the matrix."""
    rank_iterations: Count = 150
    out: Out = Path("runs/orthogonalization/muon_convergence")


def polar(m: Tensor) -> Tensor:
    u, _, vh = torch.linalg.svd(m, full_matrices=False)
    return u @ vh


def directions(steps: tuple[int, ...]) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return what each optimizer makes of its momentum."""
    found: dict[str, Callable[[Tensor], Tensor]] = {"SGD-M": lambda m: m}
    for q in steps:
        found[f"q = {q}"] = lambda m, q=q: newton_schulz(m, (kim_oh_step(2),) * q)
    return {**found, "exact": polar}


def update(w: Tensor, momentum: Tensor, gradient: Tensor, direction: Callable, step: Tensor) -> None:
    """Step simplified Muon, in place: momentum, then its polar factor; for SGD-M the momentum itself."""
    momentum.mul_(0.9).add_(gradient)
    w.sub_(step * direction(momentum))


def residual_law(config: Config) -> Rows:
    generator = torch.Generator().manual_seed(0)
    shapes = ((16, 16), (16, 24), (40, 12))
    batches = [
        torch.randn(config.matrices, *shape, generator=generator, dtype=torch.float64) for shape in shapes
    ]
    # And one whose smallest singular value, over the Frobenius norm, is 0.01.
    planted = torch.diag(torch.tensor([0.01, *[((1 - 1e-4) / 15) ** 0.5] * 15], dtype=torch.float64))
    rows = []
    for kappa in config.kappas:
        for q in config.steps:
            row = {"kappa": kappa, "q": q, "matrices": 0, "violations": 0, "delta / bound": 0.0}
            delta = bound = torch.empty(0)
            for m in [*batches, planted[None]]:
                before = torch.linalg.svdvals(m / torch.linalg.matrix_norm(m, keepdim=True))
                after = torch.linalg.svdvals(newton_schulz(m, (kim_oh_step(kappa),) * q))
                delta = (1 - after**2).abs().amax(-1)
                bound = (1 - before**2).amax(-1) ** ((kappa + 1) ** q)
                row["matrices"] += len(m)
                row["violations"] += int((delta > bound + ROUNDING).sum())
                above = torch.where(bound > 1e3 * ROUNDING, delta / bound, 0)
                row["delta / bound"] = max(row["delta / bound"], above.max().item())
            rows.append({**row, "delta at 0.01": delta.item(), "bound at 0.01": bound.item()})
    return rows


def train(config: Config, name: str, direction: Callable[[Tensor], Tensor]) -> Tensor:
    """Return final losses, (steps of the grid, seeds); one network for each, trained side by side."""
    grid = torch.tensor(SGD_GRID if name == "SGD-M" else MUON_GRID)
    width, classes = config.width, 10
    sizes = ((width, width), (width, width), (classes, width))
    weights, teachers = [], []
    generators = [torch.Generator().manual_seed(seed) for seed in range(config.seeds)]
    for m, n in sizes:
        drawn = [torch.randn(2, m, n, generator=generator) / n**0.5 for generator in generators]
        teacher, initial = torch.stack(drawn).unbind(1)
        teachers.append(teacher * 2)
        weights.append(initial.expand(len(grid), -1, -1, -1).clone().requires_grad_())
    momenta = [torch.zeros_like(w) for w in weights]

    def forward(layers: list[Tensor], x: Tensor) -> Tensor:
        for w in layers[:-1]:
            x = torch.relu(x @ w.mT)
        return x @ layers[-1].mT

    def data(count: int) -> tuple[Tensor, Tensor]:
        x = torch.stack([torch.randn(count, width, generator=generator) for generator in generators])
        noise = torch.stack([torch.rand(count, classes, generator=generator) for generator in generators])
        # The largest of logits plus Gumbel noise is a draw from their softmax.
        return x, (forward(teachers, x) - (-(noise + 1e-12).log()).log()).argmax(-1)

    def losses(x: Tensor, y: Tensor) -> Tensor:
        logits = forward(weights, x)
        each = cross_entropy(logits.flatten(0, -2), y.expand(logits.shape[:-1]).flatten(), reduction="none")
        return each.reshape(logits.shape[:-1]).mean(-1)

    for t in range(config.iterations):
        gradients = torch.autograd.grad(losses(*data(config.batch)).sum(), weights)
        with torch.no_grad():
            step = grid[:, None, None, None] * (1 - t / config.iterations)
            for w, momentum, gradient in zip(weights, momenta, gradients, strict=True):
                update(w, momentum, gradient, direction, step)
    with torch.no_grad():
        final = losses(*data(8192))
    return torch.where(final.isfinite(), final, torch.inf)  # too long steps diverge


def network(config: Config) -> Rows:
    rows = []
    for name, direction in directions((1, 2, 3)).items():
        losses = train(config, name, direction)
        best = int(losses.mean(1).argmin())
        grid = SGD_GRID if name == "SGD-M" else MUON_GRID
        row: dict[str, Any] = {"optimizer": name, "loss": losses[best].mean().item()}
        row["lowest"], row["highest"] = losses[best].min().item(), losses[best].max().item()
        row["step"] = grid[best]
        row["inside the grid"] = 0 < best < len(grid) - 1
        row["over exact"] = losses[best]
        rows.append(row)
    exact = rows[-1]["over exact"]
    for row in rows:
        ratio = row["over exact"] / exact
        row["over exact"] = ratio.mean().item()
        row["lowest ratio"], row["highest ratio"] = ratio.min().item(), ratio.max().item()
    return rows


def rank_test(config: Config) -> Rows:
    r"""$f(W) = |(W - W_*) S^{1/2}|^2 / 2$, $S$ a projector of rank r over r, $W_*$ a partial isometry on it.

    W starts at 0 and never leaves the r x r block of $W_*$, in whose singular bases everything is written:
    the error starts at minus the identity, and the size of the whole matrix is immaterial. At the start the
    gradient has nuclear norm 1, f is 1/2 and L is 1, whatever r.
    """
    rows = []
    for name, direction in directions((3,)).items():
        grid = torch.tensor([2.0**i for i in range(-5, 6)] if name == "SGD-M" else MUON_GRID)
        averages = []  # one for each rank, (steps of the grid, seeds)
        for rank in config.ranks:
            generators = [torch.Generator().manual_seed(seed) for seed in range(config.seeds)]
            error = -torch.eye(rank).repeat(len(grid), config.seeds, 1, 1)
            momentum = torch.zeros_like(error)
            total = torch.zeros(len(grid), config.seeds)
            for _ in range(config.rank_iterations):
                total += _nuclear(error / rank)
                x = [torch.randn(rank, 4 * rank, generator=generator) for generator in generators]
                covariance = torch.stack([part @ part.T / part.shape[1] / rank for part in x])
                update(error, momentum, error @ covariance, direction, grid[:, None, None, None])
                error.clamp_(-1e6, 1e6)  # too long steps diverge
            averages.append(total / config.rank_iterations)
        first = int(averages[0].mean(1).argmin())
        for steps in ("one for all ranks", "best for each rank"):
            for rank, average in zip(config.ranks, averages, strict=True):
                best = first if steps == "one for all ranks" else int(average.mean(1).argmin())
                row: dict[str, Any] = {"steps": steps, "optimizer": name, "rank": rank}
                row["nuclear norm"] = average[best].mean().item()
                row["lowest"], row["highest"] = average[best].min().item(), average[best].max().item()
                row["step"], row["inside the grid"] = grid[best].item(), 0 < best < len(grid) - 1
                rows.append(row)
    return rows


def _nuclear(m: Tensor) -> Tensor:
    """Return the sum of the singular values, from the Gram matrix."""
    return torch.linalg.eigvalsh((m.mT @ m).double()).clamp(min=0).sqrt().sum(-1).float()


def slopes(rows: Rows) -> Rows:
    found = []
    for steps, name in dict.fromkeys((row["steps"], row["optimizer"]) for row in rows):
        chosen = [row for row in rows if (row["steps"], row["optimizer"]) == (steps, name)]
        ranks = np.log([row["rank"] for row in chosen])
        slope = np.polyfit(ranks, np.log([row["nuclear norm"] for row in chosen]), 1)[0]
        found.append({"steps": steps, "optimizer": name, "slope": float(slope)})
    return found


def run(config: Config) -> dict[str, Rows]:
    ranks = rank_test(config)
    return {"law": residual_law(config), "network": network(config), "rank": ranks, "slope": slopes(ranks)}


def figure(rows: dict[str, Rows]) -> Figure:
    panels = Figure(figsize=(14, 4.3), layout="constrained")
    law, network, rank = panels.subplots(1, 3)

    for i, kappa in enumerate(dict.fromkeys(row["kappa"] for row in rows["law"])):
        chosen = [row for row in rows["law"] if row["kappa"] == kappa]
        q = [row["q"] for row in chosen]
        color = ("#E69F00", "#009E73", "#0072B2", "#CC79A7", "#000000")[i % 5]
        law.plot(q, [row["delta at 0.01"] for row in chosen], "o-", color=color, ms=4, label=f"κ = {kappa}")
        law.plot(q, [row["bound at 0.01"] for row in chosen], ":", color=color)
    law.plot([], [], ":", color="gray", label="bound")
    law.set(xlabel="Newton-Schulz steps q", ylabel="residual δ", ylim=(0, 1.03))
    law.set_title("residual law, smallest singular value 0.01")
    law.legend(loc="lower left")

    for i, row in enumerate(rows["network"]):
        color = COLORS[row["optimizer"]]
        excess = 100 * (row["over exact"] - 1)
        spread = [
            [100 * (row["over exact"] - row["lowest ratio"])],
            [100 * (row["highest ratio"] - row["over exact"])],
        ]
        network.errorbar(excess, i, xerr=spread, fmt="o", color=color, capsize=4)
    network.axvspan(-2, 2, color="gray", alpha=0.15, lw=0, label="2 % around exact")
    network.set_yticks(range(len(rows["network"])), [row["optimizer"] for row in rows["network"]])
    network.set_ylim(len(rows["network"]) - 0.5, -0.9)
    network.set_xlabel("final loss over that of the exact polar factor, %")
    network.set_title("network: mean and range of seeds")
    network.legend(loc="upper left")

    for row in rows["slope"]:
        chosen = [
            other
            for other in rows["rank"]
            if (other["steps"], other["optimizer"]) == (row["steps"], row["optimizer"])
        ]
        shared = row["steps"] == "one for all ranks"
        rank.errorbar(
            [other["rank"] for other in chosen],
            [other["nuclear norm"] for other in chosen],
            yerr=[
                [other["nuclear norm"] - other["lowest"] for other in chosen],
                [other["highest"] - other["nuclear norm"] for other in chosen],
            ],
            fmt="o-" if shared else "s:",
            ms=4,
            capsize=3,
            color=COLORS[row["optimizer"]],
            label=f"{row['optimizer']}, {row['steps']}: {row['slope']:+.2f}",
        )
    rank.set_xscale("log", base=2)
    rank.set_yscale("log")
    ticks = sorted({row["rank"] for row in rows["rank"]})
    rank.set_xticks(ticks, [str(tick) for tick in ticks])
    rank.yaxis.set_major_formatter("{x:g}")
    rank.yaxis.set_minor_formatter("{x:.2g}")
    rank.set(xlabel="planted rank r", ylabel="average nuclear norm of the gradient")
    rank.set_title("least squares")
    rank.set_ylim(top=3 * max(row["nuclear norm"] for row in rows["rank"]))
    rank.legend(loc="upper left", fontsize=8, title="optimizer, step: slope")
    for axis in (law, network, rank):
        axis.grid(alpha=0.3)
    return panels


def verdict(rows: dict[str, Rows]) -> str:
    law, by_name = rows["law"], {row["optimizer"]: row for row in rows["network"]}
    violations, cells = sum(row["violations"] for row in law), sum(row["matrices"] for row in law)
    text = [
        f"The residual law is violated {violations} times in {cells} checks ({len(law)} cells)."
        f" {holds(violations == 0)}"
    ]

    near = [abs(by_name[name]["over exact"] - 1) for name in ("q = 2", "q = 3")]
    one, sgd = by_name["q = 1"], by_name["SGD-M"]
    ratios = " and ".join(
        f"{row['over exact']:.4f} ({row['lowest ratio']:.4f} to {row['highest ratio']:.4f})"
        for row in (one, sgd)
    )
    text.append(
        f"Network: q = 2 and 3 end {near[0]:.1%} and {near[1]:.1%} from the exact polar factor; 2 % were"
        f" expected. {holds(max(near) <= 0.02)} q = 1 ends at {one['loss']:.4f} and SGD-M at"
        f" {sgd['loss']:.4f}; relative to the exact factor, seed by seed, means and ranges, {ratios}."
        f" {holds(one['loss'] < sgd['loss'])}"
    )
    if not all(row["inside the grid"] for row in rows["network"]):
        text.append("A best step of the network lies at the edge of its grid.")

    for steps in dict.fromkeys(row["steps"] for row in rows["slope"]):
        slope = {row["optimizer"]: row["slope"] for row in rows["slope"] if row["steps"] == steps}
        sgd_slope = slope.pop("SGD-M")
        muon = max(slope.values(), key=abs)
        text.append(
            f"Rank, steps {steps}: slope {sgd_slope:+.3f} for SGD-M, above 0.2 expected;"
            f" {holds(sgd_slope > 0.2)} {muon:+.3f} or nearer to 0 for Muon, within 0.1 of 0 expected."
            f" {holds(abs(muon) < 0.1)}"
        )
    last = {row["optimizer"]: row for row in rows["rank"]}  # the largest rank, best step
    text.append(
        f"At rank {last['exact']['rank']} and with its best step, the norm is"
        f" {last['SGD-M']['nuclear norm']:.3f} for SGD-M and {last['exact']['nuclear norm']:.3f} for Muon"
        " with the exact factor."
    )
    return " ".join(text)


def main(config: Config) -> None:
    rows = run(config)
    tables = {
        "Residual law; the last two columns are for a smallest singular value of 0.01": rows["law"],
        f"Network, final loss on new data, mean and range of {config.seeds} seeds": rows["network"],
        f"Average nuclear norm of the gradient, mean and range of {config.seeds} seeds": rows["rank"],
        "Its log-log slope against the rank": rows["slope"],
    }
    shared.results.write(config.out, config, tables, figure(rows), verdict(rows))


if __name__ == "__main__":
    shared.run.main(main, Config(), __doc__)
