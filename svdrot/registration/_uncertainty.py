"""How exact a pose is: covariances of small motions, and errors in units of them.

A small motion x -> x + w x (x - c) + v in the frame of the target is the twist (w, v), the rotation vector in
radians. The estimate followed by the twist is the true pose.
"""

import torch
from torch import Tensor

from svdrot._vectors import image, product
from svdrot.representations import matrix_to_axis_angle
from svdrot.transform import Transform

EPS = 1e-12  # of the largest variance or eigenvalue: that of a motion which is fixed is 0 up to rounding


def covariance_of(matrix: Tensor, radius: Tensor, variance: Tensor, least: float = EPS) -> Tensor:
    """Return the covariance (..., 6, 6) of twists from a normal matrix, 0 where that is.

    Args:
        matrix: of (radius times w, v), all lengths, shape (..., 6, 6).
        radius: shape (...).
        variance: of a residual, shape (...); NaN makes all NaN.
        least: of the largest eigenvalue, of a motion that is held.
    """
    values, vectors = torch.linalg.eigh(torch.where(matrix.isfinite(), matrix, 0))
    held = values > least * values[..., -1:]
    inverse = torch.where(held, 1 / torch.where(held, values, 1), 0)
    unit = units_of(1 / radius)
    found = product(vectors * inverse[..., None, :], vectors.mT)
    return variance[..., None, None] * unit[..., :, None] * found * unit[..., None, :]


def units_of(radius: Tensor) -> Tensor:
    """Return what makes lengths of the six numbers of twists, shape (..., 6)."""
    return torch.cat((radius[..., None].expand(*radius.shape, 3), radius.new_ones(*radius.shape, 3)), -1)


def normalized_error(
    covariance: Tensor, center: Tensor, radius: Tensor, found: Transform, other: Transform
) -> Tensor:
    """Return the root of twist' C⁻¹ twist from one pose to another, shape (...), by what C is not 0 along.

    NaN where C is 0: of an exact fit, or where no motion is held, nothing is known of errors.

    Args:
        covariance: C, shape (..., 6, 6), float64.
        center: c, about which the twists turn, shape (..., 3).
        radius: a length that makes rotations and translations comparable, shape (...).
        found: the pose whose covariance it is. Of what scales differ by, where the center goes counts.
        other: likewise.
    """
    own, there = (
        Transform(t.rotation.double(), t.translation.double(), t.scale.double()) for t in (found, other)
    )
    step = there @ own.inverse()
    shift = step.apply(center[..., None, :])[..., 0, :] - center
    known = covariance.isfinite().all(-1).all(-1)
    unit = units_of(torch.where(known, radius, 1))
    twist = unit * torch.cat((matrix_to_axis_angle(step.rotation), shift), -1)
    scaled = unit[..., :, None] * torch.where(known[..., None, None], covariance, 0) * unit[..., None, :]
    values, vectors = torch.linalg.eigh(scaled)
    kept = values > EPS * values[..., -1:]
    along = torch.where(kept, image(vectors.mT, twist), 0).square() / torch.where(kept, values, 1)
    return torch.where(known & (values[..., -1] > 0), along.sum(-1).sqrt(), torch.nan)
