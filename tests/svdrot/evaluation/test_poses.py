"""Errors of poses and registrations: definitions by brute force, invariance, protocols, bad data."""

import math

import pytest
import torch

import svdrot
from svdrot.evaluation import poses as pose_metrics
from svdrot.evaluation.poses import (
    add,
    add_symmetric,
    area_under_recall,
    chamfer_distance,
    feature_matching_recall,
    information_rmse,
    inlier_ratio,
    point_rmse,
    pose_recall,
    recall_curve,
    registration_recall,
    rotation_error,
    symmetric_rotation_error,
    translation_error,
)
from svdrot.transform import Transform

ROUNDING = 1e-12  # of a few products and sums of numbers up to 10, in float64: some 500 eps of them


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def some_poses(*shape, seed=0):
    g = generator(seed)
    rotation = svdrot.random_rotation(*shape, dtype=torch.float64, generator=g)
    translation = torch.randn(*shape, 3, dtype=torch.float64, generator=g)
    return Transform(rotation, translation, torch.ones(shape, dtype=torch.float64))


def points(*shape, seed=0):
    return torch.randn(*shape, 3, dtype=torch.float64, generator=generator(seed))


def largest(difference):
    return difference.abs().max().item()


def nudged(pose, size, seed=1):
    turn, step = size * torch.randn(
        2, *pose.translation.shape, dtype=torch.float64, generator=generator(seed)
    )
    return Transform(svdrot.axis_angle_to_matrix(turn), step, pose.scale) @ pose


# Distances of poses.


def test_rotation_and_translation_errors():
    pose = some_poses(5)
    turn = torch.tensor([0.0, 0.3, 1.0, 3.0, torch.pi], dtype=torch.float64)
    axis = torch.nn.functional.normalize(points(5), dim=-1)
    moved = Transform(
        pose.rotation @ svdrot.axis_angle_to_matrix(axis * turn[:, None]), pose.translation + axis, pose.scale
    )
    assert largest(rotation_error(moved, pose) - turn) < ROUNDING
    assert largest(translation_error(moved, pose) - 1) < ROUNDING


def test_average_distances_by_brute_force():
    cloud, a, b = points(4, 50), some_poses(4, seed=1), some_poses(4, seed=2)
    x, y = a.apply(cloud), b.apply(cloud)
    assert largest(add(a, b, cloud) - (x - y).norm(dim=-1).mean(-1)) < ROUNDING
    assert largest(point_rmse(a, b, cloud) - (x - y).square().sum(-1).mean(-1).sqrt()) < ROUNDING
    table = (y[:, :, None] - x[:, None]).norm(dim=-1)  # true by estimated
    assert largest(add_symmetric(a, b, cloud) - table.amin(-1).mean(-1)) < ROUNDING
    assert (add_symmetric(a, b, cloud) <= add(a, b, cloud)).all()
    assert (add(a, b, cloud) <= point_rmse(a, b, cloud)).all()


def test_average_distance_keeps_its_digits_far_away():
    """Points at 1e6 that a turn of 1e-9 moves by 1e-3: the difference of two products would have 7 digits."""
    far = torch.tensor([[1e6, 1e6, 0]], dtype=torch.float64)
    turn = torch.tensor([0, 0, 1e-9], dtype=torch.float64)
    one = Transform.identity(dtype=torch.float64)
    moved = Transform(svdrot.axis_angle_to_matrix(turn), one.translation, one.scale)
    assert add(moved, one, far).item() == pytest.approx(2**0.5 * 1e-3, rel=1e-9)


