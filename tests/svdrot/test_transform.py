"""Transforms as values: elements, ways between two, distances, constructors, means and curves."""

import math

import exact_geometry as exact
import numpy as np
import pytest
import torch
from exact_geometry import UNITS, each, worst
from torch import Tensor

import svdrot
from svdrot import Transform
from svdrot.averaging import average_rotations, average_transforms, transform_covariance

EPS = 2.0**-52


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def poses(*shape: int, seed: int = 0) -> Transform:
    return Transform.random(
        *shape, spread=2.0, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def similarities(*shape: int, seed: int = 0) -> Transform:
    made = poses(*shape, seed=seed)
    return Transform(made.rotation, made.translation, (0.5 * normal(*shape, seed=seed + 9)).exp())


def near(*shape: int, seed: int = 0) -> Transform:
    """Less than a quarter turn from one pose, so that there is one mean."""
    return similarities(seed=seed + 1) @ Transform.exp(0.4 * normal(*shape, 7, seed=seed))


def assert_near(a: Transform, b: Transform, units: float = 100 * UNITS) -> None:
    for name in ("rotation", "translation", "scale"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=0, atol=units * EPS)


# As of tensors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "index",
    [
        *(0, -1, slice(1, None), (1, 2), (slice(None), 1), None, ..., (..., 0), (0, ...), (0, ..., 1)),
        *(torch.tensor([2, 0]), [1, 1], (None, ..., None), torch.tensor([True, False, True])),
    ],
    ids=str,
)
def test_elements_are_those_of_the_batch(index):
    t = similarities(3, 4)
    found = t[index]
    places = torch.arange(12).reshape(3, 4)[index]
    assert found.shape == places.shape
    assert torch.equal(found.matrix, t.matrix.flatten(0, 1)[places])


def test_an_index_too_many_is_an_error():
    t = poses(3)
    for index in (3, (0, 0), (..., 0, 0)):
        with pytest.raises(IndexError):
            t[index]
    with pytest.raises(IndexError):
        poses()[0]


def test_length_shape_and_iteration():
    t = poses(3, 2)
    assert len(t) == 3 and t.shape == (3, 2) and bool(t) and bool(poses()) and bool(t[:0])
    assert [torch.equal(x.matrix, t.matrix[k]) for k, x in enumerate(t)] == [True] * 3
    with pytest.raises(TypeError, match="has no length"):
        len(poses())
    broad = Transform(torch.eye(3), torch.zeros(5, 3), torch.ones(2, 1))
    assert broad.shape == (2, 5) and broad[1, 4].matrix.shape == (4, 4)
    with pytest.raises(ValueError, match="Batch dimensions must broadcast"):
        assert Transform(torch.eye(3), torch.zeros(5, 3), torch.ones(2)).shape


def test_dtypes_copies_and_arrays():
    t = poses(3)
    assert t.float().scale.dtype == torch.float32 and t.float().double().rotation.dtype == torch.float64
    assert t.to(torch.float16).translation.dtype == torch.float16
    copy = t.clone()
    copy.translation.zero_()
    assert t.translation.abs().min() > 0
    grown = Transform(t.rotation, t.translation.clone().requires_grad_(), t.scale)
    assert grown.clone().translation.requires_grad and not grown.detach().translation.requires_grad
    assert isinstance(grown.numpy(), np.ndarray) and np.array_equal(grown.numpy(), t.matrix.numpy())
    assert t.to(torch.bfloat16).numpy().dtype == np.float32
    fit = svdrot.registration.kabsch(normal(2, 9, 3), normal(2, 9, 3, seed=1))
    assert type(fit[0]) is Transform and torch.equal(fit[0].matrix, fit.matrix[0])


def test_directions_are_turned_alone():
    t, x, v = similarities(5), normal(5, 7, 3), normal(5, 7, 3, seed=1)
    between = t.apply(x + v) - t.apply(x)
    assert (t.scale[:, None, None] * t.rotate(v) - between).abs().max() < 100 * UNITS * EPS
    assert (t.rotate(v).norm(dim=-1) - v.norm(dim=-1)).abs().max() < UNITS * EPS * 4
    with pytest.raises(ValueError, match="`directions` must have shape"):
        t.rotate(v[..., :2])


# Constructors -----------------------------------------------------------------------------------------------


