"""The alignment of pairs of points, as pytorch3d.ops has it: s X R + T = Y, of row vectors."""

from typing import NamedTuple

from torch import Tensor

from svdrot.registration import kabsch, umeyama


class SimilarityTransform(NamedTuple):
    """Hold similarities of row vectors, x -> s x R + T.

    Attributes:
        R: orthonormal matrices for row vectors, shape (..., d, d).
        T: translations, shape (..., d).
        s: scales, shape (...).
    """

    R: Tensor
    T: Tensor
    s: Tensor


def corresponding_points_alignment(
    X: Tensor | list[Tensor],
    Y: Tensor | list[Tensor],
    weights: Tensor | list[Tensor] | None = None,
    estimate_scale: bool = False,
    allow_reflection: bool = False,
    eps: float = 1e-9,
) -> SimilarityTransform:
    """Return the R, T and s of least sum of w |s X R + T - Y|^2.

    Different from pytorch3d on purpose: weights enter once, where pytorch3d 0.7.9 centers with w and then
    multiplies both clouds by w, which minimizes something else; clouds that leave the rotation open give one
    of the best, with finite gradients, without a warning; lists of clouds take the place of `Pointclouds`.

    Args:
        X: points, shape (..., N, d), or a list of clouds (N_i, d).
        Y: as many points, pair by pair.
        weights: shape (..., N), at least 0, of any total; a list if the clouds are one; 1 if None.
        estimate_scale: whether to find the scale, which is 1 otherwise.
        allow_reflection: whether the determinant of R may be -1.
        eps: not read.

    Returns:
        `SimilarityTransform` for row vectors. See `svdrot.registration.umeyama` for what is degenerate.

    Raises:
        ValueError: if shapes do not fit.
        TypeError: if an argument is not a tensor of the right kind.
    """
    found = (umeyama if estimate_scale else kabsch)(X, Y, weights, reflection=allow_reflection)
    return SimilarityTransform(found.rotation.mT, found.translation, found.scale)
