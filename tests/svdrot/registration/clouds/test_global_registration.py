"""Clouds from any position: the scans at hand, generated surfaces, and clouds that determine nothing."""

import math
from pathlib import Path

import pytest
import torch
from stones import stone

import svdrot
from datasets.registration_pairs import read_pair
from svdrot.registration import Transform
from svdrot.registration.clouds import global_registration
from svdrot.registration.clouds.global_registration import automatic_voxel, register

SCANS = Path(__file__).resolve().parents[5] / "shared" / "data" / "registration"
# Degrees and meters that must be reached. The truths themselves are good to about 0.2 to 1 degree.
TARGETS = {
    "indoor_geotransformer_demo": (1.5, 0.10),
    "kitchen_3dmatch_0_1": (0.5, 0.02),
    "lidar_small_gicp": (0.3, 0.04),
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def rigid(seed, distance=3.0):
    generator = seeded(seed)
    turn = svdrot.random_rotation(generator=generator, dtype=torch.float64)
    shift = distance * torch.randn(3, generator=generator, dtype=torch.float64)
    return Transform(turn, shift, torch.ones((), dtype=torch.float64))


def landscape(n, seed=0):
    """Points of a surface of size 2 without symmetry, (n, 3)."""
    u, v = (2 * torch.rand(2, n, generator=seeded(seed), dtype=torch.float64) - 1).unbind()
    hills = [(0.4, 0.3, -0.5, 9), (0.3, -0.6, 0.2, 14), (-0.35, 0.5, 0.6, 20), (0.2, -0.2, -0.7, 30)]
    z = sum(h * (-k * ((u - a) ** 2 + (v - b) ** 2)).exp() for h, a, b, k in hills)
    return torch.stack((u, v, z + 0.15 * u * v), 1)


def off(found, truth):
    angle = svdrot.geodesic_distance(found.rotation.double(), truth.rotation).rad2deg().item()
    return angle, (found.translation.double() - truth.translation).norm().item()


@pytest.mark.parametrize("scan", TARGETS)
def test_real_scans_from_any_position(scan):
    if not (SCANS / scan).is_dir():
        pytest.skip(f"no scans in {SCANS / scan}")
    pair = read_pair(SCANS / scan)
    turn = svdrot.random_rotation(generator=seeded(5), dtype=torch.float64)
    moved = Transform(turn, torch.zeros(3, dtype=torch.float64), torch.ones((), dtype=torch.float64))
    found = register(moved.apply(pair.source), pair.target)
    degrees, meters = off(found.transform @ moved, pair.truth)
    assert found.converged and degrees <= TARGETS[scan][0] and meters <= TARGETS[scan][1]
    assert [stage.name for stage in found.stages] == ["features", "robust", "local", "verdict"]
    assert found.fitness == found.stages[-1].fitness > 0.4


def test_both_orders_and_both_units():
    x, truth = landscape(4000), rigid(1)
    y = truth.apply(landscape(4000, seed=1)[:3500])
    forth, back = register(x, y), register(y, x)
    thousandth = register(x.float() * 1000, y.float() * 1000)
    for found, wanted in ((forth.transform, truth), (back.transform, truth.inverse())):
        assert off(found, wanted)[0] < 1 and off(found, wanted)[1] < 0.05
    assert thousandth.transform.rotation.dtype == torch.float32
    assert thousandth.voxel == pytest.approx(1000 * forth.voxel, rel=0.02)
    assert off(thousandth.transform, truth)[0] < 1


def test_a_part_of_another_density():
    """A quarter of the surface, ten times as dense as the whole."""
    x, truth = landscape(30_000), rigid(2)
    part = x[(x[:, 0] < 0.2) & (x[:, 1] > -0.3)]
    found = register(part, truth.apply(landscape(4000, seed=3)))
    assert found.converged and off(found.transform, truth)[0] < 2 and found.fitness > 0.7


def test_a_cloud_of_eighty_points():
    x, truth = landscape(80), rigid(3)
    found = register(x, truth.apply(x), verdict=False)
    assert found.converged and off(found.transform, truth)[0] < 1e-3 and found.fitness == 1


def test_points_that_are_not_finite_are_left_out():
    x, truth = landscape(1500), rigid(4)
    y = truth.apply(x)
    bad = torch.cat((torch.full((3, 3), torch.nan, dtype=torch.float64), x))
    bad[1, 0] = torch.inf
    with_nan, without = (register(cloud, y) for cloud in (bad, x))
    assert torch.equal(with_nan.transform.matrix, without.transform.matrix)


@pytest.mark.parametrize("value", [1e12, 1e30, 1e200])
def test_fill_values_are_left_out(value):
    cloud, truth = landscape(1500), rigid(2)
    source = truth.inverse().apply(cloud)
    source[::9], target = value, torch.cat((cloud, cloud.new_full((20, 3), -value)))
    found = register(source, target)
    assert found.converged and max(off(found.transform, truth)) < 1e-6


def test_exact_copies_end_at_rounding():
    cloud, truth = landscape(4000), rigid(3)
    found = register(truth.inverse().apply(cloud), cloud)
    assert max(off(found.transform, truth)) < 1e-11


@pytest.mark.parametrize("seed", range(3))
def test_a_small_thing_on_a_table_decides(seed):
    """A voxel is an eighth of the thing: means of cells cannot tell where it is, the points can."""

    def scene(generator):
        u, v = torch.rand(2, 20_000, generator=generator, dtype=torch.float64) - 0.5
        table = torch.stack((u, v, torch.zeros_like(u)), 1)
        ball = torch.randn(1600, 3, generator=generator, dtype=torch.float64)
        thing = ball / ball.norm(dim=1, keepdim=True) * torch.tensor([0.08, 0.05, 0.06])
        points = torch.cat((table, thing + torch.tensor([0.2, 0.0, 0.06])))
        return points + 0.0005 * torch.randn(points.shape, generator=generator, dtype=torch.float64)

    source, target = scene(seeded(2 * seed)), scene(seeded(2 * seed + 1))
    truth = rigid(seed, 0.5)
    found = register(truth.inverse().apply(source), target)
    there = found.transform.apply(truth.inverse().apply(source))
    assert (there - source).norm(dim=1).mean() < 0.001


def test_far_from_the_origin():
    x, truth = landscape(1500), rigid(5)
    away = torch.tensor([4e6, -5e5, 1e6], dtype=torch.float64)
    found = register(x, truth.apply(x) + away).transform
    assert off(found, Transform(truth.rotation, truth.translation + away, truth.scale))[0] < 0.5


CLOUDS = {
    "none": torch.zeros(0, 3),
    "one": torch.ones(1, 3),
    "three": torch.eye(3),
    "point": torch.ones(30, 3),
    "nan": torch.full((30, 3), torch.nan),
    "line": torch.linspace(0, 1, 200)[:, None] * torch.ones(3),
    "plane": torch.rand(500, 3) * torch.tensor([1.0, 1, 0]),
    "noise": torch.randn(300, 3),
    "two_far_points": torch.cat((torch.rand(100, 3), torch.full((1, 3), 1e5))),
}


@pytest.mark.parametrize(
    "options", [{}, {"search": "rotations"}, {"init": torch.eye(4)}], ids=("features", "rotations", "init")
)
@pytest.mark.parametrize("name", CLOUDS)
def test_degenerate_clouds_are_defined(name, options):
    other = landscape(400).float()
    for source, target in ((CLOUDS[name], other), (other, CLOUDS[name]), (CLOUDS[name], CLOUDS[name])):
        found = register(source, target, **options)
        assert svdrot.is_rotation(found.transform.rotation, tolerance=1e-5)
        assert found.transform.translation.isfinite().all()
        assert 0 <= found.fitness <= 1 and (found.rmse >= 0 or math.isnan(found.rmse))
        if name in ("none", "one", "three", "point", "nan", "line"):
            assert not found.converged


@pytest.mark.parametrize(("runs_away", "end"), [(False, "local"), (True, "robust")])
def test_a_refinement_that_runs_away_is_not_taken(monkeypatch, runs_away, end):
    x, truth = landscape(1500), rigid(8)
    y = truth.apply(landscape(1500, seed=1))

    def away(*arguments):
        """Half of the cloud to the side: half of the points then lie on nothing."""
        pose = refined(*arguments)
        pose[0, 3] += 1.0 if runs_away else 0.0
        return pose

    refined = global_registration.refined
    monkeypatch.setattr(global_registration, "refined", away)
    found = register(x, y, verdict=False)
    assert [stage.name for stage in found.stages] == ["features", "robust", "local"]
    (taken,) = (stage for stage in found.stages if stage.name == end)
    assert torch.equal(found.transform.matrix, taken.transform.matrix) and found.fitness == taken.fitness
    assert off(found.transform, truth)[0] < 5


def test_the_verdict_says_what_is_open_and_leaves_it_where_it_began():
    """A floor slides on itself; of two of one landscape the smaller is of another size."""
    u, v = (2 * torch.rand(2, 3000, generator=seeded(), dtype=torch.float64) - 1).unbind()
    floor = torch.stack((u, v, 0 * u), 1)
    start = rigid(1, 0.0)
    source = start.inverse().apply(floor[:1500])
    lifted = Transform(start.rotation, start.translation + torch.tensor([0, 0, 0.01]), start.scale)
    found = register(source, floor[1500:], init=lifted)
    assert found.verdict.answer == "free" and len(found.verdict.free) == 3 and not found.converged
    assert (found.transform.apply(source) - floor[:1500]).norm(dim=1).max() < 0.002

    x = landscape(3000)
    found = register(1.1 * x, x)
    assert found.verdict.answer == "doubtful" and abs(found.verdict.scale - 1 / 1.1) < 0.02


@pytest.mark.parametrize("seed", range(4))
def test_clouds_that_share_nothing_are_not_converged(seed):
    ball = torch.randn(800, 3, generator=seeded(seed))
    found = register(ball / ball.norm(dim=1, keepdim=True), landscape(800).float())
    assert not found.converged


def test_equal_clouds_give_equal_poses():
    x, y = landscape(2500), rigid(6).apply(landscape(2500, seed=9))
    first, second = (register(x, y) for _ in range(2))
    assert torch.equal(first.transform.matrix, second.transform.matrix)


def test_the_automatic_voxel():
    x = landscape(20_000)
    voxel = automatic_voxel(x, x)
    filled = len(torch.unique((x / voxel).floor(), dim=0))
    assert 4000 < filled < 6000
    assert automatic_voxel(2.0**30 * x, 2.0**30 * x) == pytest.approx(2.0**30 * voxel)
    assert automatic_voxel(x[:0], x) == 0 and automatic_voxel(torch.ones(50, 3), torch.ones(50, 3)) == 0


def test_bad_arguments_are_refused():
    x = landscape(50)
    for message, call in (
        (r"must have shapes? \(N, 3\)", lambda: register(x[None], x)),
        ("`target` must have shape", lambda: register(x, x[:, :2])),
        ("`voxel` must be", lambda: register(x, x, voxel=-1.0)),
        ("`refine` must be one of", lambda: register(x[:3], x, refine="best")),
        ("`search` must be one of", lambda: register(x, x, search="everywhere")),
        ("`init` must be rigid; got a scale of 2", lambda: register(x, x, init=2 * torch.eye(4))),
        (
            "`init` must hold rotations",
            lambda: register(x, x, init=torch.eye(4) + torch.eye(4).roll(1, 0) / 9),
        ),
        ("`init` must have shape", lambda: register(x, x, init=torch.eye(3))),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def potato(n, seed):
    """Points of a bumpy closed surface, and of noise; of another seed other points of the same."""
    generator = seeded(seed)
    u = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator, dtype=torch.float64), dim=-1)
    x, y, z = u.unbind(-1)
    r = 1 + 0.25 * x * y + 0.2 * torch.sin(3 * z) + 0.2 * torch.cos(2 * x + y + 1)
    return r[:, None] * u + 0.01 * torch.randn(n, 3, generator=generator, dtype=torch.float64)


