"""Trajectories as text, in the two forms that everyone reads.

    TUM     timestamp tx ty tz qx qy qz qw      seconds, meters, a unit quaternion with its real part last
    KITTI   r11 r12 r13 t1 r21 r22 r23 t2 r31 r32 r33 t3      the upper rows of the 4x4 matrix

Each line is a pose from the body to the world. Lines that begin with `#` and empty lines are passed over;
lines end in either way. Numbers are written so that they read back to the last bit of float64; the
quaternions of TUM give the rotations back but for a rounding.
"""

from pathlib import Path

import torch
from torch import Tensor

from svdrot.io import text
from svdrot.io.files import replacing
from svdrot.io.transforms import check_rotations
from svdrot.projection import special_orthogonalize
from svdrot.representations import matrix_to_quaternion, quaternion_to_matrix
from svdrot.transform import Transform

# Rounding to d decimals puts R^T R off by up to 2 * 10^-d, so four decimals pass, and programs write more. A
# wrong order of the numbers is off by far more in almost every line; transposed matrices cannot be told.
TOLERANCE = 1e-3


def read_tum(path: str | Path, *, tolerance: float = TOLERANCE) -> tuple[Tensor, Transform]:
    r"""Read timestamps and poses of a file in the form of the TUM RGB-D benchmark.

    Args:
        path: of the file.
        tolerance: how far the length of a quaternion may be from 1. It is divided by it.

    Returns:
        Timestamps, shape (N,), seconds, and poses (N,), at least one, both in float64.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: with the file and the line, if a line is not eight finite numbers, or its quaternion not
            of unit length; with the file, if it holds no poses or is not text.

    Example:
        >>> import pathlib, torch, svdrot
        >>> _ = pathlib.Path("walk.txt").write_text("# t x y z qx qy qz qw\n0.5 1 2 3 0 0 0 1\n")
        >>> timestamps, poses = svdrot.io.read_tum("walk.txt")
        >>> timestamps, poses.translation
        (tensor([0.5000], dtype=torch.float64), tensor([[1., 2., 3.]], dtype=torch.float64))
    """
    path = Path(path)
    rows = []
    for number, line in text.lines(path):
        row = text.numbers(path, number, line, 8, "`timestamp tx ty tz qx qy qz qw`")
        length = sum(q * q for q in row[4:]) ** 0.5
        if abs(length - 1) > tolerance:
            raise ValueError(
                f"{path}, line {number}: wanted a unit quaternion within {tolerance:g}; that of {line!r} has "
                f"length {length:.6g}."
            )
        rows.append(row)
    values = _poses(path, rows)
    rotation = quaternion_to_matrix(values[:, [7, 4, 5, 6]])
    return values[:, 0].contiguous(), _rigid(rotation, values[:, 1:4].contiguous())


def read_kitti(path: str | Path, *, tolerance: float = TOLERANCE, project: bool = False) -> Transform:
    r"""Read the poses of a file in the form of the KITTI odometry benchmark.

    Args:
        path: of the file.
        tolerance: how far entries of R^T R may be from those of the identity.
        project: whether rotations are replaced by the nearest ones; otherwise they are as written, and off by
            the rounding of the text.

    Returns:
        Poses (N,), at least one, float64, lengths in the units of the file.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: with the file and the line, if a line is not twelve finite numbers, or its matrix is not a
            rotation; with the file, if it holds no poses or is not text.

    Example:
        >>> import pathlib, torch, svdrot
        >>> _ = pathlib.Path("00.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n1 0 0 0 0 1 0 0 0 0 1 0.8\n")
        >>> svdrot.io.read_kitti("00.txt").translation[1]
        tensor([0.0000, 0.0000, 0.8000], dtype=torch.float64)
    """
    path = Path(path)
    numbers, rows = [], []
    for number, line in text.lines(path):
        rows.append(text.numbers(path, number, line, 12, "a matrix of 3 rows and 4 columns"))
        numbers.append(number)
    matrix = _poses(path, rows).reshape(-1, 3, 4)
    rotation = matrix[..., :3].contiguous()
    check_rotations(path, numbers, rotation, tolerance)
    return _rigid(special_orthogonalize(rotation) if project else rotation, matrix[..., 3].contiguous())


