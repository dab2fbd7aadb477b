"""Laws of the means and the median of rotations."""

import math

import pytest
import torch

import svdrot
from svdrot.averaging import rotations as averaging
from svdrot.averaging.rotations import NORMS, average_curvature, average_rotations

# Float64 in every norm; the iterations stop at steps of 1e-12, and a flat cost multiplies that.
EXACT = 1e-10
LOOSE = {torch.float32: 1e-6, torch.float64: EXACT, torch.float16: 2e-3}


def near(angle: float, *shape: int, seed: int = 0) -> torch.Tensor:
    """Rotations off a common random one, (*shape, N, 3, 3), by about `angle` radians in each axis."""
    generator = torch.Generator().manual_seed(seed)
    center = svdrot.random_rotation(*shape[:-1], 1, dtype=torch.float64, generator=generator)
    noise = angle * torch.randn(*shape, 3, dtype=torch.float64, generator=generator)
    return center @ svdrot.axis_angle_to_matrix(noise)


def random_weights(*shape: int, seed: int = 1) -> torch.Tensor:
    return 0.1 + torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def costs(average, rotations, weights, norm):
    angles = svdrot.geodesic_distance(average[..., None, :, :], rotations)
    each = {
        "chordal_l2": 2 * (angles / 2).sin() ** 2,
        "geodesic_l2": angles**2 / 2,
        "geodesic_l1": angles,
    }[norm]
    return (weights * each).sum(-1)


def is_close(a, b, tolerance=EXACT):
    return svdrot.geodesic_distance(a, b).max().item() <= tolerance


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("angle", [1e-8, 1e-3, 0.3, 0.8])
def test_no_rotation_nearby_or_anywhere_costs_less(norm, angle):
    rotations, weights = near(angle, 8, 12), random_weights(8, 12)
    average = average_rotations(rotations, weights, norm=norm)
    assert svdrot.is_rotation(average).all()
    least = costs(average, rotations, weights, norm)
    generator = torch.Generator().manual_seed(2)
    for size in (angle * 1e-3, angle * 0.1, 1.0):
        turn = size * torch.randn(200, 1, 3, dtype=torch.float64, generator=generator)
        others = average @ svdrot.axis_angle_to_matrix(turn)
        assert (costs(others, rotations, weights, norm) >= least - 2e-15).all()  # angles are right to 1e-15


@pytest.mark.parametrize("norm", NORMS)
def test_the_gradient_of_the_cost_vanishes(norm):
    rotations, weights = near(0.5, 6, 9), random_weights(6, 9)
    average = average_rotations(rotations, weights, norm=norm)
    turn = torch.zeros(6, 3, dtype=torch.float64, requires_grad=True)
    moved = average @ svdrot.axis_angle_to_matrix(turn)
    (slope,) = torch.autograd.grad(costs(moved, rotations, weights, norm).sum(), turn)
    at_one = svdrot.geodesic_distance(average[:, None], rotations).amin(-1) < 1e-9
    assert not at_one.all()
    assert slope[~at_one].abs().max() < EXACT


@pytest.mark.parametrize("norm", NORMS)
def test_it_turns_with_the_rotations_from_both_sides(norm):
    rotations, weights = near(0.3, 10, 7), random_weights(10, 7)
    left, right = svdrot.random_rotation(
        2, 10, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(3)
    )
    average = average_rotations(rotations, weights, norm=norm)
    turned = average_rotations(left @ rotations @ right, weights, norm=norm)
    assert is_close(turned, left[:, 0] @ average @ right[:, 0])
    assert is_close(average_rotations(rotations.mT, weights, norm=norm), average.mT)


