"""Quaternions and the vectors along the axis: rotation vectors and modified Rodrigues parameters.

These three meet in the quaternion, which keeps the sign of the axis at half turns, as a matrix cannot.
"""

import torch
from torch import Tensor

from svdrot._checks import check_shape, result_dtype, to_compute

from ._directions import normalize, rescale_or_first_axis


def quaternion_to_matrix(quaternion: Tensor) -> Tensor:
    r"""Rotation $v \mapsto q v q^{-1}$ of a quaternion of any nonzero length.

    Args:
        quaternion: w x y z, shape (..., 4). `quaternion` and `-quaternion` are the same rotation.

    Returns:
        Rotations, shape (..., 3, 3). The zero quaternion gives the identity, with zero gradient.

    Raises:
        ValueError: if the last dimension is not 4.
        TypeError: if `quaternion` is not floating point.

    Source:
        Horn, "Closed-form solution of absolute orientation using unit quaternions", J. Opt. Soc. Am. A 4
        (1987).
    """
    check_shape("quaternion", quaternion, 4)
    matrix = _quaternion_to_matrix(to_compute(quaternion, 1))
    return matrix.to(result_dtype(quaternion))


def _quaternion_to_matrix(q: Tensor) -> Tensor:
    q = rescale_or_first_axis(q)
    s = 2 / (q * q).sum(-1)
    w, x, y, z = q.unbind(-1)
    entries = (
        *(1 - s * (y * y + z * z), s * (x * y - w * z), s * (x * z + w * y)),
        *(s * (x * y + w * z), 1 - s * (x * x + z * z), s * (y * z - w * x)),
        *(s * (x * z - w * y), s * (y * z + w * x), 1 - s * (x * x + y * y)),
    )
    return torch.stack(entries, -1).unflatten(-1, (3, 3))


def matrix_to_quaternion(matrix: Tensor) -> Tensor:
    r"""Unit quaternion of a rotation, with w >= 0.

    The entries of $4 q q^\top$ are linear in those of the rotation, and each column is a multiple of $q$; the
    one with the largest diagonal entry, which is at least 1, is normalized. No rotation divides by less.

    Args:
        matrix: rotations, shape (..., 3, 3).

    Returns:
        Unit quaternions w x y z, shape (..., 4), w in [0, 1]. At a half turn (w = 0) the largest of x, y, z
        is positive. The gradient is finite everywhere, although the quaternion jumps to its negative at half
        turns.

    Raises:
        ValueError: if the last two dimensions are not (3, 3).
        TypeError: if `matrix` is not floating point.

    Source:
        Markley, "Unit Quaternion from Rotation Matrix", J. Guidance, Control, and Dynamics 31 (2008).
    """
    check_shape("matrix", matrix, 3, 3)
    return _matrix_to_quaternion(to_compute(matrix, 2)).to(result_dtype(matrix))


def _matrix_to_quaternion(r: Tensor) -> Tensor:
    four_qq = four_outer_product(r)
    largest = four_qq.diagonal(dim1=-2, dim2=-1).argmax(-1)
    q = normalize(four_qq.take_along_dim(largest[..., None, None], -2).squeeze(-2))
    return torch.where(q[..., :1] < 0, -q, q)


def four_outer_product(r: Tensor) -> Tensor:
    r"""$4 q q^\top$ of the unit quaternion $q$ of a rotation, linear in its entries."""
    xx, xy, xz, yx, yy, yz, zx, zy, zz = r.flatten(-2).unbind(-1)
    entries = (
        *(1 + xx + yy + zz, zy - yz, xz - zx, yx - xy),
        *(zy - yz, 1 + xx - yy - zz, xy + yx, xz + zx),
        *(xz - zx, xy + yx, 1 - xx + yy - zz, yz + zy),
        *(yx - xy, xz + zx, yz + zy, 1 - xx - yy + zz),
    )
    return torch.stack(entries, -1).unflatten(-1, (4, 4))


def axis_angle_to_matrix(axis_angle: Tensor) -> Tensor:
    r"""Exponential map: the rotation about the direction of a vector by its length in radians.

    Args:
        axis_angle: rotation vectors in radians, shape (..., 3).

    Returns:
        Rotations, shape (..., 3, 3). Zero is regular: the identity, and the derivatives of the exponential. A
        length whose square overflows (1e19 in float32) gives NaN in its place.

    Raises:
        ValueError: if the last dimension is not 3.
        TypeError: if `axis_angle` is not floating point.

    Source:
        Grassia, "Practical Parameterization of Rotations Using the Exponential Map", JGT 3 (1998).
    """
    check_shape("axis_angle", axis_angle, 3)
    q = _axis_angle_to_quaternion(to_compute(axis_angle, 1))
    return _quaternion_to_matrix(q).to(result_dtype(axis_angle))


