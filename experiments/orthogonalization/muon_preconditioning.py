r"""Does orthogonalization make the number of iterations independent of the condition number?

Ma, Huang, Chi and Chen, "Preconditioning Benefits of Spectral Orthogonalization in Muon", arXiv 2601.13474:
simplified Muon (no momentum, exact polar factor, geometrically decaying steps) converges linearly at a rate
free of the condition number, on matrix factorization and on in-context learning by linear attention; gradient
descent (GD) and Adam do not. Here the polar factor is also replaced by what Newton-Schulz makes of it.

1. Factorization: minimize $|T - W_1 W_2^\top|^2 / 2$, T 25 x 25 with singular values falling geometrically
   from 1 to 1 / condition between random bases, both factors from 1e-4 times random orthogonal matrices.
   Steps of Muon: 1e-4, then $\sqrt{\sigma_{\max}(T)} = 1$ times 0.7, 0.7^2, ... Iterations until the spectral
   norm of the error is 1e-6. GD and Adam are tuned for each condition: the fewest iterations with which all
   seeds get there, over the steps of a grid; Adam's falls linearly to 0 over a horizon that is tuned as well.
   Expected: 42 +- 3 iterations for conditions 1 to 1000 with the exact factor and with a convergent schedule;
   torch.optim.Muon's five steps (Keller Jordan's, which do not converge) stall from a condition of 100 on.
2. Linear attention: minimize $\tfrac12 \mathrm{tr}\, S (G A G - 2 G S)$ for
   $A = S^2 (N + 1) / N + S\, \mathrm{tr} S / N$, S 20 x 20 with the same spectra, N = 40. Muon's first step
   is 0.3 N / tr S, no eigenvalue of the solution being above N / tr S, and the steps fall by 0.7. GD has the
   best constant step, 2 over the sum of the extreme curvatures, and is given up after `give_up` iterations.
   Expected: relative error 1e-3 within 25 iterations at conditions 10 and 100; 1,200 at 10 for GD.

How the decay of the steps was chosen matters: the third table has other ratios. And the benefit is contested:
the paper parviz26a in PMLR volume 334 finds no consistent gain of Muon over a tuned AdamW in low-rank
factorization.

    python -m experiments.orthogonalization.muon_preconditioning            half a minute on one core

It makes the published results with --out experiments/results/orthogonalization/muon_preconditioning.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from experiments import shared
from experiments.shared.settings import Count, Out, Part, Positive, Settings
from experiments.shared.statistics import holds
from svdrot.polar import newton_schulz
from svdrot.schedules import KELLER_JORDAN, POLAR_EXPRESS, newton_schulz_schedule

Rows = list[dict[str, Any]]

CHECK = 10  # GD and Adam are looked at every so many iterations
GD_GRID = (0.2, 0.4, 0.8)  # at the solution the largest curvature is 2: from 1 on it diverges
ADAM_GRID = tuple((rate, horizon) for horizon in (200, 500, 1500, 4000) for rate in (0.01, 0.03, 0.1))
COLORS = ("#000000", "#0072B2", "#56B4E9", "#E69F00", "#D55E00", "#999999", "#009E73")  # of the methods


@dataclass(frozen=True)
class Config(Settings):
    conditions: tuple[Count, ...] = (1, 10, 100, 1000)
    seeds: Count = 5
    """Of the bases of target and of the initial factors."""
    size: Count = 25
    ratio: Part = 0.7
    """By which Muon's step falls from one iteration to the next."""
    ratios: tuple[Part, ...] = (0.5, 0.6, 0.7, 0.8)
    """Of the third table."""
    tolerance: Positive = 1e-6
    give_up: Count = 20_000
    """Iterations after which GD has failed."""
    attention_size: Count = 20
    context: Count = 40
    """N, the examples in a context."""
    out: Out = Path("runs/orthogonalization/muon_preconditioning")


Direction = Callable[[Tensor], Tensor]


def polar(m: Tensor) -> Tensor:
    u, _, vh = torch.linalg.svd(m, full_matrices=False)
    return u @ vh


SCHEDULES = {
    "generated from 1e-6": newton_schulz_schedule(1e-6),
    "generated from 1e-4": newton_schulz_schedule(1e-4),
    "Polar Express": POLAR_EXPRESS,
    "Keller Jordan": KELLER_JORDAN,
}
DIRECTIONS: dict[str, Direction] = {"exact": polar} | {
    f"{name}, {len(schedule)} steps": lambda m, schedule=schedule: newton_schulz(m, schedule)
    for name, schedule in SCHEDULES.items()
}


