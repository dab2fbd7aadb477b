"""Losses are what their formulas say, finite with two derivatives on all of SO(3), and survive every road."""

import math
import pickle

import numpy as np
import pytest
import torch
from rotation_cases import HARD

from svdrot import losses, symmetries
from svdrot.evaluation import poses as pose_metrics
from svdrot.metrics import chordal_distance, geodesic_distance
from svdrot.representations import axis_angle_to_matrix
from svdrot.rotations import is_rotation, random_rotation
from svdrot.transform import Transform

# Radians over the whole range, as of the metrics.
ANGLE = {torch.float32: 2e-6, torch.float64: 4e-15}
each_dtype = pytest.mark.parametrize("dtype", ANGLE, ids=str)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(*shape, seed=0, dtype=torch.float64):
    return random_rotation(*shape, dtype=dtype, generator=seeded(seed))


POINTS = torch.randn(30, 3, dtype=torch.float64, generator=seeded(9))
GROUP = symmetries.dihedral(3)
AXIS = torch.tensor([1.0, 2.0, -0.5], dtype=torch.float64)


def pose_loss(loss):
    """Of rotations: poses with a translation that moves with the rotation, so that it has a gradient, too."""

    def of_rotations(estimate, truth):
        points = POINTS.to(estimate.dtype)
        return loss((estimate, estimate[..., 0] / 2), (truth, truth[..., 0] / 2), points)

    return of_rotations


LOSSES = {
    "geodesic": losses.geodesic,
    "squared_geodesic": losses.squared_geodesic,
    "chordal": losses.chordal,
    "squared_chordal": losses.squared_chordal,
    "raw_9d": losses.raw_9d,
    "huber_geodesic": lambda a, b: losses.huber_geodesic(a, b, 0.5),
    "huber_chordal": lambda a, b: losses.huber_chordal(a, b, 0.5),
    "laplace_geodesic": lambda a, b: losses.laplace_geodesic(a, b, torch.tensor(0.3, dtype=a.dtype)),
    "axial": lambda a, b: losses.axial(a, b, AXIS.to(a.dtype)),
    "axial_undirected": lambda a, b: losses.axial(a, b, AXIS.to(a.dtype), undirected=True),
    "symmetric_geodesic": lambda a, b: losses.minimum_over_symmetries(a, b, GROUP),
    "symmetric_squared_chordal": lambda a, b: losses.minimum_over_symmetries(
        a, b, GROUP, losses.squared_chordal
    ),
    "add": pose_loss(losses.add),
    "add_symmetric": pose_loss(losses.add_symmetric),
}
each_loss = pytest.mark.parametrize("name", LOSSES)


# All losses.


@each_dtype
@each_loss
def test_values_and_two_derivatives_are_finite_on_all_rotations(name, dtype):
    loss = LOSSES[name]
    half_turn = torch.diag(torch.tensor([1.0, -1, -1], dtype=dtype))
    for case, rotations in HARD.items():
        a = rotations.to(dtype)
        for b in (a, a @ half_turn, torch.eye(3, dtype=dtype), half_turn):
            x, y = a.clone().requires_grad_(), b.clone().requires_grad_()
            value = loss(x, y)
            assert value.dtype == dtype and value.shape == a.shape[:1]
            assert value.isfinite().all(), case
            first = torch.autograd.grad(value.sum(), (x, y), create_graph=True)
            assert all(g.isfinite().all() for g in first), case
            # Second derivatives grow as 1 / angle, and are finite to the last one float32 can tell from 0.
            second = torch.autograd.grad(sum((g * g).sum() for g in first), (x, y), allow_unused=True)
            assert all(g is None or g.isfinite().all() for g in second), case


@each_loss
def test_equal_rotations_cost_least(name):
    a, b = drawn(64), drawn(64, seed=1)
    loss = LOSSES[name]
    assert (loss(a, a) <= loss(a, b)).all()
    if name != "laplace_geodesic":
        assert (loss(a, a) < 1e-12).all() and (loss(a, b) > 1e-3).all()


@each_loss
def test_gradients_are_those_of_finite_differences(name):
    a, b = drawn(5).requires_grad_(), drawn(5, seed=1)
    assert torch.autograd.gradcheck(lambda a: LOSSES[name](a, b), a, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda a: LOSSES[name](a, b), a, fast_mode=True)


