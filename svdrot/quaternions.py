r"""The algebra of quaternions w x y z, and what rotations need of it: products, powers, arcs, means.

A quaternion of any nonzero length stands for the rotation $v \mapsto q v q^{-1}$, as `quaternion_to_matrix`
has it, and so does $-q$. What is said of a rotation (`quaternion_apply`, `quaternion_slerp`,
`quaternion_mean`) does not depend on length and sign; what is algebra (`quaternion_multiply`,
`quaternion_inverse`, `quaternion_exp`, `quaternion_log`, `quaternion_power`) does. Conversions, among them
those from and to rotation vectors, are in `svdrot.representations`.
"""

import torch
from torch import Tensor

from ._checks import as_number, check_items, check_number, check_shape, common_batch
from ._formulas.geometry import quaternions as formulas
from ._precision import result_dtype
from ._stand_ins import takes_arrays


def quaternion_multiply(a: Tensor, b: Tensor) -> Tensor:
    """Return Hamilton's product a b: of rotations, `b` first and then `a`.

    Args:
        a: w x y z, shape (..., 4), of any length.
        b: w x y z, shape (..., 4), of any length; batch dimensions broadcast.

    Returns:
        Quaternions w x y z, shape (..., 4), whose length is the product of the lengths. Not normalized, and
        of either sign: w may be negative. The negative of an argument gives the negative product.

    Raises:
        ValueError: if the last dimensions are not 4, or the others do not broadcast.
        TypeError: if an argument is not floating point.

    Source:
        Solà, "Quaternion kinematics for the error-state Kalman filter", arXiv 1711.02508, equation 12.

    Example:
        >>> import torch, svdrot
        >>> i, j = torch.tensor([0.0, 1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 1.0, 0.0])
        >>> svdrot.quaternion_multiply(i, j)  # k
        tensor([0., 0., 0., 1.])
    """
    return formulas.multiply(a, b)


def quaternion_conjugate(quaternion: Tensor) -> Tensor:
    """Return the conjugate w, -x, -y, -z: for a unit quaternion its inverse.

    Args:
        quaternion: w x y z, shape (..., 4), of any length.

    Returns:
        Quaternions w x y z, shape (..., 4), of the same length: the opposite rotation.

    Raises:
        ValueError: if the last dimension is not 4.
        TypeError: if `quaternion` is not floating point.

    Example:
        >>> import torch, svdrot
        >>> svdrot.quaternion_conjugate(torch.tensor([0.8, 0.0, 0.0, 0.6]))
        tensor([ 0.8000,  0.0000,  0.0000, -0.6000])
    """
    return formulas.conjugate(quaternion)


def quaternion_inverse(quaternion: Tensor) -> Tensor:
    r"""Return the inverse $\bar q / |q|^2$, whose product with the quaternion is 1 on either side.

    Args:
        quaternion: w x y z, shape (..., 4), of any nonzero length.

    Returns:
        Quaternions w x y z, shape (..., 4), of length 1 / |q|: the opposite rotation. The zero quaternion,
        which has no inverse, gives zero (its pseudoinverse) with zero gradient; so do those whose entries are
        all below the normal numbers of the dtype.

    Raises:
        ValueError: if the last dimension is not 4.
        TypeError: if `quaternion` is not floating point.

    Source:
        Solà, "Quaternion kinematics for the error-state Kalman filter", arXiv 1711.02508, equation 24.

    Example:
        >>> import torch, svdrot
        >>> q = torch.tensor([1.0, 2.0, 3.0, 4.0])
        >>> svdrot.quaternion_multiply(q, svdrot.quaternion_inverse(q)).round(decimals=5).abs()
        tensor([1., 0., 0., 0.])
    """
    return formulas.invert(quaternion)


def quaternion_normalize(quaternion: Tensor) -> Tensor:
    """Return the unit quaternion of the same direction, and hence the same rotation.

    Args:
        quaternion: w x y z, shape (..., 4), of any nonzero length, however small or large.

    Returns:
        Unit quaternions w x y z, shape (..., 4), of the sign they came with. The zero quaternion gives the
        identity 1, with zero gradient, as in `quaternion_to_matrix`.

    Raises:
        ValueError: if the last dimension is not 4.
        TypeError: if `quaternion` is not floating point.

    Example:
        >>> import torch, svdrot
        >>> svdrot.quaternion_normalize(torch.tensor([0.0, 0.0, 3e-30, 4e-30]))
        tensor([0.0000, 0.0000, 0.6000, 0.8000])
    """
    return formulas.normalize(quaternion)


