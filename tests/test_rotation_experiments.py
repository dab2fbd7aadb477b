"""The experiments on rotation heads, in small: their laws, their rows and their files."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import svdrot
from experiments.rotation import gradient_conditioning, noise_svd_vs_gs


@pytest.fixture(autouse=True)
def command(monkeypatch):
    monkeypatch.setattr("sys.argv", ["experiment"])


@pytest.fixture(autouse=True)
def threads_as_before():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def tables(folder):
    """The tables of a finished experiment, in order, after a look at its other files."""
    assert (folder / "figure.png").stat().st_size > 10_000 and (folder / "table.md").exists()
    return list(json.loads((folder / "results.json").read_text())["tables"].values())


# Noise and its projection. Means of 20,000 draws stay within four standard errors: 1 in 16,000 does not.

NOISES = ("normal", "uniform", "signs", "turned columns")
SMALL = noise_svd_vs_gs.Config(draws=20_000, sigmas=(0.01,))
FAR = 4


@pytest.mark.parametrize("kind", NOISES)
def test_noise_has_its_deviation(kind):
    rotation = svdrot.random_rotation(40_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    m, s = noise_svd_vs_gs.noisy(kind, 0.05, rotation, np.random.default_rng(0))
    n = rotation.mT @ (m - rotation)
    entries = n[:, ~torch.eye(3, dtype=torch.bool)]
    assert entries.mean().abs() < FAR * s / math.sqrt(entries.numel())
    assert entries.square().mean().sqrt().item() == pytest.approx(s, rel=0.01)
    if kind == "turned columns":
        torch.testing.assert_close(m.norm(dim=-2), torch.ones(len(m), 3, dtype=torch.float64))


@pytest.mark.parametrize("kind", NOISES)
def test_small_noise_is_projected_as_the_theory_says(kind):
    found, s = noise_svd_vs_gs.errors(kind, 0.01, SMALL)
    values = noise_svd_vs_gs.estimated(found)
    left = (3, 6) if kind == "turned columns" else (6, 9)
    first_order = {"E SVD": 3, "E GS": 6, "ratio": 2, "left SVD": left[0], "left GS": left[1]}
    if kind == "normal":
        first_order |= {"GS nearer": (math.atan(2) - 0.4) / math.pi}
        first_order |= {"deg SVD": math.degrees(math.sqrt(4 / math.pi) * s)}
        first_order |= {"deg GS": math.degrees(math.sqrt(8 / math.pi) * s)}
    for name, expected in first_order.items():
        value, error = values[name]
        beyond = 3 * s**2 * expected  # second order: 3.07 and 6.24 at s = 0.25
        assert abs(value - expected) < FAR * error + beyond, name


def test_noise_is_compared_and_written(tmp_path):
    noise_svd_vs_gs.main(noise_svd_vs_gs.Config(draws=5_000, sigmas=(0.125, 0.25, 1.0), out=tmp_path))
    rows, checks = tables(tmp_path / "noise_svd_vs_gs")
    assert len(rows) == 3 * 3 + 2  # columns are not turned by sigma 1
    assert len(checks) == 3 * len(noise_svd_vs_gs.MEASURES)
    assert all(abs(row["difference"]) < FAR for row in checks)


# Gradients.

GRADIENTS = gradient_conditioning.Config(draws=50_000, jacobians=1_000, matrices=100)


def test_the_expected_spectrum_is_the_integral_of_the_density():
    """Along s₂ (1 + p, 1, q - 1), p > 0 and 0 < q < 2; the length of s has a chi distribution of 9."""
    from scipy.stats import chi

    x, w = np.polynomial.legendre.leggauss(60)

    def nodes(edges):
        low, high = edges[:-1, None], edges[1:, None]
        return (low + (high - low) * (x + 1) / 2).ravel(), (w * (high - low) / 2).ravel()

    u, wu = nodes(np.linspace(0, 1, 4))
    q, wq = nodes(2 * np.linspace(0, 1, 13) ** 3)
    p, wp = u / (1 - u), wu / (1 - u) ** 2
    a, b, c = 1 + p[:, None], 1.0, q - 1
    length = np.sqrt(a**2 + b**2 + c**2)
    mass = wp[:, None] * wq * (a**2 - b**2) * (a**2 - c**2) * (b**2 - c**2) / length**9
    mass /= mass.sum()
    exact = {name: value for name, (_, value) in gradient_conditioning.EXPECTED.items()}
    for limit, share in (
        (0.01, exact["P(gap < 0.01)"]),
        (0.1, exact["P(gap < 0.1)"]),
        (exact["gap, median"], 0.5),
    ):
        assert (mass * chi.cdf(limit * length / q, 9)).sum() == pytest.approx(share, rel=1e-5)
    # The share of directions with a condition (2 + p) / q above a limit has an edge: to the size of a cell.
    condition = (2 + p[:, None]) / q
    for limit, share in ((exact["condition, median"], 0.5), (exact["condition, 99 %"], 0.01)):
        assert mass[condition > limit].sum() == pytest.approx(share, rel=2e-2)


def test_singular_values_of_the_jacobian_are_two_over_sums():
    assert gradient_conditioning.formula_error(replace(GRADIENTS, jacobians=500)) < 1e-11


@pytest.mark.parametrize("name", svdrot.nn.REPRESENTATIONS)
def test_conditions_of_the_maps(name):
    """Closed forms where there are: conformal maps, rotation vectors, Euler angles, Gram-Schmidt."""
    raw = gradient_conditioning.raw_numbers(name, "untrained", replace(GRADIENTS, jacobians=200))
    s = gradient_conditioning.jacobian_singular_values(name, raw)
    assert (s[:, 2] > 0).all() and (s[:, 3:] < 1e-12 * s[:, :1]).all()
    condition = s[:, 0] / s[:, 2]
    if name in ("quaternion", "mrp"):
        expected = torch.ones_like(condition)
    elif name == "axis_angle":
        half = raw.norm(dim=-1) / 2
        expected = half / half.sin().abs()
    elif name == "euler":
        tilt = raw[:, 1].sin().abs()
        expected = ((1 + tilt) / (1 - tilt)).sqrt()
    elif name == "6d":
        # Turns about the third axis: 1 / |x|. About the others: tips of x and of the rest of y, of length h.
        x, y = raw[:, :3], raw[:, 3:]
        length = x.norm(dim=-1)
        along = (x * y).sum(-1) / length
        h = (y.square().sum(-1) - along**2).sqrt()
        zero = torch.zeros_like(h)
        block = torch.stack([1 / length, zero, along / (length * h), 1 / h], -1).unflatten(-1, (2, 2))
        all_three = torch.cat([torch.linalg.svdvals(block), 1 / length[:, None]], -1)
        expected = all_three.amax(-1) / all_three.amin(-1)
    else:
        return
    torch.testing.assert_close(condition, expected, rtol=1e-9, atol=0)


def test_trained_numbers_are_of_rotations():
    config = replace(GRADIENTS, noise=0.0, jacobians=50)
    for name, (features, to_matrix, from_matrix) in svdrot.nn.REPRESENTATIONS.items():
        raw = gradient_conditioning.raw_numbers(name, "trained", config)
        assert raw.shape == (50, features)
        torch.testing.assert_close(from_matrix(to_matrix(raw)), raw, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", gradient_conditioning.SINGULAR_VALUES | gradient_conditioning.EXACT)
def test_the_exact_gradient_is_the_slope_of_the_projection(name):
    """Against central differences in double precision, where the nearest rotation is unique."""
    m, c = gradient_conditioning.hard_case(name, 3, torch.Generator().manual_seed(0))
    values = (gradient_conditioning.SINGULAR_VALUES | gradient_conditioning.EXACT)[name]
    s = torch.tensor(values, dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.svdvals(m), s.abs().expand(3, 3), rtol=0, atol=1e-12)
    if s[1] + s[2] <= 0:
        return
    step = 1e-6
    steps = step * torch.eye(9, dtype=torch.float64).reshape(9, 1, 3, 3)
    up, down = (
        (svdrot.special_orthogonalize(m + sign * steps) * c).sum((-2, -1)).mT.reshape(3, 3, 3)
        for sign in (1, -1)
    )
    slope = (up - down) / (2 * step)
    scale = c.norm(dim=(-2, -1)).max() * (2 / (s[1] + s[2])) ** 3  # of the third derivative
    torch.testing.assert_close(
        gradient_conditioning.exact_gradient(m, c), slope, rtol=0, atol=1e-8 + scale.item() * step**2
    )


def test_gradients_are_judged_and_written(tmp_path):
    gradient_conditioning.main(replace(GRADIENTS, out=tmp_path))
    spectrum, jacobians, columns, codes = tables(tmp_path / "gradient_conditioning")
    assert {row["of"] for row in spectrum} == set(gradient_conditioning.EXPECTED)
    assert all(abs(row["found"] - row["exact"]) < FAR * row["standard error"] for row in spectrum[:3])
    assert len(jacobians) == 2 * len(svdrot.nn.REPRESENTATIONS) and len(columns) == 2 * 5
    at = {(row["singular values"], row["code"]): row for row in codes}
    assert at["identity", "torch SVD"]["not finite, % (32)"] == 100
    for name in gradient_conditioning.SINGULAR_VALUES | gradient_conditioning.EXACT:
        ours = at[name, "svdrot"]
        assert ours["not finite, % (32)"] == ours["not finite, % (64)"] == 0
        if "gap" not in name and name != "zero":
            assert ours["largest error (32)"] < 2e-5 and ours["largest error (64)"] < 1e-12
