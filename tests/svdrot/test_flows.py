"""Flow matching and diffusion on SO(3): the score, the interpolant, and steps back from noise to data."""

import math
from itertools import pairwise

import mpmath
import pytest
import torch
from torch import Tensor

import svdrot
from svdrot.distributions import IsotropicGaussian
from svdrot.flows import euler_step, geodesic_interpolant, probability_flow_step, reverse_diffusion_step

EPS = 2.0**-52
SCALES = (1e-100, 1e-6, 1e-3, 0.03, 0.1, 0.3, 0.7, 1.0, 1.4, math.sqrt(2), 1.5, 2.0, 3.0, 10.0, 1e30)
ANGLES = (0.0, 1e-12, 1e-6, 0.01, 0.5, 1.0, 1.5, 1.6, 2.0, 2.5, 3.0, 3.14, math.pi - 1e-6, math.pi - 1e-9)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def log_density(angle: mpmath.mpf, tau: mpmath.mpf) -> mpmath.mpf:
    """Times exp(angle² / 4 tau) where that is a sum of images."""
    if tau < 1:
        images = [(k, angle - 2 * mpmath.pi * k) for k in range(-4, 6)]
        terms = [(-1) ** k * x * mpmath.exp((angle**2 - x**2) / (4 * tau)) for k, x in images]
        return mpmath.log(sum(terms) / mpmath.sin(angle / 2))
    half = mpmath.mpf(1) / 2
    terms = [(2 * l + 1) * mpmath.exp(-l * (l + 1) * tau) * mpmath.sin((l + half) * angle) for l in range(40)]
    return mpmath.log(sum(terms) / mpmath.sin(angle / 2))


def slope(angle: float, scale: float) -> float:
    """The derivative of the log density by the angle, by differences in a hundred digits."""
    with mpmath.workdps(100):
        x, tau = mpmath.mpf(angle), mpmath.mpf(scale) ** 2 / 2
        if x == 0 or (angle > 3 and scale < 1e-50):
            return 0.0 if x == 0 else float(-x / (2 * tau))
        step = mpmath.mpf(10) ** -30 * min(x, mpmath.mpf(scale) ** 2)
        found = (log_density(x + step, tau) - log_density(x - step, tau)) / (2 * step)
        return float(found - (x / (2 * tau) if tau < 1 else 0))