@pytest.mark.parametrize("norm", NORMS)
def test_order_splits_scale_and_padding_change_nothing(norm):
    rotations, weights = near(0.3, 10, 7), random_weights(10, 7)
    average = average_rotations(rotations, weights, norm=norm)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(4))
    split = torch.cat((weights[:, :1] / 4, weights[:, 1:], weights[:, :1] * 3 / 4), 1)
    nan = torch.full((10, 2, 3, 3), torch.nan, dtype=torch.float64)
    mask = torch.tensor([True] * 7 + [False] * 2)
    padded = torch.cat((rotations, nan), 1)
    same = [
        average_rotations(rotations[:, order], weights[:, order], norm=norm),
        average_rotations(torch.cat((rotations, rotations[:, :1]), 1), split, norm=norm),
        average_rotations(rotations, weights * 1e-200, norm=norm),
        average_rotations(padded, torch.cat((weights, nan[..., 0, 0]), 1), mask=mask, norm=norm),
        average_rotations(padded, torch.cat((weights, torch.zeros(10, 2)), 1), norm=norm),
        torch.stack([average_rotations(r, w, norm=norm) for r, w in zip(rotations, weights, strict=True)]),
    ]
    assert all(is_close(other, average) for other in same)
    assert not is_close(average_rotations(rotations, norm=norm), average, 1e-3)


@pytest.mark.parametrize("norm", NORMS)
def test_weights_broadcast_and_dtypes_stay(norm):
    rotations = near(0.2, 2, 3, 5)
    average = average_rotations(rotations, random_weights(3, 5), norm=norm)
    assert average.shape == (2, 3, 3, 3)
    for dtype, tolerance in LOOSE.items():
        cast = average_rotations(rotations.to(dtype), random_weights(3, 5), norm=norm)
        assert cast.dtype == dtype and is_close(cast.double(), average, tolerance)


@pytest.mark.parametrize("norm", NORMS)
def test_one_rotation_and_equal_ones_are_their_own_average(norm):
    one = svdrot.random_rotation(20, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    for n in (1, 2, 5):
        many = one[:, None].expand(-1, n, -1, -1)
        assert is_close(average_rotations(many, norm=norm), one)
        curvature = average_curvature(one, many, norm=norm)
        wanted = math.inf if norm == "geodesic_l1" else 1.0
        torch.testing.assert_close(curvature, torch.full_like(curvature, wanted))


@pytest.mark.parametrize("norm", NORMS)
def test_nothing_to_average_is_the_identity_with_zero_gradient(norm):
    eye = torch.eye(3, dtype=torch.float64)
    assert torch.equal(average_rotations(torch.zeros(2, 0, 3, 3).double(), norm=norm), eye.expand(2, 3, 3))
    assert average_rotations(torch.zeros(0, 4, 3, 3), norm=norm).shape == (0, 3, 3)
    rotations = near(0.3, 2, 4).requires_grad_()
    weights = torch.tensor([[0.0] * 4, [1.0] * 4], dtype=torch.float64, requires_grad=True)
    average = average_rotations(rotations, weights, norm=norm)
    assert torch.equal(average[0], eye)
    grads = torch.autograd.grad((average * torch.randn(3, 3)).sum(), (rotations, weights))
    assert all(grad.isfinite().all() for grad in grads)
    assert not grads[0][0].any() and not grads[1][0].any() and grads[0][1].any()
    curvature = average_curvature(average.detach(), rotations.detach(), weights.detach(), norm=norm)
    assert curvature[0] == 0 and curvature[1] > 0


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("spoil", ["nan", "inf", "nan weight", "negative weight", "infinite weight"])
def test_bad_data_stays_in_its_item(norm, spoil):
    rotations, weights = near(0.3, 3, 5), random_weights(3, 5)
    before = average_rotations(rotations, weights, norm=norm)
    if spoil in ("nan", "inf"):
        rotations[1, 2, 0, 1] = float(spoil)
    else:
        weights[1, 2] = {"nan weight": math.nan, "negative weight": -1.0, "infinite weight": math.inf}[spoil]
    average = average_rotations(rotations, weights, norm=norm)
    assert average[1].isnan().all()
    assert torch.equal(average[[0, 2]], before[[0, 2]])
    curvature = average_curvature(before, rotations, weights, norm=norm)
    assert curvature[1].isnan() and curvature[[0, 2]].isfinite().all()


@pytest.mark.parametrize("count", [4, 9])
@pytest.mark.parametrize("norm", NORMS)
def test_gradients_are_those_of_finite_differences(norm, count):
    """Through axis-angle perturbations: derivatives off the manifold of rotations mean nothing to angles."""
    rotations, weights = near(0.5, 6, count, seed=7), random_weights(6, count)
    projection = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(8))

    def value(turn, weights):
        moved = rotations @ svdrot.axis_angle_to_matrix(turn)
        return (average_rotations(moved, weights, norm=norm) * projection).sum((-2, -1))

    turn = torch.zeros(6, count, 3, dtype=torch.float64, requires_grad=True)
    weights.requires_grad_()
    assert torch.autograd.gradcheck(value, (turn, weights), eps=1e-5, atol=1e-5, fast_mode=True)


