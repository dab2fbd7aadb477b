r"""Which step is best where the curvature is the same in every direction, and grows with the length?

W. Su, "Isotropic Curvature Model for Understanding Deep Learning Optimization: Is Gradient Orthogonalization
Optimal?", arXiv 2511.00674. For a gradient G the model's step -Q solves the convex program

    minimize over Q:  -tr(Q Gᵀ) + E H(|Q ζ|),    ζ uniform on the unit sphere,

H convex and increasing. Its theory: Q has the singular vectors of G; the faster H grows, the nearer to each
other the singular values of Q; and a kink of H, a jump of its derivative, makes Q = c U Vᵀ (theorem 4).

The expectation is a mean over random directions, the same for every Q, and the program is solved by Newton's
method, for the singular values alone, and in full for a G that is not diagonal: theory is checked, not put
in. A kink is a ramp of the derivative, of a width that shrinks to 1e-4. Means over random directions know no
rotation, and turn the singular vectors of Q a little; but the powers up to 8 are polynomials, whose mean over
the 120 vertices of the 600-cell is exact (it is a spherical 11-design), so that there the vectors must agree
to rounding.

Expected, for G = diag(10, 5, 2, 1): ratios of singular values (the paper has none; these are of a trial with
20,000 directions)

    H = r²/2     10 (Q is along G)       r²/2 + 100 (r - 1)₊     1.045
    H = r⁴/4     4.75                    r²/2 + 1000 (r - 1)₊    1.025
    H = r⁸/8     2.61

falling with the growth of H, near 1 at a kink, and the order of the singular values kept. Theorem 4 says
exactly 1 at a kink, so the trial's 1.045 and 1.025 are bounds here: the table by width says when a ramp gives
them. For a random G the singular vectors of Q are those of G.

    python -m experiments.orthogonalization.isotropic_curvature

It makes the published results with --out experiments/results/orthogonalization/isotropic_curvature.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from experiments import shared
from experiments.shared.settings import Count, Out, Positive, Settings

EXACT = "600-cell"

# H' and H'' of r, for a width that smooths a kink.
Growth = Callable[[Tensor, float], tuple[Tensor, Tensor]]


def power(p: int) -> Growth:
    """Return r^p / p."""
    return lambda r, width: (r ** (p - 1), (p - 1) * r ** (p - 2))


def kink(slope: float) -> Growth:
    """Return r² / 2 + slope (r - 1)₊, the jump of the derivative drawn out to a ramp about 1."""

    def growth(r: Tensor, width: float) -> tuple[Tensor, Tensor]:
        gate = ((r - 1) / width + 0.5).clamp(0, 1)
        return r + slope * gate, 1 + slope / width * ((gate > 0) & (gate < 1))

    return growth


@dataclass(frozen=True)
class Curvature:
    growth: Growth
    expected: float
    """Largest singular value over smallest, of the trial."""
    polynomial: bool
    widths: tuple[float, ...] = (1.0,)
    """Of the kink, each start from the result of the one before."""


# From 2, a ramp that begins at 0, on: Newton's method does not find a kink that it does not feel.
WIDTHS = (2.0, 1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 5e-4, 2e-4, 1e-4)
CURVATURES = {
    "r²/2": Curvature(power(2), 10.0, True),
    "r⁴/4": Curvature(power(4), 4.75, True),
    "r⁸/8": Curvature(power(8), 2.61, True),
    "kink, slope 100": Curvature(kink(100), 1.045, False, WIDTHS),
    "kink, slope 1000": Curvature(kink(1000), 1.025, False, WIDTHS),
}


@dataclass(frozen=True)
class Config(Settings):
    gradient: tuple[Positive, Positive, Positive, Positive] = (10.0, 5.0, 2.0, 1.0)
    """Singular values of G. The 600-cell lies in four dimensions, so there are four."""
    directions: Count = 20_000
    draws: Count = 3
    """Sets of directions."""
    counts: tuple[Count, ...] = (500, 2_000, 8_000)
    """Directions in the full program, whose misalignment is expected to fall with the root of it."""
    matrices: Count = 3
    """Random gradients of the full program."""
    out: Out = Path("runs/orthogonalization/isotropic_curvature")


def directions(count: int, n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, n, generator=generator, dtype=torch.float64))


def cell_600() -> Tensor:
    """The 120 vertices: 8 like (1, 0, 0, 0), 16 like (±1, ±1, ±1, ±1) / 2, and the 96 even permutations of
    (±φ, ±1, ±1/φ, 0) / 2."""
    phi = (1 + math.sqrt(5)) / 2
    points = [sign * row for row in torch.eye(4, dtype=torch.float64) for sign in (1, -1)]
    points += [torch.tensor(signs, dtype=torch.float64) / 2 for signs in itertools.product((1, -1), repeat=4)]
    for order in itertools.permutations(range(4)):
        if sum(order[i] > order[j] for i in range(4) for j in range(i + 1, 4)) % 2 == 0:
            for a, b, c in itertools.product((1, -1), repeat=3):
                vertex = torch.tensor([a * phi, b, c / phi, 0], dtype=torch.float64) / 2
                points.append(vertex[list(order)])
    return torch.stack(points)


def optimum(gradient: Tensor, features: Tensor, curvature: Curvature) -> tuple[Tensor, float]:
    r"""Find the parameters q that minimize $-g^T q + \mathrm{mean}_i H(|A_i q|)$ for every width of the kink.

    Args:
        gradient: g, shape (p,).
        features: A, shape (directions, n, p): Q ζ_i = A_i q.
        curvature: H.

    Returns:
        q, shape (widths, p), and the largest norm of a derivative that is left, over that of g.
    """
    q, found, left = gradient / gradient.norm(), [], 0.0
    for width in curvature.widths:
        derivative, hessian = _derivatives(q, gradient, features, curvature.growth, width)
        for _ in range(100):
            if derivative.norm() < 1e-10 * gradient.norm():
                break
            step = torch.linalg.solve(hessian, derivative)
            # Backtracking on the slope along the step, which for a convex function changes its sign once, at
            # the minimum. Values of H would drown in rounding.
            before, t = derivative @ step, 1.0
            while True:
                derivative, hessian = _derivatives(q - t * step, gradient, features, curvature.growth, width)
                if derivative @ step >= -0.5 * before or t < 1e-6:
                    break
                t /= 2
            q = q - t * step
        found.append(q)
        left = max(left, (derivative.norm() / gradient.norm()).item())
    return torch.stack(found), left


def _derivatives(
    q: Tensor, gradient: Tensor, features: Tensor, growth: Growth, width: float
) -> tuple[Tensor, Tensor]:
    v = features @ q  # (directions, n)
    mean = 1 / len(v)
    r = v.norm(dim=1)
    u = v / r[:, None]
    first, second = growth(r, width)
    along = torch.einsum("bn,bnp->bp", u, features)  # dr / dq
    derivative = mean * first @ along - gradient
    # d²r / dq² = (AᵀA - along alongᵀ) / r
    hessian = mean * along.T @ (along * (second - first / r)[:, None])
    flat = (features * (first / r).sqrt()[:, None, None]).flatten(0, 1)
    return derivative, hessian + mean * flat.T @ flat


def diagonal_features(zeta: Tensor) -> Tensor:
    return torch.diag_embed(zeta)


def full_features(zeta: Tensor, m: int) -> Tensor:
    """(directions, m, m n): Q ζ for the entries of Q, row by row."""
    eye = torch.eye(m, dtype=zeta.dtype)
    return torch.einsum("ij,bn->bijn", eye, zeta).flatten(2)


def singular_values(config: Config) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Make a row for each H, and one for each width of the kink."""
    g = torch.tensor(config.gradient, dtype=torch.float64)
    sets = [diagonal_features(directions(config.directions, len(g), seed)) for seed in range(config.draws)]
    rows, ramps = [], {width: {"width": width} for width in WIDTHS}
    for name, curvature in CURVATURES.items():
        found, left = zip(*(optimum(g, features, curvature) for features in sets), strict=True)
        q = torch.stack(found)  # (draws, widths, n)
        ratios = q.amax(-1) / q.amin(-1)
        row = {
            "H": name,
            "condition": ratios[:, -1].mean().item(),
            "sd": ratios[:, -1].std().item() if len(sets) > 1 else math.nan,
            "exact": math.nan,
            "trial": curvature.expected,
            "in order": bool((q[:, -1].diff(dim=-1) <= 0).all()),
            "derivative left": max(left),
        }
        if curvature.polynomial:
            exact = optimum(g, diagonal_features(cell_600()), curvature)[0][-1]
            row["exact"] = (exact.max() / exact.min()).item()
        else:
            for width, ratio in zip(curvature.widths, ratios.mean(0).tolist(), strict=True):
                ramps[width][name] = ratio
        mean = q[:, -1].mean(0)
        rows.append(row | {f"q{i + 1}": value for i, value in enumerate((mean / mean[0]).tolist())})
    return rows, [*ramps.values()]


