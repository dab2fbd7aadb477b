r"""When does MiMuon orthogonalize, and does the gap between singular values govern how stable Muon is?

Huang, Luo and Chen, "MiMuon", arXiv 2605.19619: the momentum is orthogonalized if the smallest difference
between two of its non-zero singular values is at least τ, and taken as it is otherwise. The abstract claims a
generalization error of O(1/N) from N samples, against O(1/(N κ^T)) for Muon, κ the smallest gap. The τ of the
authors, their learning rates and tables were not at hand; the claims are checked on logistic regression with
weights and samples of shape 16 x 10 and labels from a noisy linear rule.

Expected:

- the part of the steps that is orthogonalized falls from 1 to 0 as τ rises; τ = 0 is Muon and τ = ∞ momentum
  descent, bit for bit;
- gaps of Gaussian n x n matrices of norm 1: medians 2.8e-2, 1.6e-3, 7.5e-5 for n = 8, 32, 128, and at least
  1e-4 with probability 1.00, 0.98, 0.30: in wide layers any fixed τ means momentum descent;
- training twice with one of the N samples changed and all else equal, 200 steps: the distance of MiMuon's
  weights times N is roughly constant; Muon's grows with the number of steps, and is larger where the smallest
  gap on the way was smaller (Spearman's correlation below 0).

The last one is not what perturbation theory says: the derivative of the polar factor divides by sums of two
singular values, and for tall matrices by single ones, never by differences. The gap and the sum of the two
smallest are both correlated, with the distance after training and with the response of polar(M) to one small
random change of M.

    python -m experiments.orthogonalization.mimuon_gate

It makes the published results with --out experiments/results/orthogonalization/mimuon_gate.
"""

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from experiments import shared
from experiments.shared.settings import Count, Out, Part, Positive, Settings, Threshold
from experiments.shared.statistics import met
from svdrot.optim import MatrixView, MiMuon, Muon, singular_gap

SHAPE = (16, 10)
STACK = MatrixView(rows=(1,), batch=(0,))  # a parameter (runs, 16, 10)
GAPS = {
    8: (2.8e-2, 1.00),
    32: (1.6e-3, 0.98),
    128: (7.5e-5, 0.30),
}  # medians, and P(gap >= 1e-4), of the trial
COLORS = {"momentum": "#009E73", "MiMuon": "#0072B2", "Muon": "#D55E00"}


@dataclass(frozen=True)
class Config(Settings):
    taus: tuple[Threshold, ...] = (0.0, 1e-8, 1e-6, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, math.inf)
    """For the branch law, ascending."""
    branch_seeds: Count = 8
    draws: tuple[Count, Count, Count] = (2000, 1000, 200)
    """Gaussian matrices of 8, 32 and 128 rows."""
    samples: tuple[Count, ...] = (50, 100, 200, 400, 800)
    """Sizes of the training set, for the stability."""
    seeds: Count = 32
    """Pairs of training sets of each size."""
    steps: Count = 200
    batch: Count = 10
    momentum: Part = 0.9
    rate: Positive = 0.02
    tau: Threshold = 5e-3
    """MiMuon's in the stability runs."""
    perturbations: Count = 4000
    """Of Gaussian matrices, for the response of the polar factor."""
    out: Out = Path("runs/orthogonalization/mimuon_gate")


@dataclass(frozen=True)
class Task:
    """Training sets for several runs, and the samples that each step takes."""

    x: Tensor  # (runs, samples, 16, 10)
    y: Tensor  # (runs, samples), 0 or 1
    picks: Tensor  # (steps, runs, batch)

    def gradient(self, w: Tensor, step: int) -> Tensor:
        runs = torch.arange(len(w))[:, None]
        x, y = self.x[runs, self.picks[step]], self.y[runs, self.picks[step]]
        logit = torch.einsum("rbij,rij->rb", x, w)
        return torch.einsum("rb,rbij->rij", torch.sigmoid(logit) - y, x) / y.shape[1]


def make_task(config: Config, sizes: Tensor, seed: int) -> Task:
    """Make a run for each training set, of as many samples as its entry of `sizes` says."""
    generator = torch.Generator().manual_seed(seed)
    runs, most = len(sizes), int(sizes.max())
    teacher = torch.randn(runs, *SHAPE, generator=generator, dtype=torch.float64) / 4
    x = torch.randn(runs, most, *SHAPE, generator=generator, dtype=torch.float64)
    logit = torch.einsum("rnij,rij->rn", x, teacher)
    y = (torch.rand(runs, most, generator=generator, dtype=torch.float64) < torch.sigmoid(logit)).double()
    chance = torch.rand(config.steps, runs, config.batch, generator=generator, dtype=torch.float64)
    return Task(x, y, (chance * sizes[:, None]).long())


