"""Better poses nearby, and other poses that fit: the batches of steps that a verdict spends its time with."""

from itertools import permutations, product

import numpy as np

from svdrot._kernels.cpu import fits
from svdrot._kernels.cpu.loops.fits import DAMPING, MOST
from svdrot.registration._motions import Allowed
from svdrot.registration.clouds._verdict import poses as motions
from svdrot.registration.clouds._verdict.evidence import TANGENT, Evidence, evidence, refuted
from svdrot.registration.clouds._verdict.poses import Array, Spread
from svdrot.registration.clouds._verdict.surfaces import Both, Ints, Points, Surface, query

TUKEY = 4.7  # standard deviations, beyond which a residual has no weight: 95 % efficient on Gaussian noise
SOFTEST = 0.3  # edges: what counts as one standard deviation for weights, at least
# Starts, in the principal axes of the source: turns, and shifts in shares of the extent.
ANGLES = (45, 60, 90, 120)
SHIFTS = (-0.45, -0.3, -0.15, 0.15, 0.3, 0.45)
ASIDE = 0.02  # of the points, outside of what is taken for the box about a cloud
CORNERS = [*product((0, 1), repeat=3), (2, 2, 2)]  # of boxes, and middles
# Of the search, coarse to fine: points, distances of pairs in edges, and how many poses go on.
FIRST, FIRST_LIMITS, FIRST_KEPT = 80, (8, 8, 8, 5, 5), 60
SECOND, SECOND_LIMITS, SECOND_KEPT = 200, (5, 3, 3, 3), 20
THIRD, THIRD_LIMITS = 300, (3, 3, 2, 2)
LAST, LAST_STEPS = 500, 4
KEPT = 8  # poses that are judged
SEARCHED = 0.05  # of the size: nearer poses are one, while they are refined
HOPEFUL = 0.4  # of the best: less cover is no rival
CELLS = 32_000  # of the grid


def polished(
    both: Both,
    poses: Array,
    steps: int,
    count: int | None = None,
    held: Array | None = None,
    basis: Array | None = None,
) -> Array:
    """Take steps with the pairs of both clouds that lie over the other's surface, not at its border.

    Each pair has Tukey's weight of its height in standard deviations.

    Args:
        both: the clouds.
        poses: (B, 4, 4).
        steps: how many.
        count: of points of each cloud, or None for all.
        held: twists (6, k) in the frame of the target, (rotation vector about the origin, translation), along
            which nothing is moved.
        basis: of the motions that there are, as of `poses.step`.
    """
    a, b = both.source, both.target
    p, q = (a, b) if count is None else (a.some(count), b.some(count))
    for _ in range(steps):
        back = motions.inverse(poses)
        ways = [_pairs(p, b, poses, both.edge), _pairs(q, a, back, both.edge)]
        # Those of the target's points in its own frame: the source's planes are turned there.
        y, n, height, w = ways[1]
        y = np.broadcast_to(q.points.T, y.shape)
        ways[1] = y, poses[:, :3, :3] @ n, -height, w
        y, n, rest, w = (np.concatenate(parts, -1) for parts in zip(*ways, strict=True))
        poses = motions.step(poses, y, n, rest, w, 1e-4, 0.2, held, basis)
    return poses


def _pairs(a: Points, b: Surface, poses: Array, edge: float) -> tuple[Array, Array, Array, Array]:
    """Return the moved points, the normals beneath them, their heights, and weights."""
    y = motions.moved(poses, a.points)
    index, found = b.nearest(y, 6 * edge)
    planes, d = _planes(b, y, index)
    height = y[:, 0] * planes[0] + y[:, 1] * planes[1] + y[:, 2] * planes[2] - planes[3]
    up = d[0] * planes[0] + d[1] * planes[1] + d[2] * planes[2]
    along = d[0] * d[0] + d[1] * d[1] + d[2] * d[2] - up * up
    sigma = np.maximum(a.sigma, b.sigma[index])
    z = np.abs(height) / (TUKEY * np.maximum(sigma, SOFTEST * edge))
    w = (1 - np.minimum(z, 1) ** 2) ** 2 / sigma**2
    w = np.where(found & (along <= (TANGENT * edge) ** 2) & ~b.border[index], w, 0)
    return y, np.moveaxis(planes[:3], 0, 1), height, w


def _planes(surface: Surface, y: Array, index: Ints) -> tuple[Array, list[Array]]:
    """Return planes (4, B, N) of some of a surface's points, and the differences to them by coordinate."""
    found = np.take(surface.rows, index, 1)
    return found[:4], [y[:, i] - found[4 + i] for i in range(3)]


