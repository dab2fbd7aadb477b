"""Draw rotation matrices, and recognize them."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ._checks import check_shape, common_batch
from ._precision import compute_dtype
from ._stand_ins import takes_arrays
from ._vectors import product
from .representations import axis_angle_to_matrix, quaternion_to_matrix


def random_rotation(
    *shape: int | Sequence[int],
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw rotations uniformly (Haar measure), by unit quaternions in the direction of Gaussian vectors.

    Args:
        shape: batch shape, one whole number for each dimension, or all in one tuple; none for a single
            rotation.
        dtype: floating point; `torch.get_default_dtype()` if None. Half precision is rounded from float32.
        device: where to draw; torch's default device if None.
        generator: source of every random number drawn, on `device`; torch's global one if None.

    Returns:
        Rotations, shape (*shape, 3, 3).

    Raises:
        TypeError: if `dtype` is not floating point, or `shape` no whole numbers.

    Source:
        Shoemake, "Uniform Random Rotations", Graphics Gems III (1992).

    Example:
        >>> import torch, svdrot
        >>> rotation = svdrot.random_rotation(4, 2, generator=torch.Generator().manual_seed(0))
        >>> rotation.shape
        torch.Size([4, 2, 3, 3])
        >>> svdrot.is_rotation(rotation).all()
        tensor(True)
    """
    dtype, drawn = _dtypes(dtype)
    quaternion = torch.randn(*_whole(shape), 4, dtype=drawn, device=device, generator=generator)
    return quaternion_to_matrix(quaternion).to(dtype)


def _whole(shape: tuple[int | Sequence[int], ...]) -> torch.Size:
    """Return a shape that was given number by number, or in one piece."""
    numbers: Any = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    try:
        return torch.Size(numbers)
    except TypeError as error:
        raise TypeError(f"`shape` must be whole numbers, or one tuple of them; got {shape}.") from error


def _dtypes(dtype: torch.dtype | None) -> tuple[torch.dtype, torch.dtype]:
    """Return the dtype of the result and that of the draws."""
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if not dtype.is_floating_point:
        raise TypeError(f"`dtype` must be floating point; got {dtype}.")
    return dtype, torch.float64 if dtype == torch.float64 else torch.float32


