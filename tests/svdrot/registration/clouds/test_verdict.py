"""The verdict: right, free, ambiguous and doubtful poses, and what must change nothing of it."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from stones import moved, stone

import svdrot
from svdrot.io import read_points, read_transform
from svdrot.registration import ANSWERS, Transform, icp, judge, voxel_downsample
from svdrot.registration.clouds._verdict import poses as motions
from svdrot.registration.clouds._verdict import rule, search
from svdrot.registration.clouds._verdict.evidence import Evidence, Side

DATA = Path(__file__).parents[5] / "shared/data/registration"
HERE = Transform.identity(dtype=torch.float64)


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=drawn(seed))


def noisy(points: torch.Tensor, sigma: float, seed: int = 9) -> torch.Tensor:
    return points + sigma * torch.randn(points.shape, dtype=torch.float64, generator=drawn(seed))


def plane(seed: int) -> torch.Tensor:
    x, y = uniform(2, 1500, seed=seed)
    return torch.stack((x, 0.7 * y, 0 * x), 1)


def corridor(seed: int) -> torch.Tensor:
    """Floor and two walls along x."""
    x, s = uniform(2, 2000, seed=seed)
    across = torch.where(s < 0.4, s - 0.2, torch.where(s < 0.7, -0.2, 0.2))
    return torch.stack((x, across, torch.where(s < 0.4, 0, (s - 0.4) % 0.3)), 1)


def cylinder(seed: int) -> torch.Tensor:
    """About the z axis."""
    angle, z = uniform(2, 1500, seed=seed) * torch.tensor([[2 * math.pi], [1.0]], dtype=torch.float64)
    return torch.stack((0.2 * angle.cos(), 0.2 * angle.sin(), z), 1)


def sphere(seed: int) -> torch.Tensor:
    directions = torch.randn(1500, 3, dtype=torch.float64, generator=drawn(seed))
    return torch.nn.functional.normalize(directions, dim=1)


def box(seed: int) -> torch.Tensor:
    """Of three different edges: three half-turns leave it as it is."""
    sides = torch.tensor([1.0, 0.7, 0.45], dtype=torch.float64)
    areas = (sides.prod() / sides).repeat(2)
    face = torch.multinomial(areas, 2500, replacement=True, generator=drawn(seed))
    p = uniform(2500, 3, seed=seed + 100) - 0.5
    p.scatter_(1, (face % 3)[:, None], torch.where(face < 3, -0.5, 0.5).double()[:, None])
    return p * sides


# Rows: rotation vector about the origin, velocity of the origin.
FREE = {
    "plane": (plane, [[0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 1, 0], [0, 0, 1, 0, 0, 0]]),
    "corridor": (corridor, [[0, 0, 0, 1, 0, 0]]),
    "cylinder": (cylinder, [[0, 0, 0, 0, 0, 1], [0, 0, 1, 0, 0, 0]]),
    "sphere": (sphere, [[1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0]]),
}


def unexplained(found, twists) -> float:
    """How much of some motions, of unit length, is not among those that are told."""
    w, v = torch.tensor(twists, dtype=torch.float64).split(3, 1)
    wanted = torch.cat((found.radius * w, v + torch.linalg.cross(w, found.center.expand_as(w))), 1)
    unit = torch.tensor([found.radius] * 3 + [1.0] * 3, dtype=torch.float64)
    basis = torch.linalg.qr((found.free * unit).mT).Q
    wanted = torch.nn.functional.normalize(wanted, dim=1)
    return (wanted - wanted @ basis @ basis.mT).norm(dim=1).max().item()


@pytest.mark.parametrize("sigma", [0.0, 0.01])
@pytest.mark.parametrize("name", FREE)
def test_surfaces_that_slide_on_themselves_are_free(name, sigma):
    make, twists = FREE[name]
    found = judge(noisy(make(0), sigma), noisy(make(1), sigma, 8), HERE)
    assert found.answer == "free" and len(found.free) == len(twists)
    assert unexplained(found, twists) < 0.2
    assert len(found.reasons) == (1 if name == "sphere" else len(twists))
    assert found.spread[0] > 0.013 and (found.spread[len(twists) :] <= 0.013).all()
    # The covariance is that of the other motions.
    assert torch.linalg.matrix_rank(found.covariance * 1e6, rtol=1e-9) == 6 - len(twists)


def test_free_motions_are_named():
    (slide,) = judge(corridor(0), corridor(1), HERE).reasons
    assert slide.startswith("it slides along (")
    axis = [abs(float(word)) for word in slide.partition("(")[2].rstrip(")").split(",")]
    assert axis == pytest.approx([1, 0, 0], abs=0.05)
    slide, turn = judge(cylinder(0), cylinder(1), HERE).reasons
    assert slide.startswith("it slides along (") and turn.startswith("it turns about (")
    (about,) = judge(sphere(0), sphere(1), HERE).reasons
    assert about.startswith("it turns about any axis through (")


@pytest.mark.parametrize("name", FREE)
def test_nothing_is_moved_along_free_motions(name):
    """From a pose where a free motion took it, back to the start; and not from there where noise pulls."""
    make, twists = FREE[name]
    source, target = noisy(make(0), 0.002), noisy(make(1), 0.002, 8)
    away = torch.zeros(6, dtype=torch.float64)
    for twist in twists:
        away += 0.1 * torch.tensor(twist, dtype=torch.float64)
    slid = Transform(svdrot.axis_angle_to_matrix(away[:3]), away[3:], HERE.scale)
    for given in (HERE, slid):
        found = judge(source, target, given, start=HERE)
        assert found.answer == "free"
        assert (found.transform.apply(source) - source).norm(dim=1).mean() < 0.006


def test_one_object_is_aligned_and_its_uncertainty_holds():
    errors = []
    for seed in range(6):
        truth = moved(seed)
        source, target = (
            noisy(stone(seed=seed), 0.005),
            truth.apply(noisy(stone(seed=seed + 50), 0.005, seed)),
        )
        near = truth @ moved(seed + 9, angle=0.01, length=0.01)
        found = judge(source, target, near)
        assert found.answer == "aligned" and not found.reasons and not len(found.rivals.scale)
        assert 0.6 < found.misfit < 1.3 and found.cover > 0.9 and abs(found.scale - 1) < 0.01
        off = (found.transform.apply(source) - truth.apply(source)).norm(dim=1)
        assert off.square().mean().sqrt() < 0.02
        assert torch.linalg.eigvalsh(found.covariance).min() > 0
        errors.append(found.normalized_error(truth))
    assert 1 < np.median(errors) < 5  # the median of chi with six degrees of freedom is 2.3


def test_symmetric_things_are_ambiguous_with_all_poses():
    truth = moved()
    found = judge(box(0), truth.apply(box(1)), truth)
    assert found.answer == "ambiguous" and found.reasons == ("3 other poses fit as well",)
    half = torch.diag_embed(torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64))
    wanted = truth.rotation @ half
    between = svdrot.geodesic_distance(wanted[:, None], found.rivals.rotation[None])
    assert between.amin(1).max() < 0.05 and between.amin(0).max() < 0.05
    assert judge(box(0), truth.apply(box(1)), truth, search=False).answer == "aligned"


def test_a_better_pose_takes_the_place_of_a_wrong_one():
    truth = moved()
    turned = truth @ moved(3, angle=2.5, length=0.0)
    found = judge(stone(), truth.apply(stone(seed=1)), turned)
    assert judge(stone(), truth.apply(stone(seed=1)), turned, search=False).answer == "doubtful"
    if found.answer == "aligned":
        assert found.moved
        assert svdrot.geodesic_distance(found.transform.rotation, truth.rotation) < 0.02


def test_a_room_that_is_cut_is_laid_corner_on_corner():
    """Where middles differ, some start is near the truth for every corner that both have."""
    room = uniform(2000, 3).numpy() * (4, 2, 1)
    truth = moved(3)
    part = truth.apply(torch.from_numpy(room[room[:, 0] < 3])).numpy()
    begun = search._boxes(part, room, search._principal_axes(part))
    places = motions.moved(begun, part).swapaxes(1, 2)
    off = np.linalg.norm(places - room[room[:, 0] < 3], axis=2).mean(1)
    assert off.min() < 0.05 < np.sort(off)[-200]
    assert np.allclose(np.linalg.det(begun[:, :3, :3]), 1)


def test_rivals_fit_about_as_well_and_cover_half_as_much():
    def told(misfit: float, cover: float) -> Evidence:
        none, no = np.zeros((1, 0)), np.zeros((1, 0), bool)
        side = Side(none, none, none, no, no, np.zeros((1, 0), int))
        return Evidence(side, side, np.array([misfit]), np.array([cover]), np.zeros((1, 4, 80)))

    found = told(1.1, 0.8)
    assert rule._is_rival(found, told(1.3, 0.8)) and not rule._is_rival(found, told(1.4, 0.8))
    assert rule._is_rival(found, told(1.1, 0.41)) and not rule._is_rival(found, told(1.1, 0.39))
    # Two samples of one surface differ by as much.
    assert rule._is_rival(told(0.8, 0.8), told(1.15, 0.8))
    assert not rule._is_rival(told(1.8, 0.8), told(2.1, 0.8))


DIFFERENT = {
    "mirrored": lambda: stone(seed=1) * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64),
    "another": lambda: box(3),
    "noise": lambda: 2 * uniform(4000, 3) - 1,
    "resized": lambda: 1.07 * stone(seed=1),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_what_is_not_the_same_is_doubtful_and_why(what):
    found = judge(stone(), DIFFERENT[what](), HERE)
    assert found.answer == "doubtful" and found.reasons
    if what == "resized":
        assert found.scale == pytest.approx(1.07, abs=0.01)
        assert any("sizes differ" in reason and f"{found.scale:.4g}" in reason for reason in found.reasons)


def test_other_units_are_named():
    found = judge(stone(), 1000 * stone(seed=1), HERE)
    assert found.answer == "doubtful"
    (told,) = re.findall(r"the target is (\S+) times as large", " ".join(found.reasons))
    assert float(told) == pytest.approx(1000, rel=0.1)


# What must change nothing.


@pytest.fixture(scope="module")
def cropped():
    """Two parts of a stone, off by a little."""
    a, b = noisy(stone(), 0.004), noisy(stone(seed=1), 0.004, 8)
    return a[a[:, 0] < 0.4], b[b[:, 0] > -0.4], moved(5, angle=0.01, length=0.01)


@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1e15])
def test_units_change_nothing(cropped, scale):
    source, target, near = cropped
    one = judge(source, target, near)
    other = judge(
        scale * source, scale * target, Transform(near.rotation, scale * near.translation, near.scale)
    )
    assert one.answer == other.answer == "aligned"
    for name in ("misfit", "cover", "scale"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-6)
    torch.testing.assert_close(other.transform.rotation, one.transform.rotation, rtol=0, atol=1e-8)
    torch.testing.assert_close(
        other.transform.translation / scale, one.transform.translation, rtol=0, atol=1e-8
    )
    unit = torch.tensor([1.0] * 3 + [scale] * 3, dtype=torch.float64)
    back = other.covariance / unit[:, None] / unit
    torch.testing.assert_close(back, one.covariance, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_rigid_motions_of_both_change_nothing(cropped, offset):
    """But for which points the voxels take: the answer, and the pose to its uncertainty."""
    source, target, near = cropped
    first, second = moved(11, length=offset), moved(12, length=offset)
    pose = second @ near @ first.inverse()
    one, other = judge(source, target, near), judge(first.apply(source), second.apply(target), pose)
    assert one.answer == other.answer == "aligned"
    assert one.normalized_error(second.inverse() @ other.transform @ first) < 5


def test_the_same_clouds_give_the_same_verdict(cropped):
    source, target, near = cropped
    one, other = judge(source, target, near), judge(source, target, near)
    assert torch.equal(one.transform.matrix, other.transform.matrix)
    assert torch.equal(one.covariance, other.covariance) and one.misfit == other.misfit


def test_points_that_are_no_points_change_nothing(cropped):
    source, target, near = cropped
    nothing = torch.tensor([[math.nan, 0, 0], [0, math.inf, 0], [1e30, 1e30, 0]], dtype=torch.float64)
    one = judge(source, target, near)
    other = judge(torch.cat((nothing, source)), torch.cat((target, nothing)), near)
    assert other.answer == "aligned" and one.normalized_error(other.transform) < 3


def test_copies_of_points_change_nothing(cropped):
    source, target, near = cropped
    found = judge(source.repeat(10, 1), target.repeat(8, 1), near)
    assert found.answer == "aligned"


def test_dtypes_and_scale_come_back(cropped):
    source, target, near = (x.float() if isinstance(x, torch.Tensor) else x for x in cropped)
    found = judge(source, target, near)
    assert found.transform.rotation.dtype == found.rivals.scale.dtype == torch.float32
    assert found.covariance.dtype == torch.float64 and found.answer in ANSWERS
    larger = Transform(near.rotation, near.translation, torch.tensor(2.0))
    found = judge(source / 2, target, larger)
    assert found.answer == "aligned" and found.transform.scale == 2


TINY = {
    "none": torch.zeros(0, 3),
    "one": torch.zeros(1, 3),
    "a place": torch.ones(100, 3),
    "three": torch.eye(3),
    "thirty": torch.rand(30, 3, generator=drawn(0)),
    "line": torch.linspace(0, 1, 500)[:, None] * torch.tensor([1.0, 2.0, 3.0]),
    "nan": torch.full((50, 3), torch.nan),
}


@pytest.mark.parametrize("what", TINY)
def test_clouds_that_determine_nothing_are_doubtful(what):
    for source, target in ((TINY[what], TINY[what]), (stone().float(), TINY[what])):
        found = judge(source, target, HERE)
        assert found.answer == "doubtful" and found.reasons
        assert math.isnan(found.normalized_error(HERE)) and len(found.free) == 0
        torch.testing.assert_close(found.transform.matrix, torch.eye(4))


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="`source` must have shape"):
        judge(torch.zeros(3, 2), stone(), HERE)
    with pytest.raises(TypeError, match="`target` must be floating point"):
        judge(stone(), torch.zeros(3, 3, dtype=torch.long), HERE)
    broken = Transform(HERE.rotation * torch.nan, HERE.translation, HERE.scale)
    with pytest.raises(ValueError, match="`transform` must be one finite transform"):
        judge(stone(), stone(), broken)
    with pytest.raises(ValueError, match="`start` must be one finite transform"):
        judge(stone(), stone(), HERE, start=broken)
    many = Transform(*(x.expand(2, *x.shape) for x in (HERE.rotation, HERE.translation, HERE.scale)))
    with pytest.raises(ValueError, match="`transform` must be one finite transform"):
        judge(stone(), stone(), many)
    with pytest.raises(TypeError, match="`start` must be a Transform; got Tensor"):
        judge(stone(), stone(), HERE, start=torch.eye(4))  # type: ignore[arg-type]


# Real scans.

PAIRS = {
    "indoor_geotransformer_demo": ("src.npy", "ref.npy", "gt.npy"),
    "lidar_small_gicp": ("source.ply", "target.ply", "T_target_source.txt"),
    "kitchen_3dmatch_0_1": ("pair_voxel1cm.npz:src", "pair_voxel1cm.npz:ref", "T_ref_src.txt"),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_scans_are_aligned_at_the_truth_and_nowhere_else(pair):
    folder = DATA / pair
    if not folder.is_dir():
        pytest.skip(f"the pair {folder} is not there")
    source, target = (read_points(folder / name) for name in PAIRS[pair][:2])
    truth = read_transform(folder / PAIRS[pair][2])
    size = (source.amax(0) - source.amin(0)).norm()

    def off(transform: Transform) -> float:
        return ((transform.apply(source) - truth.apply(source)).norm(dim=1).mean() / size).item()

    found = judge(source, target, truth)
    assert found.answer == "aligned" and off(found.transform) < 0.02, found.reasons
    at = truth.apply(source)
    center, frame = at.mean(0), torch.linalg.svd(at[::30] - at.mean(0), full_matrices=False).Vh
    eye = torch.eye(3, dtype=torch.float64)
    wrong = [
        Transform(2 * axis[:, None] * axis - eye, 2 * (center - axis * (axis @ center)), HERE.scale)
        for axis in frame
    ]
    wrong += [Transform(eye, sign * axis, HERE.scale) for axis in frame for sign in (-1.0, 1.0)]
    voxel = 0.02 * size.item()
    thin = [voxel_downsample(cloud, 0.25 * voxel)[0] for cloud in (source, target)]
    answers = []
    for motion in wrong:
        near = icp(*thin, init=motion @ truth, scales=[(voxel, 3 * voxel, 15), (0.5 * voxel, voxel, 10)])
        found = judge(source, target, near.transform)
        answers.append((found.answer, off(found.transform)))
    assert all(answer != "aligned" or error < 0.02 for answer, error in answers), answers
