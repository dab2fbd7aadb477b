"""Rotation representations: `X_to_matrix` and `matrix_to_X`.

Rotations act on column vectors, quaternions are w x y z, angles are radians. Every map takes any batch shape,
computes half precision in float32 and gives it back as it came (float32 under autocast), and answers an
element that has a NaN or an infinity with NaN in all of that element and in no other. Products are written
elementwise: `@` would fall to bfloat16 under autocast and to TF32 on a GPU.
"""

import torch
from torch import Tensor

from ._checks import check_shape, result_dtype, to_compute
from .projection import special_orthogonalize


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
    x, y = _normalize(_rescale_or_first_axis(x)), _rescale(y)
    y = _reject(y, x)
    # Of an exact multiple a rejection up to 3.8 eps long is left (400,000 draws), pointing nowhere.
    collinear = torch.linalg.vector_norm(y.detach(), dim=-1, keepdim=True) < 8 * torch.finfo(y.dtype).eps
    y = _normalize(torch.where(collinear, _perpendicular(x), y))
    # Once leaves x.y = eps / sin(angle between the inputs); "twice is enough" (Kahan, in Parlett, "The
    # Symmetric Eigenvalue Problem", chapter 6).
    y = _normalize(_reject(y, x))
    matrix = torch.stack((x, y, torch.linalg.cross(x, y)), -1)
    return matrix.to(result_dtype(rotation_6d))


def _rescale(v: Tensor) -> Tensor:
    """`v` over its largest entry, so that squares neither overflow nor vanish.

    The divisor is a constant to autograd. That is exact at every order, because the result is only used
    through its direction, which no positive constant changes. Below `tiny`, where 1 / |v| overflows, `v` is
    left as it is.
    """
    largest = v.detach().abs().amax(-1, keepdim=True)
    return v / torch.where(largest < torch.finfo(v.dtype).tiny, 1, largest)


def _normalize(v: Tensor) -> Tensor:
    return v / torch.linalg.vector_norm(v, dim=-1, keepdim=True)


def _rescale_or_first_axis(v: Tensor) -> Tensor:
    v = _rescale(v)
    zero = v.detach().abs().amax(-1, keepdim=True) < 0.5  # otherwise the largest entry is 1
    return torch.where(zero, torch.eye(v.shape[-1], dtype=v.dtype, device=v.device)[0], v)


def _reject(v: Tensor, unit: Tensor) -> Tensor:
    return v - (unit * v).sum(-1, keepdim=True) * unit


def _perpendicular(unit: Tensor) -> Tensor:
    x, y, z = unit.unbind(-1)
    zero = torch.zeros_like(x)
    level, upright = torch.stack((-y, x, zero), -1), torch.stack((zero, -z, y), -1)
    return torch.where((x.abs() > 0.5)[..., None], level, upright)


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
    q = _rescale_or_first_axis(q)
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
    xx, xy, xz, yx, yy, yz, zx, zy, zz = r.flatten(-2).unbind(-1)
    entries = (
        *(1 + xx + yy + zz, zy - yz, xz - zx, yx - xy),
        *(zy - yz, 1 + xx - yy - zz, xy + yx, xz + zx),
        *(xz - zx, xy + yx, 1 - xx + yy - zz, yz + zy),
        *(yx - xy, xz + zx, yz + zy, 1 - xx - yy + zz),
    )
    four_qq = torch.stack(entries, -1).unflatten(-1, (4, 4))
    largest = four_qq.diagonal(dim1=-2, dim2=-1).argmax(-1)
    q = _normalize(four_qq.take_along_dim(largest[..., None, None], -2).squeeze(-2))
    return torch.where(q[..., :1] < 0, -q, q)


def axis_angle_to_matrix(axis_angle: Tensor) -> Tensor:
    r"""Exponential map: the rotation about the direction of a vector by its length in radians.

    Args:
        axis_angle: rotation vectors in radians, shape (..., 3).

    Returns:
        Rotations, shape (..., 3, 3). Zero is regular: the identity, and the derivatives of the exponential.

    Raises:
        ValueError: if the last dimension is not 3.
        TypeError: if `axis_angle` is not floating point.

    Source:
        Grassia, "Practical Parameterization of Rotations Using the Exponential Map", JGT 3 (1998).
    """
    check_shape("axis_angle", axis_angle, 3)
    half = to_compute(axis_angle, 1) / 2
    squared = (half * half).sum(-1, keepdim=True)
    small = _is_small(squared)
    angle = torch.where(small, 1, squared).sqrt()
    series = torch.where(small, squared, 0)
    cosine = torch.where(small, 1 - series / 2 + series**2 / 24, angle.cos())
    sinc = torch.where(small, 1 - series / 6 + series**2 / 120, angle.sin() / angle)
    return _quaternion_to_matrix(torch.cat((cosine, sinc * half), -1)).to(result_dtype(axis_angle))


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
    w, u = _matrix_to_quaternion(to_compute(matrix, 2)).split((1, 3), -1)
    squared = (u * u).sum(-1, keepdim=True)
    small = _is_small(squared)
    sine = torch.where(small, 1, squared).sqrt()
    tangent = torch.where(small, squared, 0) / torch.where(small, w, 1) ** 2
    series = (1 - tangent / 3 + tangent**2 / 5) / torch.where(small, w, 1)
    half = torch.where(small, series, sine.atan2(w) / sine)
    return (2 * half * u).to(result_dtype(matrix))


