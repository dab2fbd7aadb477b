"""Batches of transforms of row vectors, as pytorch3d has them: [x, 1] M, M = [[A^T, 0], [t, 1]]."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from svdrot._checks import common_batch
from svdrot._vectors import product
from svdrot.compat.pytorch3d.transforms.se3 import se3_log_map
from svdrot.compat.roma import euler_to_rotmat

Device = torch.device | str
Number = Tensor | float


class Transform3d:
    """Hold transforms of row vectors, affine or projective.

    `a.compose(b)` does a and then b, the other way around than `@` of `svdrot.Transform`. Composed transforms
    are multiplied at once. Products are in the precision of the data, where pytorch3d takes float32 for
    float64, too.

    Args:
        dtype: of the identity, without a `matrix`.
        device: of the same.
        matrix: for row vectors, shape (4, 4) or (N, 4, 4); the identity if None.
    """

    def __init__(
        self, dtype: torch.dtype = torch.float32, device: Device = "cpu", matrix: Tensor | None = None
    ) -> None:
        if matrix is None:
            matrix = torch.eye(4, dtype=dtype, device=device)
        if matrix.ndim not in (2, 3) or matrix.shape[-2:] != (4, 4):
            raise ValueError(f"`matrix` must have shape (4, 4) or (N, 4, 4); got {tuple(matrix.shape)}.")
        self._matrix = matrix.reshape(-1, 4, 4)

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype of the matrices."""
        return self._matrix.dtype

    @property
    def device(self) -> torch.device:
        """Return the device of the matrices."""
        return self._matrix.device

    def __len__(self) -> int:
        return len(self._matrix)

    def __getitem__(self, index: int | list[int] | slice | Tensor) -> "Transform3d":
        found = object.__new__(type(self))  # of the same class: made of a matrix, not of its arguments
        Transform3d.__init__(found, matrix=self._matrix[[index] if isinstance(index, int) else index])
        return found

    def get_matrix(self) -> Tensor:
        """Return the matrices for row vectors, shape (N, 4, 4)."""
        return self._matrix

    def get_se3_log(self, eps: float = 1e-4, cos_bound: float = 1e-4) -> Tensor:
        """Return twists, translation first, shape (N, 6); see `se3_log_map`."""
        return se3_log_map(self._matrix, eps, cos_bound)

    def compose(self, *others: "Transform3d") -> "Transform3d":
        """Return the transform that does this one, and then the others in their order."""
        matrix = self._matrix
        for other in others:
            if not isinstance(other, Transform3d):
                raise ValueError(f"`others` must be of Transform3d; got {type(other).__name__}.")
            common_batch(transform=matrix.shape[:1], other=other._matrix.shape[:1])
            matrix = product(matrix, other._matrix)
        return Transform3d(matrix=matrix)

    def inverse(self, invert_composed: bool = False) -> "Transform3d":
        """Return the inverse transform; `invert_composed` is not read."""
        return Transform3d(matrix=torch.linalg.inv(self._matrix))

    def stack(self, *others: "Transform3d") -> "Transform3d":
        """Return this and others as one batch."""
        return Transform3d(matrix=torch.cat([self._matrix, *(other._matrix for other in others)]))

    def transform_points(self, points: Tensor, eps: float | None = None) -> Tensor:
        """Return the images of points (P, 3) or (N, P, 3), divided by their fourth coordinate.

        With `eps` its absolute value is at least that.
        """
        cloud = self._cloud("points", points)
        linear, shift = self._matrix[:, None, :3, :], self._matrix[:, None, 3, :]
        moved = (cloud[..., None] * linear).sum(-2) + shift
        last = moved[..., 3:]
        if eps is not None:
            last = torch.where(last < 0, -1, 1).to(last) * last.abs().clamp_min(eps)
        return self._like(moved[..., :3] / last, points)

    def transform_normals(self, normals: Tensor) -> Tensor:
        """Return the images of normals (P, 3) or (N, P, 3), not of length 1 if the transform scales."""
        cloud = self._cloud("normals", normals)
        inverse = torch.linalg.inv(self._matrix[:, :3, :3].mT)[:, None]
        return self._like((cloud[..., None] * inverse).sum(-2), normals)

    def _cloud(self, name: str, value: Tensor) -> Tensor:
        if value.ndim not in (2, 3) or value.shape[-1] != 3:
            raise ValueError(f"`{name}` must have shape (P, 3) or (N, P, 3); got {tuple(value.shape)}.")
        return value

    def _like(self, moved: Tensor, given: Tensor) -> Tensor:
        return moved[0] if len(self) == 1 and given.ndim == 2 else moved

    def translate(self, *args: Any, **kwargs: Any) -> "Transform3d":
        """Return this and then `Translate(*args, **kwargs)`."""
        return self.compose(Translate(*args, **self._kind(kwargs)))

    def scale(self, *args: Any, **kwargs: Any) -> "Transform3d":
        """Return this and then `Scale(*args, **kwargs)`."""
        return self.compose(Scale(*args, **self._kind(kwargs)))

    def rotate(self, *args: Any, **kwargs: Any) -> "Transform3d":
        """Return this and then `Rotate(*args, **kwargs)`."""
        return self.compose(Rotate(*args, **self._kind(kwargs)))

    def rotate_axis_angle(self, *args: Any, **kwargs: Any) -> "Transform3d":
        """Return this and then `RotateAxisAngle(*args, **kwargs)`."""
        return self.compose(RotateAxisAngle(*args, **self._kind(kwargs)))

    def _kind(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"dtype": self.dtype, "device": self.device} | given

    def clone(self) -> "Transform3d":
        """Return a copy."""
        return Transform3d(matrix=self._matrix.clone())

    def to(self, device: Device, copy: bool = False, dtype: torch.dtype | None = None) -> "Transform3d":
        """Return the transform on another device, or in another dtype; itself if nothing changes."""
        if not copy and torch.device(device) == self.device and dtype in (None, self.dtype):
            return self
        return Transform3d(matrix=self._matrix.to(device=device, dtype=dtype or self.dtype, copy=copy))

    def cpu(self) -> "Transform3d":
        """Return the transform in the memory of the CPU."""
        return self.to("cpu")

    def cuda(self) -> "Transform3d":
        """Return the transform on the GPU."""
        return self.to("cuda")


