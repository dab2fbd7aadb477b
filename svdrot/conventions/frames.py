"""Which way the axes of cameras and bodies point, and the change from one frame to another."""

import torch
from torch import Tensor

from svdrot._checks import check_choice

_DIRECTIONS = {
    "right": (1, 0, 0),
    "left": (-1, 0, 0),
    "up": (0, 1, 0),
    "down": (0, -1, 0),
    "backward": (0, 0, 1),
    "forward": (0, 0, -1),
}

# Where x, y and z point, as whoever looks along the view, or the body itself, has it. Unity and Unreal have
# left-handed axes.
AXES: dict[str, tuple[str, str, str]] = {
    # docs.opencv.org, calib3d; COLMAP, Open3D, kornia, BOP and the optical frames of ROS have the same
    "opencv": ("right", "down", "forward"),
    "opengl": ("right", "up", "backward"),  # Blender and MuJoCo have the same
    "pytorch3d": ("left", "up", "forward"),  # pytorch3d.org/docs/cameras
    "ros": ("forward", "left", "up"),  # ros.org/reps/rep-0103, bodies
    "aerospace": ("forward", "right", "down"),  # ISO 1151, bodies
    "smpl": ("left", "up", "forward"),  # bodies at rest face along z
    "unity": ("right", "up", "forward"),  # docs.unity3d.com, Transform
    "unreal": ("forward", "right", "up"),  # dev.epicgames.com, coordinate system
}


def change_of_axes(source: str, target: str) -> Tensor:
    r"""Return the matrix P that takes coordinates in one frame to those in another: $x' = P x$.

    A rotation R from the frame to itself becomes $P R P^\top$; one from the world to a camera becomes $P R$,
    and one from the camera to the world $R P^\top$.

    Args:
        source: "opencv", "opengl", "pytorch3d", "ros", "aerospace", "smpl", "unity" or "unreal", a key of
            `AXES`.
        target: as `source`.

    Returns:
        A signed permutation, shape (3, 3), float64: a rotation, or of determinant -1 if one of the two is
        left-handed.

    Raises:
        ValueError: if `source` or `target` is not one of them.

    Example:
        >>> import svdrot
        >>> svdrot.conventions.change_of_axes("opencv", "opengl")
        tensor([[ 1.,  0.,  0.],
                [ 0., -1.,  0.],
                [ 0.,  0., -1.]], dtype=torch.float64)
        >>> svdrot.conventions.change_of_axes("unity", "ros")  # its forward is x, its left is y
        tensor([[ 0.,  0.,  1.],
                [-1.,  0.,  0.],
                [ 0.,  1.,  0.]], dtype=torch.float64)
    """
    check_choice("source", source, AXES)
    check_choice("target", target, AXES)
    before, after = (
        torch.tensor([_DIRECTIONS[way] for way in AXES[name]], dtype=torch.float64)
        for name in (source, target)
    )
    return (after[:, None, :] * before[None, :, :]).sum(-1)