def test_exponential_of_six_or_seven_numbers():
    x = 0.5 * normal(4, 7)
    assert_near(Transform.exp(x), svdrot.sim3_exp(x), 0)
    assert_near(Transform.exp(x[:, :6]), svdrot.se3_exp(x[:, :6]), 0)
    assert torch.equal(poses(4).log(), svdrot.se3_log(poses(4)))
    assert torch.equal(similarities(4).adjoint(), svdrot.se3_adjoint(similarities(4)))
    with pytest.raises(ValueError, match=r"must have shape \(\.\.\., 6\) or \(\.\.\., 7\)"):
        Transform.exp(torch.zeros(5))


def test_from_quaternions():
    q, move = normal(4, 1, 4), normal(3, 3)
    t = Transform.from_quaternion(q, move, 2.0)
    assert t.shape == (4, 3) and (t.scale == 2).all()
    assert torch.equal(t.rotation, svdrot.quaternion_to_matrix(q).expand(4, 3, 3, 3))
    assert Transform.from_quaternion(q[0, 0], move[0]).matrix.shape == (4, 4)
    with pytest.raises(ValueError, match="Batch dimensions must broadcast"):
        Transform.from_quaternion(q[:, 0], move)


@pytest.mark.parametrize("d", [2, 3])
def test_matrices_of_no_transform_are_told_from_those_of_one(d):
    m = torch.eye(d + 1, dtype=torch.float64).repeat(6, 1, 1)
    m[0, :d, :d] *= 3
    m[1, 0, 1] = 1e-4  # by which the nearest rotation is off 0.7e-4
    m[2, 0, 1] = 0.1
    m[3, 0, 0] = -1
    m[4, d, 0] = 0.1
    m[5, 0, 0] = 0
    t = Transform.from_matrix(m, tolerance=1e-3)
    assert t.scale.isnan().tolist() == [False, False, True, True, True, True]
    assert t.rotation.isnan().all(-1).all(-1).tolist() == t.translation.isnan().all(-1).tolist()
    eye = torch.eye(d).double()
    assert (t.rotation[:2] @ t.rotation[:2].mT - eye).abs().max() < UNITS * EPS
    assert torch.equal(Transform.from_matrix(m).rotation[3], m[3, :d, :d])  # as it is
    assert Transform.from_matrix(m, tolerance=1e-5).scale.isnan()[:2].tolist() == [False, True]
    with pytest.raises(ValueError, match="`tolerance` must be positive"):
        Transform.from_matrix(m, tolerance=0.0)


def test_random_ones_are_reproducible_and_spread():
    t = poses(20000)
    assert torch.equal(t.matrix, poses(20000).matrix) and (t.scale == 1).all()
    assert (t.translation.std(0) - 2).abs().max() < 5 * 2 / math.sqrt(2 * 20000)
    assert t.rotation.mean(0).abs().max() < 5 / math.sqrt(3 * 20000)
    assert Transform.random((2, 3), dtype=torch.float16).scale.dtype == torch.float16


# Between two ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["screw", "split"])
def test_ways_end_where_they_should_and_go_steadily(path):
    a, b = similarities(20), similarities(20, seed=1)
    assert_near(a.interpolate(b, 0.0, path), a)
    assert_near(a.interpolate(b, 1.0, path), b)
    halfway = a.interpolate(b, torch.full((20,), 0.6, dtype=torch.float64), path)
    assert_near(a.interpolate(halfway, 0.5, path), a.interpolate(b, 0.3, path))
    assert a.interpolate(b, math.nan, path).matrix[:, :3].isnan().all()
    after = poses(seed=5)
    assert_near((after @ a).interpolate(after @ b, 0.3, path), after @ a.interpolate(b, 0.3, path))
    share = torch.tensor([0.2, math.nan]).double()
    spoiled = a[:2].interpolate(b[:2], share, path)
    assert spoiled.scale.isnan().tolist() == [False, True]
    with pytest.raises(ValueError, match="`path` must be one of screw, split"):
        a.interpolate(b, 0.3, "straight")


def test_screws_are_the_same_in_every_frame_before():
    a, b, before = similarities(20), similarities(20, seed=1), similarities(seed=7)
    assert_near((a @ before).interpolate(b @ before, 0.3), a.interpolate(b, 0.3) @ before)
    twist = normal(10, 7)
    assert_near(Transform.exp(0 * twist).interpolate(Transform.exp(twist), 0.3), Transform.exp(0.3 * twist))


def test_distances_against_their_definition():
    a, b = poses(20), poses(20, seed=1)
    angle, length = a.distance(b)
    assert torch.equal(angle, svdrot.geodesic_distance(a.rotation, b.rotation))
    exact_length = each(
        lambda x, y: [exact.length([p - q for p, q in zip(x, y, strict=True)])], a.translation, b.translation
    )
    assert worst(length[:, None], exact_length, 4.0) < UNITS
    after = poses(seed=3)
    for found, wanted in zip((after @ a).distance(after @ b), (angle, length), strict=True):
        assert (found - wanted).abs().max() < 16 * UNITS * EPS
    same = Transform(a.rotation, a.translation.clone().requires_grad_(), a.scale)
    (gradient,) = torch.autograd.grad(same.distance(a)[1].sum(), same.translation)
    assert (gradient == 0).all()


