"""Voxels, normals and covariances of neighborhoods."""

import pytest
import torch

from svdrot.registration.clouds.surfaces import (
    covariances,
    estimate_normals,
    least_direction,
    plane_covariances,
    voxel_downsample,
)
from svdrot.rotations import random_rotation


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def cloud(n=2000, seed=0):
    return torch.rand(n, 3, dtype=torch.float64, generator=generator(seed)) * 4 - 2


# Voxels.


def test_means_of_voxels():
    points, colors = cloud(), torch.rand(2000, 2, dtype=torch.float64, generator=generator(1))
    centers, means, ones = voxel_downsample(points, 0.5, colors, torch.ones(2000))
    cells = (points / 0.5).floor()
    rows, inverse = torch.unique(cells, dim=0, return_inverse=True)
    assert len(centers) == len(means) == len(rows) and means.shape[1] == 2
    assert torch.equal((centers / 0.5).floor(), rows)  # in their voxels, in lexicographic order
    assert torch.equal(ones, torch.ones(len(rows)))
    for i in (0, 17, len(rows) - 1):
        torch.testing.assert_close(centers[i], points[inverse == i].mean(0))
        torch.testing.assert_close(means[i], colors[inverse == i].mean(0))


def test_order_and_bad_points_change_nothing():
    points = cloud()
    (centers,) = voxel_downsample(points, 0.3)
    shuffled = points[torch.randperm(2000, generator=generator())]
    bad = torch.full((3, 3), torch.nan, dtype=torch.float64)
    bad[1, 0] = torch.inf
    (again,) = voxel_downsample(torch.cat((bad, shuffled, bad)), 0.3)
    torch.testing.assert_close(again, centers, rtol=1e-14, atol=1e-14)


def test_far_from_the_origin():
    """A move by whole voxels moves the result."""
    points, far = cloud(), torch.tensor([2.0**20, -(2.0**21), 2.0**20], dtype=torch.float64)
    (centers,) = voxel_downsample(points, 0.5)
    (moved,) = voxel_downsample(points + far, 0.5)
    torch.testing.assert_close(moved - far, centers, rtol=0, atol=2e-9)  # a few units of rounding of 2^21


@pytest.mark.parametrize("width", [1e17, 1e300])
def test_points_too_far_apart_for_integers(width):
    rows = [[0, 0, 0], [width, -width, width], [0.1, 0.1, 0.1], [-width, 1, 2]]
    (centers,) = voxel_downsample(torch.tensor(rows, dtype=torch.float64), 1.0)
    expected = [[-width, 1, 2], [0.05, 0.05, 0.05], [width, -width, width]]
    torch.testing.assert_close(centers, torch.tensor(expected, dtype=torch.float64))


def test_voxels_of_planes_empty_clouds_and_gradients():
    assert voxel_downsample(torch.rand(50, 2, generator=generator()), 0.5)[0].shape == (4, 2)
    assert voxel_downsample(torch.zeros(0, 3), 0.5)[0].shape == (0, 3)
    assert voxel_downsample(torch.full((4, 3), torch.nan), 0.5, torch.zeros(4, 2))[1].shape == (0, 2)
    points = cloud(30).requires_grad_()
    points.data[3] = torch.nan
    (centers,) = voxel_downsample(points, 1.0)
    (gradient,) = torch.autograd.grad(centers.sum(), points)
    assert gradient.isfinite().all() and not gradient[3].any()
    torch.testing.assert_close(gradient.sum(0), torch.full((3,), float(len(centers))).double())


# Normals and covariances.


def test_covariances_are_those_of_the_neighbors():
    points = cloud(300)
    found = covariances(points, 10)
    order = torch.cdist(points, points).argsort(1)[:, :10]
    for i in (0, 100, 299):
        near = points[order[i]]
        torch.testing.assert_close(found[i], torch.cov(near.T, correction=0))
    assert torch.equal(found, found.mT)
    far = covariances(points + 1e6, 10)
    torch.testing.assert_close(far, found, rtol=0, atol=1e-8)


