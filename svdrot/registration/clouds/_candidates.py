"""Poses that many pairs of points agree on, by the graph of pairs that keep their distance. In numpy.

The best connected pairs are seeds. Each, with those that agree with it and with most of its neighbors, is
reduced to a clique and fitted; fits are judged by the truncated cost of all pairs, and the best that differ
are improved.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from svdrot._kernels.cpu import clouds
from svdrot.projection import special_orthogonalize

Array = NDArray[Any]

KEEP = 16  # poses of a scale
MOST = 2000  # pairs: of more, those whose features are nearest
SEEDS, SIZE = 400, 24  # sets, and pairs of each
STEPS = 3  # of descent: fits to the pairs that agree with the fit before
FEWEST = 3


def matched(a: Array, b: Array) -> tuple[Array, Array]:
    """Rows of two tables of features of which one is the other's nearest: first those that are each other's,
    and either kind in the order of the distances.
    """
    i, j = np.arange(len(a)), np.arange(len(b))
    if not len(a) or not len(b):
        return i[:0], j[:0]
    there, near, back, near_back = clouds.nearest_both_ways(a, b)
    mutual, rest = back[there] == i, there[back] != j
    first = np.concatenate((i[mutual], i[~mutual], back[rest]))
    second = np.concatenate((there[mutual], there[~mutual], j[rest]))
    distances = np.concatenate((near[mutual], near[~mutual], near_back[rest]))
    order = np.lexsort((distances, np.arange(len(first)) >= mutual.sum()))
    return first[order], second[order]


def candidates(x: Array, y: Array, threshold: float, keep: int) -> tuple[Array, Array]:
    """At most `keep` poses (h, 3, 4) that differ, the best first, and how many pairs agree with each.

    x and y are pairs (n, 3), the best first.
    """
    x, y = x[:MOST], y[:MOST]
    if len(x) < FEWEST:
        return np.zeros((0, 3, 4)), np.zeros(0, int)
    centers = x.mean(0), y.mean(0)
    x, y = x - centers[0], y - centers[1]
    graph, degrees = clouds.agreement_graph(x, y, threshold)
    seeds = np.argsort(-degrees, kind="stable")[:SEEDS]
    members, shares = clouds.agreeing_sets(graph, seeds, SIZE)
    pairs, embed = _Pairs(x, y, threshold), _embedding(x)
    poses = fitted(_moments(x[members], y[members], shares))
    poses = poses[_distinct(embed(poses), np.argsort(pairs.costs(poses), kind="stable"), 4 * keep, threshold)]
    for _ in range(STEPS):
        agrees = pairs.agree(poses)
        enough = agrees.sum(1) >= FEWEST
        poses = np.where(enough[:, None, None], fitted(agrees @ pairs.products), poses)
    poses = poses[_distinct(embed(poses), np.argsort(pairs.costs(poses), kind="stable"), keep, threshold)]
    inliers = pairs.agree(poses).sum(1).astype(int)
    poses[:, :, 3] += centers[1] - poses[:, :, :3] @ centers[0]
    return poses, inliers


class _Pairs:
    """Hold pairs, what moments are sums of, and the rows by which all poses are tried on all pairs."""

    def __init__(self, x: Array, y: Array, threshold: float):
        self.products = _products(x, y)
        self._x = np.concatenate((x, np.ones((len(x), 1))), 1).T.astype(np.float32)  # homogeneous
        self._y, self._limit = y.T.astype(np.float32), np.float32(threshold**2)

    def costs(self, poses: Array) -> Array:
        """Means of min(|R x + t - y|², threshold²)."""
        return np.minimum(self._squares(poses), self._limit).mean(1)

    def agree(self, poses: Array) -> Array:
        """Which pairs agree with each pose, as numbers (h, n)."""
        return (self._squares(poses) < self._limit).astype(np.float64)

    def _squares(self, poses: Array) -> Array:
        total = np.zeros((len(poses), self._x.shape[1]), np.float32)
        for row in range(3):
            total += (poses[:, row].astype(np.float32) @ self._x - self._y[row]) ** 2
        return total


def _products(x: Array, y: Array) -> Array:
    """1, x, y and y xᵀ of pairs (..., n, 3), in a row of sixteen."""
    outer = (y[..., :, None] * x[..., None, :]).reshape(*x.shape[:-1], 9)
    return np.concatenate((np.ones((*x.shape[:-1], 1)), x, y, outer), -1)


def _moments(x: Array, y: Array, weights: Array) -> Array:
    return (weights[..., None, :].astype(np.float64) @ _products(x, y))[..., 0, :]


def fitted(moments: Array) -> Array:
    """The poses (h, 3, 4) of least squares, from weighted sums (h, 16) of `_products`."""
    weight = np.maximum(moments[:, :1], 1e-300)
    mean_x, mean_y = moments[:, 1:4] / weight, moments[:, 4:7] / weight
    covariance = moments[:, 7:].reshape(-1, 3, 3) / weight[..., None] - mean_y[:, :, None] * mean_x[:, None]
    rotation = special_orthogonalize(torch.from_numpy(covariance)).numpy()
    return np.concatenate((rotation, mean_y[:, :, None] - rotation @ mean_x[:, :, None]), 2)


def _embedding(x: Array):
    """Poses as points of twelve dimensions, apart by the root mean square of how far apart they take x."""
    root = np.linalg.cholesky(x.T @ x / len(x) + (1e-12 * np.square(x).sum() / len(x) + 1e-300) * np.eye(3))

    def embed(poses: Array) -> Array:
        return np.concatenate(((poses[:, :, :3] @ root).reshape(-1, 9), poses[:, :, 3]), 1)

    return embed


def _distinct(places: Array, order: Array, keep: int, threshold: float) -> Array:
    """The first `keep` of `order` that are farther than the threshold from all before."""
    chosen: list[int] = []
    apart = np.full(len(places), np.inf)
    for h in order:
        if apart[h] < threshold**2:
            continue
        chosen.append(h)
        if len(chosen) == keep:
            break
        apart = np.minimum(apart, ((places - places[h]) ** 2).sum(1))
    return np.array(chosen, int)