def euler_to_matrix(angles: Tensor, sequence: str) -> Tensor:
    r"""Product of three rotations about coordinate axes.

    As in scipy, "XYZ" is intrinsic, $R_x(\alpha) R_y(\beta) R_z(\gamma)$, each turn about an axis of the
    turned body, and "xyz" is extrinsic, $R_z(\gamma) R_y(\beta) R_x(\alpha)$, each turn about a fixed axis.

    Args:
        angles: (alpha, beta, gamma) in radians, in the order of `sequence`, shape (..., 3).
        sequence: three axes, all upper or all lower case, neighbours different.

    Returns:
        Rotations, shape (..., 3, 3).

    Raises:
        ValueError: if the last dimension is not 3, or `sequence` is not one of the 24.
        TypeError: if `angles` is not floating point.

    Source:
        Shuster, "A Survey of Attitude Representations", J. Astronautical Sciences 41 (1993).
    """
    check_shape("angles", angles, 3)
    i, j, k = _axes(sequence)
    alpha, beta, gamma = to_compute(angles, 1).unbind(-1)
    factors = _about(i, alpha), _about(j, beta), _about(k, gamma)
    a, b, c = factors if sequence.isupper() else reversed(factors)
    ab = (a[..., None] * b[..., None, :, :]).sum(-2)
    return (ab[..., None] * c[..., None, :, :]).sum(-2).to(result_dtype(angles))


def _axes(sequence: str) -> tuple[int, ...]:
    axes = tuple(map("xyz".find, sequence.lower()))
    one_case = sequence.isupper() or sequence.islower()
    if len(axes) != 3 or -1 in axes or not one_case or axes[1] in (axes[0], axes[2]):
        raise ValueError(
            '`sequence` must be three axes, neighbours different, such as "XYZ" (intrinsic) '
            f'or "zxz" (extrinsic); got {sequence!r}.'
        )
    return axes


def _about(axis: int, angle: Tensor) -> Tensor:
    """Rodrigues about a coordinate axis, every entry exact: e e' + cos (I - e e') + sin [e]x."""
    eye = torch.eye(3, dtype=angle.dtype, device=angle.device)
    e, f, g = (eye[(axis + n) % 3] for n in range(3))
    along = e[:, None] * e
    turn = g[:, None] * f - f[:, None] * g
    return along + angle.cos()[..., None, None] * (eye - along) + angle.sin()[..., None, None] * turn


def matrix_to_euler(matrix: Tensor, sequence: str) -> Tensor:
    r"""Angles whose `euler_to_matrix` is the rotation.

    Args:
        matrix: rotations, shape (..., 3, 3).
        sequence: three axes, upper case for intrinsic or lower case for extrinsic, neighbours different.

    Returns:
        Angles in radians in the order of `sequence`, shape (..., 3). The outer two are in [-pi, pi]; the
        middle one is in [-pi/2, pi/2] for three different axes and in [0, pi] if the first is also the last.
        Within rounding of gimbal lock (a middle angle at an end of its range) only a sum or difference of the
        outer two is defined: the third is zero, and only the first has a gradient.

    Raises:
        ValueError: if the last two dimensions are not (3, 3), or `sequence` is not one of the 24.
        TypeError: if `matrix` is not floating point.

    Source:
        Shuster, "A Survey of Attitude Representations", J. Astronautical Sciences 41 (1993).
    """
    check_shape("matrix", matrix, 3, 3)
    c, b, a = _axes(sequence)
    # M = R_a(gamma) R_b(beta) R_c(alpha) is the extrinsic product, and the transpose of the intrinsic one
    # with every angle negated. With d the third axis and s = 1 if (a, b, d) is right-handed and the angles
    # are not negated,
    #   c = d: M e_c = s sin(beta) e_a + cos(beta) (cos(gamma) e_d - s sin(gamma) e_b),
    #   c = a: M e_c = cos(beta) e_a + sin(beta) (sin(gamma) e_b - s cos(gamma) e_d).
    # Then R_b(beta) leaves e_b alone, so that row b of R_a(-gamma) M is row b of R_c(alpha): taking alpha
    # from it, and not from M, keeps the product right to rounding however close gimbal lock is.
    d = 3 - a - b
    s = 1 if ((b - a) % 3 == 1) == sequence.islower() else -1
    m = to_compute(matrix, 2)
    m = m.mT if sequence.isupper() else m
    axis = m[..., c]
    x, y = (axis[..., d], -s * axis[..., b]) if c == d else (-s * axis[..., d], axis[..., b])
    # An entry is right to a few eps, hence so is the product when a shorter (x, y) counts as zero.
    locked = torch.hypot(x, y).detach() < 4 * torch.finfo(m.dtype).eps
    x, y = torch.where(locked, 1, x), torch.where(locked, 0, y)
    length = torch.hypot(x, y)
    cosine, sine, length = x / length, y / length, torch.where(locked, 0, length)
    row = cosine[..., None] * m[..., b, :] + s * sine[..., None] * m[..., d, :]
    if c == d:
        beta, alpha = torch.atan2(s * axis[..., a], length), torch.atan2(s * row[..., a], row[..., b])
    else:
        beta, alpha = torch.atan2(length, axis[..., a]), torch.atan2(-s * row[..., d], row[..., b])
    return torch.stack((alpha, beta, torch.atan2(sine, cosine)), -1).to(result_dtype(matrix))


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
    check_shape("symmetric", symmetric, 10)
    ww, wx, wy, wz, xx, xy, xz, yy, yz, zz = to_compute(symmetric, 1).unbind(-1)
    entries = (
        *((yy + zz - ww - xx) / 2, wz - xy, -wy - xz),
        *(-wz - xy, (xx + zz - ww - yy) / 2, wx - yz),
        *(wy - xz, -wx - yz, (xx + yy - ww - zz) / 2),
    )  # of 2 M: a positive factor does not move the nearest rotation
    matrix = special_orthogonalize(torch.stack(entries, -1).unflatten(-1, (3, 3)))
    return matrix.to(result_dtype(symmetric))