def test_normals_of_a_plane_and_of_a_sphere():
    flat = cloud(500) * torch.tensor([1.0, 1.0, 0.0])
    rotation = random_rotation(dtype=torch.float64, generator=generator(3))
    normals = estimate_normals(flat @ rotation.mT + 5, 8)
    torch.testing.assert_close((normals @ rotation[:, 2]).abs(), torch.ones(500).double())
    sphere = torch.nn.functional.normalize(cloud(4000), dim=-1)
    outward = estimate_normals(10 + sphere, 12, viewpoint=torch.full((3,), 10.0).double())
    assert ((outward * sphere).sum(-1) < -0.99).all()
    assert (estimate_normals(sphere, 12).norm(dim=-1) - 1).abs().max() < 1e-14


def test_normals_turn_with_the_cloud_and_a_batch_is_its_items():
    points = torch.stack([cloud(200, seed) for seed in range(3)])
    rotation = random_rotation(3, dtype=torch.float64, generator=generator(1))
    a, b = estimate_normals(points, 9), estimate_normals(points @ rotation.mT, 9)
    assert ((a @ rotation.mT * b).sum(-1).abs() > 1 - 1e-9).all()
    assert torch.equal(a[1], estimate_normals(points[1], 9))


@pytest.mark.parametrize("scale", [1e-20, 1e-6, 1, 1e15])
def test_the_least_direction_is_the_eigenvector(scale):
    """Against eigh."""
    u = random_rotation(3000, dtype=torch.float64, generator=generator())
    s = 10 ** (-8 * torch.rand(3000, 3, dtype=torch.float64, generator=generator(1)))
    s[:500, 1] = s[:500, 2]
    s[500:600, 0] = 0
    s[600:700] = 1 + 1e-6 * s[600:700]
    matrix = scale * (u * s[:, None]) @ u.mT
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
    found = least_direction(matrix)
    gap = (values[:, 1] - values[:, 0]) / values[:, 2]
    clear = gap > 1e-5
    assert clear.sum() > 1200
    sine = torch.linalg.cross(found, vectors[..., 0]).norm(dim=-1)
    # Rounding over the gap, twice: in the eigenvalue, and in the cross product.
    assert (sine <= 64 * torch.finfo(torch.float64).eps / gap.square())[clear].all()


def test_where_there_is_no_normal():
    line = torch.linspace(0, 1, 40, dtype=torch.float64)[:, None] * torch.tensor([[1.0, 2.0, 3.0]])
    assert estimate_normals(line + 7, 5).isnan().all()
    assert estimate_normals(torch.ones(10, 3), 5).isnan().all()
    assert estimate_normals(torch.eye(3)[:2], 5).isnan().all()
    assert estimate_normals(torch.zeros(0, 3)).shape == (0, 3)
    assert covariances(torch.zeros(0, 4, 3)).shape == (0, 4, 3, 3)
    points = cloud(50)
    points[7] = torch.nan
    normals = estimate_normals(points, 6)
    assert normals[7].isnan().all() and normals.isnan().any(-1).sum() == 1
    points[0] = 100.0
    lonely = estimate_normals(points, 6, radius=4.0)
    assert lonely[0].isnan().all() and lonely[1].isfinite().all()


def test_discs():
    normal = torch.nn.functional.normalize(cloud(20), dim=-1)
    disc = plane_covariances(normal, 0.01)
    values = torch.linalg.eigvalsh(disc)
    torch.testing.assert_close(values, torch.tensor([[0.01, 1, 1]]).double().expand(20, 3))
    torch.testing.assert_close((disc @ normal[..., None])[..., 0], 0.01 * normal)


def test_refusals():
    with pytest.raises(ValueError, match="`voxel`"):
        voxel_downsample(torch.zeros(3, 3), 0.0)
    with pytest.raises(ValueError, match="`attributes`"):
        voxel_downsample(torch.zeros(3, 3), 1.0, torch.zeros(2))
    with pytest.raises(ValueError, match="`points`"):
        voxel_downsample(torch.zeros(2, 3, 3), 1.0)
    with pytest.raises(ValueError, match="`k`"):
        covariances(torch.zeros(3, 3), 2)
    with pytest.raises(ValueError, match="`radius`"):
        estimate_normals(torch.zeros(3, 3), radius=-1.0)
    with pytest.raises(ValueError, match="`points`"):
        estimate_normals(torch.zeros(3, 2))


def test_points_without_coordinates_are_refused():
    with pytest.raises(ValueError, match="`points` must have shape"):
        voxel_downsample(torch.zeros(3, 0), 1.0)
