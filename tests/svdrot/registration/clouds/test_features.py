"""Features that turn with the cloud, and their pairs."""

import pytest
import torch

import svdrot
from svdrot._kernels.cpu import clouds
from svdrot.registration.clouds._levels import Level
from svdrot.registration.clouds.features import fpfh, match
from svdrot.registration.clouds.surfaces import voxel_downsample

# Histograms sum to 100 in each of three angles; rounding moves a neighbor across a border now and then, and
# the grid of the surroundings is fixed in space: so many points may differ by more than 1.
DIFFERENT = 0.05


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def bent_sheet(n=3000, seed=0):
    """A sheet with a ridge and a bump, (n, 3), of size 2."""
    u, v = (2 * torch.rand(2, n, generator=seeded(seed), dtype=torch.float64) - 1).unbind()
    return torch.stack((u, v, 0.3 * (3 * u).sin() + 0.2 * (-8 * (u**2 + (v - 0.4) ** 2)).exp() + 0.1 * v), 1)


def test_features_stay_when_the_cloud_is_moved():
    cloud = voxel_downsample(bent_sheet(), 0.08)[0]
    first = fpfh(cloud, 0.08)
    assert first.shape == (len(cloud), 33) and (first >= 0).all() and first.sum() > 0
    for seed in range(3):
        turn = svdrot.random_rotation(generator=seeded(seed), dtype=torch.float64)
        moved = fpfh(cloud @ turn.mT + torch.tensor([5.0, -3, 10], dtype=torch.float64), 0.08)
        different = (moved - first).abs().amax(1) > 1
        assert different.double().mean() < DIFFERENT


def test_features_do_not_depend_on_the_unit():
    cloud = voxel_downsample(bent_sheet(), 0.08)[0]
    torch.testing.assert_close(fpfh(cloud * 1024, 0.08 * 1024), fpfh(cloud, 0.08))


@pytest.mark.parametrize("n", [0, 1, 2, 3, 10])
def test_few_points_have_features_or_none(n):
    found = fpfh(bent_sheet(n), 0.5)
    assert found.shape == (n, 33) and (found.isfinite().all(1) | found.isnan().all(1)).all()
    assert n > 2 or found.isnan().all()


def test_points_in_one_place_and_on_a_line_have_no_features():
    line = torch.linspace(0, 1, 50, dtype=torch.float64)[:, None] * torch.ones(3, dtype=torch.float64)
    for cloud in (line, torch.zeros(50, 3, dtype=torch.float64)):
        assert fpfh(cloud, 0.05).isnan().all()


def test_points_alone_have_no_feature_and_no_pair():
    """Nor do they change those of the others."""
    cloud = voxel_downsample(bent_sheet(), 0.08)[0]
    alone = torch.tensor([[10.0, 0, 0], [0, 10, 0], [0, 10.1, 0]], dtype=torch.float64)
    features = fpfh(torch.cat((alone, cloud)), 0.08)
    assert features[:3].isnan().all() and features[3:].isfinite().all()
    for i, _ in (match(features, features), match(features, features[3:])):
        assert (i >= 3).all() and len(i) >= len(cloud)
    assert len(match(features[:3], features)[0]) == len(match(features[:3], features[:3])[0]) == 0


@pytest.mark.open3d
def test_features_are_those_of_open3d(open3d):
    cells = clouds.fill_cells(bent_sheet(6000).numpy(), 0.06)
    level = Level.of(cells, clouds.coarser(cells, 2))
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(level.cells.points))
    cloud.normals = open3d.utility.Vector3dVector(level.normals)
    around = open3d.geometry.KDTreeSearchParamHybrid(5 * 0.06, 100)
    expected = open3d.pipelines.registration.compute_fpfh_feature(cloud, around).data.T
    # Bins are counted, in steps of 100 / 99 at least: one that differs would show.
    assert abs(level.features - expected).max() < 1e-9


def test_pairs_are_nearest_from_either_side():
    x = torch.randn(200, 33, generator=seeded(), dtype=torch.float64)
    y = torch.randn(150, 33, generator=seeded(1), dtype=torch.float64)
    distances = torch.cdist(x, y)
    expected = torch.zeros(200, 150, dtype=torch.bool)
    expected[torch.arange(200), distances.argmin(1)] = True
    expected[distances.argmin(0), torch.arange(150)] = True
    i, j = match(x, y)
    assert torch.equal(torch.stack((i, j), 1), expected.nonzero())
    back_j, back_i = match(y, x)
    assert set(zip(i.tolist(), j.tolist(), strict=True)) == set(
        zip(back_i.tolist(), back_j.tolist(), strict=True)
    )


def test_no_features_have_no_pairs():
    for n, m in ((0, 5), (5, 0), (0, 0)):
        i, j = match(torch.zeros(n, 33), torch.zeros(m, 33))
        assert len(i) == len(j) == 0


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="`points` must have shape"):
        fpfh(torch.zeros(5, 2), 0.1)
    with pytest.raises(ValueError, match="`voxel` must be"):
        fpfh(torch.zeros(5, 3), 0.0)
    with pytest.raises(TypeError, match="`points` must be floating point"):
        fpfh(torch.zeros(5, 3, dtype=torch.long), 0.1)
