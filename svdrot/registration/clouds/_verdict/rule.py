"""The five tests, in the order in which they are asked, and what follows from them."""

from dataclasses import dataclass, replace

import numpy as np

from svdrot.registration._motions import Allowed
from svdrot.registration.clouds._verdict import poses as motions
from svdrot.registration.clouds._verdict.evidence import Evidence, evidence, refuted, stretch
from svdrot.registration.clouds._verdict.poses import Array, Spread
from svdrot.registration.clouds._verdict.search import competitors, polished
from svdrot.registration.clouds._verdict.stiffness import Stiffness, stiffness
from svdrot.registration.clouds._verdict.surfaces import Both

# Each is the value at which 2,750 pairs of clouds with known truth were told apart best; what it has to be
# about follows from what it is.
FITS = 1.8  # of the misfit: 1 for two samples of one surface; scans that drift, fused, have up to 1.7
MOVED_FITS = 1.5  # likewise for a pose that the search put in the place of the one given: of many, one fits
COVERS = 0.2  # of what determines the poses of the clouds
STRETCH, STRETCH_ERRORS = 0.025, 5.0  # of the size, and standard errors: more is another size
SPREAD = 0.013  # of the size: a larger standard deviation leaves a motion open
ROUNDS = 6  # of estimates of another size
DISTINCT = 0.08  # of the size: poses that are so far apart are two
RIVAL_FITS, RIVAL_COVERS = 2.0, 0.5  # the misfit, and the cover over that of the pose found, of a rival
RIVAL_WORSE, BY_CHANCE = 1.25, 1.2  # the misfit of a rival over that of the pose found; or so much, by chance


@dataclass(frozen=True)
class Judged:
    """What the rule came to, in the units of `Both`."""

    answer: str
    failed: tuple[str, ...]  # the names of the tests that were not passed
    pose: Array  # (1, 4, 4)
    evidence: Evidence
    stiffness: Stiffness | None
    stretch: float
    stretch_error: float
    free: Array  # (6, k), twists about the origin
    rivals: Array  # (R, 4, 4)
    moved: bool  # whether the search put another pose in the place of the one given
    sized: Stiffness | None = None  # with the size as a seventh unknown, if it was one


def decide(
    both: Both,
    pose: Array,
    start: Array,
    search: bool,
    sized: bool = False,
    allowed: Allowed | None = None,
) -> Judged:
    """Judge a pose (1, 4, 4) near the end of an alignment; `start` is where free motions stay.

    `sized` says that the clouds have given their size, too; `allowed` which motions there are, if not all.
    """
    basis = None if allowed is None else allowed.basis
    poses = polished(both, polished(both, pose, 4, 1000, basis=basis), 2, basis=basis)
    found = evidence(both, poses)
    first = _tested(both, poses, found, FITS, sized, basis)
    if search and not {"determined", "sized"} & {*first.failed}:
        poses = np.concatenate((poses, competitors(both, poses, found, DISTINCT * both.size, allowed)))
        found = evidence(both, poses)
    at = _best(found)
    if at:
        chosen = polished(both, poses[at : at + 1], 2, basis=basis)
        judged = _tested(both, chosen, evidence(both, chosen), MOVED_FITS, sized, basis, moved=True)
    else:
        judged = first
    if judged.failed:
        return _held(both, judged, start, basis) if judged.free.shape[1] else judged
    distances = Spread(both.source.points)(poses, judged.pose)[:, 0]
    others = [k for k in np.flatnonzero(distances > DISTINCT * both.size) if k != at]
    rivals = [k for k in others if _is_rival(judged.evidence, found[int(k)])]
    if not rivals:
        return judged
    return replace(judged, answer="ambiguous", failed=("alone",), rivals=poses[rivals])