@pytest.mark.parametrize("metric", [add, add_symmetric, point_rmse])
def test_average_distances_do_not_know_the_frame(metric):
    cloud, a, b = points(3, 40), some_poses(3, seed=1), nudged(some_poses(3, seed=1), 0.2)
    camera, model = some_poses(seed=5), some_poses(seed=6)
    whole = metric(a, b, cloud)
    assert largest(metric(camera @ a, camera @ b, cloud) - whole) < ROUNDING
    assert largest(metric(a @ model, b @ model, model.inverse().apply(cloud)) - whole) < ROUNDING
    order = torch.randperm(40, generator=generator())
    assert largest(metric(a, b, cloud[:, order]) - whole) < ROUNDING
    doubled = (
        Transform(a.rotation, 2 * a.translation, a.scale),
        Transform(b.rotation, 2 * b.translation, b.scale),
    )
    assert largest(metric(*doubled, 2 * cloud) - 2 * whole) < ROUNDING


@pytest.mark.parametrize("metric", [add, add_symmetric, point_rmse])
def test_masks_and_bad_points(metric):
    cloud, a, b = points(3, 40), some_poses(3, seed=1), some_poses(3, seed=2)
    live = torch.rand(3, 40, generator=generator()) < 0.5
    broken = torch.where(live[..., None], cloud, torch.nan)
    masked = metric(a, b, broken, mask=live)
    for k in range(3):
        alone = metric(
            Transform(a.rotation[k], a.translation[k], a.scale[k]),
            Transform(b.rotation[k], b.translation[k], b.scale[k]),
            cloud[k, live[k]],
        )
        assert largest(masked[k] - alone) < ROUNDING
    cloud[1, 3, 2] = torch.nan
    assert metric(a, b, cloud).isnan().tolist() == [False, True, False]
    assert metric(a, b, cloud, mask=torch.zeros(40, dtype=torch.bool)).isnan().all()
    assert metric(a, b, cloud[:, :0]).isnan().all()
    assert metric(a, b, points(7)).shape == (3,)
    assert metric(a, b, points(2, 1, 7), mask=torch.ones(7, dtype=torch.bool)).shape == (2, 3)


def test_average_distances_have_the_right_gradients():
    cloud, truth = points(2, 12), some_poses(2)
    estimate = nudged(truth, 0.3)
    inputs = [x.clone().requires_grad_() for x in (cloud, estimate.rotation, estimate.translation)]
    for metric in (add, add_symmetric, point_rmse):

        def value(x, rotation, translation, metric=metric):
            return metric(Transform(rotation, translation, truth.scale), truth, x)

        assert torch.autograd.gradcheck(value, inputs)
        exact = [x.clone().requires_grad_() for x in (cloud, truth.rotation, truth.translation)]
        if metric is not point_rmse:  # the root of a mean of squares has a corner there
            assert all(g.isfinite().all() for g in torch.autograd.grad(value(*exact).sum(), exact))


@pytest.mark.parametrize("metric", [add, add_symmetric, point_rmse])
def test_what_does_not_count_has_no_gradient(metric):
    truth, live = some_poses(2), torch.arange(12) < 9
    cloud = torch.where(live[:, None], points(2, 12), torch.nan).requires_grad_()
    estimate = nudged(truth, 0.3)
    inputs = [cloud, estimate.rotation.requires_grad_(), estimate.translation.requires_grad_()]
    gradients = torch.autograd.grad(metric(estimate, truth, cloud, mask=live).sum(), inputs)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert (gradients[0][:, ~live] == 0).all() and (gradients[0][:, live] != 0).any(-1).all()


def about_z(angle):
    return svdrot.axis_angle_to_matrix(torch.tensor([0, 0, angle], dtype=torch.float64))