def neighbors(task: Task, seed: int) -> Task:
    """Return the runs, and the same with sample 0 changed: another input and the other label."""
    generator = torch.Generator().manual_seed(seed)
    x, y = task.x.clone(), task.y.clone()
    x[:, 0] = torch.randn(x[:, 0].shape, generator=generator, dtype=torch.float64)
    y[:, 0] = 1 - y[:, 0]
    return Task(torch.cat((task.x, x)), torch.cat((task.y, y)), task.picks.repeat(1, 2, 1))


def train(task: Task, config: Config, tau: float) -> dict[str, Tensor]:
    """Weights (steps, runs, 16, 10), and the singular values of the momentum (steps, runs, 10) by MiMuon."""
    w = torch.zeros(len(task.x), *SHAPE, dtype=torch.float64)
    optimizer = MiMuon([w], config.rate, tau=tau, momentum=config.momentum, weight_decay=0, view=STACK)
    path, gaps, smallest = [], [], []
    for step in range(config.steps):
        w.grad = task.gradient(w, step)
        optimizer.step()
        momentum = optimizer.state[w]["momentum_buffer"]
        path.append(w.clone())
        gaps.append(singular_gap(momentum))
        smallest.append(torch.linalg.eigvalsh(momentum.mT @ momentum)[:, :2].clamp(min=0).sqrt().sum(-1))
    return {"weights": torch.stack(path), "gap": torch.stack(gaps), "two smallest": torch.stack(smallest)}


def branch_law(config: Config) -> list[dict[str, Any]]:
    task = make_task(config, torch.full((config.branch_seeds,), 200), seed=0)
    muon = torch.zeros(config.branch_seeds, *SHAPE, dtype=torch.float64)
    optimizer = Muon(
        [muon], config.rate, momentum=config.momentum, weight_decay=0, nesterov=False, view=STACK
    )
    descent, momentum = torch.zeros_like(muon), torch.zeros_like(muon)
    for step in range(config.steps):
        muon.grad = task.gradient(muon, step)
        optimizer.step()
        momentum = torch.lerp(momentum, task.gradient(descent, step), 1 - config.momentum)
        descent = descent - config.rate * momentum
    rows = []
    for tau in config.taus:
        found = train(task, config, tau)
        part = (found["gap"] >= tau).double().mean(0)
        rows.append(
            {"tau": tau, "orthogonalized": part.mean().item(), "sd": _sd(part)}
            | {"is Muon": torch.equal(found["weights"][-1], muon)}
            | {"is momentum descent": _is_rounded(found["weights"][-1], descent, config.steps)}
        )
    return rows


def typical_gaps(config: Config) -> list[dict[str, Any]]:
    rows = []
    for draws, (n, (median, chance)) in zip(config.draws, GAPS.items(), strict=True):
        generator = torch.Generator().manual_seed(n)
        x = torch.randn(draws, n, n, generator=generator, dtype=torch.float64)
        gaps = singular_gap(x / torch.linalg.matrix_norm(x)[:, None, None])
        low, high = gaps.quantile(torch.tensor([0.05, 0.95], dtype=gaps.dtype)).tolist()
        rows.append(
            {"n": n, "median": gaps.median().item(), "median of the trial": median}
            | {"5 %": low, "95 %": high}
            | {"P(gap >= 1e-4)": (gaps >= 1e-4).double().mean().item(), "P of the trial": chance}
        )
    return rows


def stability(config: Config) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Tensor]]:
    """Distances by method and size, correlations, and the mean distances (steps, sizes) of each method."""
    sizes = torch.tensor(config.samples).repeat_interleave(config.seeds)
    task = neighbors(make_task(config, sizes, seed=1), seed=2)
    shape = (len(config.samples), config.seeds)
    rows, correlations, curves = [], [], {}
    for name, tau in (("momentum", math.inf), ("MiMuon", config.tau), ("Muon", 0.0)):
        found = train(task, config, tau)
        one, other = found["weights"].chunk(2, 1)
        distance = torch.linalg.matrix_norm(one - other).unflatten(1, shape)
        curves[name] = distance.mean(-1)
        wide = found["gap"] >= tau
        part = wide[:, : len(sizes)].double().mean(0).view(shape)
        differ = (wide[:, : len(sizes)] != wide[:, len(sizes) :]).double().mean(0).view(shape)
        for i, n in enumerate(config.samples):
            last = distance[-1, i]
            rows.append(
                {"method": name, "N": n, "orthogonalized": part[i].mean().item()}
                | {"branches differ": differ[i].mean().item()}
                | {"distance": last.mean().item(), "its error": _sd(last) / math.sqrt(config.seeds)}
                | {"times N": n * last.mean().item()}
                | {f"after {part:.0%} of steps": value for part, value in _parts(distance[:, i].mean(-1))}
            )
        if name == "Muon":
            for i, n in enumerate(config.samples):
                row: dict[str, Any] = {"what": "distance after training", "N": n, "pairs": config.seeds}
                for quantity in ("gap", "two smallest"):
                    least = found[quantity][:, : len(sizes)].amin(0).view(shape)[i]
                    row[quantity] = spearman(distance[-1, i], least)
                correlations.append(row)
    correlations.append(_response(config))
    return rows, correlations, curves