def _tested(
    both: Both,
    pose: Array,
    found: Evidence,
    most: float,
    sized: bool,
    basis: Array | None,
    moved: bool = False,
) -> Judged:
    """Ask the four tests that need no other pose."""
    known = stiffness(both, pose, found, allowed=basis)
    growth, error = stretch(both, pose, found)
    full = stiffness(both, pose, found, True, basis) if sized else None
    open_ = np.ones(6, bool) if known is None else known.open_(SPREAD)
    failed = [
        name
        for name, passed in (
            ("fits", found.misfit[0] <= most),
            ("covers", found.cover[0] >= COVERS and known is not None),
            ("size", not abs(growth) > max(STRETCH, STRETCH_ERRORS * error)),
        )
        if not passed
    ]
    if failed and abs(growth) > STRETCH:
        growth, fitting = _resized(both, pose, growth, basis)
        failed = [
            *[name for name in failed if name != "size"],
            *(["size"] if fitting or "size" in failed else []),
        ]
    free = np.zeros((6, 0))
    answer = "doubtful" if failed else "aligned"
    if known is not None and not failed and open_.any():
        failed, answer = ["determined"], "free"
        free = motions.unscaled(apart(known.axes[:, open_]), known.center, known.radius)
    if full is not None and answer != "doubtful" and full.open_(SPREAD).sum() > open_.sum():
        failed, answer, error = [*failed, "sized"], "free", np.inf
    none = np.zeros((0, 4, 4))
    return Judged(answer, tuple(failed), pose, found, known, growth, error, free, none, moved, full)


def _resized(both: Both, pose: Array, growth: float, basis: Array | None) -> tuple[float, bool]:
    """Return the growth of the source with which it fits best, and whether it then fits.

    The first estimate is exact near 0 only: the source grows, the pose follows, and again. What it would lead
    to far from there is no size: the first estimate stays.
    """
    first, total, grown, moved = growth, 1.0, both, pose
    for _ in range(ROUNDS):
        factor = 1 + growth
        total *= factor
        if not 0.5 < total < 2:
            break
        source = grown.source.scaled(factor)
        middle = moved[:, :3, :3] @ grown.source.points.mean(0)
        moved = moved.copy()
        moved[:, :3, 3] += (1 - factor) * middle
        grown = replace(grown, source=source, edge=max(source.edge, both.target.edge))
        moved = polished(grown, moved, 3, 1000, basis=basis)
        found = evidence(grown, moved)
        growth, _ = stretch(grown, moved, found)
        if abs(growth) < STRETCH / 10:
            fits = found.misfit[0] <= FITS and found.cover[0] >= COVERS and abs(total - 1) > STRETCH
            return total - 1, bool(fits)
    return first, False


def apart(axes: Array) -> Array:
    """Return a basis of the same motions (6, k), the slides first."""
    basis = np.linalg.qr(axes)[0]
    return basis @ np.linalg.svd(basis[:3])[2].T[:, ::-1]


def _held(both: Both, judged: Judged, start: Array, basis: Array | None) -> Judged:
    """Bring a pose with free motions back along them, to the one that fits and is nearest to the start."""
    pose = motions.along(judged.pose, start, both.source.points, judged.free)
    pose = polished(both, pose, 4, held=judged.free, basis=basis)
    found = evidence(both, pose)
    worse = not (found.misfit[0] <= max(FITS, judged.evidence.misfit[0]) and found.cover[0] >= COVERS)
    return judged if worse else replace(judged, pose=pose, evidence=found)


def _best(found: Evidence) -> int:
    """Return which of some poses fits, is refuted by no other that covers more, and covers most.

    The first, if it is among these and no other covers twice as much, or if there are none. A pose that fits
    is not given up for one that covers less: then both are told.
    """
    cover, votes = found.cover, found.votes
    good = [int(k) for k in np.flatnonzero((found.misfit <= FITS) & (cover >= COVERS))]
    left = [k for k in good if not any(cover[j] > cover[k] and refuted(votes[k], votes[j]) for j in good)]
    if not left:
        return 0
    top = max(left, key=lambda k: cover[k])
    return 0 if 0 in left and cover[0] >= RIVAL_COVERS * cover[top] else top


def _is_rival(found: Evidence, other: Evidence) -> bool:
    """Tell whether another pose explains the clouds as well; two that refute each other both do."""
    if other.cover[0] < max(RIVAL_COVERS * found.cover[0], COVERS):
        return False
    if not other.misfit[0] <= min(RIVAL_FITS, max(RIVAL_WORSE * found.misfit[0], BY_CHANCE)):
        return False
    mine, its = found.votes[0], other.votes[0]
    return not refuted(its, mine) or refuted(mine, its)