def test_symmetric_errors_see_no_symmetry():
    group = torch.stack([about_z(k * math.pi / 2) for k in range(4)])
    truth = svdrot.random_rotation(20, dtype=torch.float64, generator=generator())
    for turn in group:
        assert largest(symmetric_rotation_error(truth @ turn @ about_z(0.1), truth, group) - 0.1) < ROUNDING
    other = svdrot.random_rotation(20, dtype=torch.float64, generator=generator(1))
    plain = svdrot.geodesic_distance(other, truth)
    assert (symmetric_rotation_error(other, truth, group) <= plain + ROUNDING).all()
    assert largest(symmetric_rotation_error(other, truth, group[:1]) - plain) < ROUNDING
    assert (
        largest(
            symmetric_rotation_error(other @ group[1], truth, group)
            - symmetric_rotation_error(other, truth, group)
        )
        < ROUNDING
    )
    other[3, 0, 0] = torch.nan
    assert symmetric_rotation_error(other, truth, group).isnan().nonzero().flatten().tolist() == [3]
    # ADD-S of an object with that symmetry sees none either.
    seed = points(10)
    cloud = (group[:, None] @ seed[..., None])[..., 0].reshape(-1, 3)
    pose = some_poses()
    turned = Transform(pose.rotation @ group[1], pose.translation, pose.scale)
    assert add_symmetric(turned, pose, cloud) < ROUNDING < 0.1 < add(turned, pose, cloud)


def test_chamfer_distance_by_brute_force():
    a, b, whole_a, whole_b = (
        points(2, 30),
        points(2, 20, seed=1),
        points(2, 50, seed=2),
        points(2, 60, seed=3),
    )

    def one_way(x, y):
        return torch.cdist(x, y).amin(-1).square().mean(-1)

    assert largest(chamfer_distance(a, b) - one_way(a, b) - one_way(b, a)) < ROUNDING
    modified = chamfer_distance(a, b, whole_a, whole_b)
    assert largest(modified - one_way(a, whole_b) - one_way(b, whole_a)) < ROUNDING
    assert (chamfer_distance(a, a.flip(1)) == 0).all()
    assert largest(chamfer_distance(a, b) - chamfer_distance(b, a)) < ROUNDING
    pose = some_poses()
    assert largest(chamfer_distance(pose.apply(a), pose.apply(b)) - chamfer_distance(a, b)) < ROUNDING
    assert torch.autograd.gradcheck(chamfer_distance, (a[:, :5].requires_grad_(), b[:, :6].requires_grad_()))
    for k, cloud in enumerate((a, b, whole_a, whole_b)):
        bad = [x.detach().clone() for x in (a, b, whole_a, whole_b)]
        bad[k][0, 4, 0] = torch.nan
        assert chamfer_distance(*bad).isnan().tolist() == [True, False], len(cloud)
    assert chamfer_distance(a[:, :0], b).isnan().all()


# Recall.


def test_recall_counts_errors_below_the_threshold():
    errors = torch.tensor([[0.1, 0.2, 0.2, torch.nan, torch.inf], [0.0, 1.0, 2.0, 3.0, 4.0]])
    curve = recall_curve(errors, torch.tensor([0.0, 0.1, 0.2, 0.25, 1e9]))
    assert largest(curve - torch.tensor([[0, 0, 0.2, 0.6, 0.6], [0, 0.2, 0.2, 0.2, 1]])) < 1e-7
    masked = recall_curve(errors, torch.tensor([0.25]), mask=torch.tensor([True, True, False, False, False]))
    assert masked.tolist() == [[1], [0.5]]
    assert recall_curve(errors[:, :0], torch.tensor([1.0])).isnan().all()


def test_area_under_recall_is_the_integral_of_the_curve():
    errors = torch.rand(3, 40, dtype=torch.float64, generator=generator()) * 0.2
    errors[0, 3], errors[1, 4] = torch.nan, torch.inf
    t = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000 * 0.1
    integral = recall_curve(errors, t).mean(-1)
    area = area_under_recall(errors, 0.1)
    assert largest(area - integral) < 1e-5  # half a step of the sum, for each of the errors at most
    assert area_under_recall(torch.zeros(4), 0.1) == 1 and area_under_recall(torch.full((4,), 0.1), 0.1) == 0
    live = torch.arange(40) % 2 == 0
    assert (
        largest(area_under_recall(errors, 0.1, mask=live) - area_under_recall(errors[:, live], 0.1))
        < ROUNDING
    )
    # The published program: rectangles of the height at their right end.
    ordered = errors[2][errors[2] < 0.1].sort().values
    steps = torch.cat((ordered[:1], ordered.diff(), 0.1 - ordered[-1:]))
    height = torch.cat((torch.arange(1, len(ordered) + 1), torch.tensor([len(ordered)]))) / 40
    assert 0 < (steps * height).sum() / 0.1 - area[2] <= 1 / 40


