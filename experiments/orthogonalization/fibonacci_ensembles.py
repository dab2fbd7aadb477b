r"""Do Fibonacci weights, or an orthogonalization of the members, improve an ensemble?

Fokoué, "On Fibonacci Ensembles", arXiv 2512.22284: weights $F_m / (F_1 + \dots + F_M)$ for the members of an
ensemble, in place of 1 / M, "tempered" by an orthogonalization of their predictions. The paper claims to
match or improve on uniform weights in some regimes; its exact settings are not known here.

Ten ridge regressions on random Fourier features of rising bandwidth, 80 noisy points of a function on [0, 1],
50 seeds, mean squared error on a grid. The weights rise (Fibonacci), fall, or are equal; or they are learned,
by ridge regression on the predictions (stacking) as they are, or orthogonalized symmetrically (Löwdin): with
the predictions P = Q H, Q by `newton_schulz`, a new point's predictions p become $H^{-1} p$. The penalty of a
stack has the least generalized cross-validation error of a grid.

Controls tell whether it is Fibonacci's numbers or any rising weights that do it: linear, quadratic and
geometric weights of other ratios, and the last member alone, on the same predictions of the same members.
Fibonacci's are nearly geometric, of the golden ratio.

Expected, for the sum of two sines: Fibonacci below uniform and below 0.7 of the falling weights, and the
orthogonalized stack best of all (errors of about 0.055, 0.073, 0.178 and 0.035 in a trial of this set-up).
Other functions show whether that is more than a statement about one function, and the plain stack whether
orthogonalization or stacking does it. Expected of the controls, before they were run: on every function one
of them is below Fibonacci's weights, not the same on all, for how fast weights should rise depends on it.

    python -m experiments.orthogonalization.fibonacci_ensembles            five seconds on one core

It makes the published results with --out experiments/results/orthogonalization/fibonacci_ensembles.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from experiments import shared
from experiments.shared.settings import Count, NotNegative, Out, Positive, Settings, Several
from experiments.shared.statistics import holds
from svdrot.polar import newton_schulz
from svdrot.schedules import newton_schulz_schedule

Rows = list[dict[str, Any]]

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "two sines": lambda x: torch.sin(2 * math.pi * x) + 0.5 * torch.sin(8 * math.pi * x),
    "one sine": lambda x: torch.sin(2 * math.pi * x),
    "chirp": lambda x: torch.sin(12 * math.pi * x**2),
    "step": lambda x: torch.sign(x - 0.5) + x,
}
COLORS = {
    "uniform": "#999999",
    "Fibonacci, rising": "#0072B2",
    "Fibonacci, falling": "#56B4E9",
    "linear": "#D4C400",
    "quadratic": "#B08D00",
    "geometric, 1.3": "#9AD1B5",
    "geometric, 2": "#009E73",
    "last alone": "#000000",
    "stack": "#E69F00",
    "orthogonalized stack": "#D55E00",
}
RISING = ("linear", "quadratic", "geometric, 1.3", "geometric, 2", "last alone")
SCHEDULE = newton_schulz_schedule(1e-6)  # the predictions have condition numbers of some thousand
PENALTIES = 10.0 ** torch.arange(-3, 2.01, 0.5, dtype=torch.float64)


@dataclass(frozen=True)
class Config(Settings):
    seeds: Count = 50
    points: Several = 80
    members: Count = 10
    features: Count = 60
    """Of each member."""
    bandwidths: tuple[Positive, Positive] = (1.0, 40.0)
    """Standard deviations of the frequencies of the first and the last member, radians per unit."""
    penalty: Positive = 1.0
    """Of the members' ridge regressions."""
    noise: NotNegative = 0.3
    """Standard deviation."""
    out: Out = Path("runs/orthogonalization/fibonacci_ensembles")


def fibonacci(members: int) -> Tensor:
    """Return 1, 1, 2, 3, 5, ... over their sum."""
    numbers = [1, 1]
    while len(numbers) < members:
        numbers.append(numbers[-1] + numbers[-2])
    weights = torch.tensor(numbers[:members], dtype=torch.float64)
    return weights / weights.sum()