def singular_vectors(config: Config) -> list[dict[str, Any]]:
    """How far is the optimum over all matrices from having the singular vectors of G?"""
    n = len(config.gradient)
    rows = []
    for name, curvature in CURVATURES.items():
        sets = {EXACT: [cell_600()] * config.matrices} if curvature.polynomial else {}
        for count in config.counts:
            sets[str(count)] = [directions(count, n, 1000 + seed) for seed in range(config.matrices)]
        for points, several in sets.items():
            off, conditions, polar = [], [], []
            for seed, zeta in enumerate(several):
                generator = torch.Generator().manual_seed(seed)
                matrix = torch.randn(n, n, generator=generator, dtype=torch.float64)
                u, _, vh = torch.linalg.svd(matrix)
                g = u @ torch.diag(torch.tensor(config.gradient, dtype=torch.float64)) @ vh
                q = optimum(g.flatten(), full_features(zeta, n), curvature)[0][-1].view(n, n)
                inner = u.mT @ q @ vh.mT  # diagonal, if the vectors agree
                off.append(((inner - inner.diagonal().diag()).norm() / inner.norm()).item())
                s = torch.linalg.svdvals(q)
                conditions.append((s[0] / s[-1]).item())
                polar.append((inner.trace() / (inner.norm() * math.sqrt(n))).item())
            rows.append(
                {
                    "H": name,
                    "directions": points,
                    "misalignment": sum(off) / len(off),
                    "largest": max(off),
                    "condition": sum(conditions) / len(conditions),
                    "cosine with U Vᵀ": sum(polar) / len(polar),
                }
            )
    return rows