class Translate(Transform3d):
    """Hold translations.

    Args:
        x: numbers or tensors of shape (N,); or all coordinates, shape (N, 3), without `y` and `z`.
        y: as `x`.
        z: as `x`.
        dtype: of the matrices.
        device: of the same; that of `x` if None.
    """

    def __init__(
        self,
        x: Number,
        y: Number | None = None,
        z: Number | None = None,
        dtype: torch.dtype = torch.float32,
        device: Device | None = None,
    ) -> None:
        xyz = _coordinates(x, y, z, dtype, device)
        super().__init__(matrix=_matrix(torch.eye(3, dtype=dtype, device=xyz.device), xyz))


class Scale(Transform3d):
    """Hold scalings along the axes of coordinates.

    Args:
        x: numbers or tensors of shape (N,), for all axes without `y` and `z`; or of each axis, shape (N, 3).
        y: as `x`.
        z: as `x`.
        dtype: of the matrices.
        device: of the same; that of `x` if None.
    """

    def __init__(
        self,
        x: Number,
        y: Number | None = None,
        z: Number | None = None,
        dtype: torch.dtype = torch.float32,
        device: Device | None = None,
    ) -> None:
        whole = isinstance(x, Tensor) and x.ndim == 2
        if not whole and y is None and z is None:
            y = z = x
        xyz = _coordinates(x, y, z, dtype, device)
        super().__init__(matrix=_matrix(torch.diag_embed(xyz), torch.zeros_like(xyz)))


class Rotate(Transform3d):
    """Hold rotations of row vectors.

    Args:
        R: for row vectors, x R, shape (3, 3) or (N, 3, 3): the transpose of what conversions make.
        dtype: of the matrices.
        device: of the same; that of `R` if None.
        orthogonal_tol: not read; `svdrot.is_rotation` tells of rotations.
    """

    def __init__(
        self,
        R: Tensor,
        dtype: torch.dtype = torch.float32,
        device: Device | None = None,
        orthogonal_tol: float = 1e-5,
    ) -> None:
        if R.ndim not in (2, 3) or R.shape[-2:] != (3, 3):
            raise ValueError(f"`R` must have shape (3, 3) or (N, 3, 3); got {tuple(R.shape)}.")
        R = R.to(device=device, dtype=dtype).reshape(-1, 3, 3)
        super().__init__(matrix=_matrix(R, torch.zeros_like(R[:, 0])))


class RotateAxisAngle(Rotate):
    """Hold rotations about an axis of coordinates.

    Args:
        angle: a number, or a tensor of shape (N,).
        axis: "X", "Y" or "Z".
        degrees: whether the angle is in degrees.
        dtype: of the matrices.
        device: of the same; that of `angle` if None.
    """

    def __init__(
        self,
        angle: Number,
        axis: str = "X",
        degrees: bool = True,
        dtype: torch.dtype = torch.float32,
        device: Device | None = None,
    ) -> None:
        if axis.upper() not in ("X", "Y", "Z"):
            raise ValueError(f"`axis` must be X, Y or Z; got {axis!r}.")
        turned = torch.as_tensor(angle, dtype=dtype, device=device)
        if turned.ndim > 1:
            raise ValueError(f"`angle` must be a number or have shape (N,); got {tuple(turned.shape)}.")
        super().__init__(euler_to_rotmat(axis.upper(), turned.reshape(-1, 1), degrees).mT, dtype, device)


def _matrix(linear: Tensor, shift: Tensor) -> Tensor:
    """Return matrices for row vectors, (N, 4, 4), of linear parts for row vectors and shifts (N, 3)."""
    top = torch.cat((linear.expand(len(shift), 3, 3), shift[:, None]), -2)
    last = torch.zeros_like(top[..., :1])
    last[:, 3] = 1
    return torch.cat((top, last), -1)


def _coordinates(
    x: Number, y: Number | None, z: Number | None, dtype: torch.dtype, device: Device | None
) -> Tensor:
    """Return coordinates (N, 3), given together or one by one."""
    if isinstance(x, Tensor) and x.ndim == 2:
        if x.shape[1] != 3 or y is not None or z is not None:
            raise ValueError(f"`x` must have shape (N, 3), without `y` and `z`; got {tuple(x.shape)}.")
        return x.to(device=device, dtype=dtype)
    if y is None or z is None:
        raise ValueError("`y` and `z` must be given, or `x` be of shape (N, 3).")
    given: Sequence[Number] = (x, y, z)
    device = device or next((part.device for part in given if isinstance(part, Tensor)), None)
    parts = [torch.as_tensor(part, dtype=dtype, device=device).reshape(-1) for part in given]
    common_batch(**{name: part.shape for name, part in zip("xyz", parts, strict=True)})
    return torch.stack(torch.broadcast_tensors(*parts), -1)
