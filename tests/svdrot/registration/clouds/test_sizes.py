"""Clouds of different, unknown sizes: the size found, its laws, and sizes that the clouds leave open."""

import math

import pytest
import torch

import svdrot
from svdrot.registration import Transform, judge, register
from svdrot.registration.clouds._global import sizes, voxels

SIZE, DEGREES = 0.01, 2.0  # what is right: over the size, and of the rotation


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def potato(n, seed, noise=0.01):
    """Points of a bumpy closed surface, and of noise; of another seed other points of the same."""
    generator = seeded(seed)
    u = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator, dtype=torch.float64), dim=-1)
    x, y, z = u.unbind(-1)
    r = 1 + 0.25 * x * y + 0.2 * torch.sin(3 * z) + 0.2 * torch.cos(2 * x + y + 1)
    return r[:, None] * u + noise * torch.randn(n, 3, generator=generator, dtype=torch.float64)


def pair(seed, factor, kept=1.0, n=1200):
    """Source, target and truth: of both clouds a cut leaves the same share, on opposite sides."""
    generator = seeded(seed)
    side = torch.randn(3, generator=generator, dtype=torch.float64)
    x, y = potato(n, 2 * seed), potato(n, 2 * seed + 1)
    share = 0.5 * kept / (1 - kept / 2)  # of all in either direction, so that `kept` of each is in both
    x = x[(h := x @ side) <= h.quantile(0.5 + share / 2)]
    y = y[(h := y @ side) >= h.quantile(0.5 - share / 2)]
    turn = svdrot.random_rotation(generator=generator, dtype=torch.float64)
    shift = torch.randn(3, generator=generator, dtype=torch.float64)
    truth = Transform(turn, shift, torch.tensor(factor, dtype=torch.float64))
    return truth.inverse().apply(x), y, truth


def off(found, truth):
    """Relative error of the scale, and degrees."""
    angle = svdrot.geodesic_distance(found.rotation.double(), truth.rotation).rad2deg().item()
    return abs(found.scale.item() / truth.scale.item() - 1), angle


@pytest.mark.parametrize("kept", [1.0, 0.7])
@pytest.mark.parametrize("factor", [1e-3, 1.05, 1e3])
def test_a_source_of_another_size(factor, kept):
    source, target, truth = pair(3, factor, kept)
    found = register(source, target, scale=True)
    size, degrees = off(found.transform, truth)
    assert size < SIZE and degrees < DEGREES and found.converged
    assert (found.transform.apply(source) - truth.apply(source)).norm(dim=1).mean() < 0.02
    assert [stage.name for stage in found.stages] == ["features", "robust", "local", "verdict"]
    told = found.verdict
    assert told is not None and abs(told.scale - 1) < SIZE + 4 * told.scale_error


def test_only_the_scale_follows_the_source_and_the_rest_the_target():
    """Powers of two are exact, up to the logarithm of none."""
    source, target, _ = pair(1, 1.0, 0.8, 400)
    first = register(source, target, scale=True)
    other = register(2.0**20 * source, target, scale=True)
    assert torch.equal(2.0**20 * other.transform.scale, first.transform.scale)
    assert torch.equal(other.transform.rotation, first.transform.rotation)
    assert torch.equal(other.transform.translation, first.transform.translation)
    assert other.fitness == first.fitness and other.voxel == first.voxel
    larger = register(source, 2.0**-9 * target, scale=True)
    assert torch.equal(2.0**9 * larger.transform.scale, first.transform.scale)
    assert torch.equal(2.0**9 * larger.transform.translation, first.transform.translation)
    inches = register(source / 25.4, target, scale=True)
    assert inches.transform.scale.item() == pytest.approx(25.4 * first.transform.scale.item(), rel=1e-3)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("swapped", [False, True])
def test_votes_know_the_size_where_extents_do_not(seed, swapped):
    """Of one cloud a tail is seen that makes it half as large again."""
    whole, body = potato(1500, 2 * seed), potato(1500, 2 * seed + 1)
    tail = torch.nn.functional.normalize(
        torch.randn(600, 3, generator=seeded(seed), dtype=torch.float64), dim=1
    )
    tail = 0.3 * tail
    tail[:, 2] += torch.linspace(1.2, 4, 600, dtype=torch.float64)
    both = torch.cat((whole, tail)).numpy(), body.numpy()
    (a, own), (b, other) = map(sizes.middle_and_extent, both[::-1] if swapped else both)
    x, y = both[::-1] if swapped else both
    x, y, truth = (x - a) / own, (y - b) / other, own / other
    assert abs(math.log(truth)) > 0.3
    likeliest = sizes.ratios(x, y, voxels.automatic(x, y))[0]
    assert abs(math.log(likeliest / truth)) < sizes.PEAK / 2


def test_exact_copies_end_at_rounding():
    source, truth = potato(1500, 0, 0.0), pair(2, 0.37)[2]
    found = register(source, truth.apply(source), scale=True)
    assert max(off(found.transform, truth)) < 1e-9 and found.converged


def test_either_order_gives_the_inverse():
    source, target, truth = pair(4, 7.0)
    back = register(target, source, scale=True)
    assert (
        off(back.transform, truth.inverse())[0] < SIZE and off(back.transform, truth.inverse())[1] < DEGREES
    )