# Means ------------------------------------------------------------------------------------------------------


def test_the_mean_balances_twists():
    t, w = near(4, 9), normal(4, 9, seed=3).abs()
    mean = average_transforms(t, w)
    twists = svdrot.sim3_log(mean[:, None].inverse() @ t)
    pull = (w[..., None] * twists).sum(-2) / w.sum(-1, keepdim=True)
    assert pull.abs().max() < 1e-12  # at which the mean of rotations ends
    assert (mean.rotation - average_rotations(t.rotation, w, norm="geodesic_l2")).abs().max() < UNITS * EPS


def test_the_mean_moves_with_its_transforms_from_both_sides():
    t, w = near(4, 9), normal(4, 9, seed=3).abs()
    mean = average_transforms(t, w)
    a, b = similarities(seed=5), similarities(seed=6)
    assert_near(
        average_transforms(a @ t @ b, w), a @ mean @ b, 1e5
    )  # 1e-12 of rotations, as far as these are
    turned = average_transforms(t.inverse(), w)
    assert_near(turned, mean.inverse(), 1e5)


def test_the_mean_of_two_is_halfway_and_that_of_equals_one_of_them():
    a, b = near(5), near(5, seed=2)
    pair = Transform(*(torch.stack(x, 1) for x in zip(_parts(a), _parts(b), strict=True)))
    assert_near(average_transforms(pair), a.interpolate(b, 0.5), 1e5)
    same = Transform(*(x[:, None].repeat_interleave(6, 1) for x in _parts(a)))
    assert_near(average_transforms(same), a)
    assert transform_covariance(a, same).abs().max() < (UNITS * EPS) ** 0.5 * 1e-6


def _parts(t: Transform) -> tuple[Tensor, Tensor, Tensor]:
    return t.rotation, t.translation, t.scale


def test_covariances_are_those_of_twists_and_move_by_the_adjoint():
    t, w = near(2, 12), normal(2, 12, seed=4).abs()
    mean = average_transforms(t, w)
    found = transform_covariance(mean, t, w)
    twists = svdrot.sim3_log(mean[:, None].inverse() @ t)[..., :6]
    share = w / w.sum(-1, keepdim=True)
    assert torch.allclose(found, torch.einsum("bn,bni,bnj->bij", share, twists, twists), rtol=0, atol=1e-13)
    after = poses(seed=8)
    assert torch.allclose(transform_covariance(after @ mean, after @ t, w), found, rtol=0, atol=1e-12)
    before = poses(seed=9)
    ad = before.inverse().adjoint()
    moved = transform_covariance(mean @ before, t @ before, w)
    size = ad.norm() ** 2
    rigid = Transform(t.rotation, t.translation, torch.ones_like(t.scale))
    mean = average_transforms(rigid, w)
    found, moved = (
        transform_covariance(mean, rigid, w),
        transform_covariance(mean @ before, rigid @ before, w),
    )
    assert (moved - ad @ found @ ad.mT).abs().max() < 1e-13 * size


def test_what_does_not_count_may_be_anything_and_what_does_spoils_its_own_item():
    t, w = near(3, 5), normal(3, 5, seed=4).abs()
    w[0, 2] = 0
    mean = average_transforms(t, w)
    bad = t.clone()
    bad.translation[0, 2] = math.nan
    bad.translation[1, 3] = math.inf
    bad.scale[2, 1] = -1
    found = average_transforms(bad, w)
    assert_near(found[0], mean[0], 0)
    assert found.matrix[1:, :3].isnan().all()
    covariance = transform_covariance(mean, bad, w)
    assert covariance.isnan().all(-1).all(-1).tolist() == [False, True, True]
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[1, 3] = mask[2, 1] = False
    assert average_transforms(bad, w, mask=mask).matrix.isfinite().all()
    nothing = average_transforms(t, 0 * w)
    assert_near(nothing, Transform.exp(torch.zeros(3, 7).double()), 0)
    assert_near(average_transforms(t[:, :0]), Transform.exp(torch.zeros(3, 7).double()), 0)
    with pytest.raises(ValueError, match="`transforms` must have batch shape"):
        average_transforms(poses())