def test_gradients_of_a_median_at_one_of_the_rotations():
    """Three rotations, one heavy: the median is that one, moves with it and with no other."""
    rotations = near(0.5, 1, 3).requires_grad_()
    weights = torch.tensor([[1.0, 3.0, 1.0]], dtype=torch.float64, requires_grad=True)
    average = average_rotations(rotations, weights, norm="geodesic_l1")
    assert is_close(average.detach(), rotations[:, 1].detach())
    for_rotations, for_weights = torch.autograd.grad(
        (average * torch.randn(3, 3)).sum(), (rotations, weights)
    )
    assert for_rotations[0, 1].any() and not for_rotations[0, [0, 2]].any() and not for_weights.any()


def test_medians_at_a_rotation_are_found_exactly():
    """Of few rotations the median often is one of them: there each other pulls less than it weighs."""
    rotations = near(0.2, 300, 4, seed=9)
    average = average_rotations(rotations, norm="geodesic_l1")
    distance = svdrot.geodesic_distance(average[:, None], rotations).amin(1)
    at_one = distance < 1e-12
    assert 20 < at_one.sum() < 280 and (distance[~at_one] > 1e-6).all()
    everywhere = torch.stack(
        [costs(rotations[:, k], rotations, torch.ones(4), "geodesic_l1") for k in range(4)]
    )
    least = costs(average, rotations, torch.ones(4), "geodesic_l1")
    assert (least <= everywhere.amin(0) + 1e-12).all()


def test_the_median_survives_two_fifths_of_random_outliers():
    generator = torch.Generator().manual_seed(10)
    inliers = near(0.05, 50, 60, seed=11)
    outliers = svdrot.random_rotation(50, 40, dtype=torch.float64, generator=generator)
    truth = average_rotations(inliers)
    everything = torch.cat((outliers, inliers), 1)
    median, mean = (
        svdrot.geodesic_distance(average_rotations(everything, norm=norm), truth).mean()
        for norm in ("geodesic_l1", "chordal_l2")
    )
    spread = 0.05 * math.sqrt(3 / 60)  # of the mean of the inliers itself
    assert median < 3 * spread < 5 * spread < mean


def test_the_median_survives_outliers_that_agree():
    """49 of 100 are one and the same rotation far off, where the chordal mean is led half the way."""
    inliers = near(0.02, 20, 51, seed=12)
    far = inliers[:, :1] @ svdrot.axis_angle_to_matrix(torch.tensor([0, 2.0, 0], dtype=torch.float64))
    everything = torch.cat((far.expand(-1, 49, -1, -1), inliers), 1)
    truth = average_rotations(inliers)
    assert svdrot.geodesic_distance(average_rotations(everything, norm="geodesic_l1"), truth).max() < 0.2
    assert svdrot.geodesic_distance(average_rotations(everything), truth).min() > 0.5


def test_the_median_starts_among_the_inliers():
    """While they have more than half of the weight, no entry of the start leaves the range of theirs."""
    inliers = near(0.2, 20, 10, seed=13)
    far = svdrot.random_rotation(20, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(14))
    weights = torch.cat((torch.full((20, 10), 0.051), torch.full((20, 30), 0.49 / 30)), 1).double()
    start = averaging._entrywise_median(torch.cat((inliers, far), 1), weights)
    assert (start >= inliers.amin(1)).all() and (start <= inliers.amax(1)).all()


def test_curvature_tells_what_is_ambiguous():
    a = torch.eye(3, dtype=torch.float64)
    half = svdrot.axis_angle_to_matrix(torch.tensor([math.pi, 0, 0], dtype=torch.float64))
    pair = torch.stack((a, half))
    average = average_rotations(pair)
    assert average_curvature(average, pair).abs() < 1e-12
    close = near(0.4, 5, 2)
    for norm in ("chordal_l2", "geodesic_l2"):
        assert (average_curvature(average_rotations(close, norm=norm), close, norm=norm) > 0.5).all()
    median = average_rotations(close, norm="geodesic_l2")  # any rotation between two is a median
    assert average_curvature(median, close, norm="geodesic_l1").abs().max() < 1e-10


