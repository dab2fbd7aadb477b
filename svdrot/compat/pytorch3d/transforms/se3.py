"""Exponential and logarithm of SE(3), as pytorch3d has them: translation first, matrices for row vectors."""

import torch
from torch import Tensor

from svdrot._checks import check_shape
from svdrot.se3 import se3_exp, se3_log
from svdrot.transform import Transform


def se3_exp_map(log_transform: Tensor, eps: float = 1e-4) -> Tensor:
    """Return the matrices [[R^T, 0], [t, 1]] of twists.

    Args:
        log_transform: translation parts and then rotation vectors in radians, shape (..., 6).
        eps: not read; small angles are exact, where pytorch3d is off by 1e-4 of the translation.

    Returns:
        Matrices for row vectors, shape (..., 4, 4): the transpose of that of `svdrot.se3_exp`.
    """
    check_shape("log_transform", log_transform, 6)
    return se3_exp(log_transform.roll(3, -1)).matrix.mT


def se3_log_map(transform: Tensor, eps: float = 1e-4, cos_bound: float = 1e-4) -> Tensor:
    """Return the twists of matrices [[R^T, 0], [t, 1]].

    Args:
        transform: for row vectors, shape (..., 4, 4). The last column is not read.
        eps, cos_bound: not read.

    Returns:
        Translation parts and then rotation vectors of length in [0, pi], shape (..., 6).
    """
    check_shape("transform", transform, 4, 4)
    rotation, translation = transform[..., :3, :3].mT, transform[..., 3, :3]
    return se3_log(Transform(rotation, translation, torch.ones_like(translation[..., 0]))).roll(3, -1)