def _axis_angle_to_quaternion(v: Tensor) -> Tensor:
    half = v / 2
    squared = (half * half).sum(-1, keepdim=True)
    small = _is_small(squared)
    angle = torch.where(small, 1, squared).sqrt()
    series = torch.where(small, squared, 0)
    cosine = torch.where(small, 1 - series / 2 + series**2 / 24, angle.cos())
    sinc = torch.where(small, 1 - series / 6 + series**2 / 120, angle.sin() / angle)
    return torch.cat((cosine, sinc * half), -1)


def _is_small(squared: Tensor) -> Tensor:
    # x^2 < eps^(1/3): a series to x^4 is then right to eps, its derivative by x too; and above it the closed
    # forms, whose second derivative loses eps / x to cancellation, lose no more than eps^(5/6).
    return squared.detach() < torch.finfo(squared.dtype).eps ** (1 / 3)


def matrix_to_axis_angle(matrix: Tensor) -> Tensor:
    r"""Logarithm: the vector $2 \operatorname{atan2}(|u|, w)\, u / |u|$ of the unit quaternion $(w, u)$.

    Args:
        matrix: rotations, shape (..., 3, 3).

    Returns:
        Rotation vectors in radians, shape (..., 3), of length in [0, pi]. The gradient is finite everywhere.
        At a half turn both signs of the vector are right; its largest entry is then positive.

    Raises:
        ValueError: if the last two dimensions are not (3, 3).
        TypeError: if `matrix` is not floating point.

    Source:
        Grassia, "Practical Parameterization of Rotations Using the Exponential Map", JGT 3 (1998).
    """
    check_shape("matrix", matrix, 3, 3)
    q = _matrix_to_quaternion(to_compute(matrix, 2))
    return _quaternion_to_axis_angle(q).to(result_dtype(matrix))


def _quaternion_to_axis_angle(q: Tensor) -> Tensor:
    """Of a unit quaternion with w >= 0."""
    w, u = q.split((1, 3), -1)
    squared = (u * u).sum(-1, keepdim=True)
    small = _is_small(squared)
    sine = torch.where(small, 1, squared).sqrt()
    tangent = torch.where(small, squared, 0) / torch.where(small, w, 1) ** 2
    series = (1 - tangent / 3 + tangent**2 / 5) / torch.where(small, w, 1)
    half = torch.where(small, series, sine.atan2(w) / sine)
    return 2 * half * u


def axis_angle_to_quaternion(axis_angle: Tensor) -> Tensor:
    r"""Unit quaternion $(\cos \theta/2,\ \sin \theta/2\; v / \theta)$ of a rotation vector, $\theta = |v|$.

    Args:
        axis_angle: rotation vectors in radians, shape (..., 3).

    Returns:
        Unit quaternions w x y z, shape (..., 4). The map is smooth: w is negative for an angle between pi and
        3 pi. A length whose square overflows (1e19 in float32) gives NaN in its place.

    Raises:
        ValueError: if the last dimension is not 3.
        TypeError: if `axis_angle` is not floating point.

    Source:
        Grassia, "Practical Parameterization of Rotations Using the Exponential Map", JGT 3 (1998).
    """
    check_shape("axis_angle", axis_angle, 3)
    return _axis_angle_to_quaternion(to_compute(axis_angle, 1)).to(result_dtype(axis_angle))


def quaternion_to_axis_angle(quaternion: Tensor) -> Tensor:
    r"""Rotation vector of a quaternion of any nonzero length: the logarithm of its rotation.

    Args:
        quaternion: w x y z, shape (..., 4). `quaternion` and `-quaternion` are the same rotation.

    Returns:
        Rotation vectors in radians, shape (..., 3), of length in [0, pi]; at a half turn (w = 0) along x y z.
        The gradient is finite everywhere. The zero quaternion gives zero, with zero gradient.

    Raises:
        ValueError: if the last dimension is not 4.
        TypeError: if `quaternion` is not floating point.

    Source:
        Grassia, "Practical Parameterization of Rotations Using the Exponential Map", JGT 3 (1998).
    """
    check_shape("quaternion", quaternion, 4)
    q = _upper_half(to_compute(quaternion, 1))
    return _quaternion_to_axis_angle(q).to(result_dtype(quaternion))