def _parts(curve: Tensor) -> list[tuple[float, float]]:
    return [(part, curve[int(part * len(curve)) - 1].item()) for part in (0.25, 0.5)]


def _response(config: Config) -> dict[str, Any]:
    """Measure how far the polar factor of a Gaussian matrix moves for a small random change of it."""
    generator = torch.Generator().manual_seed(3)
    x, change = torch.randn(2, config.perturbations, *SHAPE, generator=generator, dtype=torch.float64)
    change = 1e-6 * change / torch.linalg.matrix_norm(change)[:, None, None]

    def polar(m: Tensor) -> Tensor:
        u, _, vh = torch.linalg.svd(m, full_matrices=False)
        return u @ vh

    moved = torch.linalg.matrix_norm(polar(x + change) - polar(x))
    two = torch.linalg.svdvals(x)[:, -2:].sum(-1)
    return {"what": "response of polar(M)", "N": "-", "pairs": config.perturbations} | {
        "gap": spearman(moved, singular_gap(x)),
        "two smallest": spearman(moved, two),
    }


def spearman(a: Tensor, b: Tensor) -> float:
    """Return the correlation of the ranks; there are no ties."""
    ranks = [v.argsort().argsort().double() for v in (a, b)]
    return torch.corrcoef(torch.stack(ranks))[0, 1].item()


def _sd(values: Tensor) -> float:
    return values.std().item() if len(values) > 1 else math.nan


def run(config: Config) -> dict[str, Any]:
    rows, correlations, curves = stability(config)
    return {
        "branch": branch_law(config),
        "gaps": typical_gaps(config),
        "stability": rows,
        "correlations": correlations,
        "curves": curves,
    }