def information(cloud):
    """Sum of G^T G for G = (I, -2 [x]_x)."""
    zero = torch.zeros_like(cloud[..., 0])
    x, y, z = cloud.unbind(-1)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).unflatten(-1, (3, 3))
    g = torch.cat((torch.eye(3, dtype=cloud.dtype).expand_as(cross), -2 * cross), -1)
    return (g.mT @ g).sum(-3)


def test_information_gives_the_distance_of_points_to_first_order():
    cloud, truth = points(6, 200), some_poses(6)
    for size in (1e-2, 1e-4):
        estimate = nudged(truth, size)
        # The frame of the points is that of the source.
        ratio = information_rmse(estimate, truth, information(cloud)) / point_rmse(estimate, truth, cloud)
        assert largest(ratio - 1) < size
    assert (information_rmse(truth, truth, information(cloud)) < 1e-14).all()


def test_registration_recall_leaves_consecutive_pairs_out():
    rmse = torch.tensor([9.0, 0.1, 0.3, torch.nan, 0.19])
    pairs = torch.tensor([[0, 1], [0, 2], [0, 3], [1, 3], [1, 4]])
    assert registration_recall(rmse, pairs).item() == 0.5
    assert registration_recall(rmse, pairs, threshold=0.5).item() == 0.75
    assert registration_recall(rmse[:1], pairs[:1]).isnan()
    with pytest.raises(ValueError, match=r"`pairs` must have shape \(5, 2\)"):
        registration_recall(rmse, pairs[:4])


def test_pose_recall_wants_both_errors_small():
    truth = some_poses(4)
    axis = torch.tensor([1.0, 0, 0], dtype=torch.float64)
    angle = torch.tensor([14.0, 16.0, 14.0, 14.0], dtype=torch.float64).deg2rad()
    step = torch.tensor([0.29, 0.1, 0.31, torch.nan], dtype=torch.float64)
    estimate = Transform(
        truth.rotation @ svdrot.axis_angle_to_matrix(axis * angle[:, None]),
        truth.translation + axis * step[:, None],
        truth.scale,
    )
    assert pose_recall(estimate, truth).item() == 0.25
    assert pose_recall(estimate, truth, rotation=0.3).item() == 0.5
    assert pose_recall(estimate, truth, translation=2.0, mask=torch.arange(4) < 3).item() == pytest.approx(
        2 / 3
    )


def test_inliers_and_feature_matching_recall():
    source, pose = points(2, 10), some_poses(2)
    target = pose.apply(source)
    target[0, :7] += torch.tensor([0.0, 0.11, 0.0], dtype=torch.float64)
    assert inlier_ratio(source, target, pose).tolist() == pytest.approx([0.3, 1.0])
    assert inlier_ratio(source, target, pose, distance=0.2).tolist() == [1, 1]
    live = torch.arange(10) >= 5
    assert inlier_ratio(source, target, pose, mask=live).tolist() == pytest.approx([0.6, 1.0])
    target[1, 2] = torch.nan
    assert inlier_ratio(source, target, pose).isnan().tolist() == [False, True]
    assert inlier_ratio(source, target, pose, mask=live).isfinite().all()
    assert inlier_ratio(source[:, :0], target[:, :0], pose).isnan().all()
    assert feature_matching_recall(torch.tensor([0.05, 0.051, 1.0, torch.nan])).item() == 0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_lower_precision(dtype):
    cloud, a, b = points(30), some_poses(seed=1), some_poses(seed=2)
    low = [x.to(dtype) for x in (cloud, a.rotation, a.translation)]
    low_pose = Transform(low[1], low[2], a.scale.to(dtype))
    low_truth = Transform(b.rotation.to(dtype), b.translation.to(dtype), b.scale.to(dtype))
    found = add(low_pose, low_truth, low[0])
    assert abs(found.double() - add(a, b, cloud)) < 20 * torch.finfo(dtype).eps