def run(config: Config) -> dict[str, list[dict[str, Any]]]:
    values, ramps = singular_values(config)
    return {"values": values, "ramps": ramps, "vectors": singular_vectors(config)}


def figure(rows: dict[str, list[dict[str, Any]]]) -> Figure:
    colors = ("#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00")
    values, vectors = rows["values"], rows["vectors"]
    panels = Figure(figsize=(11, 8), layout="constrained")
    axes = panels.subplots(2, 2)
    axis, index = axes[0, 0], [1, 2, 3, 4]
    for row, color in zip(values, colors, strict=True):
        axis.semilogy(index, [row[f"q{i}"] for i in index], "o-", color=color, label=row["H"])
    axis.set(xlabel="singular value", ylabel="relative to the largest", title="Singular values of Q")
    axis.set_xticks(index)
    axis.legend(fontsize=8, title="H")
    axis, places = axes[0, 1], range(len(values))
    for i, (row, color) in enumerate(zip(values, colors, strict=True)):
        axis.plot([i, i], [1e-5, row["condition"] - 1], color=color, lw=12, solid_capstyle="butt")
        axis.annotate(f"{row['condition']:.6g}", (i, 18), ha="center", fontsize=9)
    axis.plot(places, [row["trial"] - 1 for row in values], "k_", ms=26, mew=2, label="of the trial")
    axis.set(yscale="log", ylabel="largest over smallest, minus 1", title="Condition of Q")
    axis.set(xlim=(-0.6, len(values) - 0.4), ylim=(1e-5, 60))
    axis.set_xticks(places, [row["H"].replace(", ", "\n") for row in values])
    axis.legend(fontsize=8, loc="upper right", bbox_to_anchor=(1, 0.88))
    axis = axes[1, 0]
    for name, color in zip([name for name in rows["ramps"][0] if name != "width"], colors[3:], strict=True):
        widths = [row["width"] for row in rows["ramps"]]
        axis.loglog(widths, [row[name] - 1 for row in rows["ramps"]], "o-", color=color, label=name)
    for row, color in zip(values[3:], colors[3:], strict=True):
        axis.axhline(row["trial"] - 1, color=color, lw=1, ls=":", label=f"trial, {row['trial']:g}")
    axis.set(xlabel="width of the ramp that stands for the kink", ylabel="condition of Q, minus 1")
    axis.set_title("The kink as the limit of a ramp")
    axis.legend(fontsize=8)
    axis = axes[1, 1]
    for name, color in zip([row["H"] for row in values], colors, strict=True):
        points = [row for row in vectors if row["H"] == name and row["directions"] != EXACT]
        counts = [int(row["directions"]) for row in points]
        axis.loglog(counts, [row["misalignment"] for row in points], "o-", color=color, label=name)
        exact = [row["misalignment"] for row in vectors if row["H"] == name and row["directions"] == EXACT]
        axis.loglog([120] * len(exact), exact, "x", color=color, ms=8)
    axis.annotate("the 120 of\nthe 600-cell,\nexact", (105, 1e-14), fontsize=8)
    axis.set(
        xlabel="directions", ylabel="part of Q off the singular vectors of G", title="Full program, random G"
    )
    axis.set_ylim(1e-16, 1)
    axis.legend(fontsize=8, loc="lower right")
    return panels


