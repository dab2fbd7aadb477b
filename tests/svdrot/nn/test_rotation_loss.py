"""A loss of raw numbers is the map of the head, then the loss, then the mean, in every mode of torch."""

from functools import partial

import pytest
import torch

import svdrot

LOSSES = {
    "geodesic": svdrot.losses.geodesic,
    "squared_geodesic": svdrot.losses.squared_geodesic,
    "chordal": svdrot.losses.chordal,
    "squared_chordal": svdrot.losses.squared_chordal,
    "huber_geodesic": partial(svdrot.losses.huber_geodesic, threshold=0.5),
    "huber_chordal": partial(svdrot.losses.huber_chordal, threshold=0.5),
}

REDUCTIONS = ("mean", "sum", "none")


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("representation", svdrot.nn.REPRESENTATIONS)
def test_a_loss_of_raw_numbers_is_the_map_and_then_the_loss(representation, loss):
    """Every pair by one reduction, each of both by all of them: every triple has kernels of its own."""
    row = svdrot.nn.REPRESENTATIONS[representation]
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(7, 5, row.features, dtype=torch.float64, generator=generator).requires_grad_()
    truth = svdrot.random_rotation(5, dtype=torch.float64, generator=generator).requires_grad_()  # broadcasts
    threshold = 0.5 if loss.startswith("huber") else None
    each = LOSSES[loss](row.to_matrix(raw), truth)
    reduction = REDUCTIONS[([*svdrot.nn.REPRESENTATIONS].index(representation) + [*LOSSES].index(loss)) % 3]
    expected = each if reduction == "none" else getattr(each, reduction)()
    found = svdrot.nn.RotationLoss(representation, loss, reduction, threshold=threshold)(raw, truth)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    weight = torch.randn(expected.shape, dtype=torch.float64, generator=generator)
    gradients = [torch.autograd.grad(x, (raw, truth), weight) for x in (found, expected)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_mean_of_raw_numbers_in_every_mode(reduction):
    whole = svdrot.nn.RotationLoss("6d", "squared_geodesic", reduction)
    raw = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    truth = svdrot.random_rotation(6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(whole, (raw, truth), check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(whole, (raw, truth))
    (expected,) = torch.autograd.grad(whole(raw, truth), raw)
    torch.testing.assert_close(torch.func.grad(whole)(raw.detach(), truth), expected)
    apart = torch.func.vmap(whole)(raw.detach().view(2, 3, 6), truth.view(2, 3, 3, 3))
    torch.testing.assert_close(
        apart.mean() if reduction == "mean" else apart.sum(), whole(raw, truth).detach()
    )
    compiled = torch.compile(whole, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(compiled(raw, truth), raw)[0], expected)
    half = whole(raw.detach().half(), truth.half())
    assert half.dtype == torch.float32 and abs(half - whole(raw, truth)) < 2e-2 * abs(half)


def test_the_mean_of_nothing_is_nan_and_its_sum_zero():
    for reduction in ("mean", "sum"):
        raw = torch.zeros(0, 9, requires_grad=True)
        found = svdrot.nn.RotationLoss(reduction=reduction)(raw, torch.eye(3))
        assert found.isnan() if reduction == "mean" else found == 0
        assert torch.autograd.grad(found, raw)[0].shape == (0, 9)


def test_wrong_losses_are_named():
    for match, arguments in {
        "`representation` must be one of": {"representation": "7d"},
        "`loss` must be one of": {"loss": "l1"},
        "`reduction` must be one of": {"reduction": "median"},
        "needs `threshold`": {"loss": "huber_chordal"},
        "has no `threshold`": {"threshold": 0.1},
        "`threshold` must be positive": {"loss": "huber_chordal", "threshold": -1.0},
    }.items():
        with pytest.raises(ValueError, match=match):
            svdrot.nn.RotationLoss(**arguments)
    with pytest.raises(ValueError, match=r"`raw` must have shape \(..., 6\)"):
        svdrot.nn.RotationLoss("6d")(torch.zeros(2, 9), torch.eye(3))


def test_gradients_may_be_written_into_and_asked_for_again():
    raw = torch.randn(5, 9, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = svdrot.nn.RotationLoss()(raw, torch.eye(3))
    (first,) = torch.autograd.grad(loss, raw, retain_graph=True)
    expected = first.clone()
    first.zero_()
    (second,) = torch.autograd.grad(loss, raw, retain_graph=True)
    torch.testing.assert_close(second, expected, rtol=1e-5, atol=1e-7)
    loss.backward(retain_graph=True)
    loss.backward()
    assert raw.grad is not None
    torch.testing.assert_close(raw.grad, 2 * expected, rtol=1e-5, atol=1e-7)


def test_gradients_of_half_precision_survive_a_scale():
    """As of `GradScaler`: the gradient times 1 / rows is below float16, times the scale it is not."""
    rows, scale = 65536, 65536.0
    raw = torch.randn(rows, 9, generator=torch.Generator().manual_seed(0)).half().requires_grad_()
    truth = svdrot.random_rotation(rows, generator=torch.Generator().manual_seed(1)).half()
    (svdrot.nn.RotationLoss()(raw, truth) * scale).backward()
    single = raw.detach().float().requires_grad_()
    (svdrot.nn.RotationLoss()(single, truth.float()) * scale).backward()
    assert raw.grad is not None and single.grad is not None
    bound = 2.0**-11 * single.grad.abs() + 2.0**-24
    assert ((raw.grad.float() - single.grad).abs() <= bound).all() and raw.grad.count_nonzero() > 8 * rows