def test_wrong_arguments_are_named():
    pose = some_poses()
    with pytest.raises(ValueError, match=r"`points` must have shape \(\.\.\., 3\)"):
        add(pose, pose, points(5)[:, :2])
    with pytest.raises(ValueError, match="`points`"):
        add_symmetric(pose, pose, points(5)[:, :2])
    for metric in (add, point_rmse, add_symmetric):
        with pytest.raises(TypeError, match="`mask` must be a boolean tensor"):
            metric(pose, pose, points(5), mask=torch.ones(5))
        with pytest.raises(ValueError, match=r"got \(3,\) of `points`, \(2,\) of `mask`"):
            metric(pose, pose, points(5).expand(3, 5, 3), mask=torch.ones(2, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="`symmetries` must have shape"):
        symmetric_rotation_error(pose.rotation, pose.rotation, pose.rotation)
    with pytest.raises(ValueError, match="`maximum` must be positive"):
        area_under_recall(torch.ones(3), 0.0)
    with pytest.raises(ValueError, match="`information` must have shape"):
        information_rmse(pose, pose, torch.eye(5))
    with pytest.raises(ValueError, match="`target` must have shape"):
        chamfer_distance(points(5), points(5)[:, :2])
    with pytest.raises(TypeError, match="`errors` must be floating point"):
        recall_curve(torch.ones(3, dtype=torch.int64), torch.ones(1))


def test_recall_of_many_errors_in_half_precision():
    errors = torch.full((100_000,), 0.125, dtype=torch.float16)
    thresholds = torch.tensor([0.1, 0.2, torch.nan])
    recall = pose_metrics.recall_curve(errors, thresholds)
    assert recall.dtype == torch.float16 and recall[:2].tolist() == [0, 1] and recall[2].isnan()
    assert pose_metrics.area_under_recall(errors, 0.25) == 0.5


def test_what_is_no_pose_is_named():
    a, two, plane = some_poses(4), some_poses(2), Transform.identity(2)
    for bad, error in ((torch.eye(4), TypeError), (None, TypeError), (plane, ValueError)):
        for metric in (rotation_error, translation_error, pose_recall):
            with pytest.raises(error, match="`estimate` must"):
                metric(bad, a)
            with pytest.raises(error, match="`truth` must"):
                metric(a, bad)
        with pytest.raises(error, match="`truth` must"):
            add(a, bad, points(5))
        with pytest.raises(error, match="`transform` must"):
            inlier_ratio(points(5), points(5), bad)
    for metric in (rotation_error, translation_error, pose_recall):
        with pytest.raises(ValueError, match=r"\(2,\) of `truth`"):
            metric(a, two)


def test_masks_and_errors_broadcast_both_ways():
    errors = torch.tensor([0.1, 0.4, 0.9], dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [False, False, True]])
    expected = torch.tensor([[0.5], [0.0]], dtype=torch.float64)
    assert torch.equal(recall_curve(errors, torch.tensor([0.2]), mask=mask), expected)
    assert torch.equal(area_under_recall(errors, 0.5, mask=mask)[1], torch.zeros((), dtype=torch.float64))
    with pytest.raises(TypeError, match="`mask` must be a boolean tensor"):
        recall_curve(errors, torch.tensor([0.2]), mask=errors)
    with pytest.raises(ValueError, match="`mask` must have shape"):
        area_under_recall(errors, 0.5, mask=mask[:, :2])


def test_gradients_of_equal_poses_are_zero():
    truth = some_poses(3)
    moved = Transform(truth.rotation, truth.translation.clone().requires_grad_(), truth.scale)
    point_rmse(moved, truth, points(5)).sum().backward()
    assert torch.equal(moved.translation.grad, torch.zeros(3, 3, dtype=torch.float64))