def verdict(rows: dict[str, list[dict[str, Any]]]) -> str:
    values, vectors = rows["values"], rows["vectors"]
    conditions = [row["condition"] for row in values]
    falls = all(b < a for a, b in itertools.pairwise(conditions))
    ordered = all(row["in order"] for row in values)
    smooth = [row for row in values if not math.isnan(row["exact"])]
    near = sum(abs(row["condition"] / row["trial"] - 1) < 0.02 for row in smooth)
    kinks = [row for row in values if math.isnan(row["exact"])]
    below = all(row["condition"] <= row["trial"] for row in kinks)
    means = [row["exact"] for row in smooth]
    wide, narrow = rows["ramps"][-4], rows["ramps"][-1]
    powers = [
        math.log((wide[row["H"]] - 1) / (narrow[row["H"]] - 1)) / math.log(wide["width"] / narrow["width"])
        for row in kinks
    ]
    exact = max(row["misalignment"] for row in vectors if row["directions"] == EXACT)
    counts = sorted({int(row["directions"]) for row in vectors if row["directions"] != EXACT})
    ends = [[row["misalignment"] for row in vectors if row["directions"] == str(n)] for n in counts]
    shrink = [a / b for a, b in zip(ends[0], ends[-1], strict=True)]
    return (
        f"Condition of Q: {', '.join(f'{c:.6g}' for c in conditions)}, {'' if falls else '**not** '}falling"
        f" with the growth of H, order of the singular values {'kept' if ordered else '**not** kept'}. Of the"
        f" powers {near} of {len(smooth)} are within 2 % of the trial's; the exact means give"
        f" {', '.join(f'{value:.4g}' for value in means)}. At the kinks the condition is"
        f" {'below' if below else '**not** below'} the trial's; its distance from 1 goes with the power"
        f" {', '.join(f'{power:.2f}' for power in powers)} of the width of the ramp, so the limit is"
        f" {'1, as theorem 4 says' if min(powers) > 0.8 else '**not** shown to be 1'}. The full program has"
        f" the singular vectors of G up to {exact:.1g} where the mean is exact. From {counts[0]:,} to"
        f" {counts[-1]:,} random directions the part of Q off these vectors falls {min(shrink):.1f} to"
        f" {max(shrink):.1f} times; the root of their number grows"
        f" {math.sqrt(counts[-1] / counts[0]):.1f} times."
    )


def main(config: Config) -> None:
    rows = run(config)
    tables = {
        f"Singular values of Q, {config.directions:,} directions, {config.draws} draws": rows["values"],
        "Condition of Q, the kink being a ramp": rows["ramps"],
        f"The full program, {config.matrices} random G": rows["vectors"],
    }
    shared.results.write(config.out, config, tables, figure(rows), verdict(rows))


if __name__ == "__main__":
    shared.run.main(main, Config(), __doc__)
