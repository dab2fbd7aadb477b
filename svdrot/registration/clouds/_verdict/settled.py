"""What ICP asks of the verdict: whether noise alone holds a pose, and how exact it is."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from svdrot.registration.clouds._verdict import poses as motions
from svdrot.registration.clouds._verdict.evidence import evidence
from svdrot.registration.clouds._verdict.poses import Array
from svdrot.registration.clouds._verdict.rule import SPREAD, apart
from svdrot.registration.clouds._verdict.stiffness import Stiffness, of_pairs, stiffness
from svdrot.registration.clouds._verdict.surfaces import Both
from svdrot.registration.clouds._verdict.units import Units
from svdrot.registration.clouds.neighbors import Neighbors
from svdrot.registration.clouds.surfaces import Planes, planes
from svdrot.transform import Transform

LOOKED_AT = 2000  # points of the source, or up to twice as many
FEWEST = 20  # pairs
AGREES = 3 * 1.4826  # medians of the heights, three standard deviations of Gaussian ones
EPS = 1e-12  # of the distance of pairs: what copies of points are off by
ERRORS = 2.5  # standard errors, within which stiffness may be that of noise alone


@dataclass(frozen=True)
class Reach:
    """Say which pairs ICP makes, and which motions it may find.

    Attributes:
        distance: of paired points at most.
        neighbors: points by which a normal is estimated.
        basis: orthonormal columns (6, k) of the motions that there are, or None if these are all.
        flat: whether the clouds are of a plane.
    """

    distance: float
    neighbors: int
    basis: Array | None
    flat: bool = False


@dataclass(frozen=True)
class Settled:
    """Hold a pose that is not moved along what is open, and what holds it.

    Attributes:
        transform: brought back along the open motions to where it lies nearest to the start.
        matrix: the normal matrix (6, 6) for (`radius` times the rotation vector about `center`, translation)
            that both clouds agree on, 0 along open motions, over the trace of the slides in the plain one.
        center: middle of the pairs in the frame of the target, (3,).
        radius: their root mean square distance from there.
        open_: whether any motion is.
    """

    transform: Transform
    matrix: Tensor
    center: Tensor
    radius: float
    open_: bool


def settled(
    source: Tensor,
    target: Tensor,
    ours: Planes | None,
    theirs: Planes,
    found: Transform,
    start: Transform,
    reach: Reach,
) -> Settled | None:
    """Look at the end of an alignment; None where too few points lie on a surface of the other cloud.

    Args:
        source: shape (N, 3), float64.
        target: shape (M, 3), likewise.
        ours: planes of the source, if they are known.
        theirs: planes of the target.
        found: where ICP ended.
        start: where it began.
        reach: of its pairs.
    """
    at = torch.arange(0, len(source), max(1, len(source) // LOOKED_AT), device=source.device)
    moved = found.apply(source[at])
    distances, index = Neighbors(target).query(moved, 1, reach.distance)
    paired = distances.isfinite()
    at, index, moved = at[paired], index[paired], moved[paired]
    if len(at) < FEWEST:
        return None
    if ours is None:
        ours = planes(Neighbors(source), reach.neighbors, at, flat=reach.flat)
    else:
        ours = Planes(ours.normals[at], ours.border[at], ours.ripple)
    normals = ours.normals @ found.rotation.mT, theirs.normals[index]
    height = ((moved - target[index]) * normals[1]).sum(1).abs()
    used = ~ours.border & ~theirs.border[index] & height.isfinite() & normals[0].isfinite().all(1)
    if used.sum() < FEWEST:
        return None
    used &= height <= AGREES * height[used].median() + EPS * reach.distance
    y, of_a, of_b = (x[used].T.cpu().numpy() for x in (moved, *normals))
    size, noise = _diagonal(source, target), height[used].square().mean().sqrt().item()
    known = of_pairs(y, of_a, of_b, reach.neighbors, size, noise, allowed=reach.basis)
    open_ = known.held_by_noise(SPREAD, ERRORS)
    pose = _pose(found)
    if open_.any():
        free = motions.unscaled(apart(known.axes[:, open_]), known.center, known.radius)
        pose = motions.along(pose, _pose(start), source[at].cpu().numpy(), free)
    matrix, center, rotation, shift = (
        torch.from_numpy(x).to(source.device)
        for x in (known.agreed(open_), known.center, pose[0, :3, :3], pose[0, :3, 3])
    )
    return Settled(Transform(rotation, shift, found.scale), matrix, center, known.radius, bool(open_.any()))


def _diagonal(*clouds: Tensor) -> float:
    return min((cloud.amax(0) - cloud.amin(0)).norm().item() for cloud in clouds)


def _pose(transform: Transform) -> Array:
    return transform.matrix.cpu().numpy()[None]


def exactness(
    source: Tensor, target: Tensor, found: Transform, allowed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the covariance (6, 6), its center (3,) and a radius, float64; NaN where `settled` is None."""
    basis = None if allowed is None else basis_of(allowed)
    here = _Pairs.of(source, target, found, basis) if found.matrix.isfinite().all() else None
    if here is None:
        nan = torch.full((6, 6), torch.nan, dtype=torch.float64, device=source.device)
        return nan, nan[0, :3], nan[0, 0]
    known, units = here.known, here.units
    radius = known.radius * units.length
    unit = np.r_[np.full(3, 1 / radius), np.ones(3)] * units.length
    covariance = known.covariance(known.held_by_noise(SPREAD, ERRORS), here.misfit) * unit[:, None] * unit
    back = units.back
    return back(torch.from_numpy(covariance)), here.center, back(torch.tensor(radius, device="cpu"))


@dataclass(frozen=True)
class _Pairs:
    """Hold the pairs of two clouds of one density at a pose (1, 4, 4)."""

    units: Units
    known: Stiffness
    misfit: float

    @classmethod
    def of(cls, source: Tensor, target: Tensor, found: Transform, basis: Array | None) -> "_Pairs | None":
        units = Units.of(source, target, found)
        both = None if units.length == 0 else Both.of(units.source, units.target)
        if both is None:
            return None
        pose = units.inward(found)
        seen = evidence(both, pose)
        known = stiffness(both, pose, seen, allowed=basis)
        return None if known is None else cls(units, known, float(seen.misfit[0]))

    @property
    def center(self) -> Tensor:
        return self.units.back(
            torch.from_numpy(self.known.center * self.units.length + self.units.middles[1])
        )


def basis_of(projector: Tensor) -> Array:
    """Return orthonormal columns (6, k) of what a projector (6, 6) keeps."""
    values, vectors = np.linalg.eigh(projector.cpu().numpy())
    return vectors[:, values > 0.5]