def test_types_and_units_are_kept():
    source, target, truth = pair(5, 0.1)
    away = torch.tensor([4e4, -5e3, 1e4])
    found = register(source.float() + away, target.float(), scale=True, verdict=False)
    assert found.transform.scale.dtype == torch.float32 and off(found.transform, truth)[0] < SIZE
    moved = found.transform.apply(source.float() + away)
    assert (moved - truth.apply(source).float()).norm(dim=1).mean() < 0.05


@pytest.mark.parametrize(
    "options", [{"refine": None}, {"refine": "point_to_point"}, {"search": "rotations"}], ids=str
)
def test_other_ways_find_it_too(options):
    source, target, truth = pair(6, 0.2, 0.9, 350)
    found = register(source, target, scale=True, verdict=False, **options)
    size, degrees = off(found.transform, truth)
    assert size < 3 * SIZE and degrees < 3 * DEGREES


def test_a_start_has_a_size_that_is_about_right():
    source, target, truth = pair(7, 12.0, 0.8)
    turn = svdrot.axis_angle_to_matrix(torch.tensor([0.1, -0.1, 0.1], dtype=torch.float64))
    start = Transform(turn @ truth.rotation, truth.translation + 0.03, 1.04 * truth.scale)
    for init in (start, start.matrix):
        found = register(source, target, init=init, scale=True)
        size, degrees = off(found.transform, truth)
        assert size < SIZE and degrees < DEGREES and found.stages[0].name == "start"
    assert torch.allclose(found.stages[0].transform.matrix, start.matrix)


def cone(n, seed):
    """Points of an elliptic cone without its tip: larger, and moved along its axis, it is the same."""
    generator = seeded(seed)
    h = torch.sqrt(0.04 + 0.96 * torch.rand(n, generator=generator, dtype=torch.float64))
    a = 2 * math.pi * torch.rand(n, generator=generator, dtype=torch.float64)
    points = torch.stack((0.6 * h * a.cos(), 0.4 * h * a.sin(), h), 1)
    return points + 0.002 * torch.randn(n, 3, generator=generator, dtype=torch.float64)


def test_a_size_that_the_clouds_leave_open_is_not_aligned():
    x, y = cone(1500, 0), cone(1500, 1)
    still = Transform.identity(dtype=torch.float64)
    open_ = judge(x, y, still, search=False, scale=True)
    assert open_.answer == "free" and len(open_.free) == 0 and math.isinf(open_.scale_error)
    assert "size is open" in " ".join(open_.reasons)
    assert judge(x, y, still, search=False).answer == "aligned"
    found = register(x / 7, y, scale=True)
    assert not found.converged


def test_a_size_that_was_found_makes_the_pose_less_certain():
    """As an unknown more leaves less for the others: no variance falls."""
    x, y, still = potato(1500, 0), potato(1500, 1), Transform.identity(dtype=torch.float64)
    rigid, sized = (judge(x, y, still, search=False, scale=scale).covariance for scale in (False, True))
    assert torch.linalg.eigvalsh(sized - rigid)[0] > -1e-9 * torch.linalg.eigvalsh(rigid)[-1]
    assert not torch.equal(sized, rigid)


@pytest.mark.parametrize("seed", range(3))
def test_other_shapes_are_of_no_size(seed):
    u, v = (2 * torch.rand(2, 900, generator=seeded(seed), dtype=torch.float64) - 1).unbind()
    hills = torch.stack((u, v, 0.4 * torch.sin(4 * u + seed) * torch.cos(3 * v) + 0.2 * u), 1)
    assert not register(10 * potato(900, seed), hills, scale=True).converged


CLOUDS = {
    "none": torch.zeros(0, 3),
    "three": torch.eye(3),
    "point": torch.ones(30, 3),
    "nan": torch.full((30, 3), torch.nan),
    "line": torch.linspace(0, 1, 200)[:, None] * torch.ones(3),
    "plane": torch.rand(300, 3, generator=seeded()) * torch.tensor([1.0, 1, 0]),
    "noise": torch.randn(200, 3, generator=seeded()),
    "two_far_points": torch.cat((torch.rand(100, 3, generator=seeded()), torch.full((1, 3), 1e5))),
}


@pytest.mark.parametrize("init", [None, torch.diag(torch.tensor([3.0, 3, 3, 1]))], ids=("features", "init"))
@pytest.mark.parametrize("name", CLOUDS)
def test_degenerate_clouds_are_defined(name, init):
    other = potato(300, 0).float()
    for source, target in ((CLOUDS[name], other), (other, CLOUDS[name]), (CLOUDS[name], CLOUDS[name])):
        found = register(source, target, scale=True, init=init)
        assert svdrot.is_rotation(found.transform.rotation, tolerance=1e-5)
        assert found.transform.translation.isfinite().all() and 0 < found.transform.scale < math.inf
        assert 0 <= found.fitness <= 1 and (found.rmse >= 0 or math.isnan(found.rmse))
        if name in ("none", "three", "point", "nan", "line"):
            assert not found.converged
            assert found.transform.scale == (1 if init is None else 3)


def test_without_scale_there_is_none():
    source, target, _ = pair(8, 1.05)
    assert register(source, target, verdict=False).transform.scale == 1
    with pytest.raises(ValueError, match="`init` must be rigid; got a scale of 2"):
        register(source, target, init=torch.diag(torch.tensor([2.0, 2, 2, 1])))
    bad = Transform(torch.eye(3), torch.zeros(3), torch.tensor(-1.0))
    with pytest.raises(ValueError, match="`init` must have positive scales; got -1"):
        register(source, target, init=bad, scale=True)