def test_derivatives_of_means_are_those_of_differences():
    x, w = 0.3 * normal(4, 7), normal(4, seed=4).abs().requires_grad_()
    x.requires_grad_()

    def mean(x, w):
        return svdrot.sim3_log(average_transforms(Transform.exp(x), w))

    assert torch.autograd.gradcheck(mean, (x, w))

    def ways(x):
        a, b = Transform.exp(x[:2]), Transform.exp(x[2:])
        return torch.cat([a.interpolate(b, 0.3, path).matrix for path in ("screw", "split")])

    assert torch.autograd.gradcheck(ways, x)


# Curves -----------------------------------------------------------------------------------------------------


def steps(*shape: int, seed: int = 0) -> Transform:
    """Neighbors that are less than half a turn apart."""
    n = shape[-1]
    found = [similarities(*shape[:-1], seed=seed)]
    for k in range(1, n):
        found.append(found[-1] @ Transform.exp(0.5 * normal(*shape[:-1], 7, seed=seed + k)))
    return Transform(*(torch.stack(x, len(shape) - 1) for x in zip(*map(_parts, found), strict=True)))


TIMES = torch.tensor([0.0, 1.0, 2.5, 3.0, 5.0], dtype=torch.float64)


def test_curves_pass_their_knots_with_the_rotations_of_the_curve_of_rotations():
    knots = steps(2, 5)
    assert_near(svdrot.interpolate_transforms(knots, TIMES, TIMES), knots, 1000)
    at = torch.linspace(0, 5, 31).double()
    curve = svdrot.interpolate_transforms(knots, at, TIMES)
    assert curve.shape == (2, 31)
    wanted = svdrot.interpolate_rotations(knots.rotation, at, TIMES)
    assert (curve.rotation - wanted).abs().max() < 100 * UNITS * EPS


def test_curves_have_a_continuous_velocity():
    """By differences of second order from both sides of a knot."""
    knots, h = steps(5), 1e-4
    for time in TIMES[1:-1]:
        at = time + h * torch.arange(-2, 3).double()
        x = svdrot.sim3_log(
            svdrot.interpolate_transforms(knots, at[2:3], TIMES).inverse()
            @ svdrot.interpolate_transforms(knots, at, TIMES)
        )
        before, after = (3 * x[2] - 4 * x[1] + x[0]) / (2 * h), (-3 * x[2] + 4 * x[3] - x[4]) / (2 * h)
        assert (before - after).abs().max() < 1e-5


def test_curves_move_with_their_knots_and_keep_screws():
    knots, at = steps(5), torch.linspace(0, 5, 13).double()
    curve = svdrot.interpolate_transforms(knots, at, TIMES)
    a, b = similarities(seed=5), similarities(seed=6)
    assert_near(svdrot.interpolate_transforms(a @ knots @ b, at, TIMES), a @ curve @ b, 1e4)
    twist = 0.4 * normal(7)
    steady = Transform.exp(TIMES[:, None] * twist)
    assert_near(svdrot.interpolate_transforms(steady, at, TIMES), Transform.exp(at[:, None] * twist), 1e4)
    two = svdrot.interpolate_transforms(knots[:2], torch.tensor([0.25]).double())
    assert_near(two[0], knots[0].interpolate(knots[1], 0.25))


def test_curves_end_at_their_ends_and_bad_knots_spoil_their_neighborhood():
    knots = steps(5)
    found = svdrot.interpolate_transforms(knots, torch.tensor([-0.1, 0.0, 5.0, 5.1]).double(), TIMES)
    assert found.scale.isnan().tolist() == [True, False, False, True]
    assert svdrot.interpolate_transforms(knots, TIMES, TIMES.flip(0)).matrix[:, :3].isnan().all()
    knots.translation[0] = math.nan
    found = svdrot.interpolate_transforms(knots, TIMES[:-1] + 0.1, TIMES)
    assert found.scale.isnan().tolist() == [True, True, False, False]
    with pytest.raises(ValueError, match=r"`transforms` must have shape \(\.\.\., N\) with N >= 2"):
        svdrot.interpolate_transforms(knots[0], TIMES)
    with pytest.raises(ValueError, match=r"`times` must have shape \(5,\), as many as `transforms`"):
        svdrot.interpolate_transforms(knots, TIMES, TIMES[1:])


def test_derivatives_of_curves_are_those_of_differences():
    x = (0.4 * normal(3, 7)).requires_grad_()
    at = torch.tensor([0.3, 1.2]).double().requires_grad_()
    times = torch.tensor([0.0, 1.0, 1.7]).double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, at, times: svdrot.interpolate_transforms(Transform.exp(x), at, times).matrix, (x, at, times)
    )
