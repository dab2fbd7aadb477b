"""Which small motions the pairs of two surfaces hold, and how firmly, noise apart."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import block_diag, eigh

from svdrot._kernels.cpu.loops.icp_steps import OBSERVABLE
from svdrot.registration.clouds._verdict import poses as motions
from svdrot.registration.clouds._verdict.evidence import Evidence
from svdrot.registration.clouds._verdict.poses import Array
from svdrot.registration.clouds._verdict.surfaces import Bools, Both, K

STRICT = 3.0  # standard errors, of motions beside one that is open
FEWEST = 20  # pairs
TELLING = 0.8  # a share, up to which standard errors tell noise from what holds


@dataclass(frozen=True)
class Stiffness:
    """What the pairs say of small motions about a center: (radius times rotation vector, translation).

    Attributes:
        center: middle of the pairs in the frame of the target, (3,).
        radius: their root mean square distance from it.
        axes: unit columns (6, k), from the least determined on; k is 6 if all motions are allowed.
        stiff: plain stiffness along each, (k,).
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
        """Return the standard deviation of the pose along each axis over the size, (k,).

        That is with so many standard errors less of the share than was found.
        """
        least = self.stiff * np.maximum(self.share - errors * self.error, 0)
        return self.noise / np.sqrt(self.pairs * np.maximum(least, 1e-9)) / self.size

    def covariance(self, open_: Bools, misfit: float) -> Array:
        """Return the covariance (6, 6) of these unknowns, along axes that are not open alone.

        The variance of a residual is that of the clouds' own noise, as many times as the misfit says.
        """
        determined = ~open_
        kept = self.axes[:, determined] / np.sqrt(self.stiff[determined])
        share = np.maximum(self.share[determined], 1e-9)
        return misfit * self.noise**2 / self.pairs * (kept / share) @ kept.T

    def held_by_noise(self, most: float, errors: float) -> Bools:
        """Return which axes only noise may hold, (k,).

        These are open, and their share is within so many standard errors of 0; or nothing holds them at all.
        Of few pairs, of whose share that could be nearly the whole, the first is not known.
        """
        firm = self.stiff * self.share
        known = errors * self.error <= TELLING
        noisy = self.open_(most) & (self.share <= errors * self.error) & known
        return noisy | (firm <= OBSERVABLE * firm.max())

    def agreed(self, open_: Bools) -> Array:
        """Return the normal matrix (6, 6) that both clouds agree on, 0 along axes that are open.

        The axes a are orthogonal to each other by the plain matrix M: with the dual vectors d = M a / s, of
        stiffness s and share c, M is the sum of s d dᵀ, what is agreed on that of c s d dᵀ, and without some
        terms their axes are its null space. The unit is the trace of the slides in M.
        """
        dual = np.linalg.pinv(self.axes).T
        kept = np.where(open_, 0, np.maximum(self.share, 0))
        unit = self.stiff @ np.square(dual[3:]).sum(0)
        return (dual * (kept * self.stiff / unit)) @ dual.T

    def open_(self, most: float) -> Bools:
        """Return which axes are left open: with more than a spread, (k,).

        Where one is, the surface is of a kind that leaves more of them, and the others are held to more.
        """
        found = ~(self.spread() <= most)
        return ~(self.spread(STRICT) <= most) if found.any() else found

    def scaled(self, twists: Array) -> Array:
        return motions.scaled(twists, self.center, self.radius)


def stiffness(
    both: Both, pose: Array, found: Evidence, sized: bool = False, allowed: Array | None = None
) -> Stiffness | None:
    """Return what the source's points that agree with the target say at a pose; None if there are too few.

    Points at borders, whose neighbors lie to one side in both clouds, are left out.

    Args:
        both: the clouds.
        pose: (1, 4, 4).
        found: the evidence there.
        sized: whether the size was found by the same pairs: a seventh unknown, the growth times the radius.
        allowed: orthonormal columns (6, k), the motions of these unknowns that there are. Default: all.
    """
    a, b, side = both.source, both.target, found.there
    index = side.index[0]
    used = side.agrees[0] & ~a.border & ~b.border[index]
    if used.sum() < FEWEST:
        return None
    y = motions.moved(pose, a.points[used])[0]
    of_a, of_b = pose[0, :3, :3] @ a.planes[:3, used], b.planes[:3, index[used]]
    noise = float(np.sqrt(np.mean(a.sigma[used] ** 2)))
    return of_pairs(y, of_a, of_b, K + 1, both.size, noise, sized, allowed)


def of_pairs(
    y: Array,
    of_a: Array,
    of_b: Array,
    hood: int,
    size: float,
    noise: float,
    sized: bool = False,
    allowed: Array | None = None,
) -> Stiffness:
    """Return the information of pairs without what noise of the normals adds to it.

    The row of a pair has the normal n + e, and the mean of its square is that of n plus one of e: a wall with
    noise looks stiff along itself. The normals of both clouds at one place have independent e, and the mean
    of the product of their rows has none of it: nothing needs to be subtracted, nor to be known of e. Along
    each axis the share of the plain stiffness is 0 where all is noise, up to an error of as many independent
    normals as there are neighborhoods.

    Args:
        y: the points, (3, N).
        of_a: unit normals there, of one cloud, (3, N).
        of_b: likewise of the other; signs mean nothing.
        hood: points by which a normal was estimated.
        size: of the smaller cloud.
        noise: root mean square of the standard deviations.
        sized: as of `stiffness`.
        allowed: likewise.
    """
    count = y.shape[1]
    center = y.mean(1)
    y = (y - center[:, None])[None]
    radius = np.sqrt((y * y).sum(1).mean(1))
    of_a = of_a * np.where((of_a * of_b).sum(0) < 0, -1, 1)
    ja, jb = (motions.rows(y, normals[None], radius)[0] for normals in (of_a, of_b))
    basis = np.eye(6) if allowed is None else allowed
    if sized:
        ja, jb = (np.concatenate((j, (y[0] * n).sum(0)[None] / radius)) for j, n in ((ja, of_a), (jb, of_b)))
        basis = block_diag(basis, 1.0)
    h = ja @ jb.T / count
    h = (h + h.T) / 2
    metric = (ja @ ja.T + jb @ jb.T) / (2 * count) + 1e-9 * np.eye(len(h))
    share, axes = eigh(basis.T @ h @ basis, basis.T @ metric @ basis)
    axes = basis @ (axes / np.linalg.norm(axes, axis=0))
    error = float(np.sqrt(hood / count))
    stiff = (axes * (metric @ axes)).sum(0)
    return Stiffness(center, float(radius[0]), axes, stiff, size, share, error, count, noise)