def rising(members: int) -> dict[str, Tensor]:
    """Return the controls of the Fibonacci weights: others that rise, over their sum."""
    m = torch.arange(1, members + 1, dtype=torch.float64)
    weights = dict(zip(RISING, (m, m**2, 1.3**m, 2.0**m, (m == members).double()), strict=True))
    return {name: w / w.sum() for name, w in weights.items()}


def members(config: Config, x: Tensor, y: Tensor, new: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Return predictions at x and at `new`, (points, members) each."""
    columns = []
    low, high = (math.log(value) for value in config.bandwidths)
    for bandwidth in torch.linspace(low, high, config.members, dtype=torch.float64).exp():
        shape = (2, config.features)
        frequency = bandwidth * torch.randn(shape, generator=generator, dtype=torch.float64)[0]
        phase = 2 * math.pi * torch.rand(config.features, generator=generator, dtype=torch.float64)
        old, fresh = (
            math.sqrt(2 / config.features) * torch.cos(z[:, None] * frequency + phase) for z in (x, new)
        )
        normal = old.T @ old + config.penalty * torch.eye(config.features, dtype=torch.float64)
        weights = torch.linalg.solve(normal, old.T @ y)
        columns.append((old @ weights, fresh @ weights))
    return [torch.stack(column, 1) for column in zip(*columns, strict=True)]


def stacked(old: Tensor, new: Tensor, y: Tensor) -> Tensor:
    """Ridge regression of y on the columns of `old`; the penalty by generalized cross-validation."""
    u, s, vh = torch.linalg.svd(old, full_matrices=False)
    shrink = s**2 / (s**2 + PENALTIES[:, None])
    residual = y - (shrink * (u.T @ y)) @ u.T
    score = residual.square().sum(-1) / (len(y) - shrink.sum(-1)) ** 2
    best = shrink[score.argmin()]
    return new @ (vh.T @ (best / s * (u.T @ y)))


def orthogonalized(old: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    """Return Q of P = Q H, and the new predictions in the same coordinates."""
    q = newton_schulz(old, SCHEDULE)
    h = q.T @ old
    return q, torch.linalg.solve(h, new, left=False)


def trial(config: Config, function: Callable[[Tensor], Tensor], seed: int) -> tuple[dict[str, float], float]:
    """Measure the mean squared error of each ensemble, and how far from orthonormal its members are."""
    generator = torch.Generator().manual_seed(seed)
    x, noise = torch.rand(2, config.points, generator=generator, dtype=torch.float64)
    noise = torch.special.ndtri(noise.clamp(1e-9, 1 - 1e-9))
    y = function(x) + config.noise * noise
    new = torch.linspace(0, 1, 400, dtype=torch.float64)
    at_x, at_new = members(config, x, y, new, generator)
    q, q_new = orthogonalized(at_x, at_new)
    weights = fibonacci(config.members)
    predictions = {
        "uniform": at_new.mean(1),
        "Fibonacci, rising": at_new @ weights,
        "Fibonacci, falling": at_new @ weights.flip(0),
        **{name: at_new @ w for name, w in rising(config.members).items()},
        "stack": stacked(at_x, at_new, y),
        "orthogonalized stack": stacked(q, q_new, y),
    }
    found = {name: (p - function(new)).square().mean().item() for name, p in predictions.items()}
    return found, (q.T @ q - torch.eye(config.members)).abs().max().item()


def run(config: Config) -> Rows:
    rows = []
    for name, function in FUNCTIONS.items():
        trials, defects = zip(*(trial(config, function, seed) for seed in range(config.seeds)), strict=True)
        uniform, golden = (
            torch.tensor([found[ensemble] for found in trials])
            for ensemble in ("uniform", "Fibonacci, rising")
        )
        for ensemble in trials[0]:
            error = torch.tensor([found[ensemble] for found in trials])
            row: dict[str, Any] = {"function": name, "ensemble": ensemble, "mse": error.mean().item()}
            row["standard error"] = (error.std() / config.seeds**0.5).item()
            row["median"] = error.median().item()
            row["better than uniform"] = (error < uniform).float().mean().item()
            row["better than Fibonacci"] = (error < golden).float().mean().item()
            rows.append({**row, "defect": max(defects) if ensemble.startswith("orth") else 0.0})
    return rows


def figure(rows: Rows) -> Figure:
    panels = Figure(figsize=(12, 4.6), layout="constrained")
    axis = panels.subplots()
    functions = list(dict.fromkeys(row["function"] for row in rows))
    for i, (ensemble, color) in enumerate(COLORS.items()):
        chosen = [row for row in rows if row["ensemble"] == ensemble]
        axis.errorbar(
            [j + 0.08 * (i - (len(COLORS) - 1) / 2) for j in range(len(functions))],
            [row["mse"] for row in chosen],
            yerr=[2 * row["standard error"] for row in chosen],
            fmt="o",
            capsize=3,
            color=color,
            label=ensemble,
        )
    axis.set_xticks(range(len(functions)), functions)
    axis.set(
        ylabel="mean squared error, ± 2 standard errors", yscale="log", xlim=(-0.5, len(functions) - 0.5)
    )
    ticks = [0.01 * i for i in (1, 2, 3, 5, 10, 20, 30, 50)]
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_yticks([], minor=True)
    axis.set_ylim(0.8 * min(row["mse"] for row in rows), 1.2 * max(row["mse"] for row in rows))
    axis.grid(alpha=0.3, axis="y")
    axis.set_title("ensembles of ridge regressions on random Fourier features", size=11)
    panels.legend(loc="outside right upper")
    return panels


def verdict(rows: Rows) -> str:
    error = {(row["function"], row["ensemble"]): row["mse"] for row in rows}
    functions = list(dict.fromkeys(row["function"] for row in rows))
    main = functions[0]
    uniform, rising, falling, stack, orthogonal = (
        error[main, name]
        for name in ("uniform", "Fibonacci, rising", "Fibonacci, falling", "stack", "orthogonalized stack")
    )
    text = [
        f"For the {main}, rising Fibonacci weights have {rising:.3f}, uniform ones {uniform:.3f}.",
        holds(rising < uniform),
        f"That is {rising / falling:.2f} of the falling weights; below 0.7 expected.",
        holds(rising < 0.7 * falling),
        f"The orthogonalized stack has {orthogonal:.3f}: below all fixed weights.",
        holds(orthogonal < min(error[main, name] for name in COLORS if "stack" not in name)),
        f"The plain stack has {stack:.3f}; the orthogonalized one, best of all:",
        holds(orthogonal <= min(error[main, ensemble] for ensemble in COLORS)),
    ]
    wins = [name for name in functions if error[name, "Fibonacci, rising"] < error[name, "uniform"]]
    text.append(f"Fibonacci weights are below uniform ones on {len(wins)} of {len(functions)} functions")
    text[-1] += f" ({', '.join(wins) or 'none'});"
    wins = [name for name in functions if error[name, "orthogonalized stack"] < error[name, "stack"]]
    text.append(f"the orthogonalized stack is below the plain one on {len(wins)}")
    text[-1] += f" ({', '.join(wins) or 'none'})."
    ahead = {
        name: [other for other in RISING if error[name, other] < error[name, "Fibonacci, rising"]]
        for name in functions
    }
    text.append("Other rising weights below Fibonacci's: ")
    text[-1] += "; ".join(f"{name}, {', '.join(others) or 'none'}" for name, others in ahead.items()) + "."
    text.append("One at least on every function:")
    text.append(holds(all(ahead.values())))
    always = [other for other in RISING if all(other in others for others in ahead.values())]
    text.append(f"The same on all: {', '.join(always) or 'none'}.")
    return " ".join(text)


def main(config: Config) -> None:
    rows = run(config)
    tables = {"Mean squared error of the ensembles": rows}
    shared.results.write(config.out, config, tables, figure(rows), verdict(rows))


if __name__ == "__main__":
    shared.run.main(main, Config(), __doc__)