class Grid:
    """Know a point of a surface near each place: the nearest to the middle of the place's cell.

    Steps from far away need no nearer one, and find it without a search.
    """

    def __init__(self, surface: Surface, edge: float, limit: float):
        points = surface.points
        low = points.min(0) - limit
        extent = points.max(0) + limit - low
        side = max(1.5 * edge, float(np.prod(extent) / CELLS) ** (1 / 3))
        sides = np.ceil(extent / side).astype(np.int64)
        axes = [(np.arange(n) + 0.5) * side + at for n, at in zip(sides, low, strict=True)]
        middles = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        index = query(surface.tree, middles, 1, limit + side)[1].ravel()
        index[index == len(points)] = -1
        self.planes = fits.Planes(np.ascontiguousarray(surface.rows.T), index, np.r_[low, side], sides)

    def refined(self, points: Array, poses: Array, limits: Array) -> Array:
        """Do as `refined`, of all poses at once, with the partners that the grid knows."""
        found = np.ascontiguousarray(poses[:, :3])
        fits.refine_poses(np.ascontiguousarray(points), self.planes, found, limits)
        return np.concatenate((found, poses[:, 3:]), 1)

    def fitting(self, points: Array, poses: Array, edge: float, noise: float) -> Array:
        """Return about which share of some points lies near the planes, at each pose."""
        at = np.ascontiguousarray(poses[:, :3])
        return fits.fit_poses(np.ascontiguousarray(points), self.planes, at, 2 * edge, 0.3 * edge + noise)


def refined(points: Array, surface: Surface, poses: Array, limits: Array) -> Array:
    """Take point-to-plane steps of a batch of poses of one cloud on a surface.

    Args:
        points: (N, 3), of the cloud.
        surface: what it is laid on.
        poses: (B, 4, 4), where each begins.
        limits: for each step, how far a point may be from its partner, in the units of the points; the weight
            of a pair falls with the square of its distance, to 0 there.

    Returns:
        The poses (B, 4, 4) after the last step.
    """
    for limit in limits:
        y = motions.moved(poses, points)
        index, found = surface.nearest(y, limit)
        planes, d = _planes(surface, y, index)
        square = (d[0] * d[0] + d[1] * d[1] + d[2] * d[2]) / limit**2
        w = np.where(found, np.maximum(1 - square, 0), 0)
        height = y[:, 0] * planes[0] + y[:, 1] * planes[1] + y[:, 2] * planes[2] - planes[3]
        poses = motions.step(poses, y, np.moveaxis(planes[:3], 0, 1), height, w, DAMPING, MOST)
    return poses


def competitors(
    both: Both, pose: Array, found: Evidence, distinct: float, allowed: Allowed | None = None
) -> Array:
    """Return other poses that fit best, at most `KEPT`, `distinct` apart.

    Args:
        both: the clouds.
        pose: (1, 4, 4), with which they compete.
        found: the evidence there.
        distinct: the least distance of two poses, as `Spread` has it.
        allowed: what keeps poses to the motions that there are; None if these are all.
    """
    a, b, edge = both.source, both.target, both.edge
    apart, taken = Spread(a.points), pose
    near = SEARCHED * both.size
    noise = float(np.median(np.concatenate((a.sigma, b.sigma))))
    grid = Grid(b, edge, 8 * edge)
    first, second, third = (a.some(count).points for count in (FIRST, SECOND, THIRD))
    begun = starts(both, pose, found)
    begun = begun if allowed is None else allowed.nearest(begun)
    poses = grid.refined(first, begun, edge * np.array(FIRST_LIMITS, float))
    least = 0.0
    for kept, limits in ((FIRST_KEPT, SECOND_LIMITS), (SECOND_KEPT, ())):
        fit = grid.fitting(second, np.concatenate((taken, poses)), edge, noise)
        order = np.argsort(-fit[1:], kind="stable")
        order = order[fit[1:][order] >= least * fit.max()]
        poses = _distinct(poses[order], taken, apart, near, kept)
        poses = grid.refined(second, poses, edge * np.array(limits, float))
        least = HOPEFUL
    if not len(poses):
        return poses
    poses = refined(third, b, poses, edge * np.array(THIRD_LIMITS))
    cover = evidence(both, poses, THIRD).cover
    poses = poses[cover >= HOPEFUL * max(cover.max(), found.cover[0])]
    if not len(poses):
        return poses
    if allowed is None:
        poses = polished(both, poses, LAST_STEPS, LAST)
    else:
        poses = polished(both, allowed.nearest(poses), 2 * LAST_STEPS, LAST, basis=allowed.basis)
    last = evidence(both, poses, LAST)
    # First those that the pose found does not refute: where many fit nearly, these are the rivals.
    worse = np.array([refuted(votes, found.votes[0]) for votes in last.votes])
    return _distinct(poses[np.lexsort((-last.cover, worse))], taken, apart, distinct, KEPT)


