"""Representations linear in the rotation and read by its projection: 9D and 10D."""

from torch import Tensor

from svdrot._formulas import linear


def rotation_9d_to_matrix(rotation_9d: Tensor) -> Tensor:
    """Convert nine free entries of a matrix to the nearest rotation, by `special_orthogonalize`.

    Args:
        rotation_9d: the entries row by row, shape (..., 9), of any scale.

    Returns:
        Rotations, shape (..., 3, 3), with the gradient of `special_orthogonalize`. Nine zeros give the
        identity, with zero gradient.

    Raises:
        ValueError: if the last dimension is not 9.
        TypeError: if `rotation_9d` is not floating point.

    Source:
        Levinson et al., "An Analysis of SVD for Deep Rotation Estimation", NeurIPS 2020, arXiv 2006.14616.

    Example:
        >>> import torch, svdrot
        >>> raw = torch.randn(8, 9, generator=torch.Generator().manual_seed(0))
        >>> rotation = svdrot.rotation_9d_to_matrix(raw)
        >>> torch.allclose(rotation, svdrot.special_orthogonalize(raw.unflatten(-1, (3, 3))))
        True
    """
    return linear.rotation_9d_to_matrix(rotation_9d)


def matrix_to_rotation_9d(matrix: Tensor) -> Tensor:
    """Return the entries of rotations row by row.

    Nothing checks that `matrix` is a rotation; `svdrot.is_rotation` does. Any other matrix is kept as it is,
    and read by `rotation_9d_to_matrix` as its nearest rotation; of a reflection (det < 0, orthonormal) as one
    of several.

    Args:
        matrix: rotations, shape (..., 3, 3).

    Returns:
        Shape (..., 9), linear in `matrix`.

    Raises:
        ValueError: if the last two dimensions are not (3, 3).
        TypeError: if `matrix` is not floating point.

    Source:
        Levinson et al., "An Analysis of SVD for Deep Rotation Estimation", NeurIPS 2020, arXiv 2006.14616.

    Example:
        >>> import torch, svdrot
        >>> svdrot.matrix_to_rotation_9d(torch.eye(3))
        tensor([1., 0., 0., 0., 1., 0., 0., 0., 1.])
    """
    return linear.matrix_to_rotation_9d(matrix)


def symmetric_10d_to_matrix(symmetric: Tensor) -> Tensor:
    r"""Convert symmetric 4x4 matrices to the rotations of their eigenvectors of the smallest eigenvalue.

    The eigenvector is a quaternion, but none is computed. A rotation is quadratic in its unit quaternion $q$,
    hence $\langle M, R(q) \rangle = q^\top N(M)\, q$ for every 3x3 matrix $M$, with Horn's $N(M)$ symmetric,
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

    Example:
        >>> import torch, svdrot
        >>> q = torch.tensor([0.8, 0.0, 0.0, 0.6])
        >>> row, column = torch.triu_indices(4, 4)
        >>> a = torch.eye(4) - torch.outer(q, q)  # of smallest eigenvalue along q
        >>> matrix = svdrot.symmetric_10d_to_matrix(a[row, column])
        >>> torch.allclose(matrix, svdrot.quaternion_to_matrix(q), atol=1e-6)
        True
    """
    return linear.symmetric_10d_to_matrix(symmetric)


def matrix_to_symmetric_10d(matrix: Tensor) -> Tensor:
    r"""Convert rotations to the symmetric matrices $I - q q^\top$ of their unit quaternions $q$.

    The map is linear in the entries of the rotation. The eigenvalues are 0, along $q$, and 1 three times: the
    best separated of the matrices of that size.

    Nothing checks that `matrix` is a rotation; `svdrot.is_rotation` does. Any other matrix gets other
    eigenvalues, and is read by `symmetric_10d_to_matrix` as its nearest rotation; a reflection (det < 0,
    orthonormal) as one of several.

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

    Example:
        >>> import torch, svdrot
        >>> svdrot.matrix_to_symmetric_10d(torch.eye(3))
        tensor([0., 0., 0., 0., 1., 0., 0., 1., 0., 1.])
    """
    return linear.matrix_to_symmetric_10d(matrix)
