"""Steps of many poses on the planes that a grid knows, beside the same in numpy."""

import numpy as np
import pytest
import torch

import svdrot
from svdrot._kernels.cpu import fits
from svdrot.registration.clouds._verdict import poses as motions
from svdrot.registration.clouds._verdict import search
from svdrot.registration.clouds._verdict.surfaces import Surface


@pytest.fixture(scope="module")
def clouds():
    """Points of two waves, a grid of the second, and poses from near to far away."""
    random = np.random.default_rng(0)
    x, y = random.uniform(-1, 1, (2, 1500))
    points = np.stack((x, y, 0.3 * np.sin(3 * x) + 0.2 * y * y), 1)
    surface = Surface.of(points[:900])
    grid = search.Grid(surface, surface.edge, 8 * surface.edge)
    turns = motions.turns_of(random.normal(size=(60, 3)) * np.geomspace(0.01, 3, 60)[:, None])
    begun = motions.about(
        np.zeros(3), turns, random.normal(size=(60, 3)) * np.geomspace(0.01, 30, 60)[:, None]
    )
    return points[900:], surface, grid, begun


class ByGrid(Surface):
    """A surface whose nearest points are those that a grid knows."""

    _planes: fits.Planes

    def __init__(self, surface: Surface, planes: fits.Planes):
        self.__dict__ |= {**vars(surface), "_planes": planes}

    def nearest(self, points, limit):
        c = np.floor((points.swapaxes(1, 2) - self._planes.corner[:3]) / self._planes.corner[3])
        inside = ((c >= 0) & (c < self._planes.sides)).all(2)
        i, j, k = np.moveaxis(np.where(inside[..., None], c, 0).astype(int), 2, 0)
        index = self._planes.cells[(i * self._planes.sides[1] + j) * self._planes.sides[2] + k]
        return np.maximum(index, 0), inside & (index >= 0)


def test_a_cell_knows_the_point_nearest_to_its_middle(clouds):
    _, surface, grid, _ = clouds
    corner, sides = grid.planes.corner, grid.planes.sides
    places = np.stack(np.unravel_index(np.arange(sides.prod()), sides), 1)
    middles = corner[:3] + (places + 0.5) * corner[3]
    known = grid.planes.cells >= 0
    apart = np.linalg.norm(middles[known][:, None] - surface.points, axis=2)
    assert known.sum() > 1000
    assert np.array_equal(apart.argmin(1), grid.planes.cells[known])
    assert np.array_equal(grid.planes.rows[:, 4:], surface.points)


@pytest.mark.parametrize("threads", [1, 3])
def test_steps_are_those_of_numpy(clouds, threads):
    points, surface, grid, begun = clouds
    torch.set_num_threads(threads)
    limits = surface.edge * np.array((8.0, 8.0, 5.0, 5.0))
    expected = search.refined(points, ByGrid(surface, grid.planes), begun, limits)
    found = grid.refined(points, begun, limits)
    # Rounding, over the 1e-12 of the largest eigenvalue that numpy adds where few pairs determine a step.
    assert abs(found - expected).max() < 1e-7
    assert abs(found - begun).max() > 0.1
    r = torch.from_numpy(found[:, :3, :3])
    assert abs(r @ r.mT - torch.eye(3)).max() < 1e-12


def test_a_pose_does_not_depend_on_the_others(clouds):
    points, surface, grid, begun = clouds
    limits = surface.edge * np.array((8.0, 5.0))
    together = grid.refined(points, begun, limits)
    assert all(
        np.array_equal(grid.refined(points, begun[k : k + 1], limits)[0], together[k]) for k in (0, 31, 59)
    )


def test_nothing_nearby_moves_nothing(clouds):
    points, surface, grid, _ = clouds
    shifts = np.array([[1e6, 0, -1e300], [30, 0, 0]])
    away = motions.about(np.zeros(3), np.stack((np.eye(3), np.eye(3))), shifts)
    assert np.array_equal(grid.refined(points, away, np.array([surface.edge])), away)
    assert not grid.fitting(points, away, surface.edge, 0.0).any()
    assert len(grid.refined(points, away[:0], np.array([surface.edge]))) == 0


def test_what_fits_is_near_its_plane(clouds):
    points, surface, grid, begun = clouds
    edge, noise = surface.edge, 0.01
    index, found = ByGrid(surface, grid.planes).nearest(motions.moved(begun, points), 0)
    y = motions.moved(begun, points).swapaxes(1, 2)
    planes = grid.planes.rows[index]
    height = (y * planes[..., :3]).sum(2) - planes[..., 3]
    near = found & (np.square(y - planes[..., 4:]).sum(2) < (2 * edge) ** 2)
    expected = (near * np.exp(-0.5 * (height / (0.3 * edge + noise)) ** 2)).mean(1)
    assert abs(grid.fitting(points, begun, edge, noise) - expected).max() < 1e-12
    assert grid.fitting(surface.points, np.eye(4)[None], edge, noise)[0] > 0.9


def test_the_kernel_turns_no_more_than_it_says(clouds):
    points, surface, grid, begun = clouds
    once = grid.refined(points, begun, np.array([8 * surface.edge]))
    step = torch.from_numpy((once @ motions.inverse(begun))[:, :3, :3])
    assert svdrot.matrix_to_axis_angle(step).norm(dim=1).max() < 0.4 + 1e-9