def random_small_rotation(
    *shape: int | Sequence[int],
    scale: float | Tensor,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Draw rotations by normal rotation vectors: noise of standard deviation `scale` about each axis.

    For a `scale` well below 1 it is the isotropic Gaussian distribution to second order, of mean angle
    $\sqrt{8 / \pi}$ `scale`. Samples are differentiable in `scale`.

    Args:
        shape: batch shape, see `random_rotation`.
        scale: standard deviation in radians, a number or a tensor that broadcasts to `shape`.
        dtype, device, generator: see `random_rotation`.

    Returns:
        Rotations, shape (*shape, 3, 3).

    Raises:
        ValueError: if `scale` does not broadcast to `shape`.
        TypeError: if `dtype` is not floating point, or `shape` no whole numbers.

    Source:
        Barfoot and Furgale, "Associating Uncertainty With Three-Dimensional Poses for Use in Estimation
        Problems", IEEE Trans. Robot. 30 (2014).

    Example:
        >>> import torch, svdrot
        >>> generator = torch.Generator().manual_seed(0)
        >>> truth = svdrot.random_rotation(1000, generator=generator)
        >>> noisy = truth @ svdrot.random_small_rotation(1000, scale=0.01, generator=generator)
        >>> round(float(svdrot.geodesic_distance(noisy, truth).mean()), 3)  # 0.01 sqrt(8 / pi)
        0.016
    """
    dtype, drawn = _dtypes(dtype)
    batch = _whole(shape)
    if isinstance(scale, Tensor) and common_batch(shape=batch, scale=scale.shape) != batch:
        raise ValueError(f"`scale` must broadcast to {tuple(batch)}; got {tuple(scale.shape)}.")
    vector = torch.randn(*batch, 3, dtype=drawn, device=device, generator=generator)
    size = scale.to(vector)[..., None] if isinstance(scale, Tensor) else scale
    return axis_angle_to_matrix(size * vector).to(dtype)


def random_rotation_within(
    *shape: int | Sequence[int],
    angle: float,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Draw rotations uniformly (Haar measure) among those of at most a given angle.

    The axis is uniform, and the angle $\theta$ solves $\theta - \sin \theta = u (\alpha - \sin \alpha)$, for
    uniform u and the largest angle $\alpha$. For small ones it is uniform in a ball of rotation vectors.

    Args:
        shape: batch shape, see `random_rotation`.
        angle: the largest angle, radians, in [0, pi].
        dtype, device, generator: see `random_rotation`.

    Returns:
        Rotations, shape (*shape, 3, 3).

    Raises:
        ValueError: if `angle` is not in [0, pi].
        TypeError: if `dtype` is not floating point, or `shape` no whole numbers.

    Source:
        Miles, "On Random Rotations in R^3", Biometrika 52 (1965), the law of the angle.

    Example:
        >>> import torch, svdrot
        >>> near = svdrot.random_rotation_within(1000, angle=0.1, generator=torch.Generator().manual_seed(0))
        >>> (svdrot.geodesic_distance(near, torch.eye(3)) <= 0.1 + 1e-6).all()
        tensor(True)
    """
    if not 0 <= angle <= math.pi:
        raise ValueError(f"`angle` must be in [0, pi]; got {angle}.")
    dtype, drawn = _dtypes(dtype)
    batch = _whole(shape)
    axis = torch.randn(*batch, 3, dtype=drawn, device=device, generator=generator)
    axis = axis / torch.linalg.vector_norm(axis, dim=-1, keepdim=True)
    u = torch.rand(*batch, 1, dtype=drawn, device=device, generator=generator)
    # x - sin x is convex, and over x^3 it falls: the start is right of the root, and Newton goes down to it.
    theta = angle * u ** (1 / 3)
    target = u * _minus_sine(torch.tensor(angle, dtype=drawn, device=device))
    for _ in range(6):
        slope = 2 * torch.sin(theta / 2) ** 2
        theta = theta - (_minus_sine(theta) - target) / torch.where(slope > 0, slope, 1)
    return axis_angle_to_matrix(theta * axis).to(dtype)


def _minus_sine(x: Tensor) -> Tensor:
    """Return x - sin x, to relative rounding."""
    x2 = x * x
    series = x * x2 / 6 * (1 - x2 / 20 * (1 - x2 / 42 * (1 - x2 / 72 * (1 - x2 / 110 * (1 - x2 / 156)))))
    return torch.where(x < 1, series, x - x.sin())


@takes_arrays
def is_rotation(matrix: Tensor, *, tolerance: float | None = None) -> Tensor:
    r"""Return whether each matrix is a rotation, to a tolerance.

    Every entry of $R^\top R - I$ must be within `tolerance` of 0, and $\det R > 0$.

    Args:
        matrix: shape (..., 3, 3).
        tolerance: 16 eps of the dtype of `matrix` if None: 300,000 draws of `random_rotation` came within 8
            eps, products of two within 12. A chain of ten products needs about 70 eps.

    Returns:
        Booleans, shape (...). False where there is a NaN.

    Raises:
        ValueError: if the last two dimensions are not (3, 3).
        TypeError: if `matrix` is not floating point.

    Example:
        >>> import torch, svdrot
        >>> mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0]))
        >>> svdrot.is_rotation(torch.stack((torch.eye(3), mirror, 2 * torch.eye(3))))
        tensor([ True, False, False])
    """
    check_shape("matrix", matrix, 3, 3)
    tolerance = 16 * torch.finfo(matrix.dtype).eps if tolerance is None else tolerance
    r = matrix.to(compute_dtype(matrix))
    gram = product(r.transpose(-2, -1), r)
    defect = (gram - torch.eye(3, dtype=r.dtype, device=r.device)).abs().amax((-2, -1))
    x, y, z = r.unbind(-1)
    return (defect <= tolerance) & ((torch.linalg.cross(x, y) * z).sum(-1) > 0)
