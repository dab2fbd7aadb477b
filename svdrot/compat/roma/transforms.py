"""Linear and affine transformations, as roma has them. Quaternions are x y z w.

`svdrot.Transform` does the same for rigid motions and similarities, in one class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from svdrot._vectors import image, product
from svdrot.compat.roma import mappings, utils

if TYPE_CHECKING:
    from typing_extensions import Self


class Linear:
    """Hold matrices M (..., d, c), which take a point x to M x.

    Attributes:
        linear: the matrices.
    """

    _trailing = 2  # dimensions of `linear` that are not of the batch

    def __init__(self, linear: Tensor) -> None:
        self.linear = linear

    def linear_compose(self, other: Linear) -> Tensor:
        """Return the linear part of this after another one."""
        if (
            self.linear.shape[-2:] == other.linear.shape[-2:]
            and self.linear.shape[-1] == self.linear.shape[-2]
        ):
            return product(self.linear, other.linear)
        return (self.linear[..., :, :, None] * other.linear[..., None, :, :]).sum(-2)

    def linear_inverse(self) -> Tensor:
        """Return the inverse of the linear part."""
        return torch.linalg.inv(self.linear)

    def linear_apply(self, v: Tensor) -> Tensor:
        """Return the images of vectors (..., c) under the linear part."""
        if self.linear.shape[-1] == self.linear.shape[-2]:
            return image(self.linear, v)
        return (self.linear * v[..., None, :]).sum(-1)

    def linear_normalize(self) -> Tensor:
        """Return the linear part as what the class says it is."""
        return self.linear

    def compose(self, other: Self) -> Self:
        """Return the transformation that does `other` and then this one."""
        return type(self)(self.linear_compose(other))

    def inverse(self) -> Self:
        """Return the inverse transformation."""
        return type(self)(self.linear_inverse())

    def apply(self, v: Tensor) -> Tensor:
        """Return the images of points (..., c)."""
        return self.linear_apply(v)

    def normalize(self) -> Self:
        """Return the transformation with a linear part that is what the class says it is."""
        return type(self)(self.linear_normalize())

    def clone(self) -> Self:
        """Return a copy."""
        return type(self)(self.linear.clone())

    def __matmul__(self, other: Self) -> Self:
        return self.compose(other)

    def __getitem__(self, args: Any) -> Self:
        return type(self)(self.linear[args])

    def __repr__(self) -> str:
        return f"{type(self).__name__}(linear={self.linear!r})"


class Orthonormal(Linear):
    """Hold orthonormal matrices (..., d, d).

    Attributes:
        linear: the matrices.
    """

    def __init__(self, linear: Tensor) -> None:
        if linear.shape[-1] != linear.shape[-2]:
            raise ValueError(f"`linear` must have shape (..., d, d); got {tuple(linear.shape)}.")
        super().__init__(linear)

    def linear_inverse(self) -> Tensor:
        """Return the transposes."""
        return self.linear.mT

    def linear_normalize(self) -> Tensor:
        """Return the nearest orthonormal matrices."""
        nearest = mappings.procrustes(self.linear)
        assert isinstance(nearest, Tensor)
        return nearest


class Rotation(Orthonormal):
    """Hold rotations (..., d, d).

    Attributes:
        linear: the matrices.
    """

    def linear_normalize(self) -> Tensor:
        """Return the nearest rotations."""
        nearest = mappings.special_procrustes(self.linear)
        assert isinstance(nearest, Tensor)
        return nearest


class RotationUnitQuat(Linear):
    """Hold rotations as quaternions x y z w (..., 4).

    Attributes:
        linear: the quaternions.
    """

    _trailing = 1

    def linear_compose(self, other: Linear) -> Tensor:
        """Return the product of the quaternions."""
        return utils.quat_product(self.linear, other.linear)

    def linear_apply(self, v: Tensor) -> Tensor:
        """Return the images of vectors (..., 3)."""
        return utils.quat_action(self.linear, v)

    def linear_inverse(self) -> Tensor:
        """Return the conjugates."""
        return utils.quat_conjugation(self.linear)

    def linear_normalize(self) -> Tensor:
        """Return quaternions of length 1."""
        return utils.quat_normalize(self.linear)


class _Moved(Linear):
    """A linear part and a translation (..., d), whose batch dimensions broadcast."""

    def __init__(self, linear: Tensor, translation: Tensor) -> None:
        self.linear, self.translation = linear, translation
        parts = linear.shape[: linear.ndim - self._trailing], translation.shape[:-1]
        if len(parts[0]) != len(parts[1]):
            raise ValueError(
                "`linear` and `translation` must have as many batch dimensions; got "
                f"{tuple(linear.shape)} and {tuple(translation.shape)}."
            )
        self.batch_shape = torch.broadcast_shapes(*parts)

    def compose(self, other: Self) -> Self:
        """Return the transformation that does `other` and then this one."""
        return type(self)(self.linear_compose(other), self.linear_apply(other.translation) + self.translation)

    def inverse(self) -> Self:
        """Return the inverse transformation."""
        back = type(self)(self.linear_inverse(), self.translation)
        back.translation = -back.linear_apply(self.translation)
        return back

    def apply(self, v: Tensor) -> Tensor:
        """Return the images of points (..., c)."""
        return self.linear_apply(v) + self.translation

    def normalize(self) -> Self:
        """Return the transformation with a linear part that is what the class says it is."""
        return type(self)(self.linear_normalize(), self.translation)

    def clone(self) -> Self:
        """Return a copy."""
        return type(self)(self.linear.clone(), self.translation.clone())

    def squeeze(self, dim: int) -> Self:
        """Return a view without the batch dimension `dim`, which must be 1."""
        if dim < 0 or self.linear.shape[dim] != 1 or self.translation.shape[dim] != 1:
            raise ValueError(f"`dim` must be that of a batch dimension of 1, counted from 0; got {dim}.")
        return type(self)(self.linear.squeeze(dim), self.translation.squeeze(dim))

    def as_tuple(self) -> tuple[Tensor, Tensor]:
        """Return the linear part and the translation."""
        return self.linear, self.translation

    def _expanded(self) -> tuple[Tensor, Tensor]:
        trailing = self.linear.shape[self.linear.ndim - self._trailing :]
        linear = self.linear.expand(*self.batch_shape, *trailing)
        return linear, self.translation.expand(*self.batch_shape, self.translation.shape[-1])

    def _matrix(self) -> tuple[Tensor, Tensor]:
        return self._expanded()

    def to_homogeneous(self, output: Tensor | None = None) -> Tensor:
        """Return homogeneous matrices (..., d + 1, c + 1), in `output` if that is given."""
        linear, translation = self._matrix()
        top = torch.cat((linear, translation[..., None]), -1)
        last = torch.zeros_like(top[..., :1, :])
        last[..., -1] = 1
        whole = torch.cat((top, last), -2)
        return whole if output is None else output.copy_(whole)

    @classmethod
    def from_homogeneous(cls, matrix: Tensor) -> Self:
        """Make transformations from homogeneous matrices (..., d + 1, c + 1), of which nothing is checked."""
        return cls(matrix[..., :-1, :-1], matrix[..., :-1, -1])

    def __getitem__(self, args: Any) -> Self:
        linear, translation = self._expanded()
        return type(self)(linear[args], translation[args])

    def __len__(self) -> int:
        if not self.batch_shape:
            raise TypeError("A transformation without batch dimensions has no length.")
        return self.batch_shape[0]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(linear={self.linear!r}, translation={self.translation!r})"


class Affine(_Moved):
    """Hold affine transformations, which take x to M x + t.

    Attributes:
        linear: M, shape (..., d, c).
        translation: t, shape (..., d); 0 if None.
    """

    def __init__(self, linear: Tensor, translation: Tensor | None) -> None:
        translation = torch.zeros_like(linear[..., 0]) if translation is None else translation
        if translation.shape[-1] != linear.shape[-2]:
            raise ValueError(
                f"`translation` must have shape (..., {linear.shape[-2]}); got {tuple(translation.shape)}."
            )
        super().__init__(linear, translation)


class Isometry(Affine, Orthonormal):
    """Hold isometries: orthonormal matrices and translations.

    Attributes:
        linear: shape (..., d, d); the identity if None.
        translation: shape (..., d); 0 if None.
    """

    def __init__(self, linear: Tensor | None, translation: Tensor | None) -> None:
        if linear is None:
            if translation is None:
                raise ValueError("`linear` and `translation` must not both be None.")
            d = translation.shape[-1]
            one = torch.eye(d, dtype=translation.dtype, device=translation.device)
            linear = one.expand(*translation.shape[:-1], d, d)
        if linear.shape[-1] != linear.shape[-2]:
            raise ValueError(f"`linear` must have shape (..., d, d); got {tuple(linear.shape)}.")
        Affine.__init__(self, linear, translation)

    @classmethod
    def identity(
        cls,
        dim: int,
        batch_shape: tuple[int, ...] = (),
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> Self:
        """Return identities of points of `dim` dimensions."""
        return cls(None, torch.zeros(*batch_shape, dim, dtype=dtype, device=device))

    @classmethod
    def Identity(cls, *args: Any, **kwargs: Any) -> Self:
        """Return the same as `identity`."""
        return cls.identity(*args, **kwargs)

    @classmethod
    def identity_like(cls, other: Isometry) -> Self:
        """Return identities of the batch shape, dtype and device of others."""
        return cls.identity(
            other.translation.shape[-1], tuple(other.batch_shape), other.linear.dtype, other.linear.device
        )


class Rigid(Isometry, Rotation):
    """Hold rigid motions: rotations and translations.

    Attributes:
        linear: shape (..., d, d); the identity if None.
        translation: shape (..., d); 0 if None.
    """

    def __init__(self, linear: Tensor | None, translation: Tensor | None) -> None:
        Isometry.__init__(self, linear, translation)

    def to_rigidunitquat(self) -> RigidUnitQuat:
        """Return the same motions with quaternions."""
        return RigidUnitQuat(mappings.rotmat_to_unitquat(self.linear), self.translation)


class RigidUnitQuat(_Moved, RotationUnitQuat):
    """Hold rigid motions of space: quaternions and translations.

    Attributes:
        linear: x y z w, shape (..., 4).
        translation: shape (..., 3).
    """

    _trailing = 1

    def __init__(self, linear: Tensor, translation: Tensor) -> None:
        if linear.shape[-1] != 4 or translation.shape[-1] != 3:
            raise ValueError(
                "`linear` and `translation` must have shapes (..., 4) and (..., 3); got "
                f"{tuple(linear.shape)} and {tuple(translation.shape)}."
            )
        super().__init__(linear, translation)

    def _matrix(self) -> tuple[Tensor, Tensor]:
        linear, translation = self._expanded()
        return mappings.unitquat_to_rotmat(linear), translation

    @classmethod
    def from_homogeneous(cls, matrix: Tensor) -> Self:
        """Make motions from homogeneous matrices (..., 4, 4), of which nothing is checked."""
        return cls(mappings.rotmat_to_unitquat(matrix[..., :3, :3]), matrix[..., :3, 3])

    def to_rigid(self) -> Rigid:
        """Return the same motions with matrices."""
        return Rigid(mappings.unitquat_to_rotmat(self.linear), self.translation)