def quaternion_apply(quaternion: Tensor, point: Tensor) -> Tensor:
    r"""Return the images of points under rotations, $q v q^{-1}$, without making matrices.

    Args:
        quaternion: w x y z, shape (..., 4), of any nonzero length; `quaternion` and `-quaternion` do the
            same.
        point: shape (..., 3); batch dimensions broadcast. One rotation for each cloud of N points is a
            quaternion of shape (..., 1, 4) and points of shape (..., N, 3).

    Returns:
        Points, shape (..., 3), of the length they came with. The zero quaternion leaves them where they are.

    Raises:
        ValueError: if the last dimensions are not 4 and 3, or the others do not broadcast.
        TypeError: if an argument is not floating point.

    Source:
        Solà, "Quaternion kinematics for the error-state Kalman filter", arXiv 1711.02508, section 2.4.

    Example:
        >>> import torch, svdrot
        >>> quarter_about_z = torch.tensor([1.0, 0.0, 0.0, 1.0])
        >>> svdrot.quaternion_apply(quarter_about_z, torch.tensor([[1.0, 0.0, 5.0], [0.0, 1.0, 5.0]]))
        tensor([[ 0.,  1.,  5.],
                [-1.,  0.,  5.]])
    """
    return formulas.apply(quaternion, point)


def quaternion_exp(quaternion: Tensor) -> Tensor:
    r"""Return the exponential of a quaternion $(w, u)$: $e^w (\cos |u|, \sin |u|\, u / |u|)$.

    With w = 0 it is the unit quaternion of the rotation vector 2 u; that of a rotation vector itself is
    `svdrot.axis_angle_to_quaternion`.

    Args:
        quaternion: w x y z, shape (..., 4).

    Returns:
        Quaternions w x y z, shape (..., 4), of length e^w; smooth everywhere. A length of u whose square
        overflows (1e19 in float32) gives NaN in its place.

    Raises:
        ValueError: if the last dimension is not 4.
        TypeError: if `quaternion` is not floating point.

    Source:
        Solà, "Quaternion kinematics for the error-state Kalman filter", arXiv 1711.02508, equation 43.

    Example:
        >>> import math, torch, svdrot
        >>> svdrot.quaternion_exp(torch.tensor([math.log(2), 0.0, 0.0, math.pi / 6]))
        tensor([1.7321, 0.0000, 0.0000, 1.0000])
    """
    return formulas.exponential(quaternion)


def quaternion_log(quaternion: Tensor) -> Tensor:
    r"""Return the principal logarithm of a quaternion.

    Of $(w, u)$ it is $(\log |q|,\ \operatorname{atan2}(|u|, w)\, u / |u|)$: of the quaternion, which is not
    that of its negative. For rotations, where both are the same, `svdrot.quaternion_to_axis_angle` gives
    twice the logarithm of the sign with w >= 0.

    Args:
        quaternion: w x y z, shape (..., 4), of any nonzero length.

    Returns:
        Quaternions w x y z, shape (..., 4), whose vector part has a length in [0, pi]. On the negative real
        axis, where any direction is right, it is pi along x, with zero gradient; next to it the derivative is
        as large as pi / |u|. Directions count as that axis when |u| is below 1e-17 |w| (1e-150 in float64),
        so that two derivatives are finite. The zero quaternion has no logarithm: NaN, with zero gradient.

    Raises:
        ValueError: if the last dimension is not 4.
        TypeError: if `quaternion` is not floating point.

    Source:
        Solà, "Quaternion kinematics for the error-state Kalman filter", arXiv 1711.02508, equation 48.

    Example:
        >>> import torch, svdrot
        >>> svdrot.quaternion_log(torch.tensor([[0.0, 0.0, 0.0, 1.0], [-1.0, 0.0, 0.0, 0.0]]))
        tensor([[0.0000, 0.0000, 0.0000, 1.5708],
                [0.0000, 3.1416, 0.0000, 0.0000]])
    """
    return formulas.logarithm(quaternion)


@takes_arrays
def quaternion_power(quaternion: Tensor, exponent: Tensor | float) -> Tensor:
    r"""Return a real power of a quaternion, $\exp(t \log q)$.

    Of a unit quaternion it is the rotation by t times its angle, which is above a half turn if w < 0: there
    the rotations of `quaternion` and its negative have different powers.

    Args:
        quaternion: w x y z, shape (..., 4), of any length.
        exponent: t, a number or a tensor of shape (...); batch dimensions broadcast.

    Returns:
        Quaternions w x y z, shape (..., 4), of length |q|^t. The zero quaternion gives zero, with zero
        gradient; the negative real axis, where the power jumps, that of `quaternion_log`.

    Raises:
        ValueError: if the last dimension of `quaternion` is not 4, or others do not broadcast.
        TypeError: if a tensor is not floating point, or `exponent` neither one nor a number.

    Source:
        Solà, "Quaternion kinematics for the error-state Kalman filter", arXiv 1711.02508, equation 50.

    Example:
        >>> import torch, svdrot
        >>> svdrot.quaternion_power(torch.tensor([0.0, 0.0, 0.0, 4.0]), 0.5)
        tensor([1.4142, 0.0000, 0.0000, 1.4142])
    """
    if not isinstance(exponent, Tensor):
        return formulas.power_of_all(quaternion, scalars=(check_number("exponent", exponent),))
    check_shape("quaternion", quaternion, 4)
    return formulas.power(quaternion, as_number("exponent", exponent, quaternion))


