"""Heads whose output is a distribution: where they begin, what they learn, and gradients anywhere."""

import math

import pytest
import torch
from torch import Tensor

import svdrot
from svdrot import nn

HEADS = {
    "fisher": nn.MatrixFisherHead,
    "bingham": nn.BinghamHead,
    "laplace": nn.RotationLaplaceHead,
    "gaussian": nn.IsotropicGaussianHead,
}


def loss(belief, truth: Tensor) -> Tensor:
    if isinstance(belief, svdrot.distributions.Bingham):
        truth = svdrot.matrix_to_quaternion(truth)
    return -belief.log_prob(truth).mean()


def mode(belief) -> Tensor:
    found = belief.mode
    return svdrot.quaternion_to_matrix(found) if found.shape[-1] == 4 else found


@pytest.mark.parametrize("name", HEADS)
def test_the_beginning_is_near_the_identity_and_moderately_sure(name):
    torch.manual_seed(0)
    belief = HEADS[name](64)(torch.randn(200, 64))
    angle = svdrot.rotation_angle(mode(belief))
    assert angle.max() < math.radians(20)
    entropy = belief.entropy()
    assert (entropy < -0.5).all() and (entropy > -5).all()
    # The mode is well defined: the two least singular values do not cancel.
    if name != "gaussian":
        matrix = belief.matrix_fisher().matrix if name == "bingham" else belief.matrix
        assert svdrot.projection_gap(matrix).min() > 2


def test_the_beginnings_of_fisher_and_bingham_are_one():
    fisher, bingham = (HEADS[k](4)(torch.zeros(4)) for k in ("fisher", "bingham"))
    assert torch.allclose(bingham.matrix_fisher().matrix, fisher.matrix, atol=1e-6)
    assert torch.allclose(fisher.matrix, 2 * torch.eye(3))
    about = svdrot.matrix_to_axis_angle(
        nn.MatrixFisherHead(1, concentration=50.0)(torch.zeros(1)).sample((9999,))
    )
    assert (about.std(0) - 0.1).abs().max() < 0.005
    scale = nn.IsotropicGaussianHead(4, scale=0.1)(torch.zeros(4)).scale
    assert abs(scale - 0.1) < 1e-6


@pytest.mark.parametrize("size", [0.0, 1e-30, 1.0, 1e4, 1e10, 1e18])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", HEADS)
def test_losses_and_gradients_are_finite_for_any_raw_numbers(name, dtype, size):
    """Zero, tiny, huge; and matrices of which Rotation-Laplace has no density."""
    torch.manual_seed(0)
    head = HEADS[name](1).to(dtype)
    n = head.linear.out_features
    raw = size * torch.randn(20, n, dtype=dtype)
    raw[0, :9] = -size * torch.eye(3).flatten()
    raw[1, :9] = size * torch.diag(torch.tensor([1.0, 1.0, -1.0])).flatten()
    raw[2, :9] = size * torch.ones(9)
    raw = raw.requires_grad_()
    head.linear = torch.nn.Identity()
    head.linear.in_features = n
    belief = head(raw)
    value = loss(belief, svdrot.random_rotation(20, dtype=dtype))
    (gradient,) = torch.autograd.grad(value, raw)
    assert value.isfinite() and gradient.isfinite().all()
    assert mode(belief).isfinite().all()


@pytest.mark.parametrize("name", HEADS)
def test_features_that_are_not_finite_spoil_their_own_row(name):
    torch.manual_seed(0)
    features = torch.randn(3, 4)
    features[1, 0] = math.nan
    belief = HEADS[name](4)(features)
    truth = svdrot.random_rotation(3)
    if name == "bingham":
        truth = svdrot.matrix_to_quaternion(truth)
    assert belief.log_prob(truth).isnan().tolist() == [False, True, False]
    with pytest.raises(ValueError, match="`features` must have shape"):
        HEADS[name](4)(torch.zeros(5))
    with pytest.raises(ValueError, match="must be positive and finite"):
        HEADS[name](4, **{"scale" if name == "gaussian" else "concentration": -1.0})


@pytest.mark.parametrize("name", HEADS)
def test_a_head_learns_rotations_and_how_sure_they_are(name):
    """Of features that are turned by noise, and tell by their place whether by much of it."""
    torch.manual_seed(0)
    n = 48
    truth, noisy = svdrot.random_rotation(n), (torch.arange(n) % 2 == 0)[:, None]
    seen = svdrot.exp_map(truth, torch.where(noisy, 0.7, 0.1) * torch.randn(n, 3))
    seen = svdrot.matrix_to_quaternion(seen)[:, :, None] * svdrot.matrix_to_quaternion(seen)[:, None]
    seen = 4 * seen.flatten(1)  # in which every head but the scale of a Gaussian is linear
    flags = torch.cat((noisy, ~noisy), 1).float()
    features = torch.cat((seen * noisy, seen * ~noisy, flags), 1)
    head = HEADS[name](34)
    optimizer, losses = torch.optim.Adam(head.parameters(), lr=0.1), []
    for _ in range(40):
        value = loss(head(features), truth)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    belief, noisy = head(features), noisy[:, 0]
    entropy, angle = belief.entropy(), svdrot.geodesic_distance(mode(belief), truth)
    assert losses[-1] < losses[0] - 1
    assert angle[~noisy].mean() < 0.5 * angle[noisy].mean()
    assert entropy[~noisy].mean() < entropy[noisy].mean() - 0.3


def test_samples_of_the_gaussian_head_have_gradients():
    torch.manual_seed(0)
    head = nn.IsotropicGaussianHead(4)
    sample = head(torch.randn(5, 4)).rsample((10,))
    svdrot.losses.geodesic(sample, torch.eye(3)).mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in head.parameters())


@pytest.mark.parametrize("name", HEADS)
def test_autocast_and_half_precision(name):
    torch.manual_seed(0)
    head, features, truth = HEADS[name](8), torch.randn(6, 8), svdrot.random_rotation(6)
    plain = loss(head(features), truth)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(loss(head(features), truth), plain, rtol=1e-5)
    half = head.bfloat16()(features.bfloat16())
    assert torch.allclose(loss(half, truth), plain, rtol=0.05, atol=0.05)