def spectrum(condition: int, size: int) -> Tensor:
    return condition ** -torch.linspace(0, 1, size, dtype=torch.float64)


def problems(config: Config, condition: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw target and both initial factors, (seeds, size, size) each."""
    drawn = []
    for seed in range(config.seeds):
        generator = torch.Generator().manual_seed(seed)
        shape = (4, config.size, config.size)
        drawn.append(torch.linalg.qr(torch.randn(shape, generator=generator, dtype=torch.float64))[0])
    left, right, first, second = torch.stack(drawn, 1)
    return left * spectrum(condition, config.size) @ right.mT, 1e-4 * first, 1e-4 * second


def factorize_muon(config: Config, condition: int, direction: Direction, ratio: float) -> Tensor:
    """Return spectral errors, (iterations + 1, seeds)."""
    target, w1, w2 = problems(config, condition)
    errors = []
    # When the steps have shrunk a hundredfold below the tolerance, nothing moves any more.
    count = 2 + next(k for k in range(1000) if ratio**k < config.tolerance / 100)
    for t in range(count):
        residual = target - w1 @ w2.mT
        errors.append(torch.linalg.matrix_norm(residual, 2))
        step = 1e-4 if t == 0 else ratio ** (t - 1)
        w1, w2 = w1 + step * direction(residual @ w2), w2 + step * direction(residual.mT @ w1)
    return torch.stack(errors)


def factorize_gd(config: Config, condition: int, rate: float, limit: int) -> Tensor:
    """Return spectral errors every `CHECK` iterations, until all seeds are done."""
    target, w1, w2 = problems(config, condition)
    errors = []
    for t in range(limit + 1):
        residual = target - w1 @ w2.mT
        if t % CHECK == 0:
            errors.append(torch.linalg.matrix_norm(residual, 2))
            if errors[-1].max() <= config.tolerance:
                break
        w1, w2 = w1 + rate * residual @ w2, w2 + rate * residual.mT @ w1
    return torch.stack(errors)


def factorize_adam(config: Config, condition: int, rate: float, horizon: int, limit: int) -> Tensor:
    """Return spectral errors every `CHECK` iterations, until all seeds are done."""
    target, w1, w2 = problems(config, condition)
    w = torch.stack((w1, w2))
    mean, square = torch.zeros_like(w), torch.zeros_like(w)
    errors = []
    for t in range(min(horizon, limit) + 1):
        residual = target - w[0] @ w[1].mT
        if t % CHECK == 0:
            errors.append(torch.linalg.matrix_norm(residual, 2))
            if errors[-1].max() <= config.tolerance:
                break
        gradient = -torch.stack((residual @ w[1], residual.mT @ w[0]))
        mean.lerp_(gradient, 0.1)
        square.lerp_(gradient**2, 0.001)
        unbiased = mean / (1 - 0.9 ** (t + 1)), square / (1 - 0.999 ** (t + 1))
        w = w - rate * (1 - t / horizon) * unbiased[0] / (unbiased[1].sqrt() + 1e-8)
    return torch.stack(errors)


def summary(errors: Tensor, tolerance: float, every: int = 1) -> dict[str, Any]:
    """Sum up iterations over the seeds; count those that did not get there, with their best error."""
    reached = [(seed <= tolerance).nonzero() for seed in errors.unbind(1)]
    counts = [int(index[0]) * every for index in reached if len(index)]
    return {
        "median": statistics.median(counts) if counts else "-",
        "fewest": min(counts, default="-"),
        "most": max(counts, default="-"),
        "failed": errors.shape[1] - len(counts),
        "worst final error": errors.amin(0).max().item(),
    }


def factorization(config: Config) -> tuple[Rows, dict[str, Any]]:
    rows, curves = [], {}
    for name, direction in DIRECTIONS.items():
        for condition in config.conditions:
            errors = factorize_muon(config, condition, direction, config.ratio)
            row = {"condition": condition, "method": name, **summary(errors, config.tolerance)}
            rows.append({**row, "tuned": f"ratio {config.ratio:g}"})
            if condition == max(config.conditions):
                curves[name] = errors.T.tolist()
    for condition in config.conditions:
        tried, limit = [], config.give_up
        for rate in GD_GRID:
            found = summary(factorize_gd(config, condition, rate, limit), config.tolerance, CHECK)
            limit = limit if found["failed"] else found["most"]  # other steps have to be better
            tried.append({**found, "tuned": f"step {rate:g}"})
        rows.append({"condition": condition, "method": "GD", **min(tried, key=_rank)})
        tried, limit = [], config.give_up
        for rate, horizon in ADAM_GRID:
            errors = factorize_adam(config, condition, rate, horizon, limit)
            found = summary(errors, config.tolerance, CHECK)
            limit = limit if found["failed"] else found["most"]
            tried.append({**found, "tuned": f"step {rate:g} to 0 over {horizon}"})
        rows.append({"condition": condition, "method": "Adam", **min(tried, key=_rank)})
    return rows, curves


def _rank(found: dict[str, Any]) -> tuple:
    """Sort by fewest failures, then fewest iterations, then least error."""
    most = found["most"] if found["most"] != "-" else 0
    return found["failed"], most, found["worst final error"]


def decay(config: Config) -> Rows:
    rows = []
    for ratio in config.ratios:
        for condition in config.conditions:
            errors = factorize_muon(config, condition, polar, ratio)
            rows.append({"ratio": ratio, "condition": condition, **summary(errors, config.tolerance)})
    return rows


def attention(config: Config) -> Rows:
    rows = []
    for condition in (c for c in config.conditions if c > 1):
        s = spectrum(condition, config.attention_size)
        n, trace = config.context, s.sum()
        a = s**2 * (n + 1) / n + s * trace / n
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randn(2 * (config.attention_size,), generator=generator, dtype=torch.float64)
        basis = torch.linalg.qr(drawn)[0]
        big_s, big_a, solution = ((basis * value) @ basis.T for value in (s, a, s / a))
        # The curvatures are the products of eigenvalues of S and of A.
        rate = 2 / (s.max() * a.max() + s.min() * a.min())
        first = 0.3 * n / trace
        methods: dict[str, tuple[int, Callable[[int, Tensor], Tensor]]] = {
            name: (100, lambda t, g, d=direction, first=first: first * config.ratio**t * d(g))
            for name, direction in DIRECTIONS.items()
        }
        methods["GD"] = config.give_up, lambda _, g, rate=rate: rate * g
        for name, (limit, step) in methods.items():
            g = torch.zeros_like(big_s)
            best, reached = torch.inf, None
            for t in range(limit + 1):
                error = (torch.linalg.norm(g - solution) / torch.linalg.norm(solution)).item()
                best = min(best, error)
                if error <= 1e-3:
                    reached = t
                    break
                g = g - step(t, big_s @ g @ big_a - big_s @ big_s)
            iterations = f"> {limit}" if reached is None else reached
            row = {"condition": condition, "method": name, "iterations": iterations}
            rows.append({**row, "failed": reached is None, "least error": best})
    return rows


def run(config: Config) -> dict[str, Any]:
    rows, curves = factorization(config)
    return {"factorization": rows, "attention": attention(config), "decay": decay(config), "curves": curves}


def figure(rows: dict[str, Any]) -> Figure:
    panels = Figure(figsize=(14, 4.6), layout="constrained")
    axes = panels.subplots(1, 3)
    methods = list(dict.fromkeys(row["method"] for row in rows["factorization"]))
    color = dict(zip(methods, COLORS, strict=True))
    ceiling = 1e5
    for axis, part in zip(axes, ("factorization", "attention"), strict=False):
        conditions = list(dict.fromkeys(row["condition"] for row in rows[part]))
        for i, method in enumerate(methods):
            places, middle, below, above = [], [], [], []
            for row in rows[part]:
                if row["method"] != method:
                    continue
                place = conditions.index(row["condition"]) + 0.12 * (i - 3)  # side by side
                if row["failed"]:
                    axis.plot(place, ceiling, "x", color=color[method], clip_on=False)
                    if part == "factorization":
                        look = {"color": color[method], "size": 8, "ha": "center", "va": "top"}
                        axis.text(place, 0.8 * ceiling, str(row["failed"]), look)
                median = row.get("median", row.get("iterations"))
                if isinstance(median, int | float):
                    places.append(place)
                    middle.append(median)
                    below.append(median - row.get("fewest", median))
                    above.append(row.get("most", median) - median)
            if places:
                axis.errorbar(
                    places, middle, yerr=(below, above), fmt="o", ms=5, capsize=3, color=color[method]
                )
            axis.plot([], [], "o", color=color[method], label=method)
        axis.set_xticks(range(len(conditions)), [f"{condition:,}" for condition in conditions])
        axis.set(yscale="log", ylim=(10, ceiling), xlim=(-0.5, len(conditions) - 0.5))
        axis.set(xlabel="condition number", ylabel="iterations")
        axis.grid(alpha=0.3, axis="y")
    axes[0].set_title(
        "factorization to 1e-6: median and range of seeds;\n× and number: seeds that fail", size=10
    )
    axes[1].set_title("linear attention to 1e-3; ×: not reached", size=10)
    axes[0].legend(fontsize=7, loc="upper left", bbox_to_anchor=(0, 0.9))
    for method, curves in rows["curves"].items():
        for i, curve in enumerate(curves):
            label = method if i == 0 else None
            axes[2].semilogy(curve, color=color[method], lw=1, alpha=0.8, label=label)
    largest = max(row["condition"] for row in rows["factorization"])
    axes[2].set(xlabel="iteration", ylabel="spectral norm of the error", ylim=(1e-8, 3))
    axes[2].set_title(f"factorization at condition {largest:,}, every seed", size=10)
    axes[2].legend(fontsize=7, loc="lower left")
    axes[2].grid(alpha=0.3)
    return panels


def verdict(rows: dict[str, Any]) -> str:
    text = []
    named: dict[str, Rows] = {}
    for row in rows["factorization"]:
        named.setdefault(row["method"], []).append(row)
    for method in DIRECTIONS:
        done = [row for row in named[method] if row["fewest"] != "-"]
        failed = [row for row in named[method] if row["failed"]]
        inside = all(39 <= row["fewest"] and row["most"] <= 45 for row in done)
        if method.startswith("Keller"):
            stalled = all(row["fewest"] == "-" for row in named[method] if row["condition"] >= 100)
            where = ", ".join(f"{row['failed']} at {row['condition']}" for row in failed)
            text.append(f"{method}: seeds that stall: {where or 'none'}; all expected from 100 on.")
            text.append(holds(stalled))
            continue
        low = min((row["fewest"] for row in done), default="-")
        high = max((row["most"] for row in done), default="-")
        line = f"{method}: {low} to {high} iterations where it gets to the tolerance, 42 +- 3 expected"
        if failed:
            where = ", ".join(f"{row['failed']} at {row['condition']}" for row in failed)
            line += f"; seeds that do not: {where}"
        text += [line + ".", holds(inside and not failed)]

    for method in ("GD", "Adam"):
        easy, *_, hard = named[method]
        exact = named["exact"][-1]
        text.append(
            f"Tuned {method} takes {easy['median']} iterations at condition {easy['condition']} and"
            f" {hard['median']} at {hard['condition']} ({hard['failed']} seeds fail); the exact factor"
            f" {exact['median']}."
        )

    for method in [name for name in DIRECTIONS if not name.startswith("Keller")] + ["GD"]:
        chosen = [row for row in rows["attention"] if row["method"] == method]
        counts = ", ".join(f"{row['iterations']} at {row['condition']}" for row in chosen)
        line = f"Attention, {method}: {counts}"
        if method == "GD":
            text.append(line + ".")
        else:
            near = [row for row in chosen if row["condition"] in (10, 100)]
            good = all(not row["failed"] and row["iterations"] <= 25 for row in near)
            text += [line + "; at most 25 expected at 10 and 100.", holds(good)]

    lost = [row for row in rows["decay"] if row["failed"]]
    if lost:
        where = ", ".join(f"{r['failed']} at ratio {r['ratio']:g}, condition {r['condition']}" for r in lost)
        text.append(f"The decay matters, with the exact factor as well; seeds that fail: {where}.")
    return " ".join(text)


def main(config: Config) -> None:
    rows = run(config)
    tables = {
        "Factorization: iterations over the seeds": rows["factorization"],
        "Linear attention: iterations to a relative error of 1e-3": rows["attention"],
        "Factorization with the exact polar factor and other decays of the step": rows["decay"],
    }
    shared.results.write(config.out, config, tables, figure(rows), verdict(rows))


if __name__ == "__main__":
    shared.run.main(main, Config(), __doc__)
