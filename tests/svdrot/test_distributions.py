"""Laws of the distributions on SO(3): normalizers against independent truth, samples against densities."""

import itertools
import math
from functools import partial

import mpmath
import pytest
import torch
from cases import with_singular_values
from torch.distributions import kl_divergence

import svdrot
from svdrot._formulas.densities import log_heat_kernel
from svdrot.distributions import (
    Bingham,
    IsotropicGaussian,
    MatrixFisher,
    RotationLaplace,
    UniformRotation,
    rotation_laplace,
)
from svdrot.distributions import _normalizer as normalizer
from svdrot.distributions._form import matrix_of_form, quaternion_form

# The promise is 1e-5; the quadratures keep 1e-9 (matrix Fisher, Bingham) and 1e-7 (Laplace) in float64, and
# the result is rounded to float32: a log density of up to 20 has a unit of rounding of 1e-6.
ACCURACY = 2e-9
LAPLACE_ACCURACY = 1e-7
FLOAT32 = 5e-6
# Of a mean over samples, in standard errors: 1 in 2 million for a correct sampler, and the seeds are fixed.
SIGMAS = 5

GAPS = [0, 1e-3, 0.3, 5, 200, 1e4, 1e8]
SINGULAR_VALUES = {
    "tiny": (1e-3, 5e-4, 1e-4),
    "isotropic": (2, 2, 2),
    "plain": (3, 1, 0.5),
    "negative": (4, 2, -1),
    "no_gap": (3, 1, -1),
    "anisotropic": (1e4, 3, 0.1),
    "anisotropic_negative": (1e4, 3, -2.9),
    "rank_one": (50, 0, 0),
    "concentrated": (1e4, 8e3, 5e3),
    "point": (1e8, 1e8, 1e8),
}
QUADRATIC = (MatrixFisher, RotationLaplace)


@pytest.fixture(autouse=True)
def arguments_are_validated(monkeypatch):
    """As is torch's default, which lasts until something, once, turns it off for the whole process."""
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", True)


def generator_seed(seed: int) -> None:
    """Samples draw from torch's global generator, as all of `torch.distributions` do."""
    torch.manual_seed(seed)


def contour(a: float, b: float, c: float) -> mpmath.mpf:
    """E exp(-a q_2^2 - b q_3^2 - c q_4^2), the inverse Laplace transform at 1 of the product of the
    (s + gap)^(-1/2) (Kume and Wood, Biometrika 92 (2005)), by Talbot's contour in 40 digits."""
    with mpmath.workdps(40):
        return mpmath.invertlaplace(
            lambda s: 1 / mpmath.sqrt(s) / mpmath.sqrt(s + a) / mpmath.sqrt(s + b) / mpmath.sqrt(s + c),
            1,
            method="talbot",
            degree=36,
        )


