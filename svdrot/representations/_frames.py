"""Two columns and what stands for them: 6D, 5D, 2-vec. The third column is their cross product."""

import math

import torch
from torch import Tensor

from svdrot._checks import check_shape, result_dtype, to_compute

from ._directions import normalize, perpendicular, rescale, rescale_or_first_axis, unit_perpendicular_part


def rotation_6d_to_matrix(rotation_6d: Tensor) -> Tensor:
    r"""Rotation whose first two columns are the Gram-Schmidt frame of two vectors.

    Args:
        rotation_6d: shape (..., 6): the first column, then the second, of any length.

    Returns:
        Rotations, shape (..., 3, 3). Only the directions of the two vectors matter, so every scale that has a
        representable gradient gives the same rotation. Where a direction is missing another is put in its
        place, with zero gradient: the x axis for a first vector of zero, and a perpendicular of the first for
        a second that is zero or within rounding of a multiple of the first. Six zeros give the identity.

    Raises:
        ValueError: if the last dimension is not 6.
        TypeError: if `rotation_6d` is not floating point.

    Source:
        Zhou et al., "On the Continuity of Rotation Representations in Neural Networks", CVPR 2019, sec. 4.2.
    """
    check_shape("rotation_6d", rotation_6d, 6)
    x, y = to_compute(rotation_6d, 1).unflatten(-1, (2, 3)).unbind(-2)
    return _gram_schmidt(x, y).to(result_dtype(rotation_6d))


def _gram_schmidt(x: Tensor, y: Tensor) -> Tensor:
    x = normalize(rescale_or_first_axis(x))
    y = unit_perpendicular_part(rescale(y), x)
    return torch.stack((x, y, torch.linalg.cross(x, y)), -1)


def matrix_to_rotation_6d(matrix: Tensor) -> Tensor:
    """First column, then second column, of a rotation: shape (..., 3, 3) -> (..., 6).

    Raises:
        ValueError: if the last two dimensions are not (3, 3).
        TypeError: if `matrix` is not floating point.

    Source:
        Zhou et al., "On the Continuity of Rotation Representations in Neural Networks", CVPR 2019, sec. 4.2.
    """
    check_shape("matrix", matrix, 3, 3)
    return to_compute(matrix, 2)[..., :2].mT.flatten(-2).to(result_dtype(matrix))


def rotation_5d_to_matrix(rotation_5d: Tensor) -> Tensor:
    r"""Rotation of the 6D whose last four numbers were projected stereographically to the last three.

    With $u$ the last three numbers and $n = |u|$, the second column is along $b = u / n$ and the first along
    $(x_1, x_2, (n - 1/n) / 2)$; both are then made orthonormal as in `rotation_6d_to_matrix`.

    Args:
        rotation_5d: shape (..., 5): two entries of the first column, then $u$.

    Returns:
        Rotations, shape (..., 3, 3). Unlike that of 6D the map depends on the scale: $n$ is an entry of the
        first column. Where a direction is missing another is put in its place, as in 6D; with $u = 0$ the
        first column is $-z$, the limit. The gradient is finite everywhere.

    Raises:
        ValueError: if the last dimension is not 5.
        TypeError: if `rotation_5d` is not floating point.

    Source:
        Zhou et al., "On the Continuity of Rotation Representations in Neural Networks", CVPR 2019, sec. 4.2
        and its example for n = 3.
    """
    check_shape("rotation_5d", rotation_5d, 5)
    first, u = to_compute(rotation_5d, 1).split((2, 3), -1)
    u = rescale(u)
    zero = u.detach().abs().amax(-1, keepdim=True) < 0.5
    # |u| without overflow, and with the derivatives of |u|: they do not depend on the constant divided by.
    largest = rotation_5d.detach().to(u.dtype)[..., 2:].abs().amax(-1, keepdim=True)
    n = torch.where(
        zero, 0, largest * torch.linalg.vector_norm(torch.where(zero, 1, u), dim=-1, keepdim=True)
    )
    # Twice the first column, times n where 1 / n might overflow: a positive factor does not turn it.
    below = n.detach() < 1
    over, under = torch.where(below, 1, n), torch.where(below, n, 1)
    third = torch.where(below, under * under - 1, over - 1 / over)
    x = torch.cat((2 * under * first, third), -1)
    return _gram_schmidt(x, u).to(result_dtype(rotation_5d))