def power(rows: dict[str, Any], method: str) -> float:
    """Fit the exponent p of distance ~ N^p, by least squares."""
    found = [row for row in rows["stability"] if row["method"] == method]
    x = torch.tensor([row["N"] for row in found], dtype=torch.float64).log()
    y = torch.tensor([row["distance"] for row in found], dtype=torch.float64).log()
    return (((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()).item()


def figure(rows: dict[str, Any]) -> Figure:
    panels = Figure(figsize=(12, 7.6), layout="constrained")
    axes = panels.subplots(2, 2)
    branch = rows["branch"]
    places = range(len(branch))
    axis = axes[0, 0]
    axis.errorbar(
        places,
        [row["orthogonalized"] for row in branch],
        [0 if math.isnan(row["sd"]) else row["sd"] for row in branch],
        fmt="o-",
        capsize=3,
        color=COLORS["MiMuon"],
    )
    for i, row in enumerate(branch):
        for name, key in (("Muon", "is Muon"), ("momentum", "is momentum descent")):
            if row[key]:
                axis.plot(i, row["orthogonalized"], "s", ms=12, mfc="none", mew=2, color=COLORS[name])
    axis.plot([], [], "s", ms=9, mfc="none", mew=2, color=COLORS["Muon"], label="weights are Muon's")
    axis.plot([], [], "s", ms=9, mfc="none", mew=2, color=COLORS["momentum"], label="... momentum descent's")
    axis.set_xticks(places, [_short(row["tau"]) for row in branch])
    axis.set(xlabel="τ", ylabel="part of the steps orthogonalized", title="Branch law", ylim=(-0.08, 1.12))
    axis.legend(fontsize=8, loc="lower left")
    axis = axes[0, 1]
    gaps = rows["gaps"]
    n, median = [row["n"] for row in gaps], [row["median"] for row in gaps]
    low = [row["median"] - row["5 %"] for row in gaps]
    high = [row["95 %"] - row["median"] for row in gaps]
    axis.errorbar(n, median, [low, high], fmt="o-", capsize=3, color="black", label="median, 5 to 95 %")
    trial = [row["median of the trial"] for row in gaps]
    axis.plot(n, trial, "_", ms=20, mew=2, color="#D55E00", label="median of the trial")
    axis.set(xscale="log", yscale="log", xlabel="n", ylabel="smallest gap", title="Gaussian n x n of norm 1")
    axis.set_xticks(n, [str(value) for value in n])
    axis.minorticks_off()
    axis.legend(fontsize=8)
    axis = axes[1, 0]
    sizes = sorted({row["N"] for row in rows["stability"]})
    for name, color in COLORS.items():
        found = [row for row in rows["stability"] if row["method"] == name]
        axis.errorbar(
            sizes,
            [row["times N"] for row in found],
            [0 if math.isnan(row["its error"]) else row["its error"] * row["N"] for row in found],
            fmt="o-",
            capsize=3,
            color=color,
            label=f"{name}, distance ~ N^{power(rows, name):.2f}",
        )
    axis.set(
        xscale="log", xlabel="samples N", ylabel="N × distance, mean and error", title="One sample changed"
    )
    axis.set_xticks(sizes, [str(value) for value in sizes])
    axis.set_ylim(bottom=0)
    axis.minorticks_off()
    axis.legend(fontsize=8)
    axis = axes[1, 1]
    middle = len(sizes) // 2
    for name, color in COLORS.items():
        curve = rows["curves"][name][:, middle]
        axis.plot(range(1, len(curve) + 1), curve, color=color, label=name)
    axis.set(xlabel="step", ylabel="distance, mean of pairs", title=f"Growth, N = {sizes[middle]}")
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=8)
    return panels


def _is_rounded(a: Tensor, b: Tensor, steps: int) -> bool:
    """Whether they are equal up to what steps round: a product and a sum at once, or one after the other."""
    eps = torch.finfo(a.dtype).eps
    return bool((a - b).abs().max() <= 4 * steps * eps * b.abs().max())


def _short(tau: float) -> str:
    if tau == 0 or math.isinf(tau):
        return "0" if tau == 0 else "∞"
    return f"{tau:.0e}".replace("e-0", "e-")


def verdict(rows: dict[str, Any]) -> str:
    branch = rows["branch"]
    parts = [row["orthogonalized"] for row in branch]
    falls = all(b <= a for a, b in itertools.pairwise(parts)) and parts[0] == 1 and parts[-1] == 0
    ends = branch[0]["is Muon"] and branch[-1]["is momentum descent"]
    near = sum(0.8 < row["median"] / row["median of the trial"] < 1.25 for row in rows["gaps"])
    slopes = {name: power(rows, name) for name in COLORS}
    muon = [row for row in rows["stability"] if row["method"] == "Muon"]
    growth = [row["distance"] / row["after 25% of steps"] for row in muon]
    trained = [row for row in rows["correlations"] if row["N"] != "-"]
    gap = sum(row["gap"] for row in trained) / len(trained)
    two = sum(row["two smallest"] for row in trained) / len(trained)
    error = 1 / math.sqrt(sum(row["pairs"] - 1 for row in trained))  # of a mean of independent ones, near 0
    response = rows["correlations"][-1]
    return (
        f"The part of orthogonalized steps {'falls' if falls else 'does **not** fall'} from 1 to 0 with τ,"
        f" and the ends {'are' if ends else 'are **not**'} Muon and momentum descent bit for bit. {near} of"
        f" {len(rows['gaps'])} median gaps are within a quarter of the trial's. MiMuon's distance goes with"
        f" N^{slopes['MiMuon']:.2f} ({met(-1.25 < slopes['MiMuon'] < -0.75)}, -1 within 0.25), Muon's with"
        f" N^{slopes['Muon']:.2f}, momentum descent's with N^{slopes['momentum']:.2f}. {_why(rows)} Muon's"
        f" distance grows {min(growth):.2f} to {max(growth):.2f} times over the last three quarters of the"
        f" steps ({met(min(growth) > 1)}). Its correlation with the smallest gap on the way is {gap:.2f} ±"
        f" {error:.2f} ({met(gap < -2 * error)}, below 0), with the two smallest singular values {two:.2f}."
        f" The response of the polar factor itself correlates {response['gap']:.2f} with the gap and"
        f" {response['two smallest']:.2f} with the sum of the two smallest singular values."
    )


def _why(rows: dict[str, Any]) -> str:
    """Say what the gate, a jump of the step where the gap passes τ, has to do with MiMuon's distance."""
    mimuon, muon = (
        max((row for row in rows["stability"] if row["method"] == name), key=lambda row: row["N"])
        for name in ("MiMuon", "Muon")
    )
    return (
        f"At N = {mimuon['N']} MiMuon's is {mimuon['distance'] / muon['distance']:.2g} times Muon's; the two"
        f" runs of a pair are on different branches in {mimuon['branches differ']:.1%} of the steps there, in"
        f" each of which the change of one sample, however small, is a jump."
    )


def main(config: Config) -> None:
    rows = run(config)
    tables = {
        f"Branch law, {config.branch_seeds} runs of {config.steps} steps": rows["branch"],
        "Gaps of Gaussian matrices": rows["gaps"],
        f"Distance of weights, one of N samples changed, {config.seeds} pairs": rows["stability"],
        "Spearman's correlations, for Muon, with the smallest value on the way of": rows["correlations"],
    }
    shared.results.write(config.out, config, tables, figure(rows), verdict(rows))


if __name__ == "__main__":
    shared.run.main(main, Config(), __doc__)
