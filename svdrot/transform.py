"""Similarities of points: target = scale * rotation @ source + translation."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.utils import _pytree

from svdrot._checks import check_floating, check_square, check_whole, common_batch
from svdrot._precision import compute_dtype
from svdrot._vectors import image, product


@dataclass(frozen=True)
class Transform:
    """Batches of similarities x -> scale * rotation @ x + translation; rigid where the scale is 1.

    Attributes:
        rotation: shape (..., d, d), acting on column vectors.
        translation: shape (..., d), in the units of the points.
        scale: shape (...), positive.
    """

    rotation: Tensor
    translation: Tensor
    scale: Tensor

    def apply(self, points: Tensor) -> Tensor:
        """The image of points (..., N, d); batch dimensions broadcast."""
        check_floating("points", points)
        d = self.rotation.shape[-1]
        if points.ndim < 2 or points.shape[-1] != d:
            raise ValueError(f"`points` must have shape (..., N, {d}); got {tuple(points.shape)}.")
        if points.shape[:-2] != self.scale.shape:
            common_batch(transform=self.scale.shape, points=points.shape[:-2])
        turned = image(self.rotation[..., None, :, :], points)
        return self.scale[..., None, None] * turned + self.translation[..., None, :]

    def compose(self, first: "Transform") -> "Transform":
        """`first`, and then this one: `a.compose(b).apply(x)` is `a.apply(b.apply(x))`. Also `a @ b`."""
        check_transform("first", first, self.rotation.shape[-1])
        if self.scale.shape != first.scale.shape:
            common_batch(transform=self.scale.shape, first=first.scale.shape)
        moved = self.scale[..., None] * image(self.rotation, first.translation)
        rotation = product(self.rotation, first.rotation)
        return Transform(rotation, moved + self.translation, self.scale * first.scale)

    def __matmul__(self, first: "Transform") -> "Transform":
        return self.compose(first)

    def inverse(self) -> "Transform":
        """The transform from target to source."""
        back, scale = self.rotation.mT, 1 / self.scale
        return Transform(back, -scale[..., None] * image(back, self.translation), scale)

    @property
    def matrix(self) -> Tensor:
        """Homogeneous matrices, shape (..., d + 1, d + 1)."""
        top = torch.cat((self.scale[..., None, None] * self.rotation, self.translation[..., None]), -1)
        bottom = torch.zeros_like(top[..., :1, :])
        bottom[..., -1] = 1
        return torch.cat((top, bottom), -2)

    @staticmethod
    def from_matrix(matrix: Tensor) -> "Transform":
        """Of homogeneous matrices (..., d + 1, d + 1), the last row taken to be 0 ... 0 1.

        The scale is the d-th root of |det A|, and A / scale the rotation as it is, not the nearest one.
        """
        check_square("matrix", matrix)
        if matrix.shape[-1] == 1:
            raise ValueError(f"`matrix` must be (..., d + 1, d + 1) with d >= 1; got {tuple(matrix.shape)}.")
        linear, translation = matrix[..., :-1, :-1], matrix[..., :-1, -1]
        determinant = _determinant(linear.to(compute_dtype(linear)))
        scale = (determinant.abs() ** (1 / linear.shape[-1])).to(matrix.dtype)
        return Transform(linear / scale[..., None, None], translation, scale)

    @staticmethod
    def identity(
        d: int = 3, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> "Transform":
        one = torch.eye(check_whole("d", d), dtype=dtype, device=device)
        return Transform(one, torch.zeros_like(one[0]), torch.ones_like(one[0, 0]))


def _determinant(matrix: Tensor) -> Tensor:
    """By products where that is possible: elimination rounds by what else is in the batch, and of a singular
    matrix nothing else is left.
    """
    if matrix.shape[-1] == 2:
        return matrix[..., 0, 0] * matrix[..., 1, 1] - matrix[..., 0, 1] * matrix[..., 1, 0]
    if matrix.shape[-1] == 3:
        x, y, z = matrix.unbind(-1)
        return (torch.linalg.cross(x, y) * z).sum(-1)
    return torch.linalg.det(matrix)


def register_pytree(cls: type, *constants: str) -> None:
    """Makes the fields of a dataclass, those named `constants` aside, its tensors for `torch.func.vmap`,
    `torch.compile` and `torch.export`.

    Not `_pytree.register_dataclass`: it cannot put the constants back.
    """
    names = [field.name for field in fields(cls) if field.name not in constants]

    def flatten(value) -> tuple[list, tuple]:
        return [getattr(value, name) for name in names], tuple(getattr(value, name) for name in constants)

    def flatten_with_keys(value) -> tuple[list, tuple]:
        parts, kept = flatten(value)
        return [(_pytree.GetAttrKey(name), part) for name, part in zip(names, parts, strict=True)], kept

    def unflatten(parts, kept):
        return cls(**dict(zip(names, parts, strict=True)), **dict(zip(constants, kept, strict=True)))

    _pytree.register_pytree_node(cls, flatten, unflatten, flatten_with_keys_fn=flatten_with_keys)


register_pytree(Transform)


def check_transform(name: str, value: Transform, d: int = 3) -> None:
    """`value` is a transform of points of d dimensions."""
    if not isinstance(value, Transform):
        raise TypeError(f"`{name}` must be a Transform; got {type(value).__name__}.")
    if value.rotation.shape[-2:] != (d, d) or value.translation.shape[-1:] != (d,):
        shapes = f"{tuple(value.rotation.shape)} and {tuple(value.translation.shape)}"
        raise ValueError(
            f"`{name}` must have rotations (..., {d}, {d}) and translations (..., {d}); got {shapes}."
        )
