"""Cells, what is around a point, matches, agreement and poses, beside all pairs."""

import numpy as np
import pytest
import torch

import svdrot
from svdrot._kernels.cpu import clouds
from svdrot._kernels.cpu.loops import sweeps
from svdrot.registration import estimate_normals, voxel_downsample
from svdrot.registration.clouds import _candidates
from svdrot.registration.clouds._levels import Level, inverse

RNG = np.random.default_rng(0)
EPS = np.finfo(float).eps


def surface(n: int, seed: int = 0) -> np.ndarray:
    """Points of a curved sheet, a wall across it, which makes tall columns, and a few far away."""
    rng = np.random.default_rng(seed)
    u, v = rng.uniform(-1, 1, (2, n))
    sheet = np.stack((u, v, 0.3 * np.sin(3 * u) + 0.2 * v * v), 1)
    sheet[: n // 3, 2] = rng.uniform(0, 2, n // 3)
    sheet[: n // 3, 0] = 0.2
    return np.concatenate((sheet, [[40.0, -3, 7], [-20, 0.1, 0]]))


def apart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.square(x[:, None] - y).sum(-1)


@pytest.mark.parametrize("edge", [0.03, 0.1, 0.7, 100.0])
def test_cells_are_voxels(edge):
    points = surface(5000)
    cells = clouds.fill_cells(points, edge)
    means, counts = voxel_downsample(torch.from_numpy(points), edge, torch.ones(len(points)).double())
    assert np.array_equal(cells.points, means.numpy()) and (np.diff(cells.keys) > 0).all()
    assert cells.counts.sum() == len(points) and len(counts) == len(cells.counts)
    assert clouds.count_cells(points, edge, 10**5) == len(cells.points)
    assert clouds.count_cells(points, edge, 3) == min(3, len(cells.points))


def test_coarser_cells_are_those_of_all_points():
    points = surface(3000)
    coarse = clouds.coarser(clouds.fill_cells(points, 0.05), 4)
    direct = clouds.fill_cells(points, 0.2)
    assert np.array_equal(coarse.counts, direct.counts)
    # Sums in another order, of numbers up to 40.
    assert abs(coarse.points - direct.points).max() < 40 * 32 * EPS


def test_cells_that_integers_do_not_reach():
    far = np.array([[0.0, 0, 0], [1e30, 1e30, 1e30]])
    assert clouds.fill_cells(far, 1e-3) is None and clouds.count_cells(far, 1e-3, 7) == 7


@pytest.mark.parametrize("radius", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("most", [1, 7, 100])
def test_what_is_around_a_point(radius, most):
    points = surface(1500)
    cells = clouds.fill_cells(points, 0.08)
    found = clouds.find_around(cells, radius, most)
    squares = apart(cells.points, cells.points)
    np.fill_diagonal(squares, np.inf)
    within = (squares <= (radius * 0.08) ** 2).sum(1)
    assert np.array_equal(found.numbers, np.minimum(within, most))
    for p, count in enumerate(found.numbers):
        got = squares[p, found.places[p, :count]]
        assert np.array_equal(np.sort(got), np.sort(squares[p])[:count])
        np.testing.assert_allclose(found.squares[p, :count], got, rtol=8 * EPS)


def test_more_neighbors_than_are_held_at_a_time():
    points = np.concatenate((surface(50), RNG.normal(size=(3 * sweeps.CAPACITY, 3)) * 0.01))
    cells, order = clouds.sort_into_cells(points, 0.1)
    assert np.array_equal(cells.points, points[order])
    found = clouds.find_around(cells, 5.0, 9)
    for p in range(0, len(points), 500):
        squares = np.square(cells.points - cells.points[p]).sum(1)
        squares[p] = np.inf
        if np.sort(squares)[8] > 0.25:  # far away
            continue
        np.testing.assert_allclose(np.sort(found.squares[p]), np.sort(squares)[:9], rtol=8 * EPS)


def test_normals_are_those_of_surfaces():
    cells = clouds.fill_cells(surface(4000), 0.06)
    got = clouds.fit_planes(cells.points, clouds.find_around(cells, 2.0, 29))
    expected = estimate_normals(torch.from_numpy(cells.points), 30, 0.12).numpy()
    assert np.array_equal(np.isnan(got[:, 0]), np.isnan(expected[:, 0]))
    # Where two directions vary alike there is no normal; equally far neighbors may be others.
    assert np.nanquantile(abs((got * expected).sum(1)), 0.02) > 1 - 1e-6


@pytest.mark.parametrize(("n", "m", "d"), [(1, 1, 33), (200, 150, 33), (9, 1000, 5), (1000, 17, 33)])
def test_matches_are_nearest_from_both_sides(n, m, d):
    a, b = RNG.normal(size=(n, d)) + 100, RNG.normal(size=(m, d)) + 100
    there, near, back, near_back = clouds.nearest_both_ways(a, b)
    squares = apart(a, b) / 2
    # Of numbers about the mean, float32; products of d + 2 terms.
    tolerance = 4 * (d + 2) * np.finfo(np.float32).eps * squares.max()
    for places, least, table in ((there, near, squares), (back, near_back, squares.T)):
        assert abs(least - table.min(1)).max() < tolerance
        assert (table[np.arange(len(table)), places] - table.min(1)).max() < tolerance


def test_mutual_matches_come_first():
    a, b = RNG.normal(size=(300, 33)), RNG.normal(size=(200, 33))
    squares = apart(a, b)
    i, j = _candidates.matched(a, b)
    mutual = (squares[i].argmin(1) == j) & (squares[:, j].argmin(0) == i)
    assert (np.diff(mutual.astype(int)) <= 0).all()
    expected = {
        *zip(range(300), squares.argmin(1), strict=True),
        *zip(squares.argmin(0), range(200), strict=True),
    }
    assert {*zip(i, j, strict=True)} == expected and len(i) == len(expected)
    for some in (mutual, ~mutual):
        assert (np.diff(squares[i[some], j[some]]) > -1e-3).all()


def planted(n: int, right: int):
    """Pairs of which the first few agree with one rotation, and it."""
    turn = svdrot.random_rotation(generator=torch.Generator().manual_seed(1), dtype=torch.float64).numpy()
    x, y = RNG.uniform(-1, 1, (2, n, 3))
    y[:right] = x[:right] @ turn.T + [0.3, 0.1, -2] + 0.01 * RNG.normal(size=(right, 3))
    return x, y, turn


@pytest.mark.parametrize("n", [3, 64, 65, 700])
def test_the_graph_of_pairs_that_keep_their_distance(n):
    x, y, _ = planted(n, n // 3)
    graph, degrees = clouds.agreement_graph(x, y, 0.1)
    bits = np.unpackbits(graph.view(np.uint8), axis=1, bitorder="little")[:, :n].astype(bool)
    a, b = np.sqrt(apart(x, x)), np.sqrt(apart(y, y))
    clear = abs(abs(a - b) - 0.1) > 1e-5  # of float32
    expected = (abs(a - b) < 0.1) & (a + b > 0.1)
    np.fill_diagonal(clear, True)
    assert np.array_equal(bits & clear, expected & clear) and not bits.diagonal().any()
    assert np.array_equal(degrees, bits.sum(1))


@pytest.mark.parametrize("right", [12, 40])
def test_poses_that_pairs_agree_on(right):
    x, y, turn = planted(600, right)
    order = RNG.permutation(600)
    poses, inliers = _candidates.candidates(x[order], y[order], 0.05, keep=4)
    assert np.degrees(np.arccos((np.trace(poses[0, :, :3].T @ turn) - 1) / 2)) < 2
    assert right * 0.8 <= inliers[0] <= right + 3 and (np.diff(inliers) <= 2).all()


def test_sets_that_are_smaller_than_asked_for():
    x, y, _ = planted(5, 0)
    graph, _ = clouds.agreement_graph(x, y, 1e-9)
    members, shares = clouds.agreeing_sets(graph, np.arange(5), 24)
    assert (members == np.arange(5)[:, None]).all() and (shares[:, 1:] == 0).all()


@pytest.mark.parametrize("edge", [0.05, 0.2])
def test_heights_over_the_nearest_planes(edge):
    cells, _ = clouds.sort_into_cells(surface(2000), edge)
    level = Level.of(cells)
    points = surface(500, seed=3)
    pose = np.concatenate((np.eye(3), [[0.01], [-0.02], [0.03]]), 1)[None]
    got = level.measure(points, pose, 1.5 * edge)[0]
    squares = apart(points + pose[0, :, 3], level.cells.points)
    nearest, near = squares.argmin(1), squares.min(1) < (1.5 * edge) ** 2
    expected = ((points + pose[0, :, 3] - level.cells.points[nearest]) * level.normals[nearest]).sum(1)
    assert np.array_equal(np.isfinite(got), near)
    assert abs(got[near] - expected[near]).max() < 1e-12


def test_poses_are_aligned_each_for_itself():
    level = Level.of(clouds.fill_cells(surface(8000), 0.05))
    points = level.cells.points[::3]
    angles = np.array([0.0, 0.02, -0.03, 3.0])
    poses = np.zeros((4, 3, 4))
    poses[:, 2, 2] = 1
    poses[:, 0, 0] = poses[:, 1, 1] = np.cos(angles)
    poses[:, 1, 0], poses[:, 0, 1] = np.sin(angles), -np.sin(angles)
    poses[1, :, 3] = 0.02
    before = poses.copy()
    found = level.align(points, poses, 0.07, 30)
    assert np.array_equal(poses, before)
    identity = np.concatenate((np.eye(3), np.zeros((3, 1))), 1)
    assert abs(found[:3] - identity).max() < 1e-6
    for k in range(4):
        assert np.array_equal(found[k], level.align(points, poses[k : k + 1], 0.07, 30)[0])
    there = np.concatenate((found, np.broadcast_to([[[0.0, 0, 0, 1]]], (4, 1, 4))), 1)
    assert np.allclose(inverse(found), np.linalg.inv(there)[:, :3])
