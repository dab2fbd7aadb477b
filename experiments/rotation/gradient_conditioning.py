r"""What does the projection onto rotations do to gradients, and what do other maps and other codes do?

With M = U diag(s) Vᵀ, U and V rotations and the last s signed, the Jacobian of the nearest rotation has rank
3 and the singular values 2 / (s_i + s_j): they explode with the gap s₂ + s₃, and their condition is
(s₁ + s₂) / (s₂ + s₃). For an untrained head, nine independent normal numbers, the s have the density
∏ (s_i² - s_j²) exp(-|s|²/2), i < j, up to a constant, on s₁ > s₂ > |s₃|. `EXPECTED` is its integral, after
what 100,000 draws had given: small gaps are rare, P(gap < x) going with x². Of other maps, from raw numbers
to rotations:

* quaternion, modified Rodrigues: conformal, condition 1 everywhere;
* rotation vector of angle θ: (θ/2) / |sin(θ/2)|; intrinsic XYZ Euler angles: ((1 + |sin b|) /
  (1 - |sin b|))^½ at the middle angle b, heavy-tailed at normal b;
* 6D and its kin: of the size of SVD's, since their columns may be as parallel as its singular values small.

So if conditioning chose the head, the quaternion would win. "Trained" are the numbers of a uniform rotation
with normal noise of 0.1 on them: there SVD should be near 1.

The gradient of |R(M) - target|_F with respect to the columns of M, and the ratios of their norms: SVD treats
its columns alike, so that the logarithm of a ratio is symmetric about 0, and 6D does not, its first vector
taking part in everything (Geist et al. find the ratios of SVD near 1, those of Gram-Schmidt far from it).

Codes that differentiate `torch.linalg.svd` divide by s_i² - s_j², which cancels in exact arithmetic only.
Expected: NaN where singular values are equal, among them every perfect rotation; relative errors of rounding
over the difference close by. That gradients pass through the determinant does not matter in exact arithmetic.
roma computes in float64 whatever it is given, and should be the most accurate in float32.

    python -m experiments.rotation.gradient_conditioning
    python -m experiments.rotation.gradient_conditioning --full         ten times the draws

The first makes the published results with --out experiments/results/rotation/gradient_conditioning.

Source: Levinson et al., NeurIPS 2020, section 3.3 and its appendix; Choy, arXiv 2604.05414; Geist et al.,
"Learning with 3D rotations", ICML 2024, the figure of gradient ratios.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.func import jacrev, vmap

import svdrot
from experiments import shared
from experiments.shared.settings import Count, NotNegative, Out, Seed, Settings
from svdrot.nn import REPRESENTATIONS


@dataclass(frozen=True)
class Config(Settings):
    draws: Count = 1_000_000
    """Of normal matrices, for the spectrum."""
    jacobians: Count = 20_000
    """Of raw vectors of each representation."""
    noise: NotNegative = 0.1
    """Deviation of the raw numbers of a trained head."""
    matrices: Count = 2_000
    """In each hard case for the codes."""
    seed: Seed = 0
    out: Out = Path("runs/rotation/gradient_conditioning")


FULL = Config(
    draws=10_000_000,
    jacobians=200_000,
    matrices=20_000,
    out=Path("runs/rotation/gradient_conditioning-full"),
)
CHUNK = 1_000_000

# Of normal 3x3 matrices: of 100,000 draws, and of all.
EXPECTED = {
    "P(det < 0)": (0.499, 0.5),
    "gap, median": (1.24, 1.24131),
    "P(gap < 0.1)": (0.0044, 0.00460113),
    "P(gap < 0.01)": (2e-5, 4.61313e-5),
    "condition, median": (2.98, 2.98869),
    "condition, 99 %": (21.3, 21.6074),
}


# The spectrum of a normal matrix.


def signed_singular_values(m: Tensor) -> Tensor:
    """Return singular values, descending, the last with the sign of the determinant."""
    s = torch.linalg.svdvals(m)
    return torch.cat([s[..., :2], s[..., 2:] * torch.linalg.det(m).sign()[..., None]], -1)


def spectrum(config: Config) -> tuple[list[dict[str, Any]], Tensor]:
    """Measure the rows of `EXPECTED`, and the gaps."""
    generator = torch.Generator().manual_seed(config.seed)
    chunks = []
    for start in range(0, config.draws, CHUNK):
        shape = (min(CHUNK, config.draws - start), 3, 3)
        chunks.append(signed_singular_values(torch.randn(shape, dtype=torch.float64, generator=generator)).mT)
    first, second, third = torch.cat(chunks, -1)
    gap, condition = second + third, (first + second) / (second + third)
    shares = {"P(det < 0)": third < 0, "P(gap < 0.1)": gap < 0.1, "P(gap < 0.01)": gap < 0.01}
    quantiles = {
        "gap, median": (gap, 0.5),
        "condition, median": (condition, 0.5),
        "condition, 99 %": (condition, 0.99),
    }
    rows = []
    for name, (simulated, exact) in EXPECTED.items():
        if name in shares:
            found = shares[name].double().mean().item()
            error = math.sqrt(found * (1 - found) / config.draws)
        else:
            found, error = _quantile(*quantiles[name])
        rows.append(
            {"of": name, "of 100,000": simulated, "exact": exact, "found": found}
            | {"standard error": error, "difference": (found - exact) / error}
        )
    return rows, gap


def _quantile(values: Tensor, q: float) -> tuple[float, float]:
    """Return a quantile and its standard error: half the way between values two deviations apart."""
    values = values.sort().values
    n = len(values)
    spread = math.sqrt(n * q * (1 - q))
    at = [min(n - 1, max(0, round(n * q + k * spread))) for k in (-1, 0, 1)]
    low, middle, high = (values[k].item() for k in at)
    return middle, (high - low) / 2


# The Jacobians of all maps.

STATES = ("untrained", "trained")


def raw_numbers(name: str, state: str, config: Config) -> Tensor:
    """Draw what a head may put out, shape (jacobians, features): normal, or of a rotation with noise."""
    generator = torch.Generator().manual_seed(config.seed)
    shape = (config.jacobians, REPRESENTATIONS[name].features)
    normal = torch.randn(shape, dtype=torch.float64, generator=generator)
    if state == "untrained":
        return normal
    rotation = svdrot.random_rotation(config.jacobians, dtype=torch.float64, generator=generator)
    return REPRESENTATIONS[name].from_matrix(rotation) + config.noise * normal


def jacobian_singular_values(name: str, raw: Tensor) -> Tensor:
    """Return those of the map from raw numbers to the nine entries of a rotation, (jacobians, up to 9)."""
    chunks = raw.split(20_000)
    maps = vmap(jacrev(REPRESENTATIONS[name].to_matrix))
    return torch.cat([torch.linalg.svdvals(maps(chunk).flatten(1, 2)) for chunk in chunks])


def conditions(config: Config) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Make a row for each representation and state, and all conditions of the untrained."""
    rows, untrained = [], {}
    for state in STATES:
        for name in REPRESENTATIONS:
            raw = raw_numbers(name, state, config)
            s = jacobian_singular_values(name, raw)
            condition = s[:, 0] / s[:, 2]
            rank = "3" if s.shape[1] == 3 or (s[:, 3] < 1e-12 * s[:, 0]).all() else "above 3"
            median, high = (condition.quantile(q).item() for q in (0.5, 0.99))
            rows.append(
                {"head": name, "state": state, "rank": rank, "condition median": median, "99 %": high}
                | {"above 10, %": 100 * (condition > 10).double().mean().item()}
                | {"largest value, 99 % / median": _tail(s[:, 0])}
            )
            if state == "untrained":
                untrained[name] = condition
    return rows, untrained