@pytest.mark.parametrize("norm", NORMS)
def test_curvature_is_the_second_difference_of_the_cost(norm):
    rotations, weights = near(0.7, 6, 9), random_weights(6, 9)
    weights = weights / weights.sum(-1, keepdim=True)
    average = average_rotations(rotations, weights, norm=norm)
    axes = torch.nn.functional.normalize(torch.randn(4000, 1, 3, dtype=torch.float64), dim=-1)
    least = costs(average, rotations, weights, norm)
    up, down = (
        costs(average @ svdrot.axis_angle_to_matrix(s * 1e-4 * axes), rotations, weights, norm)
        for s in (1, -1)
    )
    measured = ((up + down - 2 * least) / 1e-8).amin(0)
    curvature = average_curvature(average, rotations, weights, norm=norm)
    smooth = svdrot.geodesic_distance(average[:, None], rotations).amin(-1) > 1e-2
    assert smooth.any()
    torch.testing.assert_close(measured[smooth], curvature[smooth], rtol=0.02, atol=1e-5)


def test_rotations_half_a_turn_apart_are_finite_everywhere():
    turns = math.pi * torch.eye(3, dtype=torch.float64)
    rotations = torch.cat((torch.eye(3)[None].double(), svdrot.axis_angle_to_matrix(turns)))[None]
    for norm in NORMS:
        leaf = rotations.clone().requires_grad_()
        average = average_rotations(leaf, norm=norm)
        (grad,) = torch.autograd.grad(average.sum(), leaf)
        assert svdrot.is_rotation(average).all() and grad.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ({"rotations": torch.zeros(3, 3)}, ValueError, "rotations"),
        ({"rotations": torch.zeros(4, 2, 3)}, ValueError, "rotations"),
        ({"rotations": torch.zeros(4, 3, 3, dtype=torch.int64)}, TypeError, "rotations"),
        ({"weights": torch.ones(5)}, ValueError, "weights"),
        ({"weights": torch.tensor(1.0)}, ValueError, "weights"),
        ({"weights": torch.ones(4, dtype=torch.int64)}, TypeError, "weights"),
        ({"mask": torch.ones(4)}, TypeError, "mask"),
        ({"mask": torch.ones(3, dtype=torch.bool)}, ValueError, "mask"),
        ({"norm": "l3"}, ValueError, "norm"),
        ({"rotations": torch.zeros(2, 4, 3, 3), "weights": torch.ones(3, 4)}, ValueError, "[Bb]atch"),
    ],
)
def test_bad_arguments_are_named(arguments, error, named):
    with pytest.raises(error, match=named):
        average_rotations(**{"rotations": torch.eye(3).expand(4, 3, 3), **arguments})


@pytest.mark.parametrize("norm", NORMS)
def test_second_derivatives_are_those_of_differences(norm):
    rotations, weights = near(0.5, 6), random_weights(6)
    torch.manual_seed(0)
    turns, shares, cotangent = (
        0.3 * torch.randn(shape, dtype=torch.float64) for shape in ((6, 3), 6, (3, 3))
    )

    def along(s):
        moved = svdrot.exp_map(rotations, s * turns)
        return (average_rotations(moved, weights * (1 + s * shares), norm=norm) * cotangent).sum()

    s = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(along(s), s, create_graph=True)
    (second,) = torch.autograd.grad(first, s)
    one = torch.ones_like(s)
    forward = torch.func.jvp(lambda z: torch.func.jvp(along, (z,), (one,))[1], (s.detach(),), (one,))[1]
    h = 1e-3
    with torch.no_grad():
        a, b, c, d, e = (along(k * h * one) for k in (-2, -1, 0, 1, 2))
    difference = (-a + 16 * b - 30 * c + 16 * d - e) / (12 * h * h)
    for value in (second, forward):  # differences are off by rounding over h², some 1e-9
        torch.testing.assert_close(value, difference, rtol=1e-6, atol=1e-7)
