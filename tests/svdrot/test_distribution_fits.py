"""Fits of distributions: nothing near is likelier, moments agree, and degenerate data have an answer."""

import math

import pytest
import torch
from torch import Tensor

import svdrot
from svdrot.distributions import Bingham, IsotropicGaussian, MatrixFisher

LARGEST = 1e10
# Of the moments of the normalizer, 1e-9, in concentrations of the same size.
AGREEMENT = 1e-6


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x, dim=-1)


def rotations(n: int, spread: float, seed: int = 0) -> Tensor:
    """About any rotation, by normal rotation vectors of three sizes."""
    center = svdrot.random_rotation(dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    sizes = spread * torch.tensor([1.0, 0.5, 0.2], dtype=torch.float64)
    return svdrot.exp_map(center, sizes * normal(n, 3, seed=seed))


@pytest.mark.parametrize("spread", [1e-4, 0.01, 0.3, 1.0, 3.0])
def test_fits_of_the_exponential_family_have_the_moments_of_the_data(spread):
    r = rotations(50, spread)
    w = torch.rand(50, generator=torch.Generator().manual_seed(1)).double()
    fit = MatrixFisher.fit(r, w)
    mean = (w[:, None, None] * r).sum(0) / w.sum()
    assert (fit.mean - mean).abs().max() < 1e-8
    q = svdrot.matrix_to_quaternion(r)
    bingham = Bingham.fit(q, w)
    second = (w[:, None] * q).mT @ q / w.sum()
    # Small moments to the precision of their own size: variances of half angles.
    vectors = torch.linalg.eigh(second)[1]
    wanted, found = (vectors.mT @ m @ vectors for m in (second, bingham.second_moment))
    assert (found / wanted - 1).diagonal().abs().max() < AGREEMENT
    other = bingham.matrix_fisher()
    limit = 1e-6 + 1e-13 * fit.matrix.norm()
    assert (other.log_prob(r) - fit.log_prob(r)).abs().max() < limit


@pytest.mark.parametrize("spread", [0.01, 0.3, 1.0, 3.0])
def test_nothing_near_is_likelier(spread):
    r = rotations(40, spread)
    q = svdrot.matrix_to_quaternion(r)
    for fit, data in ((MatrixFisher.fit(r), r), (Bingham.fit(q), q)):
        best = fit.log_prob(data).mean()
        size = fit.matrix.norm()
        for k in range(20):
            step = normal(*fit.matrix.shape, seed=k)
            other = type(fit)(fit.matrix + 0.05 * (0.1 + size) * step / step.norm())
            assert other.log_prob(data).mean() <= best + 1e-9
    fit = IsotropicGaussian.fit(r)
    best = fit.log_prob(r).mean()
    for k in range(20):
        location = svdrot.exp_map(fit.location, 0.1 * fit.scale * normal(3, seed=k))
        scale = fit.scale * (1 + 0.1 * normal(1, seed=k)[0]).clamp(0.5, 2)
        assert IsotropicGaussian(location, scale).log_prob(r).mean() <= best + 1e-9


def test_samples_give_their_distribution_back():
    """To a few standard errors of 20,000 samples."""
    torch.manual_seed(0)
    form = torch.diag(torch.tensor([0.0, -3.0, -20.0, -300.0], dtype=torch.float64))
    found = Bingham.fit(Bingham(form).sample((20000,)))
    assert ((found.matrix - form).diagonal().abs() <= 0.06 * (1 + form.diagonal().abs())).all()
    for scale in (0.01, 0.5, 1.2):
        truth = IsotropicGaussian(rotations(1, 1.0)[0], torch.tensor(scale, dtype=torch.float64))
        fit = IsotropicGaussian.fit(truth.sample((1000,)))
        assert abs(fit.scale / scale - 1) < 0.1
        assert svdrot.geodesic_distance(fit.location, truth.location) < 5 * scale / math.sqrt(1000) * 2


def test_fits_turn_with_the_data():
    r = rotations(30, 0.5)
    turn = svdrot.random_rotation(dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    assert (MatrixFisher.fit(turn @ r).matrix - turn @ MatrixFisher.fit(r).matrix).abs().max() < 1e-6
    a, b = IsotropicGaussian.fit(r), IsotropicGaussian.fit(turn @ r)
    assert (b.location - turn @ a.location).abs().max() < 1e-6 and abs(a.scale - b.scale) < 1e-6
    q = unit(normal(30, 4))
    signs = normal(30, 1, seed=1).sign()
    assert (Bingham.fit(3 * signs * q).matrix - Bingham.fit(q).matrix).abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_few_or_equal_rotations_are_at_the_limit(n, dtype):
    r = svdrot.random_rotation(n, dtype=dtype, generator=torch.Generator().manual_seed(0))
    same = svdrot.random_rotation(dtype=dtype, generator=torch.Generator().manual_seed(0)).expand(5, 3, 3)
    for data in (r, same):
        fit = MatrixFisher.fit(data)
        assert fit.matrix.dtype == dtype and fit.matrix.isfinite().all()
        q = svdrot.matrix_to_quaternion(data)
        gaps = -torch.linalg.eigvalsh(Bingham.fit(q).matrix.double())
        free = 4 - min(len(data), 4) if data is r else 3
        if len(data):
            assert (gaps[:free] > LARGEST / 2).all() and (gaps <= 1.01 * LARGEST).all()
        else:
            assert (fit.matrix == 0).all()
        gaussian = IsotropicGaussian.fit(data)
        assert svdrot.is_rotation(gaussian.location) and gaussian.scale.isfinite()
        if len(data) == 1 or data is same:
            assert svdrot.geodesic_distance(fit.mode, data[0]) < 16 * torch.finfo(dtype).eps
            assert svdrot.geodesic_distance(gaussian.location, data[0]) < 16 * torch.finfo(dtype).eps
            assert gaussian.scale < 1.01e-6
    assert IsotropicGaussian.fit(r[:0]).scale > 9.9
    capped = MatrixFisher.fit(same, largest=100.0)
    assert abs(torch.linalg.svdvals(capped.matrix) - 25).max() < 1e-4


def test_weights_are_counts_and_bad_items_stay_alone():
    r = torch.stack([rotations(6, 0.5, seed=k) for k in range(4)])
    w = torch.tensor([1.0, 2.0, 0.0, 1.0, 1.0, 1.0], dtype=torch.float64).expand(4, 6).clone()
    odd = r.clone()
    odd[:, 2] = math.nan  # does not count
    twice = torch.cat((r[:, :2], r[:, 1:2], r[:, 3:]), 1)
    for kind in (MatrixFisher, IsotropicGaussian):
        a, b = kind.fit(odd, w), kind.fit(twice)
        assert (a.mode - b.mode).abs().max() < 1e-7
        assert (
            (a.log_prob(r[:, 0]) - b.log_prob(r[:, 0])) / (1 + b.log_prob(r[:, 0]).abs())
        ).abs().max() < 1e-6
    odd[1, 0, 0, 0], w[2, 0] = math.inf, -1.0
    w[3] = 0
    fit = MatrixFisher.fit(odd, w)
    assert fit.matrix.isnan().all((1, 2)).tolist() == [False, True, True, False]
    assert (fit.matrix[3] == 0).all()
    gaussian = IsotropicGaussian.fit(odd, w)
    assert gaussian.scale.isnan().tolist() == [False, True, True, False]
    q = svdrot.matrix_to_quaternion(r)
    q[0, 0] = 0
    assert Bingham.fit(q).matrix.isnan().all((1, 2)).tolist() == [True, False, False, False]
    with pytest.raises(ValueError, match="`rotations` must have shape"):
        MatrixFisher.fit(torch.eye(3))
    with pytest.raises(ValueError, match="`largest` must be positive"):
        Bingham.fit(q, largest=0.0)
    with pytest.raises(ValueError, match="`least` and `largest`"):
        IsotropicGaussian.fit(r, least=2.0, largest=1.0)