def _tail(values: Tensor) -> float:
    return (values.quantile(0.99) / values.median()).item()


def formula_error(config: Config) -> float:
    """Return the largest relative difference of "svd"'s Jacobian's singular values from 2 / (s_i + s_j)."""
    raw = raw_numbers("svd", "untrained", config)
    s = signed_singular_values(raw.unflatten(-1, (3, 3)))
    pairs = torch.stack([s[:, 1] + s[:, 2], s[:, 0] + s[:, 2], s[:, 0] + s[:, 1]], -1)
    return (jacobian_singular_values("svd", raw)[:, :3] * pairs / 2 - 1).abs().max().item()


# Gradients by column.

COLUMNS = {"svd": 3, "6d": 2, "2vec": 2}


def column_ratios(config: Config) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    rows, ratios = [], {}
    for state in STATES:
        for name, columns in COLUMNS.items():
            raw = raw_numbers(name, state, config).requires_grad_()
            generator = torch.Generator().manual_seed(config.seed + 1)
            target = svdrot.random_rotation(config.jacobians, dtype=torch.float64, generator=generator)
            distance = svdrot.chordal_distance(REPRESENTATIONS[name].to_matrix(raw), target)
            (gradient,) = torch.autograd.grad(distance.sum(), raw)
            # 6d and 2vec are two columns, one after the other; 9d is a matrix, row by row.
            matrix = gradient.unflatten(-1, (3, 3)).mT if name == "svd" else gradient.unflatten(-1, (2, 3))
            norms = matrix.norm(dim=-1)
            for i in range(columns):
                for j in range(i + 1, columns):
                    ratio = norms[:, i] / norms[:, j]
                    label = f"{name} {i + 1} / {j + 1}"
                    quantiles = {f"{100 * q:g} %": ratio.quantile(q).item() for q in QUANTILES}
                    within = ((ratio > 0.5) & (ratio < 2)).double().mean().item()
                    rows.append(
                        {"columns": label, "state": state}
                        | quantiles
                        | {"within a factor 2, %": 100 * within}
                    )
                    if state == "untrained":
                        ratios[label] = ratio
    return rows, ratios