@each_loss
def test_batches_broadcast_and_transform(name):
    loss = LOSSES[name]
    a, b = drawn(4, 1), drawn(3, seed=1)
    table = loss(a, b)
    assert table.shape == (4, 3)
    for i in range(4):
        torch.testing.assert_close(loss(a[i, 0], b[1]), table[i, 1])
    assert loss(a[:0], b).shape == (0, 3)
    by_row = torch.func.vmap(loss, in_dims=(0, None))(a, b)
    torch.testing.assert_close(by_row, table)
    each = torch.func.vmap(torch.func.grad(loss))(a[:3, 0], b)
    x = a[:3, 0].clone().requires_grad_()
    torch.testing.assert_close(each, torch.autograd.grad(loss(x, b).sum(), x)[0])


@each_loss
def test_batches_that_do_not_broadcast_are_named(name):
    truth = r"\((?:\d+, )?3,?\) of `(?:truth|scale)`"  # of symmetries with the group before it
    with pytest.raises(ValueError, match=rf"must broadcast; got .*\(4,\) of `estimate`, {truth}"):
        LOSSES[name](drawn(4), drawn(3, seed=1))


def test_symmetries_of_batches_that_only_settings_or_translations_have():
    group, points = symmetries.cyclic(4), torch.randn(5, 9, 3, dtype=torch.float64)
    a, b = drawn(1)[0], drawn(1, seed=1)[0]
    t = torch.randn(5, 3, dtype=torch.float64)

    def least(k, loss, x, y, **settings):
        """Of one element, symmetry by symmetry."""
        one = {name: value[k] for name, value in settings.items()}
        alike = [
            (y[0] @ s, y[1][k] if y[1].ndim > 1 else y[1]) if isinstance(y, tuple) else y @ s for s in group
        ]
        return torch.stack([loss(x, z, **one) for z in alike]).min()

    for loss, x, y, settings in (
        (losses.add, (a, t[0]), (b, t[1]), {"points": points}),
        (losses.add_symmetric, (a, t[0]), (b, t), {"points": points}),
        (losses.laplace_geodesic, a, b, {"scale": points[:, 0, 0].exp()}),
        (losses.axial, a, b, {"axis": points[:, 0]}),
    ):
        found = losses.minimum_over_symmetries(x, y, group, loss, **settings)
        wanted = torch.stack([least(k, loss, x, y, **settings) for k in range(5)])
        torch.testing.assert_close(found, wanted)


@each_loss
def test_losses_compile_whole(name):
    torch._dynamo.reset()
    compiled = torch.compile(LOSSES[name], fullgraph=True, backend="aot_eager")
    x, b = drawn(5).requires_grad_(), drawn(5, seed=1)
    values = LOSSES[name](x, b), compiled(x, b)
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*(torch.autograd.grad(value.sum(), x)[0] for value in values))


@each_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_a_storage_format(name, dtype):
    a, b = drawn(64).to(dtype), drawn(64, seed=1).to(dtype)
    with torch.autocast("cpu", dtype):
        full = LOSSES[name](a, b)
        again = LOSSES[name](a.float(), b.float())
    assert full.dtype == again.dtype == torch.float32
    # The Laplace scale and the translations made here are rounded to half precision with their rotations.
    rounded = name in ("add", "add_symmetric", "laplace_geodesic")
    tolerance = 8 * torch.finfo(dtype).eps if rounded else 1e-6
    torch.testing.assert_close(full, again, rtol=tolerance, atol=tolerance)
    value = LOSSES[name](a, b)
    assert value.dtype == dtype
    torch.testing.assert_close(value, full.to(dtype))


@each_loss
def test_bad_elements_disturb_no_other(name):
    a, b = drawn(6).requires_grad_(), drawn(6, seed=1)
    spoiled = a.detach().clone()
    spoiled[1, 0, 2], spoiled[4, 1, 1] = torch.nan, torch.inf
    spoiled.requires_grad_()
    good = [0, 2, 3, 5]
    values = LOSSES[name](a, b), LOSSES[name](spoiled, b)
    assert values[1][[1, 4]].isnan().all()
    torch.testing.assert_close(values[1][good], values[0][good])
    gradients = [torch.autograd.grad(v.sum(), x)[0][good] for v, x in zip(values, (a, spoiled), strict=True)]
    torch.testing.assert_close(*gradients)


