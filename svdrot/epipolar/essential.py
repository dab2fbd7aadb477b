"""Essential matrices: the nearest one, and to and from poses."""

import torch
from torch import Tensor

from svdrot._checks import check_shape
from svdrot._formulas.geometry import epipolar
from svdrot._stand_ins import takes_arrays
from svdrot.epipolar._pairs import pairs
from svdrot.transform import Transform, check_transform


def project_to_essential(matrix: Tensor) -> Tensor:
    r"""Return the essential matrix nearest to each matrix in Frobenius norm.

    With $M = U \operatorname{diag}(s_1, s_2, s_3) V^\top$ it is $U \operatorname{diag}(s, s, 0) V^\top$, $s =
    (s_1 + s_2) / 2$. The gradient is exact, also where $s_1 = s_2$, as of every essential matrix, and
    the derivative of a singular value decomposition is infinite: it divides by $s_2 - |s_3|$ and never by
    $s_1 - s_2$.

    Args:
        matrix: shape (..., 3, 3), any floating dtype, of any determinant.

    Returns:
        Shape (..., 3, 3), of singular values s, s, 0 to rounding, and of the scale of `matrix`.
        Differentiable any number of times. Where $s_2 = |s_3|$, as of rotations and of rank one, several are
        nearest: one of them is returned, with a finite gradient, zero along what is undefined. Differences
        count as zero up to 32 units of rounding, as in `svdrot.special_orthogonalize`. Zero stays zero, with
        a finite gradient. NaN or infinity gives NaN for its matrix only.

    Raises:
        ValueError: if the last two dimensions are not (3, 3).
        TypeError: if `matrix` is not a floating-point tensor.

    Source:
        Hartley and Zisserman, "Multiple View Geometry" (2004), section 11.7.3.

    Example:
        >>> import torch, svdrot
        >>> raw = torch.diag(torch.tensor([3.0, 2.0, 1.0])).requires_grad_()
        >>> essential = svdrot.epipolar.project_to_essential(raw)
        >>> essential.diagonal()
        tensor([2.5000, 2.5000, 0.0000], grad_fn=<DiagonalBackward0>)
        >>> essential[0, 0].backward()
        >>> raw.grad.diagonal()
        tensor([0.5000, 0.5000, 0.0000])
    """
    return epipolar.project(matrix)


def project_to_rank_two(matrix: Tensor) -> Tensor:
    r"""Return the matrix of rank two nearest to each matrix in Frobenius norm, as fundamental matrices are.

    With $M = U \operatorname{diag}(s_1, s_2, s_3) V^\top$ it is $U \operatorname{diag}(s_1, s_2, 0) V^\top$.

    Args:
        matrix: shape (..., 3, 3), any floating dtype.

    Returns:
        Shape (..., 3, 3). Differentiable any number of times, and singular as `project_to_essential` is.

    Raises:
        ValueError: if the last two dimensions are not (3, 3).
        TypeError: if `matrix` is not a floating-point tensor.

    Source:
        Eckart and Young, Psychometrika 1 (1936); Hartley and Zisserman, "Multiple View Geometry" (2004),
        section 11.1.1.

    Example:
        >>> import torch, svdrot
        >>> found = svdrot.epipolar.project_to_rank_two(torch.diag(torch.tensor([3.0, 1.0, 2.0])))
        >>> torch.allclose(found, torch.diag(torch.tensor([3.0, 0.0, 2.0])), atol=1e-6)
        True
    """
    return epipolar.project_to_rank_two(matrix)


def essential_from_pose(transform: Transform) -> Tensor:
    r"""Return the essential matrix $[t]_\times R$ of a pose of the second camera relative to the first.

    Args:
        transform: takes points from the frame of the first camera to that of the second, batch shape (...).
            Its scale counts for nothing.

    Returns:
        Shape (..., 3, 3), of singular values |t|, |t|, 0. Zero of a pure rotation, which shows no depth.

    Raises:
        ValueError: if `transform` is not of three dimensions, or its parts do not broadcast.
        TypeError: if `transform` is not a `Transform`.

    Source:
        Longuet-Higgins, "A computer algorithm for reconstructing a scene from two projections", Nature 293
        (1981).

    Example:
        >>> import torch, svdrot
        >>> right = svdrot.Transform(torch.eye(3), torch.tensor([-1.0, 0.0, 0.0]), torch.tensor(1.0))
        >>> essential = svdrot.epipolar.essential_from_pose(right)  # of rectified stereo
        >>> essential
        tensor([[ 0.,  0.,  0.],
                [ 0.,  0.,  1.],
                [ 0., -1.,  0.]])
    """
    check_transform("transform", transform)
    return epipolar.from_pose(transform.rotation, transform.translation)


