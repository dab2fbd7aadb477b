"""Rigid motions as arrays (B, 4, 4), and points that they move, (B, 3, N): one row for each coordinate."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

HELD = 1e6  # over the mean eigenvalue of a normal matrix: along what is held a step is a millionth
STEPS = 10  # of Newton's method, towards the nearest pose


def moved(poses: Array, points: Array) -> Array:
    """Return the images (B, 3, N) of points (N, 3)."""
    return poses[:, :3, :3] @ points.T + poses[:, :3, 3:]


def inverse(poses: Array) -> Array:
    found = np.zeros_like(poses)
    found[:, :3, :3] = turned = poses[:, :3, :3].swapaxes(1, 2)
    found[:, :3, 3:] = -turned @ poses[:, :3, 3:]
    found[:, 3, 3] = 1
    return found


def about(center: Array, turns: Array, shifts: Array | float = 0.0) -> Array:
    """Return rotations (B, 3, 3) about a center (3,) or centers (B, 3), followed by shifts (B, 3)."""
    found = np.zeros((len(turns), 4, 4))
    found[:, :3, :3] = turns
    found[:, :3, 3] = center - (turns @ np.broadcast_to(center, (len(turns), 3))[..., None])[..., 0] + shifts
    found[:, 3, 3] = 1
    return found


def turns_of(vectors: Array) -> Array:
    """Return the rotations (B, 3, 3) of rotation vectors (B, 3), in radians."""
    angle = np.linalg.norm(vectors, axis=1)[:, None, None]
    k = cross_matrix(vectors)
    # (1 - cos a) / a^2 = sin(a / 2)^2 / (2 (a / 2)^2), which is exact for small angles as well.
    half = np.sinc(angle / (2 * np.pi))
    return np.eye(3) + np.sinc(angle / np.pi) * k + half * half / 2 * (k @ k)


def cross_matrix(vectors: Array) -> Array:
    k = np.zeros((len(vectors), 3, 3))
    k[:, 2, 1], k[:, 0, 2], k[:, 1, 0] = vectors.T
    return k - k.swapaxes(1, 2)


class Spread:
    """Measure how far apart poses are: the root mean square distance of a cloud's points at both.

    With the points' mean m and second moment L L' about it, that is the distance of the vectors
    (R L, R m + t), so that of many poses all distances are those of points.
    """

    def __init__(self, points: Array):
        self._mean = points.mean(0)
        _, s, vh = np.linalg.svd(points - self._mean, full_matrices=False)
        self._root = vh.T * s / len(points) ** 0.5

    def __call__(self, first: Array, second: Array) -> Array:
        """Return the distances (A, B) of poses (A, 4, 4) and (B, 4, 4)."""
        a, b = self._places(first), self._places(second)
        square = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T
        return np.sqrt(np.maximum(square, 0))

    def _places(self, poses: Array) -> Array:
        r = poses[:, :3, :3]
        centers = (r @ self._mean[:, None])[..., 0] + poses[:, :3, 3]
        return np.concatenate(((r @ self._root).reshape(len(poses), 9), centers), 1)


def step(
    poses: Array,
    y: Array,
    n: Array,
    rest: Array,
    w: Array,
    damping: float,
    most: float,
    held: Array | None = None,
    basis: Array | None = None,
) -> Array:
    """Take one point-to-plane step of a batch of poses, each about the center of its pairs.

    Args:
        poses: (B, 4, 4).
        y: the moved points (B, 3, N).
        n: (B, 3, N), unit normals of the planes they belong to.
        rest: (B, N), signed heights of the points above those planes.
        w: (B, N), weights.
        damping: of the normal matrix, over its mean eigenvalue.
        most: radians that a step turns at most.
        held: twists (6, k) about the origin along which nothing is moved; none if None.
        basis: orthonormal columns (6, k) of what there is of (radius times rotation vector, translation of
            the center); None if that is all.

    Returns:
        The poses after the step, (B, 4, 4).
    """
    total = np.maximum(w.sum(1), 1e-30)
    center = (y @ w[..., None])[..., 0] / total[:, None]
    y = y - center[..., None]
    radius = np.sqrt((w * (y * y).sum(1)).sum(1) / total) + 1e-12
    j = rows(y, n, radius)
    weighted = j * (w / total[:, None])[:, None]
    h = weighted @ j.swapaxes(1, 2)
    g = -(weighted @ rest[..., None])
    scale = np.trace(h, axis1=1, axis2=2)[:, None, None] / 6
    h = h + (damping * scale + 1e-12) * np.eye(6)
    if held is not None:
        h = h + HELD * scale * np.array([_projector(held, c, r) for c, r in zip(center, radius, strict=True)])
    if basis is None:
        found = np.linalg.solve(h, g)[..., 0]
    else:
        found = np.linalg.solve(basis.T @ h @ basis, basis.T @ g)[..., 0] @ basis.T
    turn = found[:, :3] / radius[:, None]
    turn *= np.minimum(1, most / np.maximum(np.linalg.norm(turn, axis=1), 1e-12))[:, None]
    return about(center, turns_of(turn), found[:, 3:]) @ poses


def _projector(twists: Array, center: Array, radius: float) -> Array:
    """Return the projection (6, 6) on twists, of the unknowns (radius times rotation vector, translation)."""
    basis = np.linalg.qr(scaled(twists, center, radius))[0]
    return basis @ basis.T


def scaled(twists: Array, center: Array, radius: float) -> Array:
    """Change twists (6, k) about the origin to (radius times rotation vector, velocity of a center)."""
    w, v = twists[:3], twists[3:]
    return np.concatenate((radius * w, v + np.cross(w.T, center).T))


def unscaled(axes: Array, center: Array, radius: float) -> Array:
    """Do the opposite of `scaled`."""
    w = axes[:3] / radius
    return np.concatenate((w, axes[3:] - np.cross(w.T, center).T))


def screw(twist: Array) -> Array:
    """Return the motion (1, 4, 4) of a twist (6,) about the origin: a turn about an axis, a slide along."""
    w, v = twist[:3], twist[3:]
    square = w @ w
    if square < 1e-18:
        return about(np.zeros(3), np.eye(3)[None], v[None])
    return about(np.cross(w, v) / square, turns_of(w[None]), (w @ v / square * w)[None])


def along(pose: Array, start: Array, points: Array, twists: Array) -> Array:
    """Move a pose along twists (6, k) to where it brings points (N, 3) nearest to their place at a start."""
    goal = moved(start, points)[0]
    for _ in range(STEPS):
        y = moved(pose, points)[0]
        w, v = twists[:3].T, twists[3:].T
        j = np.cross(w[:, None], y.T[None]) + v[:, None]
        found = np.linalg.lstsq(j.reshape(len(w), -1).T, (goal - y).T.ravel(), rcond=None)[0]
        pose = screw(twists @ found) @ pose
    return pose


def rows(y: Array, n: Array, radius: Array) -> Array:
    """Return the rows (B, 6, N) of point-to-plane residuals: (y x n / radius, n), y from the center."""
    j = np.empty((len(y), 6, y.shape[2]))
    for i in range(3):
        p, q = (i + 1) % 3, (i + 2) % 3
        np.multiply(y[:, p], n[:, q], out=j[:, i])
        j[:, i] -= y[:, q] * n[:, p]
    j[:, :3] /= radius[:, None, None]
    j[:, 3:] = n
    return j
