"""Two clouds, thinned to one density, and the planes through the neighbors of each of their points."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from svdrot.registration.clouds._verdict.poses import Array
from svdrot.registration.clouds.neighbors import Neighbors
from svdrot.registration.clouds.surfaces import least_direction

K = 12  # neighbors of a plane: thirteen points with the one in the middle
MOST = 2500  # points of a thinned cloud: the verdict takes the same time for every cloud
SOME = 40 * MOST  # points at which larger clouds are looked at: enough for as many voxels
FEWEST = 40  # points of a thinned cloud: fewer have two or three independent planes
FLOOR = 0.05  # of the edge of the square per point: the least standard deviation, for clouds without noise
BORDER = 0.7  # of that edge: a point farther from the middle of its neighbors is where the surface ends
BLOCKS = 40  # patches of a cloud
FAR = 1000.0  # median distances from the middle: beyond are fill values, not points
LONELY = 2.2  # medians of the mean distance of eight neighbors: farther are single points beside the surface
TABLE = 2**24  # bytes, of the tables of voxels: more voxels are sorted
SAME = 1e-6  # of the extent: nearer points are one

Ints, Bools = NDArray[np.int64], NDArray[np.bool_]


@dataclass(frozen=True)
class Points:
    """Points of a thinned cloud (N, 3), and what is known around each of them, (N,)."""

    points: Array
    sigma: Array  # standard deviation of a point from a plane it is not part of
    own: Array  # distance from such a plane, in sigmas: what the heights above the other cloud must look like
    border: Bools  # whether the surface ends there
    blocks: Ints  # the patch
    leverage: Array  # share in what determines the pose, mean 1

    def some(self, count: int) -> "Points":
        """Keep about `count` of them, evenly."""
        kept = slice(None, None, max(1, round(len(self.points) / count)))
        return Points(
            self.points[kept],
            self.sigma[kept],
            self.own[kept],
            self.border[kept],
            self.blocks[kept],
            self.leverage[kept],
        )


@dataclass(frozen=True)
class Surface(Points):
    """Add the planes, (4, N): unit normals, and the heights along them of the middles of the neighbors."""

    rows: Array  # (7, N): the planes, then the points: what is wanted of a neighbor in one place
    tree: Neighbors
    edge: float  # of the square per point

    @property
    def planes(self) -> Array:
        return self.rows[:4]

    @classmethod
    def of(cls, points: Array) -> "Surface":
        tree = Neighbors(torch.from_numpy(points))
        distances, near = query(tree, points, K + 2)
        edge = float(np.sqrt(np.pi * np.median(distances[:, 8]) ** 2 / 8))
        normals, middles = _planes(points[near[:, : K + 1]])
        # The plane of the nearest other point, fitted without this one: as the other cloud's points see it.
        other = near[:, 1]
        there = near[other]
        without = there != np.arange(len(points))[:, None]
        used = without & (np.cumsum(without, 1) <= K + 1)
        seen, at = _planes(points[there], used)
        residual = np.abs(((points - at) * seen).sum(1))
        sigma = np.maximum(np.quantile(residual[near[:, : K + 1]], 0.8, axis=1) / 1.28, FLOOR * edge)
        aside = middles - points
        aside -= (aside * normals).sum(1, keepdims=True) * normals
        return cls(
            points,
            sigma,
            residual / np.maximum(sigma, sigma[other]),
            np.linalg.norm(aside, axis=1) > BORDER * edge,
            _blocks(points),
            _leverage(points, normals),
            np.concatenate((normals.T, (normals * middles).sum(1)[None], points.T)),
            tree,
            edge,
        )

    def scaled(self, factor: float) -> "Surface":
        """Return the surface of all points multiplied by a factor."""
        points = factor * self.points
        rows = self.rows.copy()
        rows[3:] *= factor
        tree = Neighbors(torch.from_numpy(points))
        return replace(
            self, points=points, rows=rows, sigma=factor * self.sigma, tree=tree, edge=factor * self.edge
        )

    def nearest(self, points: Array, limit: float) -> tuple[Ints, Bools]:
        """Return which point is nearest to each of (B, 3, N), and whether there is one within a distance."""
        flat = np.ascontiguousarray(points.swapaxes(1, 2)).reshape(-1, 3)
        index = query(self.tree, flat, 1, limit)[1].reshape(len(points), points.shape[2])
        found = index < len(self.points)
        return np.where(found, index, 0), found


@dataclass(frozen=True)
class Both:
    """Both clouds, thinned to one density, single points beside the surfaces left out."""

    source: Surface
    target: Surface
    edge: float  # of the square per point, the longer
    size: float  # diagonal of the smaller

    @classmethod
    def of(cls, source: Array, target: Array) -> "Both | None":
        """Make them ready; None if a cloud has too few points, or they lie on a line."""
        random = np.random.default_rng(0)
        clouds = [_looked_at(cloud, random) for cloud in (source, target)]
        if min(map(len, clouds)) < FEWEST:
            return None
        clouds, spacings = zip(*(_without_lonely(cloud) for cloud in clouds), strict=True)
        # Within less than twice the distance of neighbors even one surface has other points.
        edge = max(*(2 * spacing for spacing in spacings), *(voxel_size(cloud, MOST) for cloud in clouds))
        clouds = [_thinned(cloud, edge, random) for cloud in clouds]
        if min(map(len, clouds)) < FEWEST:
            return None
        a, b = (Surface.of(cloud) for cloud in clouds)
        edge = max(a.edge, b.edge)
        if any(_on_a_line(cloud, edge) for cloud in clouds):
            return None
        return cls(a, b, edge, min(float(np.linalg.norm(np.ptp(cloud, axis=0))) for cloud in clouds))


def middle_of(points: Array) -> Array:
    """Return the medians of the coordinates, (3,)."""
    return np.median(np.ascontiguousarray(points.T), 1)


def query(tree: Neighbors, points: Array, k: int, limit: float | None = None) -> tuple[Array, Ints]:
    distances, indices = tree.query(torch.from_numpy(points), k, limit)
    return distances.numpy(), indices.numpy()


def _looked_at(points: Array, random: np.random.Generator) -> Array:
    """Return at most about four times `MOST` points, evenly over the surface, no two in one place."""
    if not len(points):
        return points
    if len(points) > SOME:
        points = points[random.permutation(len(points))[:SOME]]
    far = np.linalg.norm(points - middle_of(points), axis=1)
    near = far <= FAR * np.median(far)
    points = points if near.all() else points[near]
    edge = voxel_size(points, 4 * MOST) if len(points) > 8 * MOST else 0.0
    edge = max(edge, SAME * float(_columns(points).max()))
    return _thinned(points, edge, random) if edge > 0 else points[:1]


def _without_lonely(points: Array) -> tuple[Array, float]:
    """Leave out points whose eight neighbors are much farther than usual, unless these are many.

    The second is the median distance of a point to the next.
    """
    distances = query(Neighbors(torch.from_numpy(points)), points, 9)[0][:, 1:]
    far = distances.mean(1)
    kept = far <= LONELY * np.median(far)
    if kept.mean() <= 0.5:
        kept = np.ones(len(points), bool)
    return points[kept], float(np.median(distances[kept, 0]))


def _columns(points: Array) -> Array:
    """Return the coordinates from the lowest on, (3, N): numpy is several times faster along rows."""
    columns = np.ascontiguousarray(points.T)
    columns -= columns.min(1, keepdims=True)
    return columns


def _cells(columns: Array, edge: float) -> tuple[Ints, int]:
    """Return a number for the voxel of each of `_columns`, and of how many voxels these numbers are."""
    c = (columns / edge).astype(np.int64)
    sides = [int(side) + 1 for side in c.max(1)]
    return (c[0] * sides[1] + c[1]) * sides[2] + c[2], math.prod(sides)


def _filled(columns: Array, edge: float) -> int:
    cells, most = _cells(columns, edge)
    if most > TABLE:
        return len(np.unique(cells))
    seen = np.zeros(most, bool)
    seen[cells] = True
    return int(np.count_nonzero(seen))


def voxel_size(points: Array, most: int) -> float:
    """Return the edge of the voxels of which a cloud fills about `most`; 0 if it has no more points."""
    if len(points) <= most:
        return 0.0
    columns = _columns(points)
    edge = float(np.linalg.norm(columns.max(1))) / most**0.5
    for _ in range(8):
        ratio = (_filled(columns, edge) / most) ** 0.5
        edge *= ratio  # exact for surfaces
        if abs(ratio - 1) < 0.02:
            break
    return edge


def _thinned(points: Array, edge: float, random: np.random.Generator) -> Array:
    """Return one of the points of each voxel, as it is: a mean would have less noise."""
    points = points[random.permutation(len(points))]
    cells, most = _cells(_columns(points), edge)
    if 8 * most > TABLE:
        return points[np.sort(np.unique(cells, return_index=True)[1])]
    # Of several that are written to one place the last stays: backwards, that is the first.
    first = np.empty(most, np.int64)
    numbers = np.arange(len(points))
    first[cells[::-1]] = numbers[::-1]
    return points[first[cells] == numbers]


def _planes(hoods: Array, used: Bools | None = None) -> tuple[Array, Array]:
    """Return unit normals and middles (N, 3) of sets of points (N, k, 3)."""
    if used is None:
        middles = hoods.mean(1)
        d = hoods - middles[:, None]
    else:
        middles = (hoods * used[..., None]).sum(1) / used.sum(1)[:, None]
        d = (hoods - middles[:, None]) * used[..., None]
    covariance = d.swapaxes(1, 2) @ d
    normals = least_direction(torch.from_numpy(covariance)).numpy()
    lines = np.isnan(normals).any(1)
    if lines.any():  # any direction across a line is least
        normals[lines] = np.linalg.eigh(covariance[lines])[1][..., 0]
    return normals, middles


def _blocks(points: Array) -> Ints:
    """Return which of patches of about equal extent each point is in."""
    first, far = points[0], np.full(len(points), np.inf)
    found = np.zeros(len(points), np.int64)
    for k in range(min(BLOCKS, len(points))):
        d = points - first
        distance = (d * d).sum(1)
        nearer = distance < far
        found[nearer], far[nearer] = k, distance[nearer]
        first = points[far.argmax()]
    return found


def _leverage(points: Array, normals: Array) -> Array:
    """Return the share of each point in the fit of a pose: the many of a large wall say the same thing."""
    y = points - points.mean(0)
    j = np.concatenate((np.cross(y, normals) / np.sqrt((y * y).sum(1).mean()), normals), 1)
    h = j.T @ j / len(j)
    h += 0.01 * np.trace(h) / 6 * np.eye(6)
    lever = (j @ np.linalg.inv(h) * j).sum(1)
    return lever / lever.mean()


def _on_a_line(points: Array, edge: float) -> bool:
    """Tell whether a cloud is thinner than the distance of its points, in two directions."""
    width = np.linalg.svd(points - points.mean(0), compute_uv=False)[1] / len(points) ** 0.5
    return bool(width < 0.5 * edge)
