"""Two columns and what stands for them: 6D, 5D, 2-vec. The third column is their cross product."""

from torch import Tensor

from svdrot._formulas import frames


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
    return frames.rotation_6d_to_matrix(rotation_6d)


def matrix_to_rotation_6d(matrix: Tensor) -> Tensor:
    """First column, then second column, of a rotation: shape (..., 3, 3) -> (..., 6).

    Raises:
        ValueError: if the last two dimensions are not (3, 3).
        TypeError: if `matrix` is not floating point.

    Source:
        Zhou et al., "On the Continuity of Rotation Representations in Neural Networks", CVPR 2019, sec. 4.2.
    """
    return frames.matrix_to_rotation_6d(matrix)


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
    return frames.rotation_5d_to_matrix(rotation_5d)


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
    return frames.matrix_to_rotation_5d(matrix)


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
    return frames.rotation_2vec_to_matrix(rotation_2vec)


def matrix_to_rotation_2vec(matrix: Tensor) -> Tensor:
    """First column, then second column, of a rotation: shape (..., 3, 3) -> (..., 6), the same numbers as 6D.

    Raises:
        ValueError: if the last two dimensions are not (3, 3).
        TypeError: if `matrix` is not floating point.

    Source:
        Chandrasekhar, "Special Unitary Parameterized Estimators of Rotation", ICLR 2026, arXiv 2411.13109.
    """
    return matrix_to_rotation_6d(matrix)
