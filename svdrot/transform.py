"""Similarities of points: target = scale * rotation @ source + translation."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.utils import _pytree

from svdrot._checks import check_floating, check_square, check_whole, common_batch, same_shape
from svdrot._formulas.geometry import se3
from svdrot._precision import compute_dtype
from svdrot._vectors import image, product


@dataclass(frozen=True)
class Transform:
    """Hold a batch of similarities x -> scale * rotation @ x + translation; rigid where the scale is 1.

    Attributes:
        rotation: shape (..., d, d), acting on column vectors.
        translation: shape (..., d), in the units of the points.
        scale: shape (...), positive.

    Example:
        >>> import torch, svdrot
        >>> turn = svdrot.axis_angle_to_matrix(torch.tensor([0.0, 0.0, torch.pi / 2]))
        >>> pose = svdrot.Transform(turn, torch.tensor([1.0, 2.0, 3.0]), torch.tensor(1.0))
        >>> pose.apply(torch.tensor([[1.0, 0.0, 0.0]])).round(decimals=4)
        tensor([[1., 3., 3.]])
        >>> torch.allclose((pose.inverse() @ pose).matrix, torch.eye(4), atol=1e-6)
        True
    """

    rotation: Tensor
    translation: Tensor
    scale: Tensor

    def apply(self, points: Tensor) -> Tensor:
        """Return where the transform takes points: scale * rotation @ x + translation.

        Args:
            points: shape (..., N, d), any floating dtype; batch dimensions broadcast against the transform's.

        Returns:
            Points, shape (..., N, d). A point that is not finite spoils only its own image.

        Raises:
            ValueError: if `points` have another dimension, or batch dimensions do not broadcast.
            TypeError: if `points` is not a floating-point tensor.

        Example:
            >>> import torch, svdrot
            >>> double = svdrot.Transform(torch.eye(2), torch.tensor([0.0, 1.0]), torch.tensor(2.0))
            >>> double.apply(torch.tensor([[1.0, 1.0], [3.0, 0.0]]))
            tensor([[2., 3.],
                    [6., 1.]])
        """
        check_floating("points", points)
        d = self.rotation.shape[-1]
        if points.ndim < 2 or points.shape[-1] != d:
            raise ValueError(f"`points` must have shape (..., N, {d}); got {tuple(points.shape)}.")
        if not same_shape(points.shape[:-2], self.scale.shape):
            common_batch(transform=self.scale.shape, points=points.shape[:-2])
        turned = image(self.rotation[..., None, :, :], points)
        return self.scale[..., None, None] * turned + self.translation[..., None, :]

    def compose(self, first: "Transform") -> "Transform":
        """Return the transform that does `first` and then this one; `a @ b` is `a.compose(b)`.

        Args:
            first: transforms of the same dimension d; batch dimensions broadcast.

        Returns:
            The transform with `a.compose(b).apply(x)` equal to `a.apply(b.apply(x))`.

        Raises:
            ValueError: if dimensions differ, or batch dimensions do not broadcast.
            TypeError: if `first` is not a `Transform`.

        Example:
            >>> import torch, svdrot
            >>> up = svdrot.Transform(torch.eye(3), torch.tensor([0.0, 0.0, 1.0]), torch.tensor(1.0))
            >>> double = svdrot.Transform(torch.eye(3), torch.zeros(3), torch.tensor(2.0))
            >>> (double @ up).translation, (up @ double).translation
            (tensor([0., 0., 2.]), tensor([0., 0., 1.]))
        """
        check_transform("first", first, self.rotation.shape[-1])
        if not same_shape(self.scale.shape, first.scale.shape):
            common_batch(transform=self.scale.shape, first=first.scale.shape)
        moved = self.scale[..., None] * image(self.rotation, first.translation)
        rotation = product(self.rotation, first.rotation)
        return Transform(rotation, moved + self.translation, self.scale * first.scale)

    def __matmul__(self, first: "Transform") -> "Transform":
        """Return the transform that does `first` and then this one; see `compose`."""
        return self.compose(first)

    def inverse(self) -> "Transform":
        """Return the transform from target to source.

        Returns:
            The transform whose composition with this one, in either order, is the identity. A scale of 0
            gives infinity and NaN.

        Example:
            >>> import torch, svdrot
            >>> pose = svdrot.Transform(svdrot.random_rotation(), torch.ones(3), torch.tensor(2.0))
            >>> x = torch.tensor([[1.0, 2.0, 3.0]])
            >>> torch.allclose(pose.inverse().apply(pose.apply(x)), x, atol=1e-5)
            True
        """
        back, scale = self.rotation.transpose(-2, -1), 1 / self.scale
        return Transform(back, -scale[..., None] * image(back, self.translation), scale)

    def log(self) -> Tensor:
        r"""Return the shortest twist of a rigid transform of space, as `svdrot.se3_log` does.

        Returns:
            Twists $(\omega, v)$, shape (..., 6): rotation vectors in radians, of length in [0, pi], then
            translation parts. NaN where the scale is off 1 by more than 64 units of rounding; of those
            `svdrot.sim3_log` has the twist.

        Raises:
            ValueError: if the transform is not of three dimensions.

        Example:
            >>> import torch, svdrot
            >>> svdrot.Transform(torch.eye(3), torch.ones(3), torch.tensor(1.0)).log()
            tensor([0., 0., 0., 1., 1., 1.])
        """
        check_transform("transform", self)
        tolerance = 64 * torch.finfo(self.scale.dtype).eps
        return se3.logarithm(self.rotation, self.translation, self.scale, scalars=(tolerance,))

    @property
    def matrix(self) -> Tensor:
        """Return homogeneous matrices that do the same to (x, 1), shape (..., d + 1, d + 1)."""
        top = torch.cat((self.scale[..., None, None] * self.rotation, self.translation[..., None]), -1)
        bottom = torch.zeros_like(top[..., :1, :])
        bottom[..., -1] = 1
        return torch.cat((top, bottom), -2)

    @staticmethod
    def from_matrix(matrix: Tensor) -> "Transform":
        """Make transforms from homogeneous matrices.

        Args:
            matrix: shape (..., d + 1, d + 1), floating point. The last row is taken to be 0 ... 0 1.

        Returns:
            Transforms of batch shape (...). With A the upper left d x d block, the scale is the d-th root of
            |det A|, and the rotation is A / scale as it is, not the nearest one. A singular A gives infinity
            or NaN.

        Raises:
            ValueError: if `matrix` is not square, or smaller than 2 x 2.
            TypeError: if `matrix` is not a floating-point tensor.

        Example:
            >>> import torch, svdrot
            >>> matrix = torch.tensor([[2.0, 0.0, 5.0], [0.0, 2.0, 7.0], [0.0, 0.0, 1.0]])
            >>> svdrot.Transform.from_matrix(matrix).scale
            tensor(2.)
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
        """Return the identity of points of d dimensions, without batch dimensions.

        Args:
            d: dimension of the points, at least 1.
            dtype: of the tensors; torch's default one if None.
            device: of the tensors; torch's default one if None.

        Returns:
            The transform with rotation I (d, d), translation 0 (d,) and scale 1 ().

        Raises:
            ValueError: if `d` is not a whole number, at least 1.

        Example:
            >>> import torch, svdrot
            >>> svdrot.Transform.identity(2).apply(torch.tensor([[3.0, 4.0]]))
            tensor([[3., 4.]])
        """
        one = torch.eye(check_whole("d", d), dtype=dtype, device=device)
        return Transform(one, torch.zeros_like(one[0]), torch.ones_like(one[0, 0]))