@pytest.mark.parametrize("scale", SCALES)
def test_the_score_against_differences_in_a_hundred_digits(scale):
    """Within 8 eps of its size, the angle over scale^2, or what a series of large scales begins with."""
    axis = torch.tensor([0.6, 0.0, -0.8], dtype=torch.float64)
    location = svdrot.random_rotation(dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for angle in ANGLES:
        value = svdrot.exp_map(torch.eye(3).double(), angle * axis)
        found = IsotropicGaussian(torch.eye(3).double(), torch.tensor(scale, dtype=torch.float64)).score(
            value
        )
        wanted = slope(angle, scale) * axis
        # Images half a turn off change within tau / pi of the angle: by what rounding of it does, too.
        sharp = (math.pi / scale**2) ** 2 if 1e-7 < scale < 1 and angle > 3 else 1 / scale**2
        limit = 8 * EPS * (angle / scale**2 + min(1.0, math.exp(-(scale**2)) * 20) + min(sharp, 1e300))
        if not (scale < 1e-7 and angle > math.pi - 1e-5):
            assert (found - wanted).abs().max() <= limit, angle
        turned = IsotropicGaussian(location, torch.tensor(scale, dtype=torch.float64)).score(location @ value)
        assert (turned - found).abs().max() <= limit + 16 * EPS * (angle > 0) / scale**2 + 1e3 * limit


def test_the_score_is_zero_where_it_must_be_and_finite_everywhere():
    half = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    for dtype in (torch.float32, torch.float64):
        for scale in (1e-30, 1e-10, 1e-3, 0.1, 1.0, 2.0, 1e3, 1e30):
            eye, size = torch.eye(3, dtype=dtype), torch.tensor(scale, dtype=dtype)
            at = IsotropicGaussian(eye, size, validate_args=False)
            value = torch.stack((torch.eye(3), half)).to(dtype).requires_grad_()
            score = at.score(value)
            assert (score == 0).all() and score.dtype == dtype
            if scale > 1e-5:
                (first,) = torch.autograd.grad(score.sum(), value)
                assert first.isfinite().all()


@pytest.mark.parametrize("scale", [0.05, 0.4, 1.3, 1.5, 2.5])
def test_the_score_is_the_gradient_of_the_log_density(scale):
    location = svdrot.random_rotation(20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    value = svdrot.exp_map(location, 0.9 * normal(20, 3).clamp(-1.5, 1.5))
    scales = scale * (1 + 0.1 * torch.rand(20, generator=torch.Generator().manual_seed(1)).double())
    at = IsotropicGaussian(location, scales)
    delta = torch.zeros(20, 3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(at.log_prob(svdrot.exp_map(value, delta)).sum(), delta)
    assert (at.score(value) - gradient).abs().max() < 1e-10 / scale**2
    assert torch.autograd.gradcheck(
        lambda d, s: IsotropicGaussian(location, s).score(svdrot.exp_map(value, d)),
        (delta, scales.requires_grad_()),
    )


def test_scores_of_samples_have_mean_zero_and_the_information_of_the_scale():
    """Stein: the mean of a score is 0, and of its square, for small scales, 1 / scale^2 along each axis."""
    torch.manual_seed(0)
    for scale in (0.1, 1.0, 2.0):
        at = IsotropicGaussian(torch.eye(3).double(), torch.tensor(scale, dtype=torch.float64))
        score = at.score(at.sample((20000,)))
        deviation = score.std(0) / math.sqrt(20000)
        assert (score.mean(0).abs() < 5 * deviation).all()
        if scale == 0.1:
            assert (score.square().mean(0) * scale**2 - 1).abs().max() < 0.05


# Flow matching ----------------------------------------------------------------------------------------------


def test_the_interpolant_and_its_velocity():
    start, end = (
        svdrot.random_rotation(50, dtype=torch.float64, generator=torch.Generator().manual_seed(k))
        for k in (0, 1)
    )
    time = torch.rand(50, generator=torch.Generator().manual_seed(2)).double()
    for t, wanted in ((0.0, start), (1.0, end)):
        assert (geodesic_interpolant(start, end, t)[0] - wanted).abs().max() < 32 * EPS
    rotation, velocity = geodesic_interpolant(start, end, time)
    assert (rotation - svdrot.slerp(start, end, time)).abs().max() < 16 * EPS
    assert (velocity.norm(dim=-1) - svdrot.geodesic_distance(start, end)).abs().max() < 16 * EPS
    # The derivative of the rotation is R [v].
    _, derivative = torch.func.jvp(
        lambda t: geodesic_interpolant(start, end, t)[0], (time,), (torch.ones_like(time),)
    )
    assert (derivative - rotation @ svdrot.hat(velocity)).abs().max() < 1e-13
    # From anywhere on the way the rest of the way takes what is left of the time.
    assert (svdrot.log_map(rotation, end) - (1 - time)[:, None] * velocity).abs().max() < 1e-13
    assert (euler_step(rotation, velocity, 1 - time) - end).abs().max() < 32 * EPS


def test_steps_stay_rotations():
    rotation = svdrot.random_rotation(10, generator=torch.Generator().manual_seed(0))
    for k in range(2000):
        rotation = euler_step(rotation, normal(10, 3, seed=k).float(), 0.1)
    defect = rotation.mT @ rotation - torch.eye(3)
    assert defect.abs().max() < 8 * 2.0**-23


def test_bad_elements_stay_in_their_place():
    rotation = svdrot.random_rotation(3, dtype=torch.float64)
    time = torch.tensor([0.5, math.nan, 0.1], dtype=torch.float64)
    moved, velocity = geodesic_interpolant(rotation, rotation.flip(0), time)
    assert moved.isnan().any((1, 2)).tolist() == velocity.isnan().any(1).tolist() == [False, True, False]
    moved = euler_step(rotation, normal(3, 3), time)
    assert moved.isnan().all((1, 2)).tolist() == [False, True, False]
    with pytest.raises(ValueError, match="`velocity` must have shape"):
        euler_step(rotation, torch.zeros(3, 2), 0.1)
    with pytest.raises(TypeError, match="`time` must be a tensor or a number"):
        geodesic_interpolant(rotation, rotation, "now")  # pyright: ignore[reportArgumentType]


def test_a_network_that_knows_the_flow_takes_noise_to_data():
    """Data at one rotation: the field is the rest of the way over the rest of the time, for every start."""
    data = svdrot.random_rotation(dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    rotation = svdrot.random_rotation(200, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    n = 20
    for k in range(n):
        rotation = euler_step(rotation, svdrot.log_map(rotation, data) / (1 - k / n), 1 / n)
    assert svdrot.geodesic_distance(rotation, data.expand_as(rotation)).max() < 1e-7


# Diffusion --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noisy", [True, False], ids=["with noise", "flow"])
def test_the_score_of_a_gaussian_integrates_back_to_its_samples(noisy):
    """Data are a Gaussian of scale 0.3: with noise of scale s, of scale (0.09 + s^2)^(1/2)."""
    torch.manual_seed(0)
    spread, n, count = 0.3, 300, 4000
    scales = torch.logspace(math.log10(3.0), -2, n).double()
    location = svdrot.random_rotation(dtype=torch.float64)
    rotation = svdrot.random_rotation(count, dtype=torch.float64)  # what scale 3 is, but for 1e-4
    for scale, after in pairwise(scales):
        score = IsotropicGaussian(location, (scale**2 + spread**2).sqrt()).score(rotation)
        step = reverse_diffusion_step if noisy else probability_flow_step
        rotation = step(rotation, score, scale, after)
    assert svdrot.is_rotation(rotation).all()
    wanted = IsotropicGaussian(location, torch.tensor(spread, dtype=torch.float64)).sample((count,))
    found, truth = (svdrot.geodesic_distance(location.expand_as(x), x) for x in (rotation, wanted))
    # Quantiles of angles: their own spread is some 0.004; the rest are steps of Euler's.
    q = torch.linspace(0.1, 0.9, 9).double()
    assert (found.quantile(q) / truth.quantile(q) - 1).abs().max() < 0.08
    assert svdrot.log_map(location, rotation).mean(0).abs().max() < 5 * spread / math.sqrt(count)


def test_scales_are_of_each_element():
    rotation = svdrot.random_rotation(3, dtype=torch.float64)
    score, z = normal(3, 3), normal(3, 3, seed=1)
    scale, after = (
        torch.tensor([0.5, 0.2, 0.1], dtype=torch.float64),
        torch.tensor([0.4, 0.2, 0.0], dtype=torch.float64),
    )
    together = reverse_diffusion_step(rotation, score, scale, after, z)
    flow = probability_flow_step(rotation, score, scale, after)
    square = (scale**2 - after**2)[:, None]
    assert (together - svdrot.exp_map(rotation, square * score + square.sqrt() * z)).abs().max() < 16 * EPS
    assert (flow - svdrot.exp_map(rotation, square / 2 * score)).abs().max() < 16 * EPS
    assert (together[1] - rotation[1]).abs().max() < 8 * EPS
    at = IsotropicGaussian(rotation, scale)
    each = [IsotropicGaussian(r, s).score(rotation[0]) for r, s in zip(rotation, scale, strict=True)]
    assert torch.equal(at.score(rotation[0]), torch.stack(each))
