"""What two surfaces say at a pose: where they agree and contradict, and which motions they leave open."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

from svdrot.registration.clouds._verdict import poses as motions
from svdrot.registration.clouds._verdict.poses import Array
from svdrot.registration.clouds._verdict.surfaces import BLOCKS, Bools, Both, Ints, K, Points, Surface

# In edges: a point is over a surface if it is so far from its nearest point along it, and across it.
TANGENT, HEIGHT = 1.2, 4.0
AGREES = 3.0  # standard deviations
CUT = 4.0  # standard deviations, beyond which a residual counts no more
SOFT = 0.25  # added to both mean squares, so that clouds without noise of their own have a finite ratio
STRICT = 3.0  # standard errors, of motions beside one that is open
FEWEST = 20  # points over the other surface, or pairs
PATCH, PATCH_POINTS = 0.4, 6  # share of a patch, of so many points, that contradicts one pose only
WORSE = 2.5  # standard errors by which one pose contradicts more


@dataclass(frozen=True)
class Side:
    """Points of one cloud beside the surface of the other, at poses: arrays (B, N)."""

    height: Array  # signed, above the plane of the nearest point
    sigma: Array
    z: Array  # heights in standard deviations
    over: Bools  # above or below the surface, near enough to be of it or to contradict it
    agrees: Bools
    index: Ints  # of the nearest point of the other

    def some(self, poses: slice) -> "Side":
        return Side(
            self.height[poses],
            self.sigma[poses],
            self.z[poses],
            self.over[poses],
            self.agrees[poses],
            self.index[poses],
        )

    @property
    def vote(self) -> Array:
        return self.agrees.astype(float) - (self.over & ~self.agrees)


def beside(a: Points, b: Surface, poses: Array, edge: float) -> Side:
    """Lay the points of one cloud beside the surface of another."""
    moved = motions.moved(poses, a.points)
    reach = max(HEIGHT * edge, 2 * AGREES * max(a.sigma.max(), b.sigma.max()))
    index, found = b.nearest(moved, 1.5 * reach + TANGENT * edge)
    planes, near = b.planes[:, index], b.points.T[:, index]
    x, y, z = (moved[:, i] for i in range(3))
    height = x * planes[0] + y * planes[1] + z * planes[2] - planes[3]
    dx, dy, dz = x - near[0], y - near[1], z - near[2]
    up = dx * planes[0] + dy * planes[1] + dz * planes[2]
    along = dx * dx + dy * dy + dz * dz - up * up
    sigma = np.maximum(a.sigma, b.sigma[index])
    size = np.abs(height)
    over = found & (along <= (TANGENT * edge) ** 2)
    over &= size <= np.maximum(HEIGHT * edge, 2 * AGREES * sigma)
    agrees = over & (size <= AGREES * sigma)
    # Beyond its border a surface is not known to go on: there it can only agree.
    return Side(height, sigma, size / sigma, agrees | (over & ~b.border[index]), agrees, index)


@dataclass(frozen=True)
class Evidence:
    """What can be said of each of a batch of poses.

    Attributes:
        there: points of the source beside the target.
        back: points of the target beside the source.
        misfit: mean square of the residuals to the other cloud over that within each cloud, (B,), infinite
            where too few points lie over the other surface. Two samples of one surface are exchangeable: it
            is about 1 whatever noise, density, curvature and unit.
        cover: mean vote of the points of both, weighted by leverage, (B,): 1 where all agree; points that
            contradict count against it.
        votes: (B, 4, patches): sums of leverage times vote, points, points over the other surface, and of
            them those that contradict.
    """

    there: Side
    back: Side
    misfit: Array
    cover: Array
    votes: Array

    def __getitem__(self, k: int) -> "Evidence":
        one = slice(k, k + 1)
        return Evidence(
            self.there.some(one), self.back.some(one), self.misfit[one], self.cover[one], self.votes[one]
        )


def evidence(both: Both, poses: Array, count: int | None = None) -> Evidence:
    """Collect it, by about `count` points of each cloud, or by all."""
    a, b = both.source, both.target
    p, q = (a, b) if count is None else (a.some(count), b.some(count))
    there = beside(p, b, poses, both.edge)
    back = beside(q, a, motions.inverse(poses), both.edge)
    total, square, own, cover, votes = 0, 0.0, 0.0, 0.0, []
    for side, points in ((there, p), (back, q)):
        total = total + side.over.sum(1)
        square = square + (np.minimum(side.z, CUT) ** 2 * side.over).sum(1)
        own = own + side.over @ np.minimum(points.own, CUT) ** 2
        cover = cover + side.vote @ points.leverage
        # By patches: the number of a point's patch, from those of the pose before on.
        places = (points.blocks + BLOCKS * np.arange(len(poses))[:, None]).ravel()
        for weight in (
            points.leverage * side.vote,
            np.ones_like(side.z),
            side.over,
            side.over & ~side.agrees,
        ):
            votes.append(np.bincount(places, weight.ravel(), BLOCKS * len(poses)).reshape(-1, BLOCKS))
    enough = total >= FEWEST
    total = np.maximum(total, 1)
    misfit = np.where(enough, (square / total + SOFT) / (own / total + SOFT), np.inf)
    by_patch = np.stack([np.concatenate((votes[k], votes[k + 4]), 1) for k in range(4)], 1)
    return Evidence(there, back, misfit, cover / (len(p.points) + len(q.points)), by_patch)


def refuted(rival: Array, found: Array) -> bool:
    """Tell whether a rival leaves off the surface what the pose found has on it, of `Evidence.votes`.

    That is much of two patches, or a larger share of all points, in standard errors of two equal shares. How
    much a pose covers refutes nothing: none is better because it overlaps more.
    """
    lost = rival[3] / np.maximum(rival[1], 1) - found[3] / np.maximum(found[1], 1)
    if ((rival[3] >= PATCH_POINTS) & (lost > PATCH)).sum() >= 2:
        return True
    m, n = (max(votes[2].sum(), 1) for votes in (rival, found))
    p, q = rival[3].sum(), found[3].sum()
    error = np.sqrt((p + q + 1) / (m + n) * (1 / m + 1 / n))
    return bool(p / m - q / n >= WORSE * error)


def stretch(both: Both, pose: Array, found: Evidence) -> tuple[float, float]:
    """Return by how much of itself the source would have to grow to fit best, and the standard error.

    That is a seventh unknown of the fit: residuals of a wrong size are no noise, they grow with the distance
    from the middle. A plane through neighbors lies inside a round surface, so that either cloud looks too
    large beside the other: half the difference of both ways has none of that. 0 and infinity if there are
    too few pairs.
    """
    ways = []
    for a, b, p, side in (
        (both.source, both.target, pose, found.there),
        (both.target, both.source, motions.inverse(pose), found.back),
    ):
        used = side.over[0] & (side.z[0] < 2 * AGREES) & ~b.border[side.index[0]]
        if used.sum() < FEWEST:
            return 0.0, np.inf
        y = motions.moved(p, a.points[used])
        n = b.planes[None, :3, side.index[0][used]]
        y = y - y.mean(2, keepdims=True)
        radius = np.sqrt((y * y).sum(1).mean(1))
        j = np.concatenate((motions.rows(y, n, radius), (y * n).sum(1, keepdims=True)), 1)[0]
        w = (1 - (side.z[0][used] / (2 * AGREES)) ** 2) ** 2 / side.sigma[0][used] ** 2
        h = (j * w) @ j.T
        inverse = np.linalg.inv(h + 1e-6 * np.trace(h) / 7 * np.eye(7))
        ways.append((-(inverse @ (j @ (w * side.height[0][used])))[6], inverse[6, 6]))
    (s, u), (t, v) = ways
    return float(s - t) / 2, float(np.sqrt(u + v)) / 2


@dataclass(frozen=True)
class Stiffness:
    """What the pairs say of small motions about a center: (radius times rotation vector, translation).

    Attributes:
        center: middle of the pairs in the frame of the target, (3,).
        radius: their root mean square distance from it.
        axes: unit columns (6, 6), from the least determined on.
        stiff: plain stiffness along each, (6,).
        size: of the smaller cloud.
        share: of the plain stiffness along each the part that both clouds agree on.
        error: standard error of that.
        pairs: how many.
        noise: root mean square of their standard deviations.
    """

    center: Array
    radius: float
    axes: Array
    stiff: Array
    size: float
    share: Array
    error: float
    pairs: int
    noise: float

    def spread(self, errors: float = 1.0) -> Array:
        """Return the standard deviation of the pose along each axis over the size, (6,).

        That is with so many standard errors less of the share than was found.
        """
        least = self.stiff * np.maximum(self.share - errors * self.error, 0)
        return self.noise / np.sqrt(self.pairs * np.maximum(least, 1e-9)) / self.size

    def covariance(self, most: float, misfit: float) -> Array:
        """Return the covariance (6, 6) of these unknowns, along axes with no more than a spread alone.

        The variance of a residual is that of the clouds' own noise, as many times as the misfit says.
        """
        determined = ~self.open_(most)
        kept = self.axes[:, determined] / np.sqrt(self.stiff[determined])
        share = np.maximum(self.share[determined], 1e-9)
        return misfit * self.noise**2 / self.pairs * (kept / share) @ kept.T

    def open_(self, most: float) -> Bools:
        """Return which axes are left open: with more than a spread, (6,).

        Where one is, the surface is of a kind that leaves more of them, and the others are held to more.
        """
        found = ~(self.spread() <= most)
        return ~(self.spread(STRICT) <= most) if found.any() else found

    def scaled(self, twists: Array) -> Array:
        return motions.scaled(twists, self.center, self.radius)


def stiffness(both: Both, pose: Array, found: Evidence, sized: bool = False) -> Stiffness | None:
    """Return the information of the pairs without what noise of the normals adds to it.

    The row of a pair has the normal n + e, and the mean of its square is that of n plus one of e: a wall with
    noise looks stiff along itself. The normals of both clouds at one place have independent e, and the mean
    of the product of their rows has none of it: nothing needs to be subtracted, nor to be known of e. Along
    each axis the share of the plain stiffness is 0 where all is noise, up to an error of as many independent
    normals as there are neighborhoods. Points at borders, whose neighbors lie to one side in both clouds, are
    left out. None if there are too few pairs.

    If the size was found by the same pairs it is a seventh unknown, the growth times the radius.
    """
    a, b, side = both.source, both.target, found.there
    index = side.index[0]
    used = side.agrees[0] & ~a.border & ~b.border[index]
    count = int(used.sum())
    if count < FEWEST:
        return None
    y = motions.moved(pose, a.points[used])
    center = y.mean(2)
    y = y - center[..., None]
    radius = np.sqrt((y * y).sum(1).mean(1))
    of_a = (pose[0, :3, :3] @ a.planes[:3, used])[None]
    of_b = b.planes[None, :3, index[used]]
    of_a = of_a * np.where((of_a * of_b).sum(1, keepdims=True) < 0, -1, 1)
    ja, jb = motions.rows(y, of_a, radius)[0], motions.rows(y, of_b, radius)[0]
    if sized:
        ja, jb = (np.concatenate((j, (y * n).sum(1) / radius)) for j, n in ((ja, of_a), (jb, of_b)))
    h = ja @ jb.T / count
    h = (h + h.T) / 2
    metric = (ja @ ja.T + jb @ jb.T) / (2 * count) + 1e-9 * np.eye(len(h))
    share, axes = eigh(h, metric)
    axes = axes / np.linalg.norm(axes, axis=0)
    error = float(np.sqrt((K + 1) / count))
    stiff = (axes * (metric @ axes)).sum(0)
    noise = float(np.sqrt(np.mean(a.sigma[used] ** 2)))
    return Stiffness(center[0], float(radius[0]), axes, stiff, both.size, share, error, count, noise)
