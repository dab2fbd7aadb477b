"""Rotation matrices themselves: drawing them and recognising them."""

import torch
from torch import Tensor

from ._checks import check_shape, compute_dtype
from .representations import quaternion_to_matrix


def random_rotation(
    *shape: int,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Rotations drawn uniformly (Haar measure), from unit quaternions in the direction of Gaussian vectors.

    Args:
        shape: batch shape.
        dtype: floating point; `torch.get_default_dtype()` if None. Half precision is rounded from float32.
        device: as for `torch.randn`.
        generator: source of every random number drawn, on `device`; torch's global one if None.

    Returns:
        Rotations, shape (*shape, 3, 3).

    Raises:
        TypeError: if `dtype` is not floating point.

    Source:
        Shoemake, "Uniform Random Rotations", Graphics Gems III (1992).
    """
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if not dtype.is_floating_point:
        raise TypeError(f"`dtype` must be floating point; got {dtype}.")
    drawn = torch.float64 if dtype == torch.float64 else torch.float32
    quaternion = torch.randn(*shape, 4, dtype=drawn, device=device, generator=generator)
    return quaternion_to_matrix(quaternion).to(dtype)


def is_rotation(matrix: Tensor, *, tolerance: float | None = None) -> Tensor:
    r"""Whether each matrix $R$ has every entry of $R^\top R - I$ within `tolerance` of 0, and $\det R > 0$.

    Args:
        matrix: shape (..., 3, 3).
        tolerance: 16 eps of the dtype of `matrix` if None: of 300,000 draws `random_rotation` came within 8
            and products of two within 12. A chain of ten products needs about 70.

    Returns:
        Booleans, shape (...). False where there is a NaN.

    Raises:
        ValueError: if the last two dimensions are not (3, 3).
        TypeError: if `matrix` is not floating point.
    """
    check_shape("matrix", matrix, 3, 3)
    tolerance = 16 * torch.finfo(matrix.dtype).eps if tolerance is None else tolerance
    r = matrix.to(compute_dtype(matrix))
    gram = (r[..., :, :, None] * r[..., :, None, :]).sum(-3)  # not `@`: TF32 would be 1000 eps off
    defect = (gram - torch.eye(3, dtype=r.dtype, device=r.device)).abs().amax((-2, -1))
    x, y, z = r.unbind(-1)
    return (defect <= tolerance) & ((torch.linalg.cross(x, y) * z).sum(-1) > 0)