def test_wrong_arguments_are_named():
    eye = torch.eye(3)
    with pytest.raises(ValueError, match=r"`estimate` must have shape \(\.\.\., 3, 3\); got \(3,\)"):
        losses.geodesic(eye[0], eye)
    with pytest.raises(TypeError, match="`truth` must be floating point"):
        losses.squared_chordal(eye, eye.long())
    with pytest.raises(ValueError, match=r"`threshold` must be positive and finite; got 0"):
        losses.huber_geodesic(eye, eye, 0)
    with pytest.raises(ValueError, match=r"`symmetries` must have shape \(G, 3, 3\), G >= 1; got \(3, 3\)"):
        losses.minimum_over_symmetries(eye, eye, eye)
    with pytest.raises(ValueError, match=r"`axis` must have shape \(\.\.\., 3\); got \(2,\)"):
        losses.axial(eye, eye, torch.ones(2))
    with pytest.raises(ValueError, match=r"`reduction` must be 'mean', 'sum' or 'none'; got 'median'"):
        losses.ReducedLoss(losses.geodesic, "median")
    with pytest.raises(ValueError, match=r"`order` must be a whole number, at least 1; got 1\.5"):
        symmetries.cyclic(1.5)  # pyright: ignore
    with pytest.raises(ValueError, match="`threshold` must be positive and finite"):
        losses.huber_geodesic(torch.eye(3), torch.eye(3), torch.tensor([0.1, 0.2]))  # pyright: ignore
    with pytest.raises(ValueError, match=r"`rotation` must have shape \(\.\.\., 3, 3\); got \(4, 4\)"):
        losses.add((torch.eye(4), torch.zeros(3)), (torch.eye(3), torch.zeros(3)), torch.zeros(5, 3))
    with pytest.raises(ValueError, match=r"`order` must be a whole number, at least 1; got 0"):
        symmetries.cyclic(0)
    with pytest.raises(ValueError, match="`axis` must be a finite nonzero vector"):
        symmetries.cyclic(2, (0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="`second` must not be parallel to `axis`"):
        symmetries.dihedral(2, (0.0, 0.0, 1.0), (0.0, 0.0, -2.0))


# Angles and chords.


@each_dtype
@pytest.mark.parametrize("case", HARD)
def test_angles_and_chords_are_those_of_the_metrics(case, dtype):
    a, b = HARD[case].to(dtype), HARD["random"][: len(HARD[case])].to(dtype)
    angle, chord = geodesic_distance(a, b), chordal_distance(a, b)
    for value, expected in (
        (losses.geodesic(a, b), angle),
        (losses.squared_geodesic(a, b), angle**2),
        (losses.chordal(a, b), chord),
        (losses.squared_chordal(a, b), chord**2),
        (losses.squared_chordal(a, b), 4 * (1 - angle.cos())),
    ):
        torch.testing.assert_close(value, expected, rtol=0, atol=4 * ANGLE[dtype])


@each_dtype
def test_the_squared_angle_is_smooth_at_zero_and_keeps_its_digits(dtype):
    vectors = torch.cat((torch.zeros(1, 3), torch.randn(40, 3, generator=seeded()))).double()
    vectors *= torch.logspace(-12, 0, 41, dtype=torch.float64)[:, None]
    eye = torch.eye(3, dtype=dtype)

    def loss(v):
        return losses.squared_geodesic(eye, axis_angle_to_matrix(v))

    v = vectors.to(dtype)
    squared = (v * v).sum(-1)
    torch.testing.assert_close(loss(v), squared, rtol=4 * ANGLE[dtype], atol=0)
    gradient = torch.func.vmap(torch.func.grad(loss))(v)
    torch.testing.assert_close(gradient, 2 * v, rtol=0, atol=20 * ANGLE[dtype])
    hessian = torch.func.vmap(torch.func.hessian(loss))(v[squared < 1e-4])
    torch.testing.assert_close(hessian, (2 * eye).expand_as(hessian), rtol=0, atol=1e-3)


def test_the_mean_of_uncertain_truths_is_the_best_raw_matrix():
    truth = axis_angle_to_matrix(torch.randn(500, 3, dtype=torch.float64, generator=seeded()) / 2)
    mean = truth.mean(0).requires_grad_()
    (gradient,) = torch.autograd.grad(losses.raw_9d(mean, truth).mean(), mean)
    torch.testing.assert_close(gradient, torch.zeros_like(mean), rtol=0, atol=1e-14)


@each_dtype
@pytest.mark.parametrize("threshold", [1e-3, 0.5, 2.0])
def test_huber_is_half_the_square_and_then_linear(threshold, dtype):
    eye = torch.eye(3, dtype=dtype)
    angle = torch.linspace(0, 3, 61, dtype=dtype)
    turned = axis_angle_to_matrix(angle[:, None] * eye[0])
    for loss, distance in (
        (losses.huber_geodesic, angle),
        (losses.huber_chordal, chordal_distance(turned, eye)),
    ):
        expected = torch.nn.functional.huber_loss(
            distance, torch.zeros_like(distance), reduction="none", delta=threshold
        )
        torch.testing.assert_close(loss(turned, eye, threshold), expected, rtol=0, atol=10 * ANGLE[dtype])
    t = angle.clone().requires_grad_()
    value = losses.huber_geodesic(axis_angle_to_matrix(t[:, None] * eye[0]), eye, threshold)
    (slope,) = torch.autograd.grad(value.sum(), t)
    torch.testing.assert_close(slope, angle.clamp(max=threshold), rtol=0, atol=100 * ANGLE[dtype])


@pytest.mark.parametrize("scale", [1e-3, 0.03, 0.3, 3.0, 1e3])
def test_laplace_is_a_density_and_its_scale_a_third_of_the_mean_angle(scale):
    b = torch.tensor(scale, dtype=torch.float64)
    # Gauss and Legendre where the density is, to exp(-40) of it.
    x, weight = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(200))
    end = min(math.pi, 40 * scale)
    angle, weight = end * (x + 1) / 2, end * weight / 2
    turned = axis_angle_to_matrix(angle[:, None] * torch.eye(3, dtype=torch.float64)[0])
    density = (-losses.laplace_geodesic(turned, torch.eye(3, dtype=torch.float64), b)).exp()
    measure = (1 - angle.cos()) / math.pi * weight
    assert abs((density * measure).sum() - 1) < 1e-10
    if scale < 0.02:
        assert abs((density * measure * angle).sum() / (3 * scale) - 1) < 1e-4


