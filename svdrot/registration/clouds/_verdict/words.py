"""The reasons of a verdict, each a clause in English, in numbers."""

import numpy as np

from svdrot.registration.clouds._verdict import rule
from svdrot.registration.clouds._verdict.poses import Array

TOO_FEW = "a cloud has too few points for planes through twelve neighbors, or they lie on a line"
UNITS = 20.0  # times the extent: so much larger, a cloud is in other units, or the other is a part of it
SLIDES = 0.3  # of the length of a twist, rotation vectors times the radius: with less of a turn it is a slide


def reasons(judged: rule.Judged, free: Array, center: Array, radius: float) -> list[str]:
    """Return why an answer is not "aligned".

    Args:
        judged: the answer, and what was measured.
        free: motions that change nothing (k, 6): rotation vector and velocity of the center, in the units of
            the points, of unit length if rotation vectors are multiplied by the radius.
        center: (3,), in these units.
        radius: likewise.
    """
    found, most = judged.evidence, rule.MOVED_FITS if judged.moved else rule.FITS
    told = []
    for name in judged.failed:
        if name == "fits" and np.isinf(found.misfit[0]):
            told.append("hardly a point of one cloud lies over the surface of the other")
        elif name == "fits":
            told.append(
                f"the surfaces differ by more than their own noise: the mean square of the residuals is "
                f"{found.misfit[0]:.3g} times that within each cloud, at most {most} wanted"
            )
        elif name == "covers":
            told.append(
                f"too little is common: of what determines the pose {found.cover[0]:.0%} agree, less what "
                f"contradicts, at least {rule.COVERS:.0%} wanted"
            )
        elif name == "size":
            told.append(f"the sizes differ: the source would fit best multiplied by {1 + judged.stretch:.4g}")
        elif name == "determined":
            told += motions(free, center, radius)
        elif name == "sized":
            told.append("its size is open: it grows and shrinks, and the surfaces fit as well")
        elif name == "alone":
            count = len(judged.rivals)
            told.append(f"{count} other {'pose fits' if count == 1 else 'poses fit'} as well")
    return told


def motions(free: Array, center: Array, radius: float) -> list[str]:
    """Name motions that change nothing."""
    turns = [twist for twist in free if np.linalg.norm(twist[:3]) * radius >= SLIDES]
    told = [
        f"it slides along {vector(twist[3:] / np.linalg.norm(twist[3:]))}"
        for twist in free
        if np.linalg.norm(twist[:3]) * radius < SLIDES
    ]
    if len(turns) == 3:  # about the point that they move least: v + w x (p - c) = 0
        rows = np.concatenate([_cross(twist[:3]) for twist in turns])
        offset = np.linalg.lstsq(rows, -np.concatenate([twist[3:] for twist in turns]), rcond=None)[0]
        return [*told, f"it turns about any axis through {vector(center + offset)}"]
    for twist in turns:
        w, v = twist[:3], twist[3:]
        size = np.linalg.norm(w)
        axis = w / size * np.sign(w[np.abs(w).argmax()])
        told.append(f"it turns about {vector(axis)} through {vector(center + np.cross(w, v) / size**2)}")
    return told


def _cross(w: Array) -> Array:
    return np.array([[0, -w[2], w[1]], [w[2], 0, -w[0]], [-w[1], w[0], 0]])


def vector(values: Array) -> str:
    return f"({', '.join(f'{value:.4g}' for value in values + 0.0)})"


def of_units(ratio: float) -> list[str]:
    """Say that the extents differ by so much that the units may."""
    if 1 / UNITS < ratio < UNITS:
        return []
    larger, smaller = ("target", "source") if ratio > 1 else ("source", "target")
    times = max(ratio, 1 / ratio)
    return [f"the {larger} is {times:.4g} times as large as the {smaller}: are both in one unit?"]
