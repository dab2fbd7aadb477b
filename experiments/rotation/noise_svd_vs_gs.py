r"""How much of the noise on a rotation survives its projection: nearest rotation (SVD) against Gram-Schmidt?

Seen is M = R + N, where N has independent entries of mean 0 and deviation s, R being uniform. To first order
in s, in the frame of R,

* the nearest rotation keeps the skew part (N - Nᵀ) / 2: squared errors of 3 s² in the Frobenius norm, and 6
  s² left between M and its projection;
* Gram-Schmidt, which takes the first two columns, keeps the part L of N below the diagonal, as L - Lᵀ: 6 s²
  and 9 s²;
* for a normal N the mean angles are sqrt(8/π) = 1.596 times s/√2 and s, and Gram-Schmidt comes nearer with
  probability (atan 2 - 2/5) / π = 0.2251: per pair of entries l, u across the diagonal it is l² against
  (l - u)²/4, a form with the eigenvalues φ/2 and -1/(2φ) (golden ratio φ), so this is the probability that an
  F(3, 3) variable is below 1/φ².

Expected beyond first order, for a normal N: `EXPECTED`, 100,000 draws with torch's SVD. Entries uniform in
(-σ, σ), or ±σ, are the same to first order with s = σ/√3 and s = σ. The fourth noise turns each column
by an angle from a von Mises distribution of concentration κ = 1024 (1/2 - σ) + 64 about a random axis
perpendicular to it: nothing along the column, so only 3 s² and 6 s² are left, s² = 1 - I₁(κ)/I₀(κ).

    python -m experiments.rotation.noise_svd_vs_gs                  100,000 draws, as published
    python -m experiments.rotation.noise_svd_vs_gs --full           2,000,000

The first makes the published results with --out experiments/results/rotation/noise_svd_vs_gs.

Source: Levinson et al., "An Analysis of SVD for Deep Rotation Estimation", NeurIPS 2020, section 3 and its
simulations.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import svdrot
from experiments import shared
from experiments.shared.settings import Count, Out, Positive, Seed, Settings

Noise = Literal["normal", "uniform", "signs", "turned columns"]


@dataclass(frozen=True)
class Config(Settings):
    draws: Count = 100_000
    """For each noise and each sigma."""
    sigmas: tuple[Positive, ...] = (0.01, 0.05, 0.125, 0.25, 0.375, 0.5, 1.0)
    """Turned columns take those up to 0.5."""
    noises: tuple[Noise, ...] = ("normal", "uniform", "signs", "turned columns")
    seed: Seed = 0
    out: Out = Path("runs/rotation/noise_svd_vs_gs")


FULL = Config(draws=2_000_000, out=Path("runs/rotation/noise_svd_vs_gs-full"))
CHUNK = 100_000  # draws at a time

MEASURES = ("E SVD", "E GS", "ratio", "left SVD", "left GS", "deg SVD", "deg GS", "GS nearer", "det < 0")
# Squared errors and residuals over s², mean angles in degrees, shares.
FIRST_ORDER = {
    "E SVD": 3.0,
    "E GS": 6.0,
    "ratio": 2.0,
    "left SVD": 6.0,
    "left GS": 9.0,
    "GS nearer": (math.atan(2) - 0.4) / math.pi,
    "det < 0": 0.0,
}
EXPECTED_DRAWS = 100_000
EXPECTED = {
    0.01: (3.011, 6.023, 2.000, 6.001, 9.003, 0.648, 0.916, 0.224, 0),
    0.05: (2.992, 6.006, 2.008, 5.99, 8.99, 3.227, 4.572, 0.225, 0),
    0.125: (3.010, 6.051, 2.010, 6.00, 9.02, 8.095, 11.487, 0.224, 0),
    0.25: (3.073, 6.242, 2.031, 5.97, 9.08, 16.376, 23.365, 0.228, 0.0005),
    0.375: (3.237, 6.654, 2.055, 5.95, 9.26, 25.193, 36.516, 0.233, 0.035),
    0.5: (3.454, 6.526, 1.890, 5.86, 9.11, 34.878, 49.942, 0.245, 0.131),
    1.0: (2.828, 3.658, 1.294, 5.77, 7.81, 71.09, 85.42, 0.330, 0.401),
}


def noisy(kind: Noise, sigma: float, rotation: Tensor, rng: np.random.Generator) -> tuple[Tensor, float]:
    """Make noisy copies of rotations (draws, 3, 3), and the deviation s of their entries to first order."""
    if kind == "turned columns":
        kappa = 1024 * (0.5 - sigma) + 64
        turned, resultant = _turned_columns(rotation, kappa, rng)
        return turned, math.sqrt(1 - resultant)
    if kind == "normal":
        unit, deviation = rng.standard_normal(rotation.shape), 1.0
    elif kind == "uniform":
        unit, deviation = rng.uniform(-1, 1, rotation.shape), 1 / math.sqrt(3)
    else:
        unit, deviation = rng.choice((-1.0, 1.0), rotation.shape), 1.0
    return rotation + sigma * torch.from_numpy(unit), sigma * deviation


def _turned_columns(rotation: Tensor, kappa: float, rng: np.random.Generator) -> tuple[Tensor, float]:
    """Return the columns turned, and the mean cosine of the angles."""
    from scipy.special import ive

    shape = (len(rotation), 1, 3)
    angle = torch.from_numpy(rng.vonmises(0, kappa, shape))
    azimuth = torch.from_numpy(rng.uniform(0, 2 * math.pi, shape))
    # Columns 2, 3, 1 and 3, 1, 2 are perpendicular to columns 1, 2, 3.
    side = azimuth.cos() * rotation.roll(-1, -1) + azimuth.sin() * rotation.roll(-2, -1)
    return angle.cos() * rotation + angle.sin() * side, float(ive(1, kappa) / ive(0, kappa))


def errors(kind: Noise, sigma: float, config: Config) -> tuple[dict[str, Tensor], float]:
    """Return for each draw squared errors and residuals over s², angles in degrees, and det < 0; and s."""
    rng = np.random.default_rng([config.seed, config.noises.index(kind), config.sigmas.index(sigma)])
    chunks, s = [], 0.0
    for start in range(0, config.draws, CHUNK):
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        rotation = svdrot.random_rotation(
            min(CHUNK, config.draws - start), dtype=torch.float64, generator=generator
        )
        m, s = noisy(kind, sigma, rotation, rng)
        estimates = {
            "SVD": svdrot.special_orthogonalize(m),
            "GS": svdrot.rotation_6d_to_matrix(m[..., :2].mT.flatten(-2)),
        }
        chunk = {"det < 0": (torch.linalg.det(m) < 0).double()}
        for name, r in estimates.items():
            chunk[f"E {name}"] = (r - rotation).square().sum((-2, -1)) / s**2
            chunk[f"left {name}"] = (r - m).square().sum((-2, -1)) / s**2
            chunk[f"deg {name}"] = torch.rad2deg(svdrot.geodesic_distance(r, rotation))
        chunk["GS nearer"] = (chunk["E GS"] < chunk["E SVD"]).double()
        chunks.append(chunk)
    return {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}, s


def estimated(found: dict[str, Tensor]) -> dict[str, tuple[float, float]]:
    """Return mean and standard error of every measure."""
    draws = math.sqrt(len(found["E GS"]))
    values = {name: (x.mean().item(), x.std().item() / draws) for name, x in found.items()}
    # Of a ratio of means a / b, to first order, the error is that of the mean of (x - (a / b) y) / b.
    ratio = values["E GS"][0] / values["E SVD"][0]
    rest = (found["E GS"] - ratio * found["E SVD"]) / values["E SVD"][0]
    return {**values, "ratio": (ratio, rest.std().item() / draws)}


def run(config: Config) -> dict[str, Any]:
    rows, checks, differences = [], [], {}
    for kind in config.noises:
        for sigma in config.sigmas:
            if kind == "turned columns" and sigma > 0.5:
                continue
            found, s = errors(kind, sigma, config)
            values = estimated(found)
            rows.append(
                {"noise": kind, "sigma": sigma, "s": s}
                | {name: values[name][0] for name in MEASURES}
                | {f"± {name}": values[name][1] for name in ("E SVD", "E GS", "ratio")}
            )
            if kind == "normal":
                differences[sigma] = (found["deg GS"] - found["deg SVD"]).quantile(QUANTILES)
                checks += compared(sigma, values, config.draws)
    return {"rows": rows, "checks": checks, "differences": differences}


QUANTILES = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64)


def compared(sigma: float, values: dict[str, tuple[float, float]], draws: int) -> list[dict[str, Any]]:
    """Put each measure beside what was expected of it, and their difference in standard errors of it."""
    if sigma not in EXPECTED:
        return []
    rows = []
    for name, expected in zip(MEASURES, EXPECTED[sigma], strict=True):
        value, error = values[name]
        digits = _decimals(expected)
        both = math.sqrt(error**2 * (1 + draws / EXPECTED_DRAWS) + 10 ** (-2 * digits) / 12)
        rows.append(
            {
                "sigma": sigma,
                "of": name,
                "first order": _first_order(name, sigma),
                "expected": expected,
                "found": value,
                "standard error": error,
                "difference": (value - expected) / both,
            }
        )
    return rows


def _first_order(name: str, sigma: float) -> float:
    if name.startswith("deg"):
        deviation = sigma / math.sqrt(2) if name == "deg SVD" else sigma
        return math.degrees(math.sqrt(8 / math.pi) * deviation)
    return FIRST_ORDER[name]


def _decimals(value: float) -> int:
    """Count those of a number as it is written in the table; shares have at least three."""
    return max(3 if value < 0.5 else 2, len(f"{value:g}".partition(".")[2]))


COLORS = {"normal": "#000000", "uniform": "#0072B2", "signs": "#009E73", "turned columns": "#D55E00"}


def figure(results: dict[str, Any]) -> Figure:
    panels = Figure(figsize=(13, 4.2), layout="constrained")
    left, middle, right = panels.subplots(1, 3)
    for kind, color in COLORS.items():
        rows = [row for row in results["rows"] if row["noise"] == kind]
        s = [row["s"] for row in rows]
        for name, dashes in (("SVD", "-"), ("GS", "--")):
            error = [3 * row[f"± E {name}"] for row in rows]
            left.errorbar(s, [row[f"E {name}"] for row in rows], error, color=color, ls=dashes, marker=".")
        middle.errorbar(
            s,
            [row["ratio"] for row in rows],
            [3 * row["± ratio"] for row in rows],
            color=color,
            marker=".",
            label=kind,
        )
    for level, name in ((3, "SVD, first order"), (6, "Gram-Schmidt, first order")):
        left.axhline(level, color="#999999", lw=0.8)
        left.annotate(name, (0.01, level), xytext=(0, 4), textcoords="offset points", fontsize=8)
    middle.axhline(2, color="#999999", lw=0.8)
    left.set(xscale="log", xlabel="deviation s of an entry", ylabel="mean squared error / s²", ylim=(2, 7.2))
    middle.set(xscale="log", xlabel="deviation s of an entry", ylabel="Gram-Schmidt's / SVD's", ylim=(1, 2.6))
    middle.legend(fontsize=8)
    differences = results["differences"]
    boxes = [
        {"whislo": q[0], "q1": q[1], "med": q[2], "q3": q[3], "whishi": q[4], "label": f"{sigma:g}"}
        for sigma, quantiles in differences.items()
        for q in [quantiles.tolist()]
    ]
    if boxes:
        right.bxp(boxes, showfliers=False, medianprops={"color": "#D55E00"})
    right.axhline(0, color="#999999", lw=0.8)
    right.set(xlabel="σ of normal noise", ylabel="angle of Gram-Schmidt less SVD's (degrees)")
    right.set_title("Draw by draw: 5, 25, 50, 75, 95 %", fontsize=10)
    return panels


def verdict(results: dict[str, Any], config: Config) -> str:
    checks = results["checks"]
    if not checks:
        return "No sigma of the table was drawn."
    worst = max(checks, key=lambda row: abs(row["difference"]))
    far = [row for row in checks if abs(row["difference"]) > 3]
    small = min((row for row in results["rows"] if row["noise"] == "normal"), key=lambda row: row["sigma"])
    others = [row for row in results["rows"] if row["s"] < 0.1]
    low, high = (f(row["ratio"] for row in others) for f in (min, max))
    rare, often = (f(row["GS nearer"] for row in others) for f in (min, max))
    share = (math.atan(2) - 0.4) / math.pi
    return (
        f"{len(checks) - len(far)} of {len(checks)} figures are within three standard errors of what was"
        f" expected; the farthest is {worst['of']} at σ = {worst['sigma']:g}, {worst['difference']:+.1f} of"
        f" them. At σ = {small['sigma']:g} Gram-Schmidt's squared error is {small['ratio']:.3f} ±"
        f" {small['± ratio']:.3f} times that of SVD, and it is nearer in {100 * small['GS nearer']:.1f} % of"
        f" the draws (theory: 2, and {100 * share:.1f} %). Over all kinds of noise with s < 0.1 the ratio is"
        f" {low:.2f} to {high:.2f}, a matter of second moments; how often Gram-Schmidt is nearer does depend"
        f" on the distribution ({100 * rare:.0f} to {100 * often:.0f} %). Where the noise is as large as the"
        " rotation the ratio falls towards 1. These are projections of noise, not trained networks: what a"
        " head makes of it is another question."
    )


def readable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with a standard error written behind what it is of."""
    shown = []
    for row in rows:
        merged = {
            name: f"{value:.3f} ± {row[f'± {name}']:.3f}" if f"± {name}" in row else value
            for name, value in row.items()
            if not name.startswith("±")
        }
        shown.append(merged)
    return shown


def main(config: Config) -> None:
    results = run(config)
    caption = f"{config.draws:,} draws; squared errors and residuals over s², mean angles in degrees"
    checks = "Normal noise beside theory and expectation; the difference in standard errors of it"
    tables = {caption: readable(results["rows"])}
    if results["checks"]:
        tables[checks] = results["checks"]
    shared.results.write(config.out, config, tables, figure(results), verdict(results, config))


if __name__ == "__main__":
    shared.run.main(main, Config(), __doc__, {"--full": FULL})