def _determinant(matrix: Tensor) -> Tensor:
    """Determinants by products where that is possible.

    Elimination rounds by what else is in the batch, and leaves nothing of a singular matrix.
    """
    if matrix.shape[-1] == 2:
        return matrix[..., 0, 0] * matrix[..., 1, 1] - matrix[..., 0, 1] * matrix[..., 1, 0]
    if matrix.shape[-1] == 3:
        x, y, z = matrix.unbind(-1)
        return (torch.linalg.cross(x, y) * z).sum(-1)
    return torch.linalg.det(matrix)


def register_pytree(cls: type, *constants: str) -> None:
    """Make the fields of a dataclass its tensors for `torch.func.vmap`, `torch.compile` and `torch.export`.

    Fields named `constants` are kept as they are. Not `_pytree.register_dataclass`: it cannot put the
    constants back.
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
    """Raise unless `value` is a transform of points of d dimensions."""
    if not isinstance(value, Transform):
        raise TypeError(f"`{name}` must be a Transform; got {type(value).__name__}.")
    if value.rotation.shape[-2:] != (d, d) or value.translation.shape[-1:] != (d,):
        shapes = f"{tuple(value.rotation.shape)} and {tuple(value.translation.shape)}"
        raise ValueError(
            f"`{name}` must have rotations (..., {d}, {d}) and translations (..., {d}); got {shapes}."
        )