QUANTILES = (0.01, 0.05, 0.5, 0.95, 0.99)


# Codes near repeated singular values.


def usual(m: Tensor) -> Tensor:
    u, _, vh = torch.linalg.svd(m)
    sign = torch.linalg.det(u @ vh).detach().sign()
    return u @ torch.diag_embed(torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], -1)) @ vh


def through_determinant(m: Tensor) -> Tensor:
    """Project with the determinant itself, about ±1, in the place of its sign, and gradients through it."""
    u, _, vh = torch.linalg.svd(m)
    det = torch.linalg.det(u @ vh)
    return u @ torch.diag_embed(torch.stack([torch.ones_like(det), torch.ones_like(det), det], -1)) @ vh


def jittered(m: Tensor) -> Tensor:
    """Apply the folk remedy: noise of 1e-5 of the matrix before the decomposition."""
    noise = torch.randn(m.shape, generator=torch.Generator().manual_seed(0), dtype=m.dtype)
    return usual(m + 1e-5 * m.detach().norm(dim=(-2, -1), keepdim=True) * noise)


def roma_projection(m: Tensor) -> Tensor:
    import roma

    return roma.special_procrustes(m, return_singular_values=False)  # pyright: ignore[reportReturnType]


CODES: dict[str, Callable[[Tensor], Tensor]] = {
    "torch SVD": usual,
    "torch SVD, through det": through_determinant,
    "torch SVD, 1e-5 noise": jittered,
    "roma": roma_projection,
    "svdrot": svdrot.special_orthogonalize,
    "svdrot, damping 1e-3": partial(svdrot.special_orthogonalize, damping=1e-3),
}

SINGULAR_VALUES = {
    "3, 2, 1": (3, 2, 1),
    "1, 1 - 1e-3, 1/2": (1, 1 - 1e-3, 0.5),
    "1, 1 - 1e-5, 1/2": (1, 1 - 1e-5, 0.5),
    "a rotation": (1, 1, 1),
    "2, 2, -1": (2, 2, -1),
    "gap 0.01: 2, 1, -0.99": (2, 1, -0.99),
    "no gap: 2, 1, -1": (2, 1, -1),
}
EXACT = {"identity": (1, 1, 1), "diagonal 2, 2, 1": (2, 2, 1), "zero": (0, 0, 0)}  # not turned


