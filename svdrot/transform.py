"""Similarities of points: target = scale * rotation @ source + translation."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree

from svdrot._batches import Batch
from svdrot._checks import (
    as_number,
    check_choice,
    check_floating,
    check_positive,
    check_shape,
    check_square,
    check_whole,
    common_batch,
    same_shape,
)
from svdrot._formulas import conversions
from svdrot._formulas.geometry import se3
from svdrot._precision import compute_dtype
from svdrot._stand_ins import as_tensors, takes_arrays
from svdrot._vectors import image, product
from svdrot.projection import special_orthogonalize
from svdrot.rotations import random_rotation


@dataclass(frozen=True)
class Transform(Batch):
    """Hold a batch of similarities x -> scale * rotation @ x + translation; rigid where the scale is 1.

    `a @ b` does b and then a. `t[i]`, `len(t)`, `t.shape`, iteration, `to`, `double`, `float`, `detach`,
    `clone` and `numpy` are as of tensors, of the batch dimensions.

    Attributes:
        rotation: shape (..., d, d), acting on column vectors.
        translation: shape (..., d), in the units of the points.
        scale: shape (...), positive.

    Arrays of numpy become tensors that share their memory; methods that take points take arrays of them, too,
    and return arrays.

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

    def __post_init__(self) -> None:
        if np.ndarray in (type(self.rotation), type(self.translation), type(self.scale)):
            for name in ("rotation", "translation", "scale"):
                value = as_tensors(getattr(self, name))
                check_floating(name, value)
                object.__setattr__(self, name, value)

    def _plain(self, rotation: Tensor, translation: Tensor, scale: Tensor) -> "Transform":
        return Transform(rotation, translation, scale)

    @takes_arrays
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

    @takes_arrays
    def rotate(self, directions: Tensor) -> Tensor:
        """Return where the transform takes directions: rotation @ v, without translation and scale.

        Unit vectors stay unit vectors, and normals of surfaces are normals of their images. The difference of
        two points is a vector that is scaled, too: `scale * rotate`.

        Args:
            directions: shape (..., N, d), any floating dtype; batch dimensions broadcast.

        Returns:
            Directions, shape (..., N, d).

        Raises:
            ValueError: if `directions` have another dimension, or batch dimensions do not broadcast.
            TypeError: if `directions` is not a floating-point tensor.

        Example:
            >>> import torch, svdrot
            >>> double = svdrot.Transform(torch.eye(2), torch.tensor([0.0, 1.0]), torch.tensor(2.0))
            >>> double.rotate(torch.tensor([[1.0, 0.0]]))
            tensor([[1., 0.]])
        """
        check_floating("directions", directions)
        d = self.rotation.shape[-1]
        if directions.ndim < 2 or directions.shape[-1] != d:
            raise ValueError(f"`directions` must have shape (..., N, {d}); got {tuple(directions.shape)}.")
        common_batch(transform=self.rotation.shape[:-2], directions=directions.shape[:-2])
        return image(self.rotation[..., None, :, :], directions)

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
        if _is_one_kernel(self, first):
            return Transform(*se3.composed(*_parts(self), *_parts(first)))
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
        if _is_one_kernel(self):
            return Transform(*se3.inverted(*_parts(self)))
        back, scale = self.rotation.transpose(-2, -1), 1 / self.scale
        return Transform(back, -scale[..., None] * image(back, self.translation), scale)

    @staticmethod
    @takes_arrays
    def exp(twist: Tensor) -> "Transform":
        r"""Make transforms of space from twists: the exponential of SE(3), or of Sim(3).

        Args:
            twist: $(\omega, v)$, shape (..., 6), a rotation vector in radians and a translation part, as for
                `svdrot.se3_exp`; or $(\omega, v, \lambda)$, shape (..., 7), with the logarithm of a scale, as
                for `svdrot.sim3_exp`.

        Returns:
            Transforms of batch shape (...).

        Raises:
            ValueError: if the last dimension is neither 6 nor 7.
            TypeError: if `twist` is not floating point.

        Example:
            >>> import torch, svdrot
            >>> svdrot.Transform.exp(torch.tensor([0.0, 0.0, 0.0, 1.0, 2.0, 3.0])).translation
            tensor([1., 2., 3.])
        """
        check_floating("twist", twist)
        if twist.shape[-1:] not in ((6,), (7,)):
            raise ValueError(f"`twist` must have shape (..., 6) or (..., 7); got {tuple(twist.shape)}.")
        return Transform(*(se3.exponential if twist.shape[-1] == 6 else se3.similar_exponential)(twist))

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

    def adjoint(self) -> Tensor:
        r"""Return the matrix that takes twists before the transform to those after it.

        As `svdrot.se3_adjoint` does.

        Returns:
            $\mathrm{Ad}_T$ with $T \exp(\xi) T^{-1} = \exp(\mathrm{Ad}_T\, \xi)$, shape (..., 6, 6), in the
            order $(\omega, v)$.

        Raises:
            ValueError: if the transform is not of three dimensions.

        Example:
            >>> import torch, svdrot
            >>> torch.equal(svdrot.Transform.identity().adjoint(), torch.eye(6))
            True
        """
        check_transform("transform", self)
        return se3.adjoint(self.rotation, self.translation, self.scale)

    @takes_arrays
    def interpolate(self, end: "Transform", share: Tensor | float, path: str = "screw") -> "Transform":
        r"""Return the transform a share of the way from this one to another one.

        "screw" is $A \exp(t \log(A^{-1} B))$: a turn about a fixed line and a slide along it, at constant
        velocity, whatever frames before or after are chosen. "split" takes the geodesic of rotations and the
        line of translations, apart, so that the origin of the frame before goes straight. Along both the
        logarithm of the scale is linear.

        Args:
            end: B, in space like A, this one; batch dimensions broadcast.
            share: t, a number or a tensor of shape (...): 0 gives A, 1 gives B, others beyond go on.
                NaN and infinity give NaN, and have no part in gradients.
            path: "screw" or "split", a key of `PATHS`.

        Returns:
            Transforms of the common batch shape. Half a turn apart there are two shortest ways; one is taken.

        Raises:
            ValueError: if shapes do not fit, or `path` is none.
            TypeError: if `end` is not a `Transform`, or `share` neither a number nor a floating-point tensor.

        Source:
            Žefran and Kumar, "Interpolation schemes for rigid body motions", Computer-Aided Design 30 (1998).

        Example:
            >>> import math, torch, svdrot
            >>> start = svdrot.Transform.identity()
            >>> end = svdrot.Transform.exp(torch.tensor([0.0, 0.0, math.pi / 2, math.pi / 2, 0.0, 0.0]))
            >>> start.interpolate(end, 0.5).translation  # on the circle
            tensor([0.7071, 0.2929, 0.0000])
            >>> start.interpolate(end, 0.5, "split").translation  # on the line
            tensor([0.5000, 0.5000, 0.0000])
        """
        check_transform("transform", self)
        check_transform("end", end)
        check_choice("path", path, PATHS)
        ends = (*_parts(self), *_parts(end))
        return Transform(*PATHS[path](*ends, as_number("share", share, *ends)))

    def distance(self, other: "Transform") -> tuple[Tensor, Tensor]:
        """Return how far apart transforms are: the angle between rotations, the length between translations.

        They are two numbers, since radians and lengths have no common measure. Both are the same for other
        frames before the transforms that differ by a turn, and after them by a rigid motion. Scales have no
        part.

        Args:
            other: in space like this one; batch dimensions broadcast.

        Returns:
            Angles in radians, in [0, pi], and lengths in the units of the translations, each of shape (...).
            Gradients are zero where they are 0, and the angle's where it is pi.

        Raises:
            ValueError: if a transform is not of three dimensions, or batch dimensions do not broadcast.
            TypeError: if `other` is not a `Transform`.

        Example:
            >>> import torch, svdrot
            >>> turned = svdrot.Transform.exp(torch.tensor([0.5, 0.0, 0.0, 2.0, 0.0, 0.0]))
            >>> svdrot.Transform.identity().distance(turned)
            (tensor(0.5000), tensor(2.))
        """
        check_transform("transform", self)
        check_transform("other", other)
        angle, length = se3.distance(*_parts(self)[:2], *_parts(other)[:2])
        return angle, length

    @property
    def matrix(self) -> Tensor:
        """Return homogeneous matrices that do the same to (x, 1), shape (..., d + 1, d + 1)."""
        top = torch.cat((self.scale[..., None, None] * self.rotation, self.translation[..., None]), -1)
        bottom = torch.zeros_like(top[..., :1, :])
        bottom[..., -1] = 1
        return torch.cat((top, bottom), -2)

    @staticmethod
    @takes_arrays
    def from_matrix(matrix: Tensor, tolerance: float | None = None) -> "Transform":
        """Make transforms from homogeneous matrices.

        Args:
            matrix: shape (..., d + 1, d + 1), floating point.
            tolerance: how far A / scale may be from a rotation, and the last row from 0 ... 0 1, as the root
                of the sum of all squares. None takes everything.

        Returns:
            Transforms of batch shape (...). With A the upper left d x d block, the scale is the d-th root of
            |det A|. Without a tolerance the rotation is A / scale as it is, even a reflection, the last row
            is not read, and a singular A gives infinity or NaN. With one it is the rotation nearest to that,
            and what is farther off (shears, reflections, perspective) gives NaN in its place.

        Raises:
            ValueError: if `matrix` is not square, or smaller than 2 x 2, or `tolerance` is not positive.
            TypeError: if `matrix` is not a floating-point tensor.

        Example:
            >>> import torch, svdrot
            >>> matrix = torch.tensor([[2.0, 0.0, 5.0], [0.0, 2.0, 7.0], [0.0, 0.0, 1.0]])
            >>> svdrot.Transform.from_matrix(matrix).scale
            tensor(2.)
            >>> svdrot.Transform.from_matrix(matrix * torch.tensor([1.0, -1.0, 1.0]), tolerance=1e-3).scale
            tensor(nan)
        """
        check_square("matrix", matrix)
        if matrix.shape[-1] == 1:
            raise ValueError(f"`matrix` must be (..., d + 1, d + 1) with d >= 1; got {tuple(matrix.shape)}.")
        linear, translation = matrix[..., :-1, :-1], matrix[..., :-1, -1]
        determinant = _determinant(linear.to(compute_dtype(linear)))
        scale = (determinant.abs() ** (1 / linear.shape[-1])).to(matrix.dtype)
        found = Transform(linear / scale[..., None, None], translation, scale)
        if tolerance is None:
            return found
        check_positive("tolerance", tolerance)
        return _nearest(found, matrix[..., -1, :], tolerance)

    @staticmethod
    @takes_arrays
    def from_quaternion(quaternion: Tensor, translation: Tensor, scale: Tensor | float = 1.0) -> "Transform":
        """Make transforms of space from quaternions and translations.

        Args:
            quaternion: w x y z, shape (..., 4), of any nonzero length; the zero quaternion counts as the
                identity.
            translation: shape (..., 3).
            scale: positive, a number or a tensor of shape (...). Batch dimensions broadcast.

        Returns:
            Transforms of the common batch shape.

        Raises:
            ValueError: if last dimensions are not 4 and 3, or the others do not broadcast.
            TypeError: if a tensor is not floating point, or `scale` neither one nor a number.

        Example:
            >>> import torch, svdrot
            >>> half = svdrot.Transform.from_quaternion(torch.tensor([0.0, 0.0, 0.0, 1.0]), torch.ones(3))
            >>> half.apply(torch.tensor([[1.0, 2.0, 3.0]]))
            tensor([[ 0., -1.,  4.]])
        """
        check_shape("quaternion", quaternion, 4)
        check_shape("translation", translation, 3)
        size = as_number("scale", scale, translation)
        rotation = conversions.quaternion_to_matrix(quaternion)
        batch = common_batch(
            quaternion=quaternion.shape[:-1], translation=translation.shape[:-1], scale=size.shape
        )
        return Transform(rotation.expand(*batch, 3, 3), translation.expand(*batch, 3), size.expand(batch))

    @staticmethod
    def random(
        *shape: int | Sequence[int],
        spread: float | Tensor = 1.0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ) -> "Transform":
        """Draw rigid transforms of space: uniform rotations, and normally distributed translations.

        Args:
            shape: batch shape, one whole number for each dimension, or all in one tuple; none for a single
                transform.
            spread: standard deviation of each coordinate of the translations.
            dtype: floating point; `torch.get_default_dtype()` if None.
            device: where to draw; torch's default device if None.
            generator: source of every random number drawn, on `device`; torch's global one if None.

        Returns:
            Transforms of batch shape `shape`, of scale 1.

        Raises:
            TypeError: if `dtype` is not floating point, or `shape` no whole numbers.

        Example:
            >>> import torch, svdrot
            >>> svdrot.Transform.random(4, 2, generator=torch.Generator().manual_seed(0)).shape
            torch.Size([4, 2])
        """
        rotation = random_rotation(*shape, dtype=dtype, device=device, generator=generator)
        drawn = compute_dtype(rotation)
        moves = torch.randn(rotation.shape[:-1], dtype=drawn, device=device, generator=generator)
        return Transform(rotation, (spread * moves).to(rotation.dtype), torch.ones_like(rotation[..., 0, 0]))

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


PATHS = {"screw": se3.screw, "split": se3.split}


def _is_one_kernel(*transforms: Transform) -> bool:
    """Whether they are of space, and of one dtype: where parts have several, each result has its own."""
    parts = [part for transform in transforms for part in _parts(transform)]
    return parts[0].shape[-1] == 3 and all(part.dtype == parts[0].dtype for part in parts)


def _parts(transform: Transform) -> tuple[Tensor, Tensor, Tensor]:
    return transform.rotation, transform.translation, transform.scale


def _nearest(transform: Transform, last: Tensor, tolerance: float) -> Transform:
    """Return transforms with the nearest rotations, NaN in place of those that are farther off."""
    given = transform.rotation.detach()
    nearest = special_orthogonalize(transform.rotation)
    end = torch.zeros_like(last)
    end[..., -1] = 1
    off = (given - nearest.detach()).square().sum((-2, -1)) + (last.detach() - end).square().sum(-1)
    near = off <= tolerance * tolerance
    return Transform(
        torch.where(near[..., None, None], nearest, torch.nan),
        torch.where(near[..., None], transform.translation, torch.nan),
        torch.where(near, transform.scale, torch.nan),
    )


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