def halves(seed):
    """Two clouds of one surface, of each of which a cut has left 70 %, and the truth."""
    truth, clouds = rigid(seed, 1.0), []
    for cloud in (potato(1000, 2 * seed), potato(1000, 2 * seed + 1)):
        side = torch.randn(3, generator=seeded(100 + seed + len(clouds)), dtype=torch.float64)
        height = cloud @ side
        clouds.append(cloud[height > height.quantile(0.3)])
    return truth.inverse().apply(clouds[0]), clouds[1], truth


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("degrees", [0, 25])
def test_a_start_at_the_truth_or_near_it_ends_there(seed, degrees):
    """Far pairs of a coarse scale lay cut on cut, which the truth does not."""
    source, target, truth = halves(seed)
    axis = torch.nn.functional.normalize(torch.randn(3, generator=seeded(seed), dtype=torch.float64), dim=0)
    turn = svdrot.axis_angle_to_matrix(math.radians(degrees) * axis)
    start = truth @ Transform(turn, torch.zeros(3, dtype=torch.float64), torch.ones((), dtype=torch.float64))
    found = register(source, target, init=start.matrix.round(decimals=3))
    assert off(found.transform, truth)[0] < 5
    assert [stage.name for stage in found.stages] == ["start", "robust", "local", "verdict"]


