"""Two columns and what stands for them: 6D, 5D, 2-vec. The third column is their cross product."""

from torch import Tensor

from svdrot._formulas import frames


def rotation_6d_to_matrix(rotation_6d: Tensor) -> Tensor:
    """Convert pairs of vectors to rotations whose first two columns are their Gram-Schmidt frame.

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

    Example:
        >>> import torch, svdrot
        >>> svdrot.rotation_6d_to_matrix(torch.tensor([2.0, 0.0, 0.0, 1.0, 3.0, 0.0]))
        tensor([[1., 0., 0.],
                [0., 1., 0.],
                [0., 0., 1.]])
    """
    return frames.rotation_6d_to_matrix(rotation_6d)


def matrix_to_rotation_6d(matrix: Tensor) -> Tensor:
    """Return the first column, then the second column, of rotations.

    Nothing checks that `matrix` is a rotation; `svdrot.is_rotation` does. The third column is not looked at:
    `rotation_6d_to_matrix` reads the numbers of any matrix as the Gram-Schmidt frame of its first two
    columns, and those of a reflection (det < 0, orthonormal) as the rotation with the third column negated.

    Args:
        matrix: rotations, shape (..., 3, 3).

    Returns:
        Shape (..., 6), linear in `matrix`.

    Raises:
        ValueError: if the last two dimensions are not (3, 3).
        TypeError: if `matrix` is not floating point.

    Source:
        Zhou et al., "On the Continuity of Rotation Representations in Neural Networks", CVPR 2019, sec. 4.2.

    Example:
        >>> import torch, svdrot
        >>> matrix = svdrot.quaternion_to_matrix(torch.tensor([0.8, 0.0, 0.0, 0.6]))
        >>> svdrot.matrix_to_rotation_6d(matrix)
        tensor([ 0.2800,  0.9600,  0.0000, -0.9600,  0.2800,  0.0000])
    """
    return frames.matrix_to_rotation_6d(matrix)


def rotation_5d_to_matrix(rotation_5d: Tensor) -> Tensor:
    """Convert five numbers, a 6D of which four were projected to three, to rotations.

    The projection of the last four numbers is stereographic. With $u$ the last three numbers and $n = |u|$,
    the second column is along $b = u / n$ and the first along $(x_1, x_2, (n - 1/n) / 2)$; both are then made
    orthonormal as in `rotation_6d_to_matrix`.

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

    Example:
        >>> import torch, svdrot
        >>> matrix = svdrot.quaternion_to_matrix(torch.tensor([0.8, 0.0, 0.0, 0.6]))
        >>> again = svdrot.rotation_5d_to_matrix(svdrot.matrix_to_rotation_5d(matrix))
        >>> torch.allclose(again, matrix, atol=1e-6)
        True
    """
    return frames.rotation_5d_to_matrix(rotation_5d)


def matrix_to_rotation_5d(matrix: Tensor) -> Tensor:
    r"""Convert rotations to five numbers: 6D whose last four are projected to three.

    They are $(a_1,\ a_2,\ (a_3 + \sqrt{1 + a_3^2})\, b)$ of the first two columns $a, b$. The last three are
    the stereographic projection $(v_2, v_3, v_4) / (1 - v_1)$ of $v \propto (a_3, b)$ with $|v| = 1$.

    Nothing checks that `matrix` is a rotation; `svdrot.is_rotation` does. The third column is not looked at:
    the numbers of a reflection (det < 0, orthonormal) are those of the rotation with the third column
    negated. Columns of other lengths or angles give finite numbers of some other rotation, up to 27 degrees
    off for a rotation times 2.

    Args:
        matrix: rotations, shape (..., 3, 3).

    Returns:
        Shape (..., 5), smooth in `matrix`. The length of the last three is in [sqrt 2 - 1, sqrt 2 + 1].

    Raises:
        ValueError: if the last two dimensions are not (3, 3).
        TypeError: if `matrix` is not floating point.

    Source:
        Zhou et al., "On the Continuity of Rotation Representations in Neural Networks", CVPR 2019, sec. 4.2.

    Example:
        >>> import torch, svdrot
        >>> matrix = svdrot.quaternion_to_matrix(torch.tensor([0.8, 0.0, 0.0, 0.6]))
        >>> svdrot.matrix_to_rotation_5d(matrix)
        tensor([ 0.2800,  0.9600, -0.9600,  0.2800,  0.0000])
    """
    return frames.matrix_to_rotation_5d(matrix)


def rotation_2vec_to_matrix(rotation_2vec: Tensor) -> Tensor:
    r"""Convert pairs of directions to rotations whose first two columns share the error of both equally.

    The columns are as near to the directions as a right angle between them allows. Of unit vectors $b_1, b_2$
    the bisector and the difference are perpendicular; as unit vectors they are $p \propto b_1 + b_2$ and $m
    \propto b_1 - b_2$, and the columns are $(p + m) / \sqrt 2$, $(p - m) / \sqrt 2$ and $m \times p$. Each of
    $b_1, b_2$ is thus turned by the same angle in their plane: neither has the privilege that Gram-Schmidt
    gives to the first.

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

    Example:
        >>> import math, torch, svdrot
        >>> matrix = svdrot.rotation_2vec_to_matrix(torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0]))
        >>> round(math.degrees(math.acos(matrix[0, 0])), 1)  # half of what 45 lack to 90
        22.5
    """
    return frames.rotation_2vec_to_matrix(rotation_2vec)


def matrix_to_rotation_2vec(matrix: Tensor) -> Tensor:
    """Return the first column, then the second column, of rotations: the same numbers as 6D.

    Nothing checks that `matrix` is a rotation; `svdrot.is_rotation` does. The third column is not looked at:
    `rotation_2vec_to_matrix` reads the numbers of any matrix by the bisector of its first two columns, and
    those of a reflection (det < 0, orthonormal) as the rotation with the third column negated.

    Args:
        matrix: rotations, shape (..., 3, 3).

    Returns:
        Shape (..., 6), linear in `matrix`.

    Raises:
        ValueError: if the last two dimensions are not (3, 3).
        TypeError: if `matrix` is not floating point.

    Source:
        Chandrasekhar, "Special Unitary Parameterized Estimators of Rotation", ICLR 2026, arXiv 2411.13109.

    Example:
        >>> import torch, svdrot
        >>> matrix = svdrot.quaternion_to_matrix(torch.tensor([0.8, 0.0, 0.0, 0.6]))
        >>> svdrot.matrix_to_rotation_2vec(matrix)
        tensor([ 0.2800,  0.9600,  0.0000, -0.9600,  0.2800,  0.0000])
    """
    return matrix_to_rotation_6d(matrix)
