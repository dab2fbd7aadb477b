r"""Which of several independent components does online ICA find, and what do estimates cost each other?

Genc, Demir and Dogan, "Learnability and Competition in High-Dimensional Multi-Component ICA", arXiv
2605.08552. Only the abstract was at hand: what is run here is the multi-component update that it describes,
with the cubic score, and its large-d equation derived anew. No figure of the paper is compared with.

Data $x \in R^d$ of unit covariance has k independent non-Gaussian coordinates s and d - k Gaussian ones. A
source takes the values $-\sqrt m, 0, \sqrt m$ and has fourth moment m. One sample a step,

    W <- polar(W - (τ / d) x (xᵀW)³),    W of shape (d, k), cube entry by entry, time t = steps / d.

The first k coordinates are the sources; the update knows nothing of the basis, and the Gaussian part is
isotropic, so this is as general as any other orthonormal frame. The state is the overlap R = the first k rows
of W, sources by estimates.

The equation for large d. With z = xᵀW, y = z³ and c = τ / d, the Gram matrix before the polar factor is
$I - c (z y^T + y z^T) + c^2 |x|^2 y y^T$, and $c^2 |x|^2 \to τ^2 / d$: the noise of the step is of the same
order as its signal. To first order in 1 / d the inverse root of the Gram matrix gives

    dR/dt = -τ E[s yᵀ] + (τ/2) R (E[z yᵀ] + E[y zᵀ]) - (τ²/2) R E[y yᵀ].

W is orthonormal, so z has unit covariance, and its higher cumulants are those of the sources: with
$κ_4 = m - 3$, $κ_6 = m^2 - 15 m + 30$ for each source a, sums over a, and i, j estimates,

    A_ij = Σ κ4 R_ai R_aj³,    B_ij = Σ κ6 R_ai³ R_aj³,
    E[s_a y_j] = κ4 R_aj³ + 3 R_aj,    E[z_i y_j] = 3 δ_ij + A_ij,
    E[y_i y_j] = B_ij + 3 A_ij + 3 A_ji for i ≠ j,    E[y_i²] = B_ii + 15 A_ii + 15.

Expected, with fourth moments 1, 1.4, 1.8, 2.3 and all overlaps 0.5 at the start:

- a staircase: the number of sources found (overlap above 0.8) does not rise with τ and has at least three
  values; a trial at d = 128 for t <= 150 had found 2 at τ = 0.02, 1 at 0.05 and 0 from 0.1 on;
  small steps are slow, so here t <= 250, and the equation tells what is found later;
- sources of larger fourth moment, nearer to the Gaussian 3, are lost first;
- two estimates that start on one source take more than 1.5 times as long as estimates that start apart;
- the simulated overlaps follow the equation, closer for larger d.

    python -m experiments.orthogonalization.ica_competition        half a minute

It makes the published results with --out experiments/results/orthogonalization/ica_competition.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from experiments import shared
from experiments.shared.settings import Count, Out, Positive, Settings, Several, Share

FOUND = 0.8
COLORS = ("#0072B2", "#009E73", "#E69F00", "#D55E00")


@dataclass(frozen=True)
class Config(Settings):
    seeds: Count = 5
    """Runs of each case."""
    dimension: Several = 128
    """Of the data, for the staircase and the competition."""
    overlay: Several = 256
    """Dimension of the runs that are laid over the equation; the smaller one is compared with it."""
    time: Positive = 250.0
    """Samples over dimension; the overlay takes 150 of it at most."""
    taus: tuple[Positive, ...] = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1)
    """Step sizes of the staircase."""
    moments: tuple[Positive, ...] = (1.0, 1.4, 1.8, 2.3)
    """Fourth moments of the sources, for the staircase; in the competition all are 1."""
    start: Share = 0.5
    """Overlap of each estimate with its own source."""
    competing: tuple[Share, ...] = (0.0, 0.15, 0.3, 0.45, 0.6)
    """Overlap of the second estimate with the source of the first, besides that with its own."""
    competing_tau: Positive = 0.02
    out: Out = Path("runs/orthogonalization/ica_competition")


@dataclass(frozen=True)
class Case:
    name: str
    tau: float
    moments: Tensor  # (k,)
    start: Tensor  # (k, k)


def drift(r: Tensor, tau: float, moments: Tensor) -> Tensor:
    """Return dR/dt of the equation above, for R of shape (..., k, k)."""
    k4, k6 = moments - 3, moments**2 - 15 * moments + 30
    a = torch.einsum("a,...ai,...aj->...ij", k4, r, r**3)
    b = torch.einsum("a,...ai,...aj->...ij", k6, r**3, r**3)
    eye = torch.eye(r.shape[-1], dtype=r.dtype)
    sy = k4[:, None] * r**3 + 3 * r
    zy = 3 * eye + a
    yy = b + 3 * a + 3 * a.mT + eye * (9 * a + 15)  # 15 A + 15 in all on the diagonal
    return -tau * sy + tau / 2 * r @ (zy + zy.mT) - tau**2 / 2 * r @ yy


def solve(case: Case, time: float, step: float = 1.0) -> Tensor:
    """Return R at the times 0, `step`, 2 `step`, ..., by the classical Runge-Kutta method."""
    r, found = case.start, [case.start]
    for _ in range(round(time / step)):
        a = drift(r, case.tau, case.moments)
        b = drift(r + step / 2 * a, case.tau, case.moments)
        c = drift(r + step / 2 * b, case.tau, case.moments)
        d = drift(r + step * c, case.tau, case.moments)
        r = r + step / 6 * (a + 2 * b + 2 * c + d)
        found.append(r)
    return torch.stack(found)


def simulate(cases: Sequence[Case], dimension: int, time: float, seeds: int) -> Tensor:
    """Return overlaps (times, cases, seeds, k, k) at 0, 1, 2, ...; a seed is the same noise in all cases."""
    generator = torch.Generator().manual_seed(dimension)
    k = len(cases[0].moments)
    moments = torch.stack([case.moments for case in cases])[:, None]
    rate = torch.tensor([case.tau / dimension for case in cases], dtype=torch.float64)
    rate = rate.repeat_interleave(seeds)[:, None]
    w = torch.stack([_frame(case.start, dimension) for case in cases]).repeat_interleave(seeds, 0)
    found = [w[:, :k]]
    for _ in range(int(time)):
        gauss = torch.randn(dimension, 1, seeds, dimension - k, generator=generator, dtype=torch.float64)
        chance, sign = torch.rand(2, dimension, 1, seeds, k, generator=generator, dtype=torch.float64)
        s = torch.where(chance * moments < 1, moments.sqrt(), 0.0) * (sign - 0.5).sign()
        x = torch.cat((s, gauss.expand(-1, len(cases), -1, -1)), -1).flatten(1, 2)
        for row in x:  # (cases x seeds, d)
            y = (row[:, None] @ w) ** 3
            w = _polar(torch.addcmul(w, (row * -rate)[:, :, None], y))
        found.append(w[:, :k])
    return torch.stack(found).unflatten(1, (len(cases), seeds))


def _polar(w: Tensor) -> Tensor:
    """Return the polar factor of tall matrices near to orthonormal, from their k x k Gram matrices I - E.

    One Newton-Schulz step with the Taylor polynomial of third order, `kim_oh_step(3)`. It leaves E⁴ or less,
    which the next step meets as part of its own E; a sample that moves W further gets the exact root.
    """
    gram = w.mT @ w
    eye = torch.eye(gram.shape[-1], dtype=w.dtype)
    e = eye - gram
    if e.abs().amax() > 0.2:
        l, v = torch.linalg.eigh(gram)
        return w @ ((v * l.rsqrt()[:, None]) @ v.mT)
    p = torch.baddbmm(e, e, e, beta=3 / 8, alpha=5 / 16)
    return w @ torch.baddbmm(eye + e / 2, e, p)


def _frame(overlap: Tensor, dimension: int) -> Tensor:
    """Return an orthonormal (d, k) matrix whose first k rows are the overlap."""
    k = len(overlap)
    rest = torch.linalg.cholesky(torch.eye(k, dtype=overlap.dtype) - overlap.mT @ overlap)
    return torch.cat((overlap, rest.mT, overlap.new_zeros(dimension - 2 * k, k)))


def staircase_cases(config: Config) -> list[Case]:
    moments = torch.tensor(config.moments, dtype=torch.float64)
    start = config.start * torch.eye(len(moments), dtype=torch.float64)
    return [Case(f"τ = {tau:g}", tau, moments, start) for tau in config.taus]


def competition_cases(config: Config) -> list[Case]:
    ones = torch.ones(len(config.moments), dtype=torch.float64)
    cases = []
    for other in config.competing:
        start = config.start * torch.eye(len(ones), dtype=torch.float64)
        start[0, 1] = other
        cases.append(Case(f"{other:g}", config.competing_tau, ones, start))
    start = config.start * torch.eye(len(ones), dtype=torch.float64)
    start[0, 1], start[1, 1] = config.start, 0
    return [*cases, Case("both on one", config.competing_tau, ones, start)]


def run(config: Config) -> dict[str, Any]:
    stairs, contest = staircase_cases(config), competition_cases(config)
    overlaps = simulate([*stairs, *contest], config.dimension, config.time, config.seeds)
    final = overlaps[-1, : len(stairs)].abs()  # (taus, seeds, sources, estimates)
    staircase = []
    for case, r in zip(stairs, final, strict=True):
        best = r.amax(-1)  # (seeds, sources)
        counts = (best > FOUND).sum(-1).double()
        limit = solve(case, config.time)[-1].abs().amax(-1)
        forever = solve(case, 20 / case.tau, 0.2 / case.tau)[-1].abs().amax(-1)
        staircase.append(
            {"tau": case.tau, "found": counts.mean().item(), "found_sd": _sd(counts)}
            | {f"overlap m={m:g}": best[:, i].mean().item() for i, m in enumerate(config.moments)}
            | {"equation": int((limit > FOUND).sum()), "equation, t = 20/τ": int((forever > FOUND).sum())}
        )
    competition = []
    for i, case in enumerate(contest):
        r = overlaps[:, len(stairs) + i]  # (times, seeds, sources, estimates)
        passed = _passed(r.abs().amax(-2))[:, :2].amax(-1)  # the later one of the two estimates
        exact = _passed(solve(case, config.time)[:, None].abs().amax(-2))[0, :2].max().item()
        competition.append(
            {
                "competing overlap": case.name,
                "median time": passed.median().item(),
                "fastest": passed.min().item(),
                "slowest": passed.max().item(),
                "runs that passed": int(passed.isfinite().sum()),
                "equation": exact,
            }
        )
    apart = min(competition[0]["median time"], config.time)
    for row in competition:  # what did not pass in time took longer than the window
        row["delay"] = min(row["median time"], config.time) / apart
    time = min(config.time, 150.0)
    near = min(config.taus, key=lambda tau: abs(tau - 0.05))
    slow = min(config.taus, key=lambda tau: abs(tau - 0.02))
    chosen = [stairs[config.taus.index(slow)], stairs[config.taus.index(near)], contest[-3]]
    index = [config.taus.index(slow), config.taus.index(near), len(stairs) + len(contest) - 3]
    larger = simulate(chosen, config.overlay, time, config.seeds)
    smaller = overlaps[: len(larger), index]
    overlay, curves = [], []
    for i, case in enumerate(chosen):
        exact = solve(case, time)
        name = case.name if i < 2 else f"competition, {case.name}, τ = {case.tau:g}"
        for dimension, r in ((config.dimension, smaller[:, i]), (config.overlay, larger[:, i])):
            gap = r.mean(1) - exact
            overlay.append(
                {
                    "case": name,
                    "d": dimension,
                    "rms distance of one run": (r - exact[:, None]).square().mean().sqrt().item(),
                    "rms distance of the mean": gap.square().mean().sqrt().item(),
                    "largest distance of the mean": gap.abs().max().item(),
                    "rms sd over runs": r.var(1).mean().sqrt().item() if config.seeds > 1 else math.nan,
                }
            )
        curves.append({"case": name, "runs": larger[:, i], "equation": exact, "tau": case.tau})
    return {"staircase": staircase, "competition": competition, "overlay": overlay, "curves": curves}


def _sd(values: Tensor) -> float:
    return values.std().item() if len(values) > 1 else math.nan


def _passed(overlap: Tensor) -> Tensor:
    """Find the first time, of shape (runs, estimates), an overlap (times, runs, estimates) is large."""
    above = overlap > FOUND
    return torch.where(above.any(0), above.double().argmax(0).double(), math.inf)


def figure(rows: dict[str, Any]) -> Figure:
    panels = Figure(figsize=(13, 7.6), layout="constrained")
    axes = panels.subplots(2, 3)
    stairs = rows["staircase"]
    taus = [row["tau"] for row in stairs]
    axis = axes[0, 0]
    axis.errorbar(
        taus,
        [row["found"] for row in stairs],
        [row["found_sd"] for row in stairs],
        fmt="o",
        color="black",
        capsize=3,
        label="simulation, mean and sd",
    )
    axis.plot(taus, [row["equation"] for row in stairs], "_", ms=14, mew=2, label="equation, same time")
    forever = [row["equation, t = 20/τ"] for row in stairs]
    axis.plot(taus, forever, "x", ms=9, color="#999999", label="equation, t = 20/τ")
    axis.set(xscale="log", xlabel="step size τ", ylabel="sources found", title="Staircase")
    axis.set_ylim(-0.3, 5.6)
    axis.legend(fontsize=8, loc="upper right")
    axis = axes[0, 1]
    names = [name for name in stairs[0] if name.startswith("overlap")]
    for name, color in zip(names, COLORS, strict=False):
        axis.plot(
            taus, [row[name] for row in stairs], "o-", color=color, label=name.removeprefix("overlap m=")
        )
    axis.axhline(FOUND, color="black", lw=0.8, ls=":")
    axis.set(xscale="log", xlabel="step size τ", ylabel="final overlap, mean of runs", ylim=(-0.03, 1.05))
    axis.set_title("Which source is lost")
    axis.legend(title="fourth moment", fontsize=8, loc="lower left")
    for axis in axes[0, :2]:
        axis.set_xticks(taus, [f"{tau:g}".lstrip("0") for tau in taus])
        axis.minorticks_off()
    axis = axes[0, 2]
    contest = rows["competition"]
    places = range(len(contest))
    finite = [i for i in places if math.isfinite(contest[i]["median time"])]
    median = [contest[i]["median time"] for i in finite]
    times = [row[key] for row in contest for key in ("median time", "slowest")]
    top = max([1.0, *filter(math.isfinite, times)])
    low = [m - contest[i]["fastest"] for m, i in zip(median, finite, strict=True)]
    high = [min(contest[i]["slowest"], top) - m for m, i in zip(median, finite, strict=True)]
    axis.errorbar(finite, median, [low, high], fmt="o", color="black", capsize=3, label="median and range")
    axis.plot(
        finite, [contest[i]["equation"] for i in finite], "_", ms=14, mew=2, color="#D55E00", label="equation"
    )
    for i in places:
        if i not in finite:
            axis.annotate("not within\nthe time", (i, 0.8 * top), ha="center", fontsize=8, color="#D55E00")
    axis.set_xticks(places, [row["competing overlap"].replace(" ", "\n", 1) for row in contest])
    axis.set_xlim(-0.5, len(contest) - 0.5)
    axis.set_ylim(0, 1.15 * top)
    axis.set(xlabel="overlap of estimate 2 with source 1", ylabel="time until both pass 0.8")
    axis.set_title("Competition")
    axis.legend(fontsize=8, loc="lower right")
    dimension = rows["overlay"][-1]["d"]
    for axis, curve in zip(axes[1], rows["curves"], strict=True):
        runs, exact = curve["runs"].abs(), curve["equation"].abs()
        pairs = [(i, i) for i in range(exact.shape[-1])]
        if "competition" in curve["case"]:
            pairs = [(0, 0), (1, 1), (0, 1)]
        for (a, j), color in zip(pairs, COLORS, strict=False):
            axis.plot(runs[:, :, a, j], color=color, lw=0.6, alpha=0.5)
            axis.plot(exact[:, a, j], color=color, lw=2.2, ls="--", label=f"source {a + 1}, est. {j + 1}")
        axis.set(xlabel="time, samples / d", ylim=(-0.02, 1.35), title=f"{curve['case']}; d = {dimension}")
        axis.set_yticks([0, 0.25, 0.5, 0.75, 1])
        axis.legend(fontsize=8, loc="upper left", ncols=2)
    axes[1, 0].set_ylabel("overlap: runs thin, equation dashed")
    return panels


def verdict(rows: dict[str, Any]) -> str:
    stairs, contest = rows["staircase"], rows["competition"]
    found = [row["found"] for row in stairs]
    falls = all(b <= a for a, b in itertools.pairwise(found))
    plateaus = len({round(count) for count in found})
    names = [name for name in stairs[0] if name.startswith("overlap")]
    ordered = all(a >= b for row in stairs for a, b in _neighbors([row[name] for name in names]))
    last, apart = contest[-1], contest[0]["median time"]
    slowed = [row for row in contest[1:-1] if row["delay"] > 1.5]
    never = not math.isfinite(last["median time"])
    small = [row["rms distance of one run"] for row in rows["overlay"][::2]]
    large = [row["rms distance of one run"] for row in rows["overlay"][1::2]]
    early = [row["tau"] for row in stairs if row["equation"] < row["equation, t = 20/τ"]]
    counts = ", ".join(f"{row['found']:.1f} at {row['tau']:g}" for row in stairs)
    return (
        f"Sources found by step size: {counts}: the count"
        f" {'does not rise' if falls else '**rises** somewhere'} with τ and takes {plateaus} values when"
        f" rounded ({'as' if plateaus >= 3 else '**not** as'} expected, at least 3). "
        + (
            f"For τ = {', '.join(f'{tau:g}' for tau in early)} the equation finds more, later. "
            if early
            else ""
        )
        + f"Larger fourth moments are {'' if ordered else '**not** always '}lost first. Two estimates"
        f" on one source {'do not both pass in the window' if never else 'both pass'}: a delay of"
        f" {'more than ' if never else ''}{last['delay']:.2f} over {apart:.0f}, the time of estimates apart"
        f" ({'as' if last['delay'] > 1.5 else '**not** as'} expected, above 1.5). "
        + (
            f"An estimate that also overlaps its own source is late by more than 1.5 from a competing overlap"
            f" of {slowed[0]['competing overlap']} on. "
            if slowed
            else "An estimate that also overlaps its own source is **nowhere** late by more than 1.5. "
        )
        + f"Runs are within {', '.join(f'{value:.3f}' for value in large)} (rms, the three cases) of the"
        f" equation at d = {rows['overlay'][-1]['d']}, {', '.join(f'{value:.3f}' for value in small)} at"
        f" d = {rows['overlay'][0]['d']}: {'' if sum(large) < sum(small) else '**not** '}closer for larger d."
    )


def _neighbors(values: list[float]) -> list[tuple[float, float]]:
    """List the pairs of overlaps to compare: those of which one at least is more than noise."""
    return [(a, b) for a, b in itertools.pairwise(values) if max(a, b) > 0.5]


def main(config: Config) -> None:
    rows = run(config)
    tables = {
        f"Staircase, d = {config.dimension}, t = {config.time:g}, {config.seeds} runs": rows["staircase"],
        f"Time until both estimates pass {FOUND}, τ = {config.competing_tau:g}": rows["competition"],
        "Distance from the equation": rows["overlay"],
    }
    shared.results.write(config.out, config, tables, figure(rows), verdict(rows))


if __name__ == "__main__":
    shared.run.main(main, Config(), __doc__)
