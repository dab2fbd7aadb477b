"""Laws of every row of `KERNELS`."""

import pytest
import torch

import svdrot
from svdrot.registration import KERNELS, icp, robust_kabsch


@pytest.mark.parametrize("name", KERNELS)
def test_weights_are_slopes_of_costs(name):
    """At every q that is no corner, which those at 1 are."""
    q = torch.cat((torch.linspace(0, 0.99, 40), torch.linspace(1.01, 30, 40))).double().requires_grad_()
    row = KERNELS[name]
    (slope,) = torch.autograd.grad(row.cost(q).sum(), q)
    torch.testing.assert_close(row.weight(q.detach()), slope, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", KERNELS)
def test_ends(name, dtype):
    row, largest = KERNELS[name], torch.finfo(dtype).max
    q = torch.tensor([0.0, torch.finfo(dtype).tiny, 1e-3, 1.0, 1e10, largest, torch.inf], dtype=dtype)
    weight, cost = row.weight(q), row.cost(q)
    assert weight.dtype == cost.dtype == dtype and weight.shape == q.shape
    assert weight[0] == 1 and cost[0] == 0
    assert not weight.isnan().any() and not cost.isnan().any()
    assert (weight.diff() <= 0).all() and (cost.diff() >= 0).all() and weight[-1] == 0


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_serves_clouds_and_pairs(name):
    """A tenth of the pairs is off by four thresholds: both end within the inliers' own noise."""
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(400, 3, dtype=torch.float64, generator=generator)
    truth = svdrot.Transform(
        svdrot.axis_angle_to_matrix(torch.tensor([0.02, -0.01, 0.03], dtype=torch.float64)),
        torch.tensor([0.01, 0.02, -0.01], dtype=torch.float64),
        torch.ones((), dtype=torch.float64),
    )
    target = truth.apply(source)
    target[::10] += 0.2
    plain = robust_kabsch(source, target, 0.05, method="least_squares")
    fit = robust_kabsch(source, target, 0.05, method=name)
    aligned = icp(source, target, max_distance=0.5, kernel=name, method="point_to_point").transform

    def off(found):
        return svdrot.evaluation.poses.point_rmse(found, truth, source).item()

    assert off(fit) < 0.6 * off(plain)
    assert off(aligned) < 0.6 * off(plain)
    assert fit.inliers[1::10].all() and fit.weights[::10].max() < fit.weights[1::10].min()


def test_unknown_kernels_are_named():
    x = torch.randn(5, 3)
    with pytest.raises(ValueError, match=r"`kernel` must be one of none, trimmed, huber, .*; got 'welsch'"):
        icp(x, x, max_distance=1.0, kernel="welsch")
    with pytest.raises(ValueError, match=r"`method` must be one of .* tukey, .*; got 'welsch'"):
        robust_kabsch(x, x, 0.1, method="welsch")