@each_dtype
def test_laplace_is_finite_at_every_scale(dtype):
    scale = torch.logspace(-30, 30, 61, dtype=dtype).requires_grad_()
    a = axis_angle_to_matrix(torch.tensor([[0.0, 0, 0], [1, 2, 0], [math.pi, 0, 0]], dtype=dtype))
    eye = torch.eye(3, dtype=dtype)
    value = losses.laplace_geodesic(a[:, None], eye, scale)
    assert value.isfinite().all()
    torch.testing.assert_close(value[:, -1], torch.zeros(3, dtype=dtype), rtol=0, atol=4 * ANGLE[dtype])
    # At the mode; elsewhere the slope is angle / scale^2, which may overflow.
    (slope,) = torch.autograd.grad(losses.laplace_geodesic(eye, eye, scale).sum(), scale)
    assert slope.isfinite().all()
    narrow = scale.detach() < 1e-3
    assert narrow.sum() > 20
    torch.testing.assert_close((slope * scale)[narrow], (3 + 0 * scale)[narrow], rtol=1e-5, atol=0)
    bad = torch.tensor([-1.0, 0, torch.nan, torch.inf], dtype=dtype)
    assert losses.laplace_geodesic(a[0], a[1], bad).isnan().all()


# Symmetries.


GROUPS = {
    "cyclic": (symmetries.cyclic(5, (1.0, 2.0, 3.0)), 5),
    "trivial": (symmetries.cyclic(1), 1),
    "dihedral": (symmetries.dihedral(4), 8),
    "dihedral_x": (symmetries.dihedral(3, (2.0, 0.0, 0.0), (1.0, 1.0, 0.0)), 6),
    "tetrahedral": (symmetries.tetrahedral(), 12),
    "octahedral": (symmetries.octahedral(), 24),
    "icosahedral": (symmetries.icosahedral(), 60),
}
each_group = pytest.mark.parametrize("name", GROUPS)


@each_group
def test_groups_are_groups(name):
    group, order = GROUPS[name]
    assert group.shape == (order, 3, 3) and group.dtype == torch.float64
    assert is_rotation(group).all()
    torch.testing.assert_close(group[0], torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-15)
    apart = geodesic_distance(group[:, None], group) + 10 * torch.eye(order)
    assert apart.min() > 0.5  # no element twice
    products = (group[:, None] @ group).flatten(0, 1)
    assert geodesic_distance(products[:, None], group).amin(1).max() < 1e-7