def _upper_half(q: Tensor) -> Tensor:
    """The unit quaternion of the same rotation with w >= 0."""
    q = normalize(rescale_or_first_axis(q))
    return torch.where(q[..., :1] < 0, -q, q)


def mrp_to_quaternion(mrp: Tensor) -> Tensor:
    r"""Unit quaternion of modified Rodrigues parameters $p$: $(1 - |p|^2,\ 2 p) / (1 + |p|^2)$.

    Args:
        mrp: $\tan(\theta / 4)$ times the axis, shape (..., 3).

    Returns:
        Unit quaternions w x y z, shape (..., 4). The map is smooth, and w negative outside the unit ball:
        $p$ and its shadow $-p / |p|^2$ are the same rotation.

    Raises:
        ValueError: if the last dimension is not 3.
        TypeError: if `mrp` is not floating point.

    Source:
        Shuster, "A Survey of Attitude Representations", J. Astronautical Sciences 41 (1993).
    """
    check_shape("mrp", mrp, 3)
    return _mrp_to_quaternion(to_compute(mrp, 1)).to(result_dtype(mrp))


def _mrp_to_quaternion(p: Tensor) -> Tensor:
    # Every term over scale^2, so that none overflows; `scale` cancels, and autograd may take it as constant.
    scale = p.detach().abs().amax(-1, keepdim=True).clamp(min=1)
    p, one = p / scale, 1 / (scale * scale)
    squared = (p * p).sum(-1, keepdim=True)
    return torch.cat((one - squared, 2 * p / scale), -1) / (one + squared)


def quaternion_to_mrp(quaternion: Tensor) -> Tensor:
    r"""Modified Rodrigues parameters $u / (1 + w)$ of the unit quaternion $(w, u)$ with $w \ge 0$.

    Args:
        quaternion: w x y z of any nonzero length, shape (..., 4).

    Returns:
        $\tan(\theta / 4)$ times the axis, shape (..., 3), of length in [0, 1]: of the two sets of parameters,
        each the shadow of the other, the one in the unit ball. Its length is 1 at a half turn, where both are
        right and this is along x y z. The gradient is finite everywhere; the zero quaternion gives zero, with
        zero gradient.

    Raises:
        ValueError: if the last dimension is not 4.
        TypeError: if `quaternion` is not floating point.

    Source:
        Shuster, "A Survey of Attitude Representations", J. Astronautical Sciences 41 (1993).
    """
    check_shape("quaternion", quaternion, 4)
    return _quaternion_to_mrp(_upper_half(to_compute(quaternion, 1))).to(result_dtype(quaternion))


def _quaternion_to_mrp(q: Tensor) -> Tensor:
    """Of a unit quaternion with w >= 0."""
    return q[..., 1:] / (1 + q[..., :1])


def mrp_to_matrix(mrp: Tensor) -> Tensor:
    r"""Rotation of modified Rodrigues parameters.

    Args:
        mrp: $\tan(\theta / 4)$ times the axis, shape (..., 3), of any length.

    Returns:
        Rotations, shape (..., 3, 3). Smooth everywhere; parameters of infinite length would be the identity.

    Raises:
        ValueError: if the last dimension is not 3.
        TypeError: if `mrp` is not floating point.

    Source:
        Shuster, "A Survey of Attitude Representations", J. Astronautical Sciences 41 (1993).
    """
    check_shape("mrp", mrp, 3)
    return _quaternion_to_matrix(_mrp_to_quaternion(to_compute(mrp, 1))).to(result_dtype(mrp))


def matrix_to_mrp(matrix: Tensor) -> Tensor:
    r"""Modified Rodrigues parameters of a rotation: `quaternion_to_mrp` of its quaternion.

    Args:
        matrix: rotations, shape (..., 3, 3).

    Returns:
        $\tan(\theta / 4)$ times the axis, shape (..., 3), of length in [0, 1]. The gradient is finite
        everywhere. At a half turn both signs are right; the largest entry is then positive.

    Raises:
        ValueError: if the last two dimensions are not (3, 3).
        TypeError: if `matrix` is not floating point.

    Source:
        Shuster, "A Survey of Attitude Representations", J. Astronautical Sciences 41 (1993).
    """
    check_shape("matrix", matrix, 3, 3)
    q = _matrix_to_quaternion(to_compute(matrix, 2))
    return _quaternion_to_mrp(q).to(result_dtype(matrix))