@takes_arrays
def decompose_essential(essential: Tensor) -> Transform:
    r"""Return the four poses that have an essential matrix, up to its scale and sign.

    Args:
        essential: shape (..., 3, 3), of any scale. Of another matrix it is the nearest essential one, and
            gradients are those of `project_to_essential`.

    Returns:
        Poses, batch shape (..., 4), of unit translation: (R, t), (R, -t), (Q, -t), (Q, t), of which the first
        and the third have the sign of `essential`. Which of the two rotations is R, and the sign of t, jump
        somewhere; the four together do not. Zero gives those of diag(1, 1, 0), with zero gradient. NaN or
        infinity gives NaN for its matrix only.

    Raises:
        ValueError: if the last two dimensions are not (3, 3).
        TypeError: if `essential` is not a floating-point tensor.

    Source:
        Horn, "Recovering baseline and orientation from essential matrix" (1990), for the rotations; Hartley
        and Zisserman, "Multiple View Geometry" (2004), result 9.19.

    Example:
        >>> import torch, svdrot
        >>> pose = svdrot.se3_exp(torch.tensor([0.1, 0.2, 0.3, 1.0, 0.0, 0.0]))
        >>> four = svdrot.epipolar.decompose_essential(svdrot.epipolar.essential_from_pose(pose))
        >>> angle, _ = four.distance(pose)
        >>> int((angle < 1e-3).sum())  # one rotation, with both signs of the translation
        2
    """
    turns, moves = _four(essential)
    return Transform(turns, moves, torch.ones_like(moves[..., 0]))


@takes_arrays
def pose_from_essential(
    essential: Tensor, a: Tensor, b: Tensor, weights: Tensor | None = None, *, mask: Tensor | None = None
) -> Transform:
    """Return the pose of an essential matrix, of four, with most of the scene in front of both cameras.

    Args:
        essential: shape (..., 3, 3), of any scale and sign.
        a: points in the first view, in the coordinates of the camera, shape (..., N, 2).
        b: points in the second view, pair by pair. Batch dimensions broadcast.
        weights: shape (..., N), at least 0: what a pair counts for. Default: 1.
        mask: boolean, shape (..., N): pairs that count. What does not count, or has weight 0, may be NaN.

    Returns:
        Poses, batch shape (...), of unit translation, with the gradients of `decompose_essential`; points
        have none. If no pair counts it is the first of the four. NaN, infinity or a negative weight in a pair
        that counts gives NaN for its item only.

    Raises:
        ValueError: if shapes do not fit.
        TypeError: if an argument is not a tensor of the right kind.

    Source:
        Nistér, "An efficient solution to the five-point relative pose problem", IEEE TPAMI 26 (2004), section
        3.1, for signs of depths instead of points.

    Example:
        >>> import torch, svdrot
        >>> pose = svdrot.se3_exp(torch.tensor([0.1, 0.2, 0.3, 1.0, 0.0, 0.0]))
        >>> scene = torch.tensor([[0.0, 0.0, 4.0], [1.0, 0.0, 5.0], [0.0, -1.0, 6.0]])
        >>> a, b = (x[:, :2] / x[:, 2:] for x in (scene, pose.apply(scene)))
        >>> essential = svdrot.epipolar.essential_from_pose(pose)
        >>> found = svdrot.epipolar.pose_from_essential(-essential, a, b)
        >>> torch.allclose(found.rotation, pose.rotation, atol=1e-6)
        True
        >>> torch.nn.functional.cosine_similarity(found.translation, pose.translation, dim=0) > 0.999
        tensor(True)
    """
    check_shape("essential", essential, 3, 3)
    a, b, w, broken = pairs(a, b, weights, mask, essential=essential.shape[:-2])
    turns, moves = _four(essential)
    turns = turns.expand(*w.shape[:-1], 4, 3, 3)
    moves = moves.expand(*w.shape[:-1], 4, 3)
    with torch.no_grad():
        # For t and -t at once: the first pose and the second, the third and the fourth.
        turn, move = turns[..., ::2, None, :, :].double(), moves[..., ::2, None, :].double()
        front = epipolar.in_front(turn, move, a[..., None, :, :], b[..., None, :, :])
        votes = (w[..., None, :, None] * front).sum(-2).flatten(-2)
        best = torch.arange(4, device=votes.device) == votes.argmax(-1, keepdim=True)
    spoiled = torch.where(broken, torch.nan, 0.0)
    # A sum of one: where to find it would be a size to exporters.
    rotation = torch.where(best[..., None, None], turns, 0.0).sum(-3)
    translation = torch.where(best[..., None], moves, 0.0).sum(-2)
    rotation = rotation + spoiled.to(rotation.dtype)[..., None, None]
    translation = translation + spoiled.to(translation.dtype)[..., None]
    return Transform(rotation, translation, torch.ones_like(translation[..., 0]))


def _four(essential: Tensor) -> tuple[Tensor, Tensor]:
    """Return rotations and translations of the four poses."""
    r, q, t = epipolar.decompose(essential)
    return torch.stack((r, r, q, q), -3), torch.stack((t, -t, -t, t), -2)
