"""Errors of trajectories: published figures, what moving the world leaves alone, missing poses."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import svdrot
from svdrot.evaluation import _pose_pairs
from svdrot.evaluation.trajectories import (
    absolute_pose_error,
    align_origins,
    align_trajectories,
    angle_pairs,
    associate,
    frame_pairs,
    kitti_segment_errors,
    move_trajectory,
    path_lengths,
    path_pairs,
    relative_pose_error,
    statistics,
)
from svdrot.io.trajectories import read_kitti
from svdrot.transform import Transform

REAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "trajectories"
needs_kitti = pytest.mark.skipif(
    not (REAL / "KITTI_00_gt.txt").exists(), reason=f"the trajectories of KITTI 00 are not at {REAL}"
)
ROUNDING = 1e-12  # of a few products and sums of numbers up to 100, in float64: some 50 eps of them
STEP = 2.0  # meters


def poses(rotation, translation):
    return Transform(rotation, translation, torch.ones_like(translation[..., 0]))


def wandering(count, seed=0):
    """A body that turns a little and moves STEP from each pose to the next."""
    generator = torch.Generator().manual_seed(seed)
    turns = svdrot.axis_angle_to_matrix(0.2 * torch.randn(count, 3, dtype=torch.float64, generator=generator))
    rotation, translation = [torch.eye(3, dtype=torch.float64)], [torch.zeros(3, dtype=torch.float64)]
    for turn in turns[1:]:
        rotation.append(rotation[-1] @ turn)
        translation.append(translation[-1] + rotation[-1][:, 0] * STEP)
    return poses(torch.stack(rotation)[:count], torch.stack(translation)[:count])


def noisy(trajectory, seed=1, size=0.05):
    generator = torch.Generator().manual_seed(seed)
    n = len(trajectory.translation)
    turns, steps = size * torch.randn(2, n, 3, dtype=torch.float64, generator=generator)
    return poses(trajectory.rotation @ svdrot.axis_angle_to_matrix(turns), trajectory.translation + steps)


def a_similarity(scale=1.0, seed=2):
    generator = torch.Generator().manual_seed(seed)
    rotation = svdrot.random_rotation(dtype=torch.float64, generator=generator)
    shift = 30 * torch.randn(3, dtype=torch.float64, generator=generator)
    return Transform(rotation, shift, torch.tensor(scale, dtype=torch.float64))


def largest(difference):
    return difference.abs().max().item() if difference.numel() else 0.0


def with_bad_pose(trajectory, k, value=torch.nan):
    translation = trajectory.translation.clone()
    translation[k, 1] = value
    return poses(trajectory.rotation, translation)


# Absolute errors and alignment.


@pytest.mark.parametrize("scale", [1.0, 0.02, 40.0])
def test_alignment_undoes_every_movement_of_the_world(scale):
    reference = wandering(50)
    world = a_similarity(scale)
    estimate = move_trajectory(world.inverse(), reference)
    found = align_trajectories(estimate, reference, scale=scale != 1)
    errors = absolute_pose_error(move_trajectory(found, estimate), reference)
    assert largest(found.scale - scale) < ROUNDING * scale
    for of in (errors.translation, errors.rotation, errors.full):
        assert largest(of) < 10 * ROUNDING
    assert largest(move_trajectory(found, estimate).scale - 1) == 0


def test_alignment_beats_its_neighbors():
    reference = wandering(50)
    estimate = noisy(move_trajectory(a_similarity(), reference), size=0.3)
    found = align_trajectories(estimate, reference)

    def cost(alignment):
        moved = move_trajectory(alignment, estimate)
        return statistics(absolute_pose_error(moved, reference).translation).rmse

    assert largest(cost(found) - found.residual) < ROUNDING
    generator = torch.Generator().manual_seed(0)
    for size in (1e-1, 1e-3):
        for _ in range(50):
            turn, step = size * torch.randn(2, 3, dtype=torch.float64, generator=generator)
            nudge = Transform(svdrot.axis_angle_to_matrix(turn), step, torch.ones((), dtype=torch.float64))
            assert cost(found) < cost(nudge @ found)


@pytest.mark.parametrize("scale", [1.0, 40.0])
@pytest.mark.parametrize("motion", ["yaw", "planar"])
def test_what_knows_gravity_keeps_its_errors_of_roll_and_pitch(motion, scale):
    reference = wandering(50)
    gravity = torch.tensor([0.3, -0.2, -9.8], dtype=torch.float64)
    down = gravity / gravity.norm()
    shift = torch.tensor([5.0, -3.0, 2.0], dtype=torch.float64)
    if motion == "planar":
        shift = shift - (shift @ down) * down
    turn = svdrot.axis_angle_to_matrix(2.0 * down)
    world = Transform(turn, shift, torch.tensor(scale, dtype=torch.float64))
    estimate = move_trajectory(world.inverse(), reference)
    found = align_trajectories(estimate, reference, scale=scale != 1, motion=motion, axis=gravity)
    assert largest(found.matrix - world.matrix) < 10 * ROUNDING * scale

    # A tilt of the whole world, and one of every orientation.
    sideways = torch.linalg.cross(down, torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    tilt = svdrot.axis_angle_to_matrix(0.05 * sideways / sideways.norm())
    tilted = move_trajectory(poses(tilt, 0 * shift), estimate)
    tilted = poses(noisy(tilted).rotation, tilted.translation)
    limited = align_trajectories(tilted, reference, scale=scale != 1, motion=motion, axis=gravity)
    moved = move_trajectory(limited, tilted)
    # The direction of gravity in the body, from which roll and pitch follow, is what it was estimated to be.
    assert largest(moved.rotation.mT @ down - tilted.rotation.mT @ down) < ROUNDING
    free = align_trajectories(tilted, reference, scale=scale != 1)
    assert free.residual < 1e-9 * scale and limited.residual > 0.01
    assert largest(move_trajectory(free, tilted).rotation.mT @ down - tilted.rotation.mT @ down) > 0.04


def test_two_positions_determine_a_motion_about_the_axis():
    reference = wandering(2)
    turn = svdrot.axis_angle_to_matrix(torch.tensor([0.0, 0.0, 2.0], dtype=torch.float64))
    estimate = move_trajectory(poses(turn.mT, torch.ones(3, dtype=torch.float64)), reference)
    found = align_trajectories(estimate, reference, motion="yaw")
    assert align_trajectories(estimate, reference).gap < ROUNDING < 0.9 < found.gap
    assert largest(move_trajectory(found, estimate).matrix - reference.matrix) < ROUNDING


def test_a_mask_aligns_by_the_beginning():
    reference, estimate = wandering(40), noisy(wandering(40))
    first = torch.arange(40) < 10
    masked = align_trajectories(with_bad_pose(estimate, 20), reference, mask=first)
    alone = align_trajectories(
        poses(estimate.rotation[:10], estimate.translation[:10]),
        poses(reference.rotation[:10], reference.translation[:10]),
    )
    assert largest(masked.matrix - alone.matrix) < ROUNDING


def test_origins_are_made_equal():
    reference = move_trajectory(a_similarity(seed=3), wandering(30))
    estimate = move_trajectory(a_similarity(), noisy(wandering(30)))
    moved = move_trajectory(align_origins(estimate, reference), estimate)
    assert largest(moved.rotation[0] - reference.rotation[0]) < ROUNDING
    assert largest(moved.translation[0] - reference.translation[0]) < ROUNDING


def test_absolute_errors_are_those_of_the_relative_matrix():
    reference, estimate = wandering(30), noisy(wandering(30))
    relative = reference.inverse().matrix @ estimate.matrix
    errors = absolute_pose_error(estimate, reference)
    eye = torch.eye(4, dtype=torch.float64)
    assert largest(errors.translation - relative[:, :3, 3].norm(dim=-1)) < ROUNDING
    assert largest(errors.rotation - svdrot.geodesic_distance(relative[:, :3, :3], eye[:3, :3])) < ROUNDING
    assert largest(errors.full - torch.linalg.matrix_norm(relative - eye)) < ROUNDING


def test_absolute_errors_have_the_right_gradients_and_finite_ones_at_no_error():
    reference, estimate = wandering(3), noisy(wandering(3))

    def total(rotation, translation):
        errors = absolute_pose_error(poses(rotation, translation), reference)
        return errors.translation.sum() + errors.rotation.sum() + errors.full.sum()

    inputs = [x.requires_grad_() for x in (estimate.rotation, estimate.translation)]
    assert torch.autograd.gradcheck(total, inputs)
    exact = [x.clone().requires_grad_() for x in (reference.rotation, reference.translation)]
    for gradient in torch.autograd.grad(total(*exact), exact):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_bad_pose_is_nan_in_its_own_place(bad):
    reference, estimate = wandering(20), noisy(wandering(20))
    broken = absolute_pose_error(with_bad_pose(estimate, 7, bad), reference)
    whole = absolute_pose_error(estimate, reference)
    for ours, theirs in ((broken.translation, whole.translation), (broken.full, whole.full)):
        assert ours.isnan().nonzero().flatten().tolist() == [7]
        assert torch.equal(ours[ours.isfinite()], theirs[ours.isfinite()])
    assert align_trajectories(with_bad_pose(estimate, 7, bad), reference).rotation.isnan().all()
    live = torch.arange(20) != 7
    summary, without = statistics(broken.translation, live), statistics(whole.translation[live])
    for name in vars(summary):
        assert largest(getattr(summary, name) - getattr(without, name)) < ROUNDING
        assert getattr(statistics(broken.translation), name).isnan()


@pytest.mark.parametrize("count", [0, 1])
def test_trajectories_of_no_pose_and_of_one(count):
    reference = wandering(count)
    estimate = move_trajectory(a_similarity(), reference)
    found = align_trajectories(estimate, reference)
    assert torch.equal(found.rotation, torch.eye(3, dtype=torch.float64))
    assert largest(absolute_pose_error(move_trajectory(found, estimate), reference).translation) < ROUNDING
    origin = align_origins(estimate, reference)
    assert largest(absolute_pose_error(move_trajectory(origin, estimate), reference).full) < ROUNDING
    for pairs in (
        frame_pairs(count, 1),
        path_pairs(reference, 1.0),
        path_pairs(reference, 1.0, overlapping=True),
        angle_pairs(reference, 1.0),
        angle_pairs(reference, 1.0, overlapping=True),
        kitti_segment_errors(estimate, reference).pairs,
    ):
        assert pairs.shape == (0, 2)
        assert relative_pose_error(estimate, reference, pairs).full.shape == (0,)
    assert math.isnan(kitti_segment_errors(estimate, reference).translation_percent)
    assert path_lengths(reference).tolist() == [0.0] * count


def side_by_side(a, b):
    return poses(torch.stack((a.rotation, b.rotation)), torch.stack((a.translation, b.translation)))


def test_batches_are_trajectories_side_by_side():
    first, second = wandering(20, 3), wandering(20, 4)
    both, moved = side_by_side(first, second), side_by_side(noisy(first), noisy(second))
    found = align_trajectories(moved, both)
    errors = absolute_pose_error(move_trajectory(found, moved), both)
    motions = relative_pose_error(moved, both, frame_pairs(20, 3))
    for k, reference in enumerate((first, second)):
        estimate = noisy(reference)
        alone = align_trajectories(estimate, reference)
        assert largest(found.matrix[k] - alone.matrix) < ROUNDING
        assert (
            largest(errors.full[k] - absolute_pose_error(move_trajectory(alone, estimate), reference).full)
            < ROUNDING
        )
        assert (
            largest(motions.full[k] - relative_pose_error(estimate, reference, frame_pairs(20, 3)).full)
            < ROUNDING
        )


# Relative errors and pairs.


def test_no_movement_of_the_world_changes_relative_errors():
    reference, estimate = wandering(60), noisy(wandering(60))
    pairs = frame_pairs(60, 5, overlapping=True)
    before = relative_pose_error(estimate, reference, pairs)
    after = relative_pose_error(move_trajectory(a_similarity(), estimate), reference, pairs)
    for name in vars(before):
        assert largest(getattr(before, name) - getattr(after, name)) < 10 * ROUNDING
    relative = estimate.matrix.inverse()[pairs[:, 0]] @ estimate.matrix[pairs[:, 1]]
    true = reference.matrix.inverse()[pairs[:, 0]] @ reference.matrix[pairs[:, 1]]
    left = torch.linalg.matrix_norm(true.inverse() @ relative - torch.eye(4, dtype=torch.float64))
    assert largest(before.full - left) < 10 * ROUNDING


def test_frame_pairs():
    assert frame_pairs(10, 3).tolist() == [[0, 3], [3, 6], [6, 9]]
    assert frame_pairs(5, 3, overlapping=True).tolist() == [[0, 3], [1, 4]]
    assert frame_pairs(3, 3).tolist() == []


def test_path_pairs_are_as_far_apart_as_asked():
    straight = poses(
        torch.eye(3, dtype=torch.float64).expand(11, 3, 3),
        torch.arange(11, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0, 0], dtype=torch.float64),
    )
    assert path_pairs(straight, 3.0).tolist() == [[3, 6], [6, 9]]
    assert path_pairs(straight, 2.5).tolist() == [[3, 6], [6, 9]]
    assert path_pairs(straight, 9.0, overlapping=True).tolist() == [[0, 9], [1, 10]]
    assert path_pairs(straight, 2.6, overlapping=True, tolerance=0.1).tolist() == []
    assert len(path_pairs(straight, 2.6, overlapping=True, tolerance=0.2)) == 8
    # Standing still adds poses but no length: a pair ends at the first pose of the rest.
    still = poses(straight.rotation, straight.translation[[0, 1, 1, 1, 2, 3, 3, 4, 5, 6, 7]])
    assert path_pairs(still, 1.0, overlapping=True)[:3].tolist() == [[0, 1], [1, 4], [2, 4]]


def brute_force_path_pairs(path, delta, tolerance):
    pairs = []
    for i in range(len(path) - 1):
        off = (path[i + 1 :] - path[i] - delta).abs()
        j = int(off.argmin())
        if off[j] <= tolerance * delta:
            pairs.append([i, i + 1 + j])
    return pairs


def test_overlapping_path_pairs_are_the_nearest_of_all():
    trajectory = noisy(wandering(200), size=1.0)
    path = path_lengths(trajectory)
    for delta in (0.5, 3.0, 10.0, 400.0):
        wanted = brute_force_path_pairs(path, delta, 0.1)
        assert path_pairs(trajectory, delta, overlapping=True).tolist() == wanted


def test_angle_pairs_are_turned_as_far_as_asked(monkeypatch):
    monkeypatch.setattr(_pose_pairs, "_CHUNK", 300)  # seven rows of forty poses at a time
    angles = torch.arange(9, dtype=torch.float64) * 0.25
    about_z = torch.stack((angles * 0, angles * 0, angles), 1)
    turning = poses(svdrot.axis_angle_to_matrix(about_z), torch.zeros(9, 3, dtype=torch.float64))
    assert angle_pairs(turning, 0.7).tolist() == [[0, 3], [3, 6]]
    assert angle_pairs(turning, 1.75, overlapping=True).tolist() == [[0, 7], [1, 8]]
    assert angle_pairs(turning, 3.0).tolist() == []
    trajectory = wandering(40)
    angle = svdrot.geodesic_distance(trajectory.rotation[:, None], trajectory.rotation)
    expected = [[i, j] for i in range(40) for j in range(i + 1, 40) if abs(angle[i, j] - 0.8) <= 0.08]
    assert angle_pairs(trajectory, 0.8, overlapping=True).tolist() == expected


def test_paths_run_past_bad_poses():
    trajectory = wandering(60)
    broken = with_bad_pose(trajectory, 30)
    path = path_lengths(broken)
    across = (trajectory.translation[31] - trajectory.translation[29]).norm()
    assert path[30] == path[29] and largest(path[31] - path[29] - across) < ROUNDING
    for pairs in (
        path_pairs(broken, 4.0),
        path_pairs(broken, 4.0, overlapping=True),
        angle_pairs(broken, 0.5),
        angle_pairs(broken, 0.5, overlapping=True),
    ):
        assert len(pairs) and not (pairs == 30).any()


# Segments.


def test_segments_of_a_known_drift():
    """A straight line measured one per cent too long, turning by a tenth of a degree a meter."""
    along = torch.arange(1001, dtype=torch.float64)
    line = along[:, None] * torch.tensor([1.0, 0, 0], dtype=torch.float64)
    reference = poses(torch.eye(3, dtype=torch.float64).expand(1001, 3, 3), line)
    found = kitti_segment_errors(poses(reference.rotation, 1.01 * line), reference)
    # A stretch ends at the first pose past its length: 101 m for 100 m, 101 * 0.01 / 100 of drift.
    assert found.of_length(100).translation_percent == pytest.approx(1.01, abs=ROUNDING * 100)
    assert found.of_length(800).translation_percent == pytest.approx(1.00125, abs=ROUNDING * 100)
    assert found.rotation_degrees_per_100m == 0
    assert [len(found.of_length(length).pairs) for length in (100, 800)] == [90, 20]
    assert found.pairs[0].tolist() == [0, 101] and (found.pairs[:, 0] % 10 == 0).all()
    turning = svdrot.axis_angle_to_matrix(line * math.radians(0.1))
    turned = kitti_segment_errors(poses(turning, line), reference, lengths=[100.0])
    assert turned.rotation_degrees_per_100m == pytest.approx(10.1, abs=1e-9)


def test_segments_know_masks_and_bad_poses():
    line = torch.arange(301, dtype=torch.float64)[:, None] * torch.eye(3, dtype=torch.float64)[0]
    reference = poses(torch.eye(3, dtype=torch.float64).expand(301, 3, 3), line)
    estimate = poses(reference.rotation, 1.01 * line)
    whole = kitti_segment_errors(estimate, reference)
    broken = kitti_segment_errors(with_bad_pose(estimate, 101), reference)
    assert torch.equal(broken.pairs, whole.pairs)
    assert torch.equal(broken.translation.isnan(), (whole.pairs == 101).any(1))
    assert math.isnan(broken.translation_percent)
    live = torch.arange(301) != 101
    masked = kitti_segment_errors(with_bad_pose(estimate, 101), reference, mask=live)
    assert masked.translation.isfinite().all() and not (masked.pairs == 101).any()
    assert masked.pairs[0].tolist() == [0, 102]
    assert (masked.pairs[:, 0] % 10 == 0).all()
    unknown = kitti_segment_errors(estimate, with_bad_pose(reference, 101))
    assert torch.equal(unknown.pairs, masked.pairs)


@needs_kitti
@pytest.mark.parametrize(("name", "drift", "turn"), [("ORB", 0.6997, 0.2533), ("SPTAM", 1.4870, 0.5577)])
def test_kitti_00_has_its_published_errors(name, drift, turn):
    reference, estimate = read_kitti(REAL / "KITTI_00_gt.txt"), read_kitti(REAL / f"KITTI_00_{name}.txt")

    def published(kind):
        return json.loads((REAL / f"expected_{name.lower()}_{kind}_stats.json").read_text())

    aligned = move_trajectory(align_trajectories(estimate, reference), estimate)
    found = statistics(absolute_pose_error(aligned, reference).translation)
    for statistic, value in published("ape").items():
        assert getattr(found, statistic).item() == pytest.approx(value, rel=1e-10), statistic
    # The files' rotations are off by up to 8e-7, and the published norm is taken in the frame of one of them.
    found = statistics(relative_pose_error(estimate, reference, path_pairs(estimate, 10.0)).translation)
    for statistic, value in published("rpe").items():
        assert getattr(found, statistic).item() == pytest.approx(value, rel=5e-7), statistic
    segments = kitti_segment_errors(estimate, reference)
    assert segments.translation_percent == pytest.approx(drift, abs=5e-5)
    assert segments.rotation_degrees_per_100m == pytest.approx(turn, abs=5e-5)


# Statistics and association.


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_statistics_are_numpy_s(count):
    errors = torch.rand(3, count, dtype=torch.float64, generator=torch.Generator().manual_seed(count))
    found, e = statistics(errors), errors.numpy()
    expected = {
        "rmse": np.sqrt((e**2).mean(-1)),
        "mean": e.mean(-1),
        "median": np.median(e, -1),
        "std": e.std(-1),
        "min": e.min(-1),
        "max": e.max(-1),
        "sse": (e**2).sum(-1),
    }
    for name, value in expected.items():
        assert largest(getattr(found, name) - torch.from_numpy(value)) < ROUNDING


def test_statistics_of_nothing():
    for found in (
        statistics(torch.zeros(2, 0)),
        statistics(torch.ones(2, 5), torch.zeros(5, dtype=torch.bool)),
    ):
        assert found.sse.tolist() == [0, 0]
        assert all(getattr(found, name).isnan().all() for name in vars(found) if name != "sse")
    infinite = statistics(torch.tensor([1.0, torch.inf, 2.0]))
    assert infinite.min == 1 and infinite.median == 2 and infinite.max == torch.inf


def test_times_are_associated_one_to_one():
    a = torch.arange(10, dtype=torch.float64) * 0.1 + 1.3e9
    b = torch.cat((a[2:8] + 0.004, a[4:5] + 0.001, torch.tensor([torch.nan, 0.0], dtype=torch.float64)))
    shuffled = torch.randperm(len(b), generator=torch.Generator().manual_seed(0))
    i, j = associate(a, b[shuffled])
    assert i.tolist() == [2, 3, 4, 5, 6, 7]
    assert shuffled[j].tolist() == [0, 1, 6, 3, 4, 5]  # the nearer of two candidates for time 4
    back = associate(b[shuffled], a)
    assert sorted(torch.stack(back, 1).tolist()) == sorted(torch.stack((j, i), 1).tolist())
    moved, offset = associate(a, b - 5, offset=5.0), associate(a, b)
    assert [x.tolist() for x in moved] == [x.tolist() for x in offset]
    assert associate(a, b, max_difference=0.0005)[0].tolist() == []
    assert associate(a[:0], b)[0].tolist() == associate(a, b[:0])[1].tolist() == []


def test_each_time_has_one_partner_and_no_two_left_could_be_paired():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 80, dtype=torch.float64, generator=generator)
    i, j = associate(a, b, max_difference=0.01)
    assert len(set(i.tolist())) == len(set(j.tolist())) == len(i) > 30
    assert ((a[i] - b[j]).abs() <= 0.01).all() and (a[i].diff() >= 0).all()
    rest_a, rest_b = (x[~torch.isin(torch.arange(80), k)] for x, k in ((a, i), (b, j)))
    assert ((rest_a[:, None] - rest_b).abs() > 0.01).all()


def test_wrong_arguments_are_named():
    ten, nine = wandering(10), wandering(9)
    with pytest.raises(ValueError, match=r"`estimate` must have a pose for each of the 9 .* got 10"):
        absolute_pose_error(ten, nine)
    with pytest.raises(ValueError, match="`reference` must be poses"):
        align_trajectories(ten, poses(ten.rotation[0], ten.translation[0]))
    with pytest.raises(ValueError, match="`motion` must be one of free, yaw, planar; got 'roll'"):
        align_trajectories(ten, ten, motion="roll")
    with pytest.raises(ValueError, match=r"`axis` must have shape"):
        align_trajectories(ten, ten, motion="yaw", axis=torch.zeros(2))
    with pytest.raises(ValueError, match=r"`pairs` must index 10 poses; got 0 to 10"):
        relative_pose_error(ten, ten, torch.tensor([[0, 10]]))
    with pytest.raises(ValueError, match=r"`pairs` must be integers of shape \(P, 2\)"):
        relative_pose_error(ten, ten, torch.zeros(3, 2))
    with pytest.raises(ValueError, match="`delta` must be a whole number, at least 1"):
        frame_pairs(10, 0)
    with pytest.raises(ValueError, match="`delta` must be positive"):
        path_pairs(ten, 0.0)
    with pytest.raises(ValueError, match="`step` and `lengths`"):
        kitti_segment_errors(ten, ten, step=0)
    with pytest.raises(ValueError, match="`second` must be float64"):
        associate(torch.zeros(3, dtype=torch.float64), torch.zeros(3))
    both = poses(ten.rotation[None], ten.translation[None])
    with pytest.raises(ValueError, match="`estimate` must be one trajectory"):
        kitti_segment_errors(both, both)


def test_a_distance_below_rounding_ends_at_the_next_pose():
    moving = wandering(5)
    every = frame_pairs(5, 1)
    assert torch.equal(path_pairs(moving, 1e-30), every[1:])
    assert torch.equal(angle_pairs(moving, 1e-30), every)
    assert torch.equal(path_pairs(poses(moving.rotation, 1e38 * moving.translation), 1.0), every[1:])


def test_statistics_of_half_precision_are_computed_in_float32():
    found = statistics(torch.full((5,), 300.0, dtype=torch.float16))
    assert found.rmse == 300 and found.sse == 450_000 and found.rmse.dtype == torch.float32


def test_statistics_of_equal_errors_have_a_finite_gradient():
    for errors in (torch.zeros(3), torch.ones(3)):
        found = statistics(errors.requires_grad_())
        (found.rmse + found.std).backward()
        assert errors.grad.isfinite().all()


def test_motions_of_several_dtypes_meet_in_the_larger():
    moving = wandering(5)
    mixed = poses(moving.rotation.float(), moving.translation)
    errors = relative_pose_error(mixed, moving, frame_pairs(5, 1))
    assert errors.rotation.max() < 1e-6 and errors.translation.max() < 1e-4