def diagonal_fisher(gaps: tuple[float, float, float], dtype: torch.dtype) -> torch.Tensor:
    """F whose 4 x 4 form has these gaps, turned by two rotations."""
    a, b, c = gaps  # 2 (s2 + s3), 2 (s1 + s3), 2 (s1 + s2)
    s = torch.tensor([(b + c - a) / 4, (c + a - b) / 4, (a + b - c) / 4], dtype=torch.float64)
    u, v = svdrot.random_rotation(2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return (u @ torch.diag(s) @ v.mT).to(dtype)


def test_normalizer_agrees_with_a_contour_integral_at_every_concentration_and_anisotropy():
    gaps = list(itertools.combinations_with_replacement(GAPS, 3))
    ours = normalizer.scaled_normalizer(torch.tensor(gaps, dtype=torch.float64))
    for value, gap in zip(ours.tolist(), gaps, strict=True):
        assert abs(value / float(contour(*gap)) - 1) < ACCURACY, gap


@pytest.mark.parametrize(
    "gaps", [(1e-3, 0.3, 5), (0.3, 5, 200), (5, 1e4, 1e6), (200, 1e4, 1e8), (0.3, 0.3, 1e4)]
)
def test_moments_are_the_derivatives_of_the_contour_integral(gaps):
    c, second, fourth = normalizer.moments(torch.tensor(gaps, dtype=torch.float64))
    with mpmath.workdps(40):
        for i in range(3):

            def transform(s, i=i, power=0):
                product = 1 / mpmath.sqrt(s)
                for gap in gaps:
                    product /= mpmath.sqrt(s + gap)
                return product / (s + gaps[i]) ** power

            # d/d gap of (s + gap)^(-1/2), once and twice: factors 1/2 and 3/4.
            once = mpmath.invertlaplace(lambda s, t=transform: t(s, power=1), 1, method="talbot", degree=36)
            twice = mpmath.invertlaplace(lambda s, t=transform: t(s, power=2), 1, method="talbot", degree=36)
            assert abs(second[i + 1] / float(once / 2 / c.item()) - 1) < 1e-8
            assert abs(fourth[i + 1, i + 1] / float(twice * 3 / 4 / c.item()) - 1) < 1e-8
    torch.testing.assert_close(fourth.sum(-1), second, rtol=1e-10, atol=0)


@pytest.mark.parametrize("gaps", [(0, 0, 0), (1e-3, 2e-3, 2e-3), (0.3, 5, 5), (5, 200, 200), (1e4, 1e4, 2e4)])
def test_log_density_at_the_mode_and_mean_in_float32(gaps):
    """At the mode the log density is minus the log of the scaled normalizer, of the rounded F."""
    f = diagonal_fisher(gaps, torch.float32)
    fisher = MatrixFisher(f)
    s = torch.linalg.svdvals(f.double()) * torch.tensor([1, 1, torch.linalg.det(f.double()).sign()])
    a, b, c = (2 * x for x in (s[1] + s[2], s[0] + s[2], s[0] + s[1]))
    truth = -float(mpmath.log(contour(a.item(), b.item(), c.item())))
    if sum(gaps):
        # The mode in float64: rounded to float32 it is no longer the mode, at 1e4.
        mode = svdrot.special_orthogonalize(f.double())
        assert abs(fisher.log_prob(mode).item() - truth) < FLOAT32
    assert fisher.mean.dtype == torch.float32
    reference = MatrixFisher(f.double()).mean
    torch.testing.assert_close(fisher.mean.double(), reference, rtol=0, atol=2e-7)


@pytest.mark.parametrize("name", SINGULAR_VALUES)
@pytest.mark.parametrize("family", QUADRATIC)
def test_values_and_gradients_are_finite_on_hard_parameters(family, name):
    f = with_singular_values(*SINGULAR_VALUES[name]).float().requires_grad_()
    r = svdrot.random_rotation(len(f), generator=torch.Generator().manual_seed(3))
    distribution = family(f)
    for value in (distribution.log_prob(r), distribution.entropy(), distribution.log_normalizer()):
        assert value.isfinite().all()
        (gradient,) = torch.autograd.grad(value.sum(), f, retain_graph=True)
        assert gradient.isfinite().all()
    assert svdrot.is_rotation(distribution.sample((3,)), tolerance=1e-5).all()


@pytest.mark.parametrize(
    "f", [torch.zeros(3, 3), 2 * torch.eye(3), -2 * torch.eye(3), torch.diag(torch.tensor([3.0, 1, -1]))]
)
def test_fisher_derivatives_are_right_where_singular_values_repeat(f):
    f = f.double().requires_grad_()
    r = svdrot.random_rotation(dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    assert torch.autograd.gradcheck(lambda f: MatrixFisher(f).log_prob(r), f)
    assert torch.autograd.gradcheck(lambda f: MatrixFisher(f).entropy(), f)
    assert torch.autograd.gradgradcheck(lambda f: MatrixFisher(f).log_normalizer(), f)
    (gradient,) = torch.autograd.grad(MatrixFisher(f).log_normalizer(), f)
    torch.testing.assert_close(gradient, MatrixFisher(f).mean, rtol=0, atol=1e-12)


def test_bingham_derivatives():
    a = torch.randn(2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5)).requires_grad_()
    q = torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    q = q / q.norm(dim=-1, keepdim=True)
    assert torch.autograd.gradcheck(lambda a: Bingham(a).log_prob(q), a)
    assert torch.autograd.gradgradcheck(lambda a: Bingham(a).log_normalizer(), a)
    assert torch.autograd.gradcheck(lambda a: Bingham(a).entropy(), a)


def test_bingham_and_matrix_fisher_are_one_family():
    generator = torch.Generator().manual_seed(7)
    a = 5 * torch.randn(4, 4, 4, dtype=torch.float64, generator=generator)
    q = torch.randn(9, 4, 4, dtype=torch.float64, generator=generator)
    q = q / q.norm(dim=-1, keepdim=True)
    bingham = Bingham(a)
    fisher = bingham.matrix_fisher()
    density = bingham.log_prob(q)
    torch.testing.assert_close(fisher.log_prob(svdrot.quaternion_to_matrix(q)), density, rtol=0, atol=1e-10)
    torch.testing.assert_close(bingham.log_prob(-q), density, rtol=0, atol=0)
    shifted = Bingham(a + 100 * torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(shifted.log_prob(q), density, rtol=0, atol=1e-10)
    torch.testing.assert_close(fisher.bingham().log_prob(q), density, rtol=0, atol=1e-10)
    torch.testing.assert_close(fisher.mean, matrix_of_form(bingham.second_moment), rtol=0, atol=1e-12)
    torch.testing.assert_close(fisher.entropy(), bingham.entropy(), rtol=0, atol=1e-10)
    assert (bingham.log_prob(bingham.mode) >= density.amax(0)).all()
    top = torch.linalg.eigvalsh((a + a.mT) / 2)[:, -1]
    quadratic = (bingham.mode[:, None] @ a @ bingham.mode[..., None])[:, 0, 0]
    torch.testing.assert_close(quadratic, top, rtol=0, atol=1e-12)


def laplace_truth(gaps: tuple[float, float, float]) -> list[float]:
    """Integrals of p, p sqrt(Q) and p ln(Q), p = exp(-sqrt Q) / sqrt Q, over the rotations in polar
    coordinates about the mode: Q = sin^2(eta) k(n), the directions n taken to where k^(-3/2) is uniform."""
    d = torch.tensor(gaps, dtype=torch.float64)
    x, weight = normalizer.gauss_legendre(120, d.device)
    z, phi = x[:, None], math.pi / 2 * x
    m = torch.stack(
        torch.broadcast_tensors(z**2, (1 - z**2) * phi.cos() ** 2, (1 - z**2) * phi.sin() ** 2), -1
    )
    k = 1 / (m / d).sum(-1)
    directions = weight[:, None] * weight * k**1.5 / d.prod().sqrt()
    eta = math.pi / 2 * x**4  # the logarithm at 0, and exp(-sqrt(k) eta) for large k
    sine = eta.sin()
    measure = 4 / math.pi * sine**2 * (math.pi / 2) * 4 * x**3 * weight * directions[..., None]
    root = k[..., None].sqrt() * sine
    p = measure * (-root).exp() / root
    return [p.sum().item(), (p * root).sum().item(), (2 * p * root.log()).sum().item()]


@pytest.mark.parametrize(
    "gaps", [(1e-3, 2e-3, 3e-3), (0.3, 1, 2), (5, 20, 60), (3e3, 1e4, 2e4), (1e6, 1e6, 1e6)]
)
def test_laplace_normalizer_and_entropy_agree_with_a_quadrature_in_space(gaps):
    f = diagonal_fisher(gaps, torch.float64)
    c, root, log = laplace_truth(gaps)
    laplace = RotationLaplace(f)
    assert abs(laplace.log_normalizer().item() - math.log(c)) < LAPLACE_ACCURACY
    assert abs(laplace.entropy().item() - (math.log(c) + (root + log / 2) / c)) < LAPLACE_ACCURACY
    single = RotationLaplace(f.float())
    assert abs(single.entropy().item() - laplace.entropy().item()) < FLOAT32


def test_laplace_quadrature_is_converged_at_every_concentration_and_anisotropy(monkeypatch):
    gaps = [g for g in itertools.combinations_with_replacement([0, 1e-6, 0.3, 200, 1e4, 1e8], 3) if g[1] > 0]
    gaps = torch.tensor([g for g in gaps if g[1] > 1e-9 * g[2]], dtype=torch.float64)

    def integral() -> torch.Tensor:
        u, du = rotation_laplace._nodes(gaps)
        c = rotation_laplace._normalizers(u, gaps)
        return (rotation_laplace._density(u) * du * c).sum(-1)

    ours = integral()
    monkeypatch.setattr(rotation_laplace, "NODES", 450)
    monkeypatch.setattr(rotation_laplace, "INNER_NODES", 180)
    torch.testing.assert_close(ours, integral(), rtol=LAPLACE_ACCURACY, atol=0)


def test_laplace_derivatives():
    f = torch.stack(
        [with_singular_values(*s)[0] for s in ((3, 1, 0.5), (2, 2, 2), (4, 2, -1), (0.1, 0.1, 0))]
    )
    r = svdrot.random_rotation(4, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    f.requires_grad_()
    assert torch.autograd.gradcheck(lambda f: RotationLaplace(f).log_prob(r), f)
    assert torch.autograd.gradcheck(lambda f: RotationLaplace(f).entropy(), f)
    assert torch.autograd.gradcheck(lambda f: RotationLaplace(f).mean, f, atol=2e-6, fast_mode=True)


@pytest.mark.parametrize(
    "value",
    [
        lambda f: MatrixFisher(f).entropy(),
        lambda f: MatrixFisher(f).mean.sum(),
        lambda f: Bingham(quaternion_form(f)).second_moment.sum(),
        lambda f: RotationLaplace(f).mean.sum(),
    ],
)
def test_derivatives_that_do_not_exist_are_refused(value):
    """And not dropped, even where the value enters a loss with a constant factor."""
    f = with_singular_values(3, 1, 0.5)[0].requires_grad_()
    (gradient,) = torch.autograd.grad(value(f), f, create_graph=True)
    with pytest.raises(NotImplementedError, match="no further derivative"):
        gradient.sum().backward()
    hessian = torch.func.jacrev(torch.func.grad(value))
    with pytest.raises(NotImplementedError, match="no further derivative"):
        hessian(f.detach())


@pytest.mark.parametrize("values", [(3, 1, 0.5), (2, 2, 2), (4, 2, -1), (30, 3, 0.1)], ids=str)
def test_laplace_second_derivatives(values):
    """Of the log density and the entropy, at equal singular values, too."""
    f = with_singular_values(*values)[0].requires_grad_()
    r = svdrot.random_rotation(dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    assert torch.autograd.gradgradcheck(
        lambda f: RotationLaplace(f).log_prob(r), f, atol=1e-5, fast_mode=True
    )
    assert torch.autograd.gradgradcheck(lambda f: RotationLaplace(f).entropy(), f, atol=1e-5, fast_mode=True)
    hessian = torch.autograd.functional.hessian(lambda f: RotationLaplace(f).log_normalizer(), f)
    assert (hessian.view(9, 9) - hessian.view(9, 9).mT).abs().max() < 1e-9


@pytest.mark.parametrize("values", [(3, 1, 0.5), (4, 2, -1), (3, 1, -1), (100, 3, 0.1)], ids=str)
def test_laplace_samples_have_the_mean_matrix(values):
    generator_seed(2)
    laplace = RotationLaplace(with_singular_values(*values)[0])
    r = laplace.sample((20_000,))
    assert ((r.mean(0) - laplace.mean).abs() <= SIGMAS * r.std(0) / len(r) ** 0.5).all()
    if values != (3, 1, -1):  # which has two modes, and no nearest rotation
        nearest = svdrot.special_orthogonalize(laplace.mean)
        torch.testing.assert_close(nearest, laplace.mode, rtol=0, atol=1e-9)


def test_laplace_without_an_integral_is_nan_in_its_place():
    f = torch.stack((torch.zeros(3, 3), torch.eye(3), -2 * torch.eye(3))).requires_grad_()
    laplace = RotationLaplace(f)
    for value in (laplace.log_normalizer(), laplace.entropy(), laplace.sample()[:, 0, 0]):
        assert value.isnan().tolist() == [True, False, True]
    (gradient,) = torch.autograd.grad(laplace.log_normalizer()[1], f)
    assert gradient[1].isfinite().all()
    at_mode = RotationLaplace(torch.eye(3, requires_grad=True)).log_prob(torch.eye(3))
    assert at_mode.isfinite()


@pytest.mark.parametrize("tau", [0.05, 0.3, 0.999, 1.0, 2.0, 9.0])
def test_heat_kernel_agrees_with_its_series_in_many_digits(tau):
    for angle in (0.0, 1e-9, 1e-3, 0.5, 2.0, 3.1415926):
        with mpmath.workdps(120):
            half = mpmath.mpf(angle) / 2
            truth = mpmath.log(
                mpmath.fsum(
                    (2 * l + 1)
                    * mpmath.exp(-l * (l + 1) * mpmath.mpf(tau))
                    * (mpmath.sin((2 * l + 1) * half) / mpmath.sin(half) if angle else 2 * l + 1)
                    for l in range(80)
                )
            )
        x = torch.tensor([angle, tau], dtype=torch.float64)
        assert abs(log_heat_kernel(x[0], x[1]).item() - float(truth)) < 1e-11


@pytest.mark.parametrize("scale", [1e-4, 1e-2, 0.3, 1.41, 1.42, 3.0, 20.0])
def test_isotropic_gaussian_has_mass_one_and_its_mean_and_entropy(scale):
    x, weight = normalizer.gauss_legendre(300, torch.device("cpu"))
    end = min(math.pi, 14 * scale)
    angle, tau = end * x, torch.tensor(scale**2 / 2, dtype=torch.float64)
    log_f = log_heat_kernel(angle, tau)
    mass = end * weight * 2 / math.pi * (angle / 2).sin() ** 2 * log_f.exp()
    ours = IsotropicGaussian(torch.eye(3), torch.tensor(scale))
    assert abs(mass.sum().item() - 1) < 1e-10
    assert abs((mass * (1 + 2 * angle.cos())).sum().item() - ours.mean.trace().item()) < 1e-6
    assert abs(-(mass * log_f).sum().item() - ours.entropy().item()) < FLOAT32


@pytest.mark.parametrize("scale", [1e-3, 0.5, 1.3, 2.0])
def test_isotropic_gaussian_derivatives(scale):
    location = svdrot.random_rotation(dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    step = torch.tensor([0.7, -0.2, 0.4], dtype=torch.float64) * min(scale, 1)
    value = location @ svdrot.axis_angle_to_matrix(step)
    scale = torch.tensor(scale, dtype=torch.float64, requires_grad=True)

    def log_prob(scale, turn):
        return IsotropicGaussian(location @ svdrot.axis_angle_to_matrix(turn), scale).log_prob(value)

    turn = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    eps = 1e-6 * min(scale.item(), 1)
    assert torch.autograd.gradcheck(log_prob, (scale, turn), eps=eps, atol=1e-3, rtol=1e-4)
    assert torch.autograd.gradcheck(
        lambda s: IsotropicGaussian(location, s).entropy(), scale, eps=eps, atol=1e-3
    )


@pytest.mark.parametrize("scale", [0.2, 1.2, 1.8])
def test_gradient_of_isotropic_samples_is_that_of_their_mean(scale):
    """d E tr(location^T R) / d scale, of 3 exp(-scale^2), through the samples."""
    generator_seed(0)
    s = torch.full((40_000,), scale, dtype=torch.float64, requires_grad=True)
    r = IsotropicGaussian(torch.eye(3, dtype=torch.float64), s).rsample()
    (gradient,) = torch.autograd.grad(r.diagonal(dim1=-2, dim2=-1).sum(), s)
    error = gradient.mean() + 6 * scale * math.exp(-(scale**2))
    assert error.abs() < SIGMAS * gradient.std() / len(s) ** 0.5


@pytest.mark.parametrize("scale", [0.3, 1.3, 1.6])
def test_angles_of_isotropic_samples_follow_the_heat_kernel(scale):
    generator_seed(5)
    gaussian = IsotropicGaussian(torch.eye(3, dtype=torch.float64), torch.tensor(scale, dtype=torch.float64))
    angle = svdrot.geodesic_distance(gaussian.sample((100_000,)), gaussian.location).sort().values
    grid = torch.linspace(0, math.pi, 4001, dtype=torch.float64)
    density = 2 / math.pi * (grid / 2).sin() ** 2
    density = density * log_heat_kernel(grid, gaussian.scale**2 / 2).exp()
    expected = torch.cat((grid[:1], torch.cumulative_trapezoid(density, grid)))
    empirical = torch.searchsorted(angle, grid, right=True) / len(angle)
    assert (expected - empirical).abs().max() < 2.6 / len(angle) ** 0.5  # Kolmogorov: 1 in 370,000


DISTRIBUTIONS = {
    "fisher": lambda f: MatrixFisher(f),
    "laplace": lambda f: RotationLaplace(f),
    "gaussian": lambda f: IsotropicGaussian(svdrot.special_orthogonalize(f), 1 / (0.2 + f[..., 0, 0].abs())),
}
SAMPLED = [(1e-3, 5e-4, 1e-4), (3, 1, 0.5), (4, 2, -1), (3, 1, -1), (100, 3, 0.1), (900, 800, -700)]


@pytest.mark.parametrize("values", SAMPLED, ids=str)
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_samples_follow_the_density(name, values):
    """The log density of samples has minus the entropy for mean, and their angles to the mode and their mean
    are those of uniform rotations weighted with the density."""
    generator_seed(1)
    count = 20_000
    distribution = DISTRIBUTIONS[name](with_singular_values(*values)[0])
    r = distribution.sample((count,))
    log_p = distribution.log_prob(r)
    error = log_p.mean() + distribution.entropy()
    assert error.abs() < SIGMAS * log_p.std() / count**0.5

    if values[0] < 10:  # the uniform draws must reach the mode
        other = svdrot.random_rotation(4 * count, dtype=torch.float64)
        weight = distribution.log_prob(other).exp()
        assert (weight.mean() - 1).abs() < SIGMAS * weight.std() / len(other) ** 0.5
        angle = svdrot.geodesic_distance(r, distribution.mode)
        other_angle, order = svdrot.geodesic_distance(other, distribution.mode).sort()
        expected = weight[order].cumsum(0) / weight.sum()
        empirical = torch.searchsorted(angle.sort().values, other_angle, right=True) / count
        effective = 1 / (1 / count + (weight**2).sum() / weight.sum() ** 2)
        assert (expected - empirical).abs().max() < 2.6 / effective**0.5  # Kolmogorov: 1 in 370,000
        for i, j in ((0, 0), (1, 2)):
            mean = (weight * other[:, i, j]).mean()
            spread = (weight * other[:, i, j]).std() / len(other) ** 0.5 + 1 / count**0.5
            assert (r[:, i, j].mean() - mean).abs() < SIGMAS * spread


@pytest.mark.parametrize("values", SAMPLED, ids=str)
def test_fisher_samples_have_the_mean_matrix(values):
    generator_seed(2)
    fisher = MatrixFisher(with_singular_values(*values)[0])
    r = fisher.sample((20_000,))
    assert ((r.mean(0) - fisher.mean).abs() <= SIGMAS * r.std(0) / len(r) ** 0.5).all()
    q = fisher.bingham().sample((20_000,))
    moment = q[:, :, None] * q[:, None]
    error = (moment.mean(0) - fisher.bingham().second_moment).abs()
    assert (error <= SIGMAS * moment.std(0) / len(q) ** 0.5).all()
    assert (q.mean(0).abs() <= SIGMAS * q.std(0) / len(q) ** 0.5).all()


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_densities_turn_with_their_parameters(name):
    generator = torch.Generator().manual_seed(10)
    u, v, r = svdrot.random_rotation(3, 8, dtype=torch.float64, generator=generator)
    f = with_singular_values(3, 1, -0.5)[:8]
    distribution = DISTRIBUTIONS[name](f)
    if name == "gaussian":
        turned = IsotropicGaussian(u @ distribution.location @ v.mT, distribution.scale)
    else:
        turned = type(distribution)(u @ f @ v.mT)
    left, right = turned.log_prob(u @ r @ v.mT), distribution.log_prob(r)
    torch.testing.assert_close(left, right, rtol=0, atol=1e-9)
    torch.testing.assert_close(turned.mode, u @ distribution.mode @ v.mT, rtol=0, atol=1e-12)
    assert (distribution.log_prob(distribution.mode) > right).all()


def test_limits():
    """Zero is uniform; a large concentration is the normal distribution of the rotation vector."""
    r = svdrot.random_rotation(16, generator=torch.Generator().manual_seed(11))
    assert MatrixFisher(torch.zeros(3, 3)).log_prob(r).abs().max() < 1e-12
    assert MatrixFisher(torch.zeros(3, 3)).entropy().abs() < 1e-12
    assert IsotropicGaussian(torch.eye(3), torch.tensor(30.0)).log_prob(r).abs().max() == 0
    # Of SO(3), of volume 8 pi^2, a unit of the rotation vector is a part 1 / 8 pi^2.
    for size in (1e6, 1e12, 1e30):
        normal = 1.5 * math.log(2 * math.pi * math.e / (2 * size)) - math.log(8 * math.pi**2)
        entropy = MatrixFisher(size * torch.eye(3)).entropy().item()
        assert abs(entropy - normal) < 3 / size + FLOAT32 * abs(normal)
    for scale in (1e-3, 1e-8, 1e-15):
        normal = 1.5 * math.log(2 * math.pi * math.e * scale**2) - math.log(8 * math.pi**2)
        entropy = IsotropicGaussian(torch.eye(3), torch.tensor(scale)).entropy().item()
        assert abs(entropy - normal) < scale + FLOAT32 * abs(normal)
    for shape in (1e-9, 1e-3):
        # exp(-sqrt Q) tends to 1: the density to that of 1 / sqrt Q, whatever the scale.
        f = torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))
        small, smaller = RotationLaplace(shape * f), RotationLaplace(shape * 1e-3 * f)
        apart = (small.log_prob(r.double()) - smaller.log_prob(r.double())).abs().max()
        assert apart < 4 * shape**0.5


def test_divergences():
    generator_seed(3)
    p, q = (
        MatrixFisher(with_singular_values(*s, seed=i)[0]) for i, s in enumerate([(3, 1, 0.5), (2, 1.5, -1)])
    )
    r = p.sample((40_000,))
    difference = p.log_prob(r) - q.log_prob(r)
    error = difference.mean() - kl_divergence(p, q)
    assert error.abs() < SIGMAS * difference.std() / len(r) ** 0.5
    torch.testing.assert_close(
        kl_divergence(p.bingham(), q.bingham()), kl_divergence(p, q), rtol=0, atol=1e-12
    )
    assert kl_divergence(p, p).abs() < 1e-14
    uniform = UniformRotation(dtype=torch.float64)
    for distribution in (p, RotationLaplace(p.matrix), IsotropicGaussian(p.mode, torch.tensor(0.3))):
        assert kl_divergence(distribution, uniform) == -distribution.entropy()
    zero = MatrixFisher(torch.zeros(3, 3, dtype=torch.float64))
    torch.testing.assert_close(kl_divergence(uniform, q), kl_divergence(zero, q), rtol=0, atol=1e-12)
    assert kl_divergence(uniform, uniform) == 0


@pytest.mark.parametrize("name", [*DISTRIBUTIONS, "bingham", "uniform"])
def test_shapes(name):
    f = with_singular_values(3, 1, 0.5)[:2].float()
    if name == "bingham":
        distribution, event = Bingham(quaternion_form(f)), (4,)
    elif name == "uniform":
        distribution, event = UniformRotation((2,)), (3, 3)
    else:
        distribution, event = DISTRIBUTIONS[name](f), (3, 3)
    for d, batch in (
        (distribution, (2,)),
        (distribution.expand((5, 2)), (5, 2)),
        (distribution.expand((0, 2)), (0, 2)),
    ):
        assert (d.batch_shape, d.event_shape) == (batch, event)
        for shape in ((), (3,), (4, 0)):
            sample = d.sample(shape)
            assert (sample.shape, sample.dtype) == ((*shape, *batch, *event), torch.float32)
            assert d.support.check(sample).all()
            assert d.log_prob(sample).shape == (*shape, *batch)
        assert d.entropy().shape == batch
        assert d.mean.shape == (*batch, *event)
        assert name == "uniform" or d.mode.shape == (*batch, *event)
    torch.testing.assert_close(
        distribution.expand((5, 2)).entropy()[3], distribution.entropy(), rtol=0, atol=1e-7
    )
    generator_seed(4)
    first = distribution.sample((2,))
    generator_seed(4)
    assert torch.equal(first, distribution.sample((2,)))


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_nan_stays_in_its_place(name):
    f = with_singular_values(3, 1, 0.5)[:3].float()
    bad = f.clone()
    bad[1, 0, 2] = torch.nan
    build = {
        "fisher": lambda f: MatrixFisher(f, validate_args=False),
        "laplace": lambda f: RotationLaplace(f, validate_args=False),
        "gaussian": lambda f: IsotropicGaussian(torch.eye(3), f.sum((-2, -1)).abs(), validate_args=False),
    }[name]
    r = svdrot.random_rotation(3)
    for law in (lambda d: d.log_prob(r), lambda d: d.entropy(), lambda d: d.mode.sum((-2, -1))):
        good = law(build(f))
        if name == "gaussian" and not law(build(bad)).isnan().any():
            continue  # its mode does not depend on the scale
        assert law(build(bad)).isnan().tolist() == [False, True, False]
        torch.testing.assert_close(law(build(bad))[::2], good[::2], rtol=0, atol=0)
    assert build(bad).sample().isnan().all(-1).all(-1).tolist() == [False, True, False]


def test_half_precision_is_computed_in_float32():
    f = with_singular_values(3, 1, 0.5)[0]
    half, single = MatrixFisher(f.half()), MatrixFisher(f.half().float())
    r = svdrot.random_rotation(4)
    assert half.log_prob(r).dtype == torch.float32
    assert torch.equal(half.log_prob(r), single.log_prob(r))


def _bingham(matrix, r):
    return Bingham(quaternion_form(matrix), validate_args=False), svdrot.matrix_to_quaternion(r)


def _gaussian(matrix, r):
    scale = matrix.square().mean((-2, -1))
    return IsotropicGaussian(svdrot.special_orthogonalize(matrix), scale, validate_args=False), r


# From matrices (..., 3, 3) and rotations: a distribution, and values of its kind.
BUILT = {
    "fisher": lambda matrix, r: (MatrixFisher(matrix, validate_args=False), r),
    "laplace": lambda matrix, r: (RotationLaplace(matrix, validate_args=False), r),
    "bingham": _bingham,
    "gaussian": _gaussian,
}
LAWS = {
    "log_prob": lambda distribution, value: distribution.log_prob(value),
    "entropy": lambda distribution, value: distribution.entropy(),
    "mean": lambda distribution, value: distribution.mean.sum((-2, -1)),
    "mode": lambda distribution, value: distribution.mode.sum(-1),
}
each_law = [(family, law) for family in BUILT for law in LAWS if (family, law) != ("bingham", "mean")]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_location_in_half_precision_is_the_rotation_nearest_to_it(dtype):
    r = svdrot.random_rotation(4, generator=torch.Generator().manual_seed(1))
    gaussian = IsotropicGaussian(r.to(dtype), torch.full((4,), 0.3))
    assert gaussian.mode.dtype == torch.float32 and svdrot.is_rotation(gaussian.mode).all()
    assert (svdrot.geodesic_distance(gaussian.mode, r) < 2 * torch.finfo(dtype).eps).all()
    with pytest.raises(ValueError, match="parameter location"):
        IsotropicGaussian(2 * r.to(dtype), torch.full((4,), 0.3))


@pytest.mark.parametrize("family", BUILT)
def test_empty_batches_are_distributions(family):
    built, value = BUILT[family](torch.zeros(0, 3, 3), torch.zeros(0, 3, 3))
    parameters = [getattr(built, name) for name in built.arg_constraints]
    distribution = type(built)(*parameters, validate_args=True)
    assert distribution.log_prob(value).shape == distribution.entropy().shape == (0,)


@pytest.mark.parametrize(("family", "law"), each_law)
def test_vmap_agrees_with_the_batch(family, law):
    matrix = with_singular_values(3, 1, -0.5)
    r = svdrot.random_rotation(len(matrix), dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def value(matrix, r):
        return LAWS[law](*BUILT[family](matrix, r))

    torch.testing.assert_close(torch.vmap(value)(matrix, r), value(matrix, r), rtol=0, atol=1e-12)
    leaf = matrix.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(leaf, r).sum(), leaf)
    by_row = torch.vmap(torch.func.grad(lambda matrix, r: value(matrix, r).sum()))(matrix, r)
    torch.testing.assert_close(by_row, gradient, rtol=0, atol=1e-12)


@pytest.mark.long
@pytest.mark.parametrize(("family", "law"), each_law)
def test_every_law_compiles_whole(family, law):
    matrix = with_singular_values(3, 1, -0.5).float().requires_grad_()
    r = svdrot.random_rotation(len(matrix), generator=torch.Generator().manual_seed(1))

    def value(matrix, r):
        return LAWS[law](*BUILT[family](matrix, r))

    torch._dynamo.reset()
    values = value(matrix, r), torch.compile(value, fullgraph=True, backend="aot_eager")(matrix, r)
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*(torch.autograd.grad(some.sum(), matrix)[0] for some in values))


def drawn(family: str, matrix: torch.Tensor) -> torch.Tensor:
    built, _ = BUILT[family](matrix, matrix)
    return (built.rsample if built.has_rsample else built.sample)((7,))


@pytest.mark.parametrize("family", BUILT)
def test_samples_under_vmap_are_those_of_its_randomness(family):
    draw = partial(drawn, family)
    matrix = with_singular_values(3, 1, -0.5)[:4]
    generator_seed(2)
    same = torch.vmap(draw, randomness="same")(matrix)
    for one, by_vmap in zip(matrix, same, strict=True):
        generator_seed(2)
        torch.testing.assert_close(by_vmap, draw(one), rtol=0, atol=1e-12)
    for given, dims in ((matrix[:1].expand(4, 3, 3), 0), (matrix[0], None)):
        apart = torch.vmap(lambda m, _: draw(m), (dims, 0), randomness="different")(given, torch.arange(4))
        pairs = itertools.combinations(apart.flatten(0, 1), 2)
        assert min((a - b).abs().max() for a, b in pairs) > 1e-6
    with pytest.raises(RuntimeError, match="randomness"):
        torch.vmap(draw)(matrix)


def test_reparameterised_samples_under_vmap_have_their_gradient():
    def turned(scale):
        return IsotropicGaussian(torch.eye(3, dtype=torch.float64), scale).rsample()[..., 0, 1].sum()

    for scale in torch.tensor([0.3, 1.3, 1.7], dtype=torch.float64):
        generator_seed(3)
        by_vmap = torch.vmap(torch.func.grad(turned), randomness="same")(scale[None])
        generator_seed(3)
        leaf = scale.clone().requires_grad_()
        torch.testing.assert_close(by_vmap[0], torch.autograd.grad(turned(leaf), leaf)[0])


@pytest.mark.parametrize("family", BUILT)
def test_drawing_compiles_whole(family):
    matrix = with_singular_values(3, 1, -0.5)[:4]
    torch._dynamo.reset()
    draw = torch.compile(partial(drawn, family), fullgraph=True, backend="aot_eager")
    first, second = draw(matrix), draw(matrix)
    assert first.shape == drawn(family, matrix).shape and not torch.equal(first, second)
    r = svdrot.quaternion_to_matrix(first) if family == "bingham" else first
    assert svdrot.is_rotation(r).all()


def test_bad_arguments_are_named():
    eye = torch.eye(3)
    for family in QUADRATIC:
        with pytest.raises(ValueError, match=r"`matrix` must have shape \(..., 3, 3\); got \(4, 3\)"):
            family(torch.zeros(4, 3))
        with pytest.raises(TypeError, match="`matrix` must be floating point"):
            family(torch.zeros(3, 3, dtype=torch.int64))
        for bad in (torch.nan, torch.inf):
            with pytest.raises(ValueError, match="parameter matrix"):
                family(bad + torch.zeros(3, 3))
    with pytest.raises(ValueError, match=r"`matrix` must have shape \(..., 4, 4\)"):
        Bingham(eye)
    with pytest.raises(ValueError, match="`location` must have shape"):
        IsotropicGaussian(torch.zeros(2, 3), torch.ones(()))
    with pytest.raises(TypeError, match="`scale` must be a tensor; got float"):
        IsotropicGaussian(eye, 0.1)
    with pytest.raises(ValueError, match=r"`scale` must broadcast .* \(2,\); got \(3,\)"):
        IsotropicGaussian(eye.expand(2, 3, 3), torch.ones(3))
    with pytest.raises(ValueError, match="parameter scale"):
        IsotropicGaussian(eye, torch.tensor(0.0))
    with pytest.raises(ValueError, match="parameter location"):
        IsotropicGaussian(2 * eye, torch.tensor(1.0))
    for law, value in (
        (MatrixFisher(eye, validate_args=True), torch.eye(3, dtype=torch.int64)),
        (Bingham(torch.eye(4), validate_args=True), torch.tensor([1, 0, 0, 0])),
    ):
        with pytest.raises(TypeError, match="`value` must be floating point"):
            law.log_prob(value)
    with pytest.raises(TypeError, match="`dtype` must be floating point"):
        UniformRotation(dtype=torch.int32)
    with pytest.raises(ValueError, match="value argument"):
        MatrixFisher(eye).log_prob(2 * eye)


@pytest.mark.parametrize("scale", [1e-300, 1e-154, 1e-100, 1e155, math.inf])
def test_scales_at_the_ends_of_float64(scale):
    law = IsotropicGaussian(torch.eye(3).double(), torch.tensor(scale, dtype=torch.float64))
    found = law.sample((5,))
    assert found.isfinite().all() and law.entropy().isfinite() and law.log_prob(found).isfinite().all()
    if scale < 1:
        torch.testing.assert_close(found, torch.eye(3).double().expand(5, 3, 3))
    else:
        assert law.entropy() == 0


def test_parameters_whose_density_overflows_give_no_sample_and_no_endless_loop():
    huge = torch.diag(torch.tensor([4e307, 2e307, 4e304], dtype=torch.float64))
    few = torch.diag(torch.tensor([4.0, 2, 1], dtype=torch.float64))
    found = MatrixFisher(torch.stack((huge, few))).sample((3,))
    assert found[:, 0].isnan().all() and found[:, 1].isfinite().all()
