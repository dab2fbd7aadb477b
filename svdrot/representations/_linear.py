"""Representations linear in the rotation and read by its projection: 9D and 10D."""

from torch import Tensor

from svdrot._formulas import linear


def rotation_9d_to_matrix(rotation_9d: Tensor) -> Tensor:
    r"""The rotation nearest to a matrix of nine free entries: `special_orthogonalize`, whose gradient it has.

    Args:
        rotation_9d: the entries row by row, shape (..., 9), of any scale.

    Returns:
        Rotations, shape (..., 3, 3). Nine zeros give the identity, with zero gradient.

    Raises:
        ValueError: if the last dimension is not 9.
        TypeError: if `rotation_9d` is not floating point.

    Source:
        Levinson et al., "An Analysis of SVD for Deep Rotation Estimation", NeurIPS 2020, arXiv 2006.14616.
    """
    return linear.rotation_9d_to_matrix(rotation_9d)


def matrix_to_rotation_9d(matrix: Tensor) -> Tensor:
    """The entries of a rotation row by row: shape (..., 3, 3) -> (..., 9).

    Raises:
        ValueError: if the last two dimensions are not (3, 3).
        TypeError: if `matrix` is not floating point.

    Source:
        Levinson et al., "An Analysis of SVD for Deep Rotation Estimation", NeurIPS 2020, arXiv 2006.14616.
    """
    return linear.matrix_to_rotation_9d(matrix)


def symmetric_10d_to_matrix(symmetric: Tensor) -> Tensor:
    r"""Rotation whose quaternion is the eigenvector of the smallest eigenvalue of a symmetric 4x4 matrix.

    No eigenvector is computed. A rotation is quadratic in its unit quaternion $q$, hence
    $\langle M, R(q) \rangle = q^\top N(M)\, q$ for every 3x3 matrix $M$, with Horn's $N(M)$ symmetric,
    traceless and linear in $M$. Both spaces have nine dimensions and $N$ is invertible, so there is one $M$
    with $N(M) = \operatorname{tr}(A)/4\, I - A$. The smallest eigenvector of $A$ is the largest of $N(M)$,
    which maximizes $\langle M, R(q) \rangle$: its rotation is `special_orthogonalize(M)`, whose gradient has
    no differences of eigenvalues in it.

    Args:
        symmetric: upper triangle, row by row, of $A$ in the order w x y z, shape (..., 10). Adding a multiple
            of the identity to $A$, or scaling it by a positive number, changes nothing.

    Returns:
        Rotations, shape (..., 3, 3). Where the smallest eigenvalue is double, as for a multiple of the
        identity, value and gradient are those of `special_orthogonalize` at its own singular set.

    Raises:
        ValueError: if the last dimension is not 10.
        TypeError: if `symmetric` is not floating point.

    Source:
        Peretroukhin et al., "A Smooth Representation of Belief over SO(3) for Deep Rotation Learning with
        Uncertainty", RSS 2020, arXiv 2006.01031; Horn, "Closed-form solution of absolute orientation using
        unit quaternions", J. Opt. Soc. Am. A 4 (1987), for N(M).
    """
    return linear.symmetric_10d_to_matrix(symmetric)


def matrix_to_symmetric_10d(matrix: Tensor) -> Tensor:
    r"""The symmetric matrix $I - q q^\top$ of a rotation with unit quaternion $q$: linear in its entries.

    Its eigenvalues are 0, along $q$, and 1 three times: the best separated of the matrices of that size.

    Args:
        matrix: rotations, shape (..., 3, 3).

    Returns:
        Upper triangle, row by row, in the order w x y z, shape (..., 10).

    Raises:
        ValueError: if the last two dimensions are not (3, 3).
        TypeError: if `matrix` is not floating point.

    Source:
        Peretroukhin et al., "A Smooth Representation of Belief over SO(3) for Deep Rotation Learning with
        Uncertainty", RSS 2020, arXiv 2006.01031.
    """
    return linear.matrix_to_symmetric_10d(matrix)
