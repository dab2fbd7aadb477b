"""Losses for objects that look alike in several poses."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from svdrot._checks import check_shape
from svdrot._formulas import losses as formulas
from svdrot._precision import compute_dtype, result_dtype
from svdrot._stand_ins import takes_arrays
from svdrot._vectors import product
from svdrot.transform import Transform

from .point_matching import Pose
from .rotations import geodesic


@takes_arrays
def minimum_over_symmetries(
    estimate: Tensor | Pose,
    truth: Tensor | Pose,
    symmetries: Tensor,
    loss: Callable[..., Tensor] = geodesic,
    **settings: Any,
) -> Tensor:
    r"""Return the least loss against the true poses that look alike, $\min_S L(\hat R, R S)$.

    Args:
        estimate: rotations (..., 3, 3) or poses, whatever `loss` takes.
        truth: rotations or poses as `estimate`; batch dimensions broadcast.
        symmetries: rotations that take the object to itself, in its own frame, shape (G, 3, 3): a group of
            `svdrot.symmetries`.
        loss: any function of this package, per element.
        settings: further arguments of the loss. Tensors among them broadcast against the batch, as `points`
            of one model (N, 3) or of each element (..., N, 3).

    Returns:
        Shape (...). The gradient is that of one of the least: where several are, one is chosen, so that a
        descent does not stop between two of them. NaN where the loss of any is.

    Raises:
        ValueError: if `symmetries` is empty, or the shape of an argument is wrong.
        TypeError: if an argument is not floating point.

    Source:
        Wang et al., "Normalized Object Coordinate Space for Category-Level 6D Object Pose and Size
        Estimation", CVPR 2019, the loss of symmetric categories.

    Example:
        >>> import torch, svdrot
        >>> symmetries = svdrot.symmetries.cyclic(4)  # a square pyramid
        >>> estimate = svdrot.axis_angle_to_matrix(torch.tensor([0.0, 0.0, torch.pi / 2 + 0.1]))
        >>> svdrot.losses.minimum_over_symmetries(estimate, torch.eye(3), symmetries)
        tensor(0.1000)
        >>> svdrot.losses.geodesic(estimate, torch.eye(3))
        tensor(1.6708)
    """
    check_shape("symmetries", symmetries, 3, 3)
    if symmetries.ndim != 3 or len(symmetries) == 0:
        raise ValueError(f"`symmetries` must have shape (G, 3, 3), G >= 1; got {tuple(symmetries.shape)}.")
    a, b = _rotation("estimate", estimate), _rotation("truth", truth)
    result = result_dtype(a.to(torch.promote_types(a.dtype, b.dtype)))
    # Not by a dimension of its own, whose place depends on the batch of every argument.
    losses = torch.func.vmap(lambda s: loss(estimate, _alike(truth, s), **settings))(symmetries)
    return losses.min(0).values.to(result)


def _rotation(name: str, pose: Tensor | Pose) -> Tensor:
    """Return the rotation of a pose, checked."""
    rotation = pose.rotation if isinstance(pose, Transform) else pose
    rotation = pose[0] if isinstance(pose, (tuple, list)) and pose else rotation
    check_shape(name, rotation, 3, 3)  # pyright: ignore
    return rotation  # pyright: ignore


def _alike(pose: Tensor | Pose, symmetry: Tensor) -> Tensor | Pose:
    """Return the pose after a rotation of the object in its own frame, in a dtype to compute in."""
    if isinstance(pose, Transform):
        return Transform(_alike(pose.rotation, symmetry), pose.translation, pose.scale)  # pyright: ignore
    if isinstance(pose, (tuple, list)):
        return _alike(pose[0], symmetry), pose[1]  # pyright: ignore[reportReturnType]
    pose = pose.to(compute_dtype(pose))
    return product(pose, symmetry.to(pose))


def axial(estimate: Tensor, truth: Tensor, axis: Tensor, *, undirected: bool = False) -> Tensor:
    r"""Return the least angle between two rotations over all turns of an object about its axis of revolution.

    It is the angle between the two images of the axis: with (w, u) the quaternion of $\hat R^\top R$, the
    best turn about a leaves $\cos(\beta / 2) = \sqrt{w^2 + (u \cdot a)^2}$, and $\beta$ is the angle between
    a and its image.

    Args:
        estimate: rotations, shape (..., 3, 3).
        truth: rotations, shape (..., 3, 3).
        axis: of revolution, in the frame of the object, of any length, shape (..., 3). Batch dimensions
            broadcast.
        undirected: whether the object also looks alike upside down, as a cylinder does and a bottle does not.

    Returns:
        Radians, shape (...), in [0, pi], or [0, pi / 2] if undirected. The gradient at both ends is zero. NaN
        for an axis of zero.

    Raises:
        ValueError: if a shape is wrong.
        TypeError: if an argument is not floating point.

    Source:
        Brégier et al., "Defining the Pose of Any 3D Rigid Object and an Associated Distance", Int. J. Comput.
        Vis. 126 (2018), objects of revolution.

    Example:
        >>> import torch, svdrot
        >>> axis = torch.tensor([0.0, 0.0, 1.0])
        >>> estimate = svdrot.euler_to_matrix(torch.tensor([0.5, 0.0, 2.0]), "XYZ")  # tilt, then turn about z
        >>> svdrot.losses.axial(estimate, torch.eye(3), axis)
        tensor(0.5000)
    """
    return (formulas.axial_undirected if undirected else formulas.axial)(estimate, truth, axis)