def starts(both: Both, pose: Array, found: Evidence) -> Array:
    """Return the pose turned about the middle of the agreement, onto the target's middle, and shifted."""
    at = motions.moved(pose, both.source.points)[0].T
    agrees = found.there.agrees[0]
    center = at[agrees].mean(0) if agrees.sum() > 10 else at.mean(0)
    frame = _principal_axes(at)
    turns = frame @ TURNS @ frame.T
    middle = both.target.points.mean(0)
    extent = np.ptp((at - center) @ frame, axis=0)
    shifts = np.array([s * e * axis for axis, e in zip(frame.T, extent, strict=True) for s in SHIFTS])
    half = [np.eye(3), *(2 * np.outer(axis, axis) - np.eye(3) for axis in frame.T)]
    begun = [motions.about(center, turns), motions.about(at.mean(0), turns, middle - at.mean(0))]
    begun += [motions.about(center, np.repeat(h[None], len(shifts), 0), shifts) for h in half]
    begun.append(_boxes(at, both.target.points, frame))
    return np.concatenate(begun) @ pose


def _boxes(source: Array, target: Array, frame: Array) -> Array:
    """Return the motions that lay the box about the source on that about the target, corner on corner.

    A wall that is cut has another middle, but the corner of a room is where it was.
    """
    axes = _principal_axes(target)
    turns = axes @ CUBE @ frame.T
    low, high = np.quantile(target @ axes, (ASIDE, 1 - ASIDE), axis=0)
    boxes = np.quantile(np.einsum("gij,ik,nj->gkn", turns, axes, source), (ASIDE, 1 - ASIDE), axis=2)
    moves = np.stack((low - boxes[0], high - boxes[1], (low + high - boxes[0] - boxes[1]) / 2))
    shifts = np.stack([moves[corner, :, range(3)] for corner in CORNERS])  # (corners, 3, turns)
    shifts = np.einsum("ik,ckg->cgi", axes, shifts).reshape(-1, 3)
    return motions.about(np.zeros(3), np.tile(turns, (len(CORNERS), 1, 1)), shifts)


def _principal_axes(points: Array) -> Array:
    """Return a rotation (3, 3), with the axes in its columns."""
    axes = np.linalg.svd(points - points.mean(0), full_matrices=False)[2].T
    axes[:, 2] *= np.sign(np.linalg.det(axes))
    return axes


def _turns() -> Array:
    """Return the rotations of the icosahedron but the identity, and others about the axes."""
    golden = (1 + 5**0.5) / 2

    def turn(axis: tuple[float, float, float] | Array, angle: float) -> Array:
        unit = np.array(axis, float) / np.linalg.norm(axis)
        return motions.turns_of(np.radians(angle) * unit[None])[0]

    generators = turn((0, 1, golden), 72), turn((1, 1, 1), 120), turn((1, 0, 0), 180)
    found = [np.eye(3)]
    for g in found:
        for h in generators:
            if all(np.abs(h @ g - x).max() > 1e-6 for x in found):
                found.append(h @ g)
    more = [turn(axis, s * angle) for axis in np.eye(3) for s in (1, -1) for angle in ANGLES]
    return np.array(found[1:] + more)


def _cube() -> Array:
    """Return the rotations that change axes into axes, (24, 3, 3)."""
    signed = [
        np.diag(signs)[list(order)]
        for order in permutations(range(3))
        for signs in product((1, -1), repeat=3)
    ]
    return np.array([turn for turn in signed if np.linalg.det(turn) > 0], float)


TURNS, CUBE = _turns(), _cube()


def _distinct(poses: Array, taken: Array, apart: Spread, distance: float, count: int) -> Array:
    """Return the first poses that are so far from those taken and from each other."""
    free = (apart(poses, taken) > distance).all(1)
    between = apart(poses, poses)
    kept: list[int] = []
    for k in np.flatnonzero(free):
        if len(kept) < count and (between[k, kept] > distance).all():
            kept.append(int(k))
    return poses[kept]