def _poses(path: Path, rows: list[list[float]]) -> Tensor:
    """Return rows as a tensor; no row is an error."""
    if not rows:
        raise ValueError(f"{path} holds no poses.")
    return torch.tensor(rows, dtype=torch.float64)


def _rigid(rotation: Tensor, translation: Tensor) -> Transform:
    return Transform(rotation, translation, torch.ones_like(translation[..., 0]))


def write_tum(path: str | Path, timestamps: Tensor, poses: Transform) -> None:
    """Write timestamps and poses in the form of the TUM RGB-D benchmark; the file is replaced at once.

    Args:
        path: of the file, in a folder that exists.
        timestamps: shape (N,), seconds, finite.
        poses: rigid, (N,), finite, from the body to the world.

    Raises:
        ValueError: if shapes do not fit, a scale is not 1, or a number is not finite: no reader takes it.

    Example:
        >>> import torch, svdrot
        >>> position = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
        >>> poses = svdrot.Transform(torch.eye(3).expand(2, 3, 3), position, torch.ones(2))
        >>> svdrot.io.write_tum("walk.txt", torch.tensor([0.0, 0.5]), poses)
        >>> svdrot.io.read_tum("walk.txt")[1].translation
        tensor([[0., 0., 0.],
                [1., 0., 0.]], dtype=torch.float64)
    """
    _check_rigid(poses)
    if timestamps.shape != poses.translation.shape[:1]:
        raise ValueError(
            f"`timestamps` must be as many as the {len(poses.translation)} poses; got shape "
            f"{tuple(timestamps.shape)}."
        )
    quaternion = matrix_to_quaternion(poses.rotation.detach().double())
    columns = [timestamps.double()[:, None], poses.translation, quaternion[:, [1, 2, 3, 0]]]
    _write(path, torch.cat([column.detach().double() for column in columns], 1))


def write_kitti(path: str | Path, poses: Transform) -> None:
    """Write poses in the form of the KITTI odometry benchmark; the file is replaced at once.

    Args:
        path: of the file, in a folder that exists.
        poses: rigid, (N,), finite, from the body to the world.

    Raises:
        ValueError: if the shape does not fit, a scale is not 1, or a number is not finite: no reader takes
        it.

    Example:
        >>> import torch, svdrot
        >>> position = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
        >>> poses = svdrot.Transform(torch.eye(3).expand(2, 3, 3), position, torch.ones(2))
        >>> svdrot.io.write_kitti("00.txt", poses)
        >>> svdrot.io.read_kitti("00.txt").translation
        tensor([[0., 0., 0.],
                [1., 0., 0.]], dtype=torch.float64)
    """
    _check_rigid(poses)
    rows = torch.cat((poses.rotation, poses.translation[..., None]), -1).detach().double()
    _write(path, rows.flatten(1))


def _check_rigid(poses: Transform) -> None:
    if poses.translation.ndim != 2 or poses.translation.shape[-1] != 3 or (poses.scale != 1).any():
        raise ValueError(
            f"`poses` must be rigid, translations (N, 3); got translations {tuple(poses.translation.shape)} "
            f"and scales from {poses.scale.min():g} to {poses.scale.max():g}."
        )


def _write(path: str | Path, rows: Tensor) -> None:
    """Write rows of finite numbers."""
    bad = (~rows.isfinite()).any(1).nonzero()[:, 0].tolist()
    if bad:
        raise ValueError(f"`poses` must be finite; got NaN or infinity in pose {bad[0]}, of {len(bad)} such.")
    lines = (" ".join(map(repr, row)) + "\n" for row in rows.tolist())  # repr reads back to the last bit
    with replacing(Path(path)) as new:
        new.write_text("".join(lines), newline="\n")
