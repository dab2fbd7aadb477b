"""Is the bound on the error of a polar factor ever violated, and how much does it promise too little?

`svdrot.polar.polar_certificate` bounds the distance of any factor from the exact one. Here it meets factors
in float32 of random matrices of six kinds: Gaussian, nearly singular, rank deficient, with equal singular
values, tiny and huge; by the iteration, by LAPACK, and disturbed on purpose. The exact factor is that of an
SVD in float64, with and without det > 0 asked for.

Expected: no violation among a million; at n = 3 a median of at most 3 times the true error, growing with n,
for the bound takes all of the error to be where the matrix is least certain. Where the iteration stops at a
partial isometry, for matrices that are nearly or quite singular, no finite bound.

    python -m experiments.orthogonalization.polar_certificate --matrices 1000000

It makes the published results with --out experiments/results/orthogonalization/polar_certificate.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor
from tqdm import tqdm

from experiments import shared
from experiments.shared.settings import Count, Out, Seed, Settings
from svdrot.polar import newton_schulz, polar_certificate
from svdrot.schedules import newton_schulz_schedule


@dataclass(frozen=True)
class Config(Settings):
    matrices: Count = 50_000
    """In all: of 3 x 3, of 8 x 8 a quarter as many, of 32 x 32 a fiftieth."""
    batch: Count = 4096
    """At a time."""
    seed: Seed = 0
    """Of the matrices."""
    out: Out = Path("runs/orthogonalization/polar_certificate")


SHARES = {3: 1, 8: 1 / 4, 32: 1 / 50}
SCHEDULE = newton_schulz_schedule(1e-3)


def gaussian(count: int, n: int, generator: Generator) -> Tensor:
    return torch.randn(count, n, n, dtype=torch.float64, generator=generator)


def with_values(s: Tensor, generator: Generator) -> Tensor:
    u, v = (torch.linalg.qr(gaussian(len(s), s.shape[-1], generator)).Q for _ in range(2))
    return (u * s[:, None, :]) @ v.mT


def nearly_singular(count: int, n: int, generator: Generator) -> Tensor:
    s = 10 ** (-9 * torch.rand(count, n, dtype=torch.float64, generator=generator))
    return with_values(s, generator)


def rank_deficient(count: int, n: int, generator: Generator) -> Tensor:
    m = gaussian(count, n, generator)
    return m[:, :, : n - 1] @ gaussian(count, n, generator)[:, : n - 1]


KINDS: dict[str, Callable[[int, int, Generator], Tensor]] = {
    "gaussian": gaussian,
    "nearly singular": nearly_singular,
    "rank deficient": rank_deficient,
    "equal values": lambda count, n, g: with_values(torch.ones(count, n, dtype=torch.float64), g),
    "tiny": lambda count, n, g: 1e-30 * gaussian(count, n, g),
    "huge": lambda count, n, g: 1e30 * gaussian(count, n, g),
}


def lapack(m: Tensor) -> Tensor:
    u, _, vh = torch.linalg.svd(m)
    return u @ vh


def disturbed(m: Tensor) -> Tensor:
    """Return factors off by anything from 1e-8 to 0.1, in its own deterministic way."""
    q = lapack(m)
    size = torch.logspace(-8, -1, len(m))[:, None, None]
    return q + size * torch.sin(1e3 * torch.arange(q.numel())).reshape(q.shape) / q.shape[-1]


FACTORS = {"iteration": lambda m: newton_schulz(m, SCHEDULE), "lapack": lapack, "disturbed": disturbed}


def ratios(m: Tensor, factor: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return bounds over true errors, with det > 0 asked for and not, and which bounds are finite."""
    u, s, vh = torch.linalg.svd(m.double())
    q = factor(m)
    found = []
    for special in (False, True):
        sign = torch.linalg.det(u @ vh).sign() if special else torch.ones(len(m), dtype=torch.float64)
        flip = torch.cat((torch.ones_like(s[:, 1:]), sign[:, None]), -1)
        exact = (u * flip[:, None, :]) @ vh
        error = torch.linalg.matrix_norm(q.double() - exact)
        found.append(polar_certificate(m, q, special=special) / error)
    ratio = torch.cat(found)
    return ratio, ratio.isfinite(), ratio < 1


def run(config: Config) -> list[dict[str, Any]]:
    generator = Generator().manual_seed(config.seed)
    rows = []
    cells = [(n, kind) for n in SHARES for kind in KINDS]
    unit = config.matrices / sum(SHARES.values()) / len(KINDS)
    for n, kind in tqdm(cells):
        left = max(1, round(unit * SHARES[n]))
        collected: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {name: [] for name in FACTORS}
        count = left
        while left > 0:
            m = KINDS[kind](min(left, config.batch), n, generator).float()
            left -= len(m)
            for name, factor in FACTORS.items():
                collected[name].append(ratios(m, factor))
        for name, parts in collected.items():
            ratio, finite, violated = (torch.cat(part) for part in zip(*parts, strict=True))
            certain = ratio[finite]
            rows.append(
                {
                    "n": n,
                    "matrices": kind,
                    "count": count,
                    "factor": name,
                    "violations": int(violated.sum()),
                    "finite %": 100 * finite.double().mean().item(),
                    "smallest bound / error": certain.min().item() if len(certain) else float("nan"),
                    "median": certain.median().item() if len(certain) else float("nan"),
                }
            )
    return rows


def figure(rows: list[dict[str, Any]]) -> Figure:
    drawing = Figure(figsize=(7, 4), layout="constrained")
    axis = drawing.subplots()
    shown = [row for row in rows if row["matrices"] == "gaussian"]
    for name, color in zip(FACTORS, ("#0072B2", "#009E73", "#D55E00"), strict=True):
        own = [row for row in shown if row["factor"] == name]
        sides = [row["n"] for row in own]
        axis.loglog(sides, [row["median"] for row in own], "o-", c=color, label=f"{name}, median")
        axis.loglog(sides, [row["smallest bound / error"] for row in own], "v:", c=color, label="smallest")
    axis.axhline(1, c="black", lw=1)
    axis.set(xlabel="n", ylabel="bound / true error", title="Gaussian matrices", xticks=[3, 8, 32])
    axis.set_xticklabels(["3", "8", "32"])
    axis.minorticks_off()
    axis.legend()
    return drawing


def verdict(rows: list[dict[str, Any]]) -> str:
    total = sum(row["count"] for row in rows if row["factor"] == "lapack")
    violations = sum(row["violations"] for row in rows)
    honest = [row for row in rows if row["matrices"] == "gaussian" and row["factor"] != "disturbed"]
    at_three = max(row["median"] for row in honest if row["n"] == 3)
    return (
        f"{violations} violations in {total:,} matrices, three factors of each, as nearest orthogonal matrix "
        f"and as nearest rotation (expected none). At n = 3 the bound is {at_three:.2f} times the error in "
        "the median (expected at most 3)."
    )


def main(config: Config) -> None:
    rows = run(config)
    shared.results.write(config.out, config, {"Bounds": rows}, figure(rows), verdict(rows))


if __name__ == "__main__":
    shared.run.main(main, Config(), __doc__)