def hard_case(name: str, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw matrices (n, 3, 3) in float64 with these singular values, and gradients C that come from above."""
    s = torch.tensor((SINGULAR_VALUES | EXACT)[name], dtype=torch.float64)
    u, v = svdrot.random_rotation(2, n, dtype=torch.float64, generator=generator)
    c = torch.randn(n, 3, 3, dtype=torch.float64, generator=generator)
    return (torch.diag(s).expand(n, 3, 3) if name in EXACT else u @ torch.diag(s) @ v.mT), c


def exact_gradient(m: Tensor, c: Tensor) -> Tensor:
    """Return that of <C, R(M)>. In the frames of M = U diag(s) Vᵀ, dR_ij = (dM_ij - dM_ji) / (s_i + s_j)."""
    u, s, vh = torch.linalg.svd(m)
    sign = torch.ones_like(s)
    sign[..., 2] = (torch.linalg.det(u) * torch.linalg.det(vh)).sign()
    u, s = u * sign[..., None, :], s * sign
    k = u.mT @ c @ vh.mT
    sums = s[..., :, None] + s[..., None, :]
    off = ~torch.eye(3, dtype=torch.bool)
    return u @ torch.where(off, (k - k.mT) / torch.where(off, sums, 1), 0) @ vh


def gradient_of(code: Callable[[Tensor], Tensor], m: Tensor, c: Tensor) -> Tensor:
    m = m.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((code(m) * c.to(m.dtype)).sum(), m)
    return gradient.double()


def codes(config: Config) -> list[dict[str, Any]]:
    rows = []
    for name, s in (SINGULAR_VALUES | EXACT).items():
        m, c = hard_case(name, config.matrices, torch.Generator().manual_seed(config.seed))
        for code, project in CODES.items():
            row = {"singular values": name, "code": code}
            for dtype in (torch.float32, torch.float64):
                kind = str(dtype).removeprefix("torch.float")
                exact = exact_gradient(m.to(dtype).double(), c) if s[1] + s[2] > 0 else None
                row |= {
                    f"{measure} ({kind})": value
                    for measure, value in judged(gradient_of(project, m.to(dtype), c), exact).items()
                }
            rows.append(row)
    return rows


def judged(gradient: Tensor, exact: Tensor | None) -> dict[str, float]:
    """Return the share that is not finite; of the rest the largest norm, and error over the exact norm."""
    finite = gradient.isfinite().flatten(1).all(-1)
    norm = gradient.flatten(1).norm(dim=-1)[finite]
    error = torch.tensor([math.nan])
    if exact is not None and len(norm):
        error = ((gradient - exact).flatten(1).norm(dim=-1) / exact.flatten(1).norm(dim=-1))[finite]
    return {
        "not finite, %": 100 * (~finite).double().mean().item(),
        "largest norm": norm.max().item() if len(norm) else math.nan,
        "largest error": error.max().item(),
    }


DIFFERENCES = [10.0**-k for k in range(9)]


def approach(config: Config) -> dict[str, list[float]]:
    """Return median relative errors in float32 at singular values 1, 1 - d/2, 1/2 - d/4, by difference d."""
    errors: dict[str, list[float]] = {code: [] for code in CODES}
    generator = torch.Generator().manual_seed(config.seed)
    u, v = svdrot.random_rotation(2, config.matrices, dtype=torch.float64, generator=generator)
    c = torch.randn(config.matrices, 3, 3, dtype=torch.float64, generator=generator)
    for d in DIFFERENCES:
        s = torch.tensor((1, 1 - d / 2, 0.5 - d / 4), dtype=torch.float64)
        m = (u @ torch.diag(s) @ v.mT).float()
        exact = exact_gradient(m.double(), c)
        for code, project in CODES.items():
            gradient = gradient_of(project, m, c)
            error = (gradient - exact).flatten(1).norm(dim=-1) / exact.flatten(1).norm(dim=-1)
            errors[code].append(error.nan_to_num(nan=math.inf).median().item())
    return errors


def run(config: Config) -> dict[str, Any]:
    expected, gap = spectrum(config)
    jacobians, untrained = conditions(config)
    by_column, ratios = column_ratios(config)
    return {
        "spectrum": expected,
        "gap": gap,
        "formula": formula_error(config),
        "jacobians": jacobians,
        "conditions": untrained,
        "columns": by_column,
        "ratios": ratios,
        "codes": codes(config),
        "approach": approach(config),
    }


def figure(results: dict[str, Any]) -> Figure:
    panels = Figure(figsize=(12, 8), layout="constrained")
    (gaps, tails), (columns, near) = panels.subplots(2, 2)
    gap = results["gap"]
    gaps.hist(gap.clamp(max=5).numpy(), bins=100, range=(0, 5), density=True, color="#0072B2")
    gaps.axvspan(0, 0.1, color="#D55E00", alpha=0.4, lw=0)
    small = 100 * (gap < 0.1).double().mean().item()
    gaps.annotate(f"below 0.1: {small:.2f} %", (2.6, 0.4), color="#D55E00")
    gaps.set(xlabel="gap s₂ + s₃ of a normal 3x3 matrix", ylabel="density", xlim=(0, 5))
    for name, style in shared.heads.styles(results["conditions"]).items():
        condition = results["conditions"][name]
        descending = condition.sort(descending=True).values
        share = torch.arange(1, len(descending) + 1) / len(descending)
        tails.loglog(descending, share, color=style.color, ls=style.dashes, label=name)
    tails.set(xlabel="condition of the Jacobian, normal raw numbers", ylabel="share above", xlim=(0.9, 1e3))
    tails.set_ylim(1e-4, 1.5)
    tails.legend(fontsize=8, loc="upper right", ncols=2)
    boxes = [
        {"whislo": q[0], "q1": q[1], "med": q[2], "q3": q[3], "whishi": q[4], "label": name}
        for name, ratio in results["ratios"].items()
        for q in [[ratio.quantile(q).item() for q in (0.05, 0.25, 0.5, 0.75, 0.95)]]
    ]
    columns.bxp(boxes, showfliers=False, medianprops={"color": "#D55E00"})
    columns.axhline(1, color="#999999", lw=0.8)
    columns.set(yscale="log", ylabel="gradient norms of two columns, ratio", xlabel="5, 25, 50, 75, 95 %")
    columns.tick_params(axis="x", labelrotation=20)
    for (code, errors), style in zip(results["approach"].items(), LINES, strict=True):
        near.loglog(DIFFERENCES, errors, style, label=code, ms=4)
    near.set(xlabel="d, singular values 1, 1 - d/2, 1/2 - d/4", ylabel="median relative error, float32")
    near.invert_xaxis()
    near.legend(fontsize=8)
    return panels


LINES = ("k-o", "k--", "C7:s", "C2-^", "C3-o", "C3:")


def verdict(results: dict[str, Any]) -> str:
    return " ".join(
        (about_spectrum(results), about_heads(results), about_columns(results), about_codes(results))
    )


def about_spectrum(results: dict[str, Any]) -> str:
    far = [row["of"] for row in results["spectrum"] if abs(row["difference"]) > 3]
    found = {row["of"]: row["found"] for row in results["spectrum"]}
    told = f"not as expected: {', '.join(far)}" if far else "all figures within three standard errors"
    ranks = ", ".join(sorted({row["rank"] for row in results["jacobians"]}))
    return (
        f"Rank {ranks} for every map; the singular values are 2 / (s_i + s_j) to {results['formula']:.1g}. Of"
        f" normal matrices {100 * found['P(gap < 0.1)']:.2f} % have a gap below 0.1, and the condition is"
        f" {found['condition, median']:.2f} in the median, {found['condition, 99 %']:.1f} at the 99th"
        f" percentile ({told}): exploding gradients are rare events."
    )


def about_heads(results: dict[str, Any]) -> str:
    at = {row["head"]: row for row in results["jacobians"] if row["state"] == "untrained"}
    svd, six, quaternion, euler = (at[name] for name in ("svd", "6d", "quaternion", "euler"))
    return (
        f"Conditioning does not choose the head: 6D is at {six['condition median']:.2f} and"
        f" {six['99 %']:.1f}, SVD at {svd['condition median']:.2f} and {svd['99 %']:.1f}, and the quaternion,"
        f" at {quaternion['99 %']:.2f}, beats both. Only Euler angles are badly conditioned"
        f" ({euler['above 10, %']:.0f} % above 10)."
    )


def about_columns(results: dict[str, Any]) -> str:
    at = {row["columns"]: row for row in results["columns"] if row["state"] == "untrained"}
    svd, six = at["svd 1 / 2"], at["6d 1 / 2"]
    return (
        f"By columns, {svd['within a factor 2, %']:.0f} % of the ratios of SVD are within a factor 2 of one"
        f" and {six['within a factor 2, %']:.0f} % of those of 6D, whose first vector gets {six['50 %']:.2f}"
        f" times the gradient of its second in the median, more than {six['95 %']:.0f} times in 5 %: as"
        " claimed, though the ratios of SVD are near one in the median only."
    )


def about_codes(results: dict[str, Any]) -> str:
    at = {(row["singular values"], row["code"]): row for row in results["codes"]}
    naive, roma, ours = (at["a rotation", code] for code in ("torch SVD", "roma", "svdrot"))
    norms = {code: at["no gap: 2, 1, -1", code]["largest norm (32)"] for code in CODES}
    return (
        f"At perfect rotations {naive['not finite, % (32)']:.0f} % of the gradients of torch's SVD are not"
        f" finite in float32, and the rest are off by up to {naive['largest error (32)']:.1g} of their size;"
        f" those of svdrot are finite and right to {ours['largest error (32)']:.1g}, those of roma, float64"
        f" inside, to {roma['largest error (32)']:.1g}. Without a gap nothing is right: rounding decides, and"
        f" the gradient is finite but up to {norms['svdrot']:.1g} long in float32 (roma, which damps:"
        f" {norms['roma']:.1g}; svdrot with damping=1e-3: {norms['svdrot, damping 1e-3']:.1g})."
    )


def main(config: Config) -> None:
    results = run(config)
    captions = {
        "spectrum": f"{config.draws:,} normal 3x3 matrices",
        "jacobians": f"Jacobians at {config.jacobians:,} normal raw vectors; trained: those of rotations,"
        f" noise {config.noise:g}",
        "columns": "Ratios of gradient norms of columns",
        "codes": f"Gradients of codes, {config.matrices:,} matrices, float32 and float64",
    }
    tables = {caption: results[name] for name, caption in captions.items()}
    shared.results.write(config.out, config, tables, figure(results), verdict(results))


if __name__ == "__main__":
    shared.run.main(main, Config(), __doc__, {"--full": FULL})
