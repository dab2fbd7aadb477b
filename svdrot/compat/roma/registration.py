"""Rotations and rigid motions between pairs of points, as roma has them."""

from torch import Tensor

from svdrot._checks import check_shape
from svdrot.compat._shared import scalar_last
from svdrot.registration import kabsch, umeyama
from svdrot.registration import procrustes as turned
from svdrot.representations import matrix_to_quaternion


def rigid_vectors_registration(
    x: Tensor, y: Tensor, weights: Tensor | None = None, compute_scaling: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Return the rotation R, and the scale s, of least sum of w |s R x - y|^2.

    Args:
        x: shape (..., N, d).
        y: shape (..., N, d).
        weights: shape (..., N), at least 0, of any total; 1 if None. Pairs of weight 0 may be NaN.
        compute_scaling: whether to find and return the scale.

    Returns:
        Rotations, shape (..., d, d), and scales (...) if asked for. No pairs, or a total weight of 0, give
        the identity, where roma has NaN.
    """
    found = turned(x, y, weights)
    return (found.rotation, _scale(found.rotation, x, y, weights)) if compute_scaling else found.rotation


def rigid_vectors_registration_unitquat(
    x: Tensor, y: Tensor, weights: Tensor | None = None, compute_scaling: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Return what `rigid_vectors_registration` does in space, with quaternions for matrices.

    Args:
        x: shape (..., N, 3).
        y: shape (..., N, 3).
        weights, compute_scaling: see `rigid_vectors_registration`.

    Returns:
        Unit quaternions x y z w, shape (..., 4), w >= 0, and scales (...) if asked for.
    """
    check_shape("x", x, 3)
    found = turned(x, y, weights)
    quaternion = scalar_last(matrix_to_quaternion(found.rotation))
    return (quaternion, _scale(found.rotation, x, y, weights)) if compute_scaling else quaternion


def rigid_points_registration(
    x: Tensor, y: Tensor, weights: Tensor | None = None, compute_scaling: bool = False
) -> tuple[Tensor, ...]:
    """Return the rotation R, translation t and scale s of least sum of w |s R x + t - y|^2.

    Args:
        x: shape (..., N, d).
        y: shape (..., N, d).
        weights: shape (..., N), at least 0, of any total; 1 if None. Pairs of weight 0 may be NaN.
        compute_scaling: whether to find and return the scale.

    Returns:
        Rotations (..., d, d), translations (..., d), and scales (...) if asked for. See
        `svdrot.registration.kabsch` and `svdrot.registration.umeyama` for what is degenerate.
    """
    found = (umeyama if compute_scaling else kabsch)(x, y, weights)
    return (found.rotation, found.translation, found.scale)[: 3 if compute_scaling else 2]


def rigid_points_registration_unitquat(
    x: Tensor, y: Tensor, weights: Tensor | None = None, compute_scaling: bool = False
) -> tuple[Tensor, ...]:
    """Return what `rigid_points_registration` does in space, with quaternions for matrices.

    Args:
        x: shape (..., N, 3).
        y: shape (..., N, 3).
        weights, compute_scaling: see `rigid_points_registration`.

    Returns:
        Unit quaternions x y z w (..., 4), w >= 0, translations (..., 3), and scales (...) if asked for.
    """
    check_shape("x", x, 3)
    rotation, *rest = rigid_points_registration(x, y, weights, compute_scaling)
    return (scalar_last(matrix_to_quaternion(rotation)), *rest)


def _scale(rotation: Tensor, x: Tensor, y: Tensor, weights: Tensor | None) -> Tensor:
    """Return sum w y . R x / sum w |x|^2 (Umeyama 1991, equation 42, of clouds that are not centered)."""
    w = x.new_ones(()) if weights is None else weights[..., None]
    x, y = ((z if weights is None else z.where(w > 0, 0)) for z in (x, y))
    turned_x = (rotation[..., None, :, :] * x[..., None, :]).sum(-1)
    return (w * y * turned_x).sum((-2, -1)) / (w * x * x).sum((-2, -1))