def test_groups_are_those_of_their_objects():
    def takes_to_itself(group, vertices):
        moved = vertices @ group.mT
        return torch.cdist(moved, vertices.expand_as(moved)).amin(-1).max() < 1e-7

    cube = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    golden = (1 + 5**0.5) / 2
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 2)
    vertices = torch.cat((torch.zeros(4, 1), signs * torch.tensor([1, golden])), 1)
    icosahedron = torch.cat([vertices.roll(i, 1) for i in range(3)])
    assert takes_to_itself(symmetries.octahedral(), cube)
    assert takes_to_itself(symmetries.tetrahedral(), cube[cube.prod(-1) > 0])
    assert not takes_to_itself(symmetries.octahedral(), cube[cube.prod(-1) > 0])
    assert takes_to_itself(symmetries.icosahedral(), icosahedron)
    assert symmetries.octahedral(dtype=torch.float32).dtype == torch.float32
    assert symmetries.cyclic(3, torch.tensor([0.0, 0, 1])).dtype == torch.float32


@each_group
@pytest.mark.parametrize("loss", [losses.geodesic, losses.squared_chordal])
def test_symmetric_losses_do_not_tell_alike_poses_apart(name, loss):
    group, _ = GROUPS[name]
    a, b = drawn(8), drawn(8, seed=1)
    value = losses.minimum_over_symmetries(a, b, group, loss)
    each = torch.stack([loss(a, b @ s) for s in group])
    torch.testing.assert_close(value, each.amin(0))
    for s in group[:: max(1, len(group) // 4)]:
        torch.testing.assert_close(losses.minimum_over_symmetries(a, b @ s, group, loss), value)
        torch.testing.assert_close(losses.minimum_over_symmetries(a @ s, b, group, loss), value)
    expected = pose_metrics.symmetric_rotation_error(a, b, group)
    torch.testing.assert_close(losses.minimum_over_symmetries(a, b, group), expected)


def test_a_descent_leaves_the_point_between_two_alike_poses():
    group = symmetries.cyclic(2)
    between = axis_angle_to_matrix(torch.tensor([0, 0, math.pi / 2], dtype=torch.float64)).requires_grad_()
    value = losses.minimum_over_symmetries(between, group[0], group)
    (gradient,) = torch.autograd.grad(value, between)
    assert gradient.norm() > 0.5


def test_point_matching_knows_the_symmetries_of_its_points():
    """A model that a group takes to itself: ADD of the nearest of the alike poses is zero at all of them."""
    group = symmetries.tetrahedral()
    model = (POINTS[:2] @ group.mT).flatten(0, 1)
    truth = drawn(6), torch.randn(6, 3, dtype=torch.float64, generator=seeded())
    for s in group[[1, 5, 11]]:
        alike = truth[0] @ s, truth[1]
        value = losses.minimum_over_symmetries(alike, truth, group, losses.add, points=model)
        assert value.max() < 1e-12
        assert losses.add_symmetric(alike, truth, model).max() < 1e-12
        assert losses.add(alike, truth, model).min() > 0.1
    other = Transform(drawn(6, seed=2), truth[1], torch.ones(6, dtype=torch.float64))
    per_item = model.expand(6, -1, -1)
    value = losses.minimum_over_symmetries(
        other, Transform(*truth, other.scale), group, losses.add, points=per_item
    )
    each = torch.stack([losses.add(other, (truth[0] @ s, truth[1]), model) for s in group])
    torch.testing.assert_close(value, each.amin(0))


def test_the_axial_loss_is_the_least_angle_over_all_turns():
    a, b = drawn(32), drawn(32, seed=1)
    unit = AXIS / AXIS.norm()
    turns = symmetries.cyclic(2000, unit)
    least = losses.minimum_over_symmetries(a, b, turns)
    exact = losses.axial(a, b, AXIS)
    assert (exact <= least + 1e-12).all() and (least - exact).max() < math.pi / 2000
    least = losses.minimum_over_symmetries(a, b, symmetries.dihedral(2000, unit))
    exact = losses.axial(a, b, 1e20 * AXIS, undirected=True)
    assert (exact <= least + 1e-12).all() and (least - exact).max() < math.pi / 2000
    assert losses.axial(a, a @ turns[3], AXIS).max() < 1e-14
    assert losses.axial(a, b, torch.zeros(3, dtype=torch.float64)).isnan().all()


# Points.


def poses(seed):
    translation = torch.randn(5, 3, dtype=torch.float64, generator=seeded(seed))
    return Transform(drawn(5, seed=seed), translation, torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize("masked", [False, True])
def test_point_matching_agrees_with_the_metrics(masked):
    a, b = poses(1), poses(2)
    points, mask = POINTS.clone(), None
    if masked:
        mask = torch.rand(5, 30, generator=seeded()) < 0.5
        mask[0], mask[:, 3] = False, False
        points[3] = torch.nan  # does not count
    for loss, metric in ((losses.add, pose_metrics.add), (losses.add_symmetric, pose_metrics.add_symmetric)):
        value = loss(a, b, points, mask=mask)
        torch.testing.assert_close(value, metric(a, b, points, mask=mask), equal_nan=True)
        assert bool(value[0].isnan()) == masked
        pair = loss((a.rotation, a.translation), b, points, mask=mask)
        torch.testing.assert_close(pair, value, equal_nan=True)
    points[7] = torch.inf
    assert losses.add_symmetric(a, b, points).isnan().all() and losses.add(a, b, points).isnan().all()


@pytest.mark.parametrize("loss", [losses.add, losses.add_symmetric])
def test_a_model_without_points_has_no_distance(loss):
    a = poses(1)
    for none in (torch.zeros(0, 3), torch.zeros(5, 0, 3)):
        value = loss(a, poses(2), none)
        assert value.shape == loss(a, a, POINTS).shape and value.isnan().all()


@pytest.mark.parametrize("loss", [losses.add, losses.add_symmetric])
def test_a_rotation_alone_is_no_pose(loss):
    r = drawn(2)  # not even two of them, which might be taken for a pair
    for estimate, truth, name in ((r, r, "estimate"), (poses(1), r, "truth")):
        with pytest.raises(TypeError, match=rf"`{name}` must be a Transform or a pair .*got a tensor"):
            loss(estimate, truth, POINTS)
    with pytest.raises(TypeError, match="`estimate` must be a Transform or a pair"):
        losses.minimum_over_symmetries(r, r, torch.eye(3)[None], loss, points=POINTS)


def test_point_matching_of_scaled_poses():
    a, b = poses(1), poses(2)
    a = Transform(a.rotation, a.translation, 2 * a.scale)
    torch.testing.assert_close(losses.add(a, b, POINTS), pose_metrics.add(a, b, POINTS))
    torch.testing.assert_close(losses.add_symmetric(a, b, POINTS), pose_metrics.add_symmetric(a, b, POINTS))


def test_a_large_model_needs_no_table_of_its_pairs():
    """50,000 points: 2.5e9 pairs, 10 GB in float32."""
    points = torch.randn(50_000, 3, generator=seeded())
    a = Transform(drawn(dtype=torch.float32), torch.zeros(3), torch.ones(()))
    near = axis_angle_to_matrix(torch.tensor([1e-3, 0, 0]))
    b = Transform(a.rotation @ near, torch.full((3,), 1e-3), torch.ones(()))
    value = losses.add_symmetric(a, b, points)
    assert 0 < value < losses.add(a, b, points)


# Reduction.


def test_reductions():
    a, b = drawn(4, 3), drawn(3, seed=1)
    each = losses.huber_geodesic(a, b, threshold=0.2)
    for reduction, expected in (("mean", each.mean()), ("sum", each.sum()), ("none", each)):
        module = losses.ReducedLoss(losses.huber_geodesic, reduction, threshold=0.2)
        for copy in (module, pickle.loads(pickle.dumps(module))):
            torch.testing.assert_close(copy(a, b), expected, rtol=0, atol=0)
    assert repr(module) == "ReducedLoss(huber_geodesic, reduction='none', threshold=0.2)"
    half = losses.ReducedLoss(losses.squared_chordal, "sum")(a.half() + 60, b.half())
    assert half.dtype == torch.float32 and half.isfinite()  # 12 times 32,400
    symmetric = losses.ReducedLoss(losses.minimum_over_symmetries, symmetries=GROUP, loss=losses.chordal)
    expected = losses.minimum_over_symmetries(a, b, GROUP, losses.chordal).mean()
    torch.testing.assert_close(symmetric(a, b), expected)