@pytest.mark.parametrize("seed", range(2))
def test_rotations_find_what_features_find(seed):
    source, target, truth = halves(seed)
    assert off(register(source, target, search="rotations").transform, truth)[0] < 5


# Motions about an axis.


@pytest.mark.parametrize("axis", [(0.0, 0.0, 1.0), (1.0, -2.0, 3.0)])
@pytest.mark.parametrize("motion", ["yaw", "planar"])
def test_motions_about_an_axis_leave_no_other_pose(motion, axis):
    """A stone and its half turn about x: with any motion two poses fit, about z one alone."""
    up = torch.tensor(axis, dtype=torch.float64)
    put = svdrot.rotation_between(torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64), up)
    half = torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)

    def cloud(seed):
        part = stone(2000, seed) + torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64)
        return torch.cat((part, part * half)) @ put.mT

    unit = up / up.norm()
    shift = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    shift = shift - (shift @ unit) * unit if motion == "planar" else shift
    truth = Transform(svdrot.axis_angle_to_matrix(2.5 * unit), shift, torch.ones((), dtype=torch.float64))
    source, target = cloud(0), truth.apply(cloud(1))
    assert register(source, target).verdict.answer == "ambiguous"
    found = register(source, target, motion=motion, axis=up)
    assert found.converged and found.verdict.axes.shape == ((4 if motion == "yaw" else 3), 6)
    angle, distance = off(found.transform, truth)
    assert angle < 0.5 and distance < 0.01
    # What is not allowed does not move by more than rounding.
    assert (found.transform.rotation @ unit - unit).norm() < 1e-12
    if motion == "planar":
        assert abs(found.transform.translation @ unit) < 1e-12
    # From a start with a tilt and a height, these are kept.
    lift = Transform(svdrot.axis_angle_to_matrix(0.3 * put[:, 0]), 0.7 * unit, torch.ones_like(truth.scale))
    again = register(lift.inverse().apply(source), target, motion=motion, axis=up, init=truth @ lift)
    angle, distance = off(again.transform, truth @ lift)
    assert angle < 0.5 and distance < 0.01
    tilt = (again.transform.rotation @ lift.rotation.mT).mT @ unit - unit
    assert tilt.norm() < 1e-12


def test_motions_of_register_are_checked():
    source, target = landscape(300), landscape(300, 1)
    with pytest.raises(ValueError, match="`scale` must be False"):
        register(source, target, motion="yaw", scale=True)
    with pytest.raises(ValueError, match="`axis` is that of a motion"):
        register(source, target, axis=torch.ones(3))
    for axis in (torch.zeros(3), torch.ones(2, 3)):
        with pytest.raises(ValueError, match="`axis` must be one vector"):
            register(source, target, motion="planar", axis=axis)