@takes_arrays
def quaternion_slerp(start: Tensor, end: Tensor, share: Tensor | float) -> Tensor:
    r"""Return the rotation a share of the way along the shorter arc, at constant angular velocity.

    It is $a (a^{-1} b)^t$ with the sign of $b$ for which the arc is the shorter one: exact where both are
    nearly the same as where they are nearly half a turn apart.

    Args:
        start: w x y z, shape (..., 4), of any nonzero length.
        end: w x y z, shape (..., 4), of any nonzero length and either sign.
        share: t, a number or a tensor of shape (...): 0 gives `start`, 1 gives `end`, others beyond go on
            along the arc. Batch dimensions broadcast. NaN and infinity give NaN, and have no part in
            gradients.

    Returns:
        Unit quaternions w x y z, shape (..., 4), on the side of `start`: at 0 it has the sign of `start`, at
        1 it is `end` or its negative. Half a turn apart both arcs are as short, and that to `end` as it came
        is taken. Gradients are finite everywhere. The zero quaternion counts as the identity.

    Raises:
        ValueError: if the last dimensions of `start` or `end` are not 4, or others do not broadcast.
        TypeError: if a tensor is not floating point, or `share` neither one nor a number.

    Source:
        Shoemake, "Animating Rotation with Quaternion Curves", SIGGRAPH 1985.

    Example:
        >>> import torch, svdrot
        >>> start, end = torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.tensor([0.28, 0.0, 0.0, 0.96])
        >>> svdrot.quaternion_slerp(start, end, 0.5)
        tensor([0.8000, 0.0000, 0.0000, 0.6000])
        >>> svdrot.quaternion_slerp(start, -end, 0.5)
        tensor([0.8000, 0.0000, 0.0000, 0.6000])
    """
    if not isinstance(share, Tensor):
        return formulas.slerp_of_all(start, end, scalars=(check_number("share", share),))
    check_shape("start", start, 4)
    check_shape("end", end, 4)
    return formulas.slerp(start, end, as_number("share", share, start, end))


@takes_arrays
def quaternion_mean(quaternions: Tensor, weights: Tensor | None = None) -> Tensor:
    r"""Return the mean rotation: the unit quaternion $q$ of largest $\sum w_i (q^\top q_i)^2$.

    It is the eigenvector of $\sum w_i q_i q_i^\top$ with the largest eigenvalue, and does not depend on the
    signs and lengths of the $q_i$; the same rotation as `svdrot.averaging.average_rotations` finds by its
    norm "chordal_l2" from matrices. The eigenvector comes from the closed form of `symmetric_10d_to_matrix`.

    Args:
        quaternions: w x y z, shape (..., N, 4), of any nonzero length; the zero quaternion counts as the
            identity.
        weights: shape (..., N), at least 0, of any total. Batch dimensions broadcast. Default: 1.

    Returns:
        Unit quaternions w x y z, shape (..., 4), w >= 0, computed in float64. No quaternions or a total
        weight of 0 give the identity with zero gradient. Where several are as good, as for rotations half a
        turn apart, it is one of them. A negative weight gives NaN for its item, and so does NaN or infinity,
        but in a quaternion of weight 0.

    Raises:
        ValueError: if `quaternions` has not shape (..., N, 4), or `weights` does not fit.
        TypeError: if an argument is not floating point.

    Source:
        Markley, Cheng, Crassidis and Oshman, "Averaging Quaternions", J. Guidance, Control, and Dynamics 30
        (2007), equations 12 and 13.

    Example:
        >>> import torch, svdrot
        >>> turns = torch.tensor([[0.0, 0.0, 0.1], [0.0, 0.0, 0.2], [0.0, 0.0, 0.3]])
        >>> mean = svdrot.quaternion_mean(svdrot.axis_angle_to_quaternion(turns))
        >>> svdrot.quaternion_to_axis_angle(mean)
        tensor([0.0000, 0.0000, 0.2000])
    """
    check_shape("quaternions", quaternions, 4)
    if quaternions.ndim < 2:
        raise ValueError(f"`quaternions` must have shape (..., N, 4); got {tuple(quaternions.shape)}.")
    n = quaternions.shape[-2]
    if weights is None:
        weights = torch.ones((), dtype=torch.float64, device=quaternions.device)
    else:
        check_items("weights", weights)
        if weights.shape[-1] != n:
            raise ValueError(f"`weights` must have shape (..., {n}); got {tuple(weights.shape)}.")
        common_batch(quaternions=quaternions.shape[:-2], weights=weights.shape[:-1])
    outer = formulas.weighted_outer(quaternions.double(), weights.double())
    return formulas.largest_eigenvector(outer.sum(-2)).to(result_dtype(quaternions))