def matrix_to_rotation_5d(matrix: Tensor) -> Tensor:
    r"""$(a_1,\ a_2,\ (a_3 + \sqrt{1 + a_3^2})\, b)$ of the first two columns $a, b$ of a rotation.

    The last three are the stereographic projection $(v_2, v_3, v_4) / (1 - v_1)$ of $v \propto (a_3, b)$ with
    $|v| = 1$. Smooth.

    Args:
        matrix: rotations, shape (..., 3, 3).

    Returns:
        Shape (..., 5). The length of the last three is in [sqrt 2 - 1, sqrt 2 + 1].

    Raises:
        ValueError: if the last two dimensions are not (3, 3).
        TypeError: if `matrix` is not floating point.

    Source:
        Zhou et al., "On the Continuity of Rotation Representations in Neural Networks", CVPR 2019, sec. 4.2.
    """
    check_shape("matrix", matrix, 3, 3)
    a, b, _ = to_compute(matrix, 2).unbind(-1)
    first, third = a.split((2, 1), -1)
    u = (third + (1 + third * third).sqrt()) * b
    return torch.cat((first, u), -1).to(result_dtype(matrix))


def rotation_2vec_to_matrix(rotation_2vec: Tensor) -> Tensor:
    r"""Rotation whose first two columns are as near to two directions as a right angle between them allows.

    Of unit vectors $b_1, b_2$ the bisector and the difference are perpendicular; as unit vectors they are
    $p \propto b_1 + b_2$ and $m \propto b_1 - b_2$, and the columns are $(p + m) / \sqrt 2$, $(p - m) / \sqrt
    2$ and $m \times p$. Each of $b_1, b_2$ is thus turned by the same angle in their plane: neither has the
    privilege that Gram-Schmidt gives to the first.

    Args:
        rotation_2vec: shape (..., 6): two vectors of any length.

    Returns:
        Rotations, shape (..., 3, 3). Only the directions matter. A missing first vector is the x axis and a
        missing second a perpendicular of the first, with zero gradient; of two that are collinear to rounding
        the bisector, or the difference, is any perpendicular. Six zeros give the identity.

    Raises:
        ValueError: if the last dimension is not 6.
        TypeError: if `rotation_2vec` is not floating point.

    Source:
        Chandrasekhar, "Special Unitary Parameterized Estimators of Rotation", ICLR 2026, arXiv 2411.13109,
        2-vec. Here collinear vectors are defined, and the shorter of $p$ and $m$ is made perpendicular to the
        longer once more, for rounding alone separates them by eps / |m|.
    """
    check_shape("rotation_2vec", rotation_2vec, 6)
    first, second = to_compute(rotation_2vec, 1).unflatten(-1, (2, 3)).unbind(-2)
    first = normalize(rescale_or_first_axis(first))
    second = rescale(second)
    zero = second.detach().abs().amax(-1, keepdim=True) < 0.5
    second = normalize(torch.where(zero, perpendicular(first), second))
    p, m = first + second, first - second
    acute = (first * second).detach().sum(-1, keepdim=True) >= 0
    longer = normalize(torch.where(acute, p, m))
    shorter = unit_perpendicular_part(torch.where(acute, m, p), longer)
    p, m = torch.where(acute, longer, shorter), torch.where(acute, shorter, longer)
    matrix = torch.stack(((p + m) * math.sqrt(0.5), (p - m) * math.sqrt(0.5), torch.linalg.cross(m, p)), -1)
    return matrix.to(result_dtype(rotation_2vec))


def matrix_to_rotation_2vec(matrix: Tensor) -> Tensor:
    """First column, then second column, of a rotation: shape (..., 3, 3) -> (..., 6), the same numbers as 6D.

    Raises:
        ValueError: if the last two dimensions are not (3, 3).
        TypeError: if `matrix` is not floating point.

    Source:
        Chandrasekhar, "Special Unitary Parameterized Estimators of Rotation", ICLR 2026, arXiv 2411.13109.
    """
    return matrix_to_rotation_6d(matrix)
