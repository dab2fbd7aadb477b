"""The class `Rotation` of scipy over tensors: a batch of unit quaternions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from svdrot import _vectors
from svdrot._checks import check_shape
from svdrot.compat._shared import scalar_last
from svdrot.compat.roma.euler import euler_to_unitquat
from svdrot.compat.scipy import _align, _groups
from svdrot.projection import special_orthogonalize
from svdrot.quaternions import (
    quaternion_apply,
    quaternion_conjugate,
    quaternion_mean,
    quaternion_multiply,
    quaternion_normalize,
    quaternion_power,
)
from svdrot.representations import (
    axis_angle_to_quaternion,
    matrix_to_davenport,
    matrix_to_quaternion,
    mrp_to_quaternion,
    quaternion_to_axis_angle,
    quaternion_to_euler,
    quaternion_to_matrix,
    quaternion_to_mrp,
)
from svdrot.rotations import random_rotation

Numbers = Tensor | np.ndarray | Sequence[Any] | float
ORDERS = {"e": "extrinsic", "extrinsic": "extrinsic", "i": "intrinsic", "intrinsic": "intrinsic"}


class Rotation:
    """Hold a batch of rotations, of any shape, as scipy's class of this name does.

    Made by its `from_` methods. `a * b` does b and then a, `r ** n` is a power, `r[i]` and `len(r)` are of
    the first batch dimension.

    Args:
        quat: x y z w, shape (..., 4).
        normalize: whether to divide by the length; otherwise it must be 1.
        copy: not read.
        scalar_first: whether `quat` is w x y z.
    """

    def __init__(
        self, quat: Numbers, normalize: bool = True, copy: bool = True, scalar_first: bool = False
    ) -> None:
        given = as_tensor("quat", quat, 4)
        wxyz = given if scalar_first else given.roll(1, -1)
        if normalize:
            zero = (wxyz == 0).all(-1, keepdim=True)
            wxyz = torch.where(zero, torch.nan, quaternion_normalize(wxyz))
        self._wxyz = wxyz

    @classmethod
    def _of(cls, wxyz: Tensor) -> Rotation:
        return cls(wxyz, normalize=False, scalar_first=True)

    # Where rotations come from.

    @classmethod
    def from_quat(cls, quat: Numbers, *, scalar_first: bool = False) -> Rotation:
        """Make rotations from quaternions x y z w (..., 4) of any length, w x y z with `scalar_first`.

        Those of length zero give NaN.
        """
        return cls(quat, scalar_first=scalar_first)

    @classmethod
    def from_matrix(cls, matrix: Numbers, *, assume_valid: bool = False) -> Rotation:
        """Make rotations from the nearest ones to matrices (..., 3, 3), or from these as they are.

        Matrices of no positive determinant give NaN, but with `assume_valid`.
        """
        m = as_tensor("matrix", matrix, 3, 3)
        if assume_valid:
            return cls._of(matrix_to_quaternion(m))
        left = torch.linalg.det(m.detach().double()) <= 0
        return cls._of(
            matrix_to_quaternion(torch.where(left[..., None, None], torch.nan, special_orthogonalize(m)))
        )

    @classmethod
    def from_rotvec(cls, rotvec: Numbers, degrees: bool = False) -> Rotation:
        """Make rotations from rotation vectors (..., 3), in radians, or in `degrees`."""
        vector = as_tensor("rotvec", rotvec, 3)
        return cls._of(axis_angle_to_quaternion(vector.deg2rad() if degrees else vector))

    @classmethod
    def from_mrp(cls, mrp: Numbers) -> Rotation:
        """Make rotations from modified Rodrigues parameters (..., 3)."""
        return cls._of(mrp_to_quaternion(as_tensor("mrp", mrp, 3)))

    @classmethod
    def from_euler(cls, seq: str, angles: Numbers, degrees: bool = False) -> Rotation:
        """Make rotations from Euler angles about up to three axes: upper case intrinsic, lower extrinsic.

        Angles have shape (..., D) for D axes; for one axis a number, too.
        """
        if not 1 <= len(seq) <= 3 or any(a == b for a, b in pairwise(seq)):
            raise ValueError(f"`seq` must be one to three axes, neighbors different; got {seq!r}.")
        given = as_tensor("angles", angles)
        given = given[None] if given.ndim == 0 else given
        return cls._of(euler_to_unitquat(seq, given, degrees).roll(1, -1))

    @classmethod
    def from_davenport(cls, axes: Numbers, order: str, angles: Numbers, degrees: bool = False) -> Rotation:
        """Make rotations from angles (..., D) about up to three axes (..., D, 3), neighbors perpendicular.

        The order is "extrinsic" or "intrinsic", or the first letter of it.
        """
        axes, given, name = as_tensor("axes", axes), as_tensor("angles", angles), _order(order)
        axes, given = (axes[None] if axes.ndim == 1 else axes), (given[None] if given.ndim == 0 else given)
        given = given.deg2rad() if degrees else given
        if axes.shape[-1] != 3 or not 1 <= axes.shape[-2] <= 3 or given.shape[-1] != axes.shape[-2]:
            shapes = f"{tuple(axes.shape)} and {tuple(given.shape)}"
            raise ValueError(f"`axes` and `angles` must have shapes (..., D, 3) and (..., D); got {shapes}.")
        unit = axes / _vectors.length(axes)[..., None]
        whole = cls.from_rotvec(given[..., 0, None] * unit[..., 0, :])
        for k in range(1, axes.shape[-2]):
            turn = cls.from_rotvec(given[..., k, None] * unit[..., k, :])
            whole = turn * whole if name == "extrinsic" else whole * turn
        across = (unit[..., 1:, :] * unit[..., :-1, :]).sum(-1).abs() <= 1e-7
        return cls._of(torch.where(across.all(-1)[..., None], whole._wxyz, torch.nan))

    @classmethod
    def identity(cls, num: int | None = None, *, shape: int | tuple[int, ...] | None = None) -> Rotation:
        """Make identities: one, `num` of them, or a batch of `shape`."""
        one = torch.zeros(*_shape(num, shape), 4, dtype=torch.float64)
        one[..., 0] = 1
        return cls._of(one)

    @classmethod
    def random(
        cls,
        num: int | None = None,
        rng: torch.Generator | np.random.Generator | int | None = None,
        *,
        shape: int | tuple[int, ...] | None = None,
        random_state: np.random.Generator | int | None = None,
    ) -> Rotation:
        """Draw uniform rotations: one, `num` of them, or a batch of `shape`.

        By a `torch.Generator`, a seed, or a generator of numpy, of which a seed is drawn; by torch's global
        generator if None.
        """
        generator = _generator(random_state if rng is None else rng)
        drawn = random_rotation(_shape(num, shape), dtype=torch.float64, generator=generator)
        return cls._of(matrix_to_quaternion(drawn))

    @classmethod
    def create_group(cls, group: str, axis: str = "Z") -> Rotation:
        """Make the group "I", "O", "T", "Cn" or "Dn"; the last two about an axis of coordinates."""
        return cls._of(matrix_to_quaternion(_groups.group(group, axis)))

    @classmethod
    def concatenate(cls, rotations: Rotation | Iterable[Rotation]) -> Rotation:
        """Join rotations along the first batch dimension."""
        if isinstance(rotations, Rotation):
            return cls._of(rotations._wxyz.clone())
        given = [*rotations]
        if not all(isinstance(part, Rotation) for part in given):
            raise TypeError("`rotations` must be a Rotation, or several.")
        parts = [part._wxyz[None] if part.single else part._wxyz for part in given]
        return cls._of(torch.cat(parts))

    @classmethod
    def align_vectors(
        cls, a: Numbers, b: Numbers, weights: Numbers | None = None, return_sensitivity: bool = False
    ) -> tuple[Rotation, Tensor] | tuple[Rotation, Tensor, Tensor]:
        """Return the rotation R of least sum of w |R b - a|^2, the root of that sum, and its sensitivity.

        Vectors have shape (3,) or (..., N, 3), weights (..., N); one weight may be infinite, of vectors that
        are then exactly aligned, of a single cloud.
        """
        first, second = as_tensor("a", a), as_tensor("b", b)
        w = None if weights is None else as_tensor("weights", weights)
        rotation, distance, sensitivity = _align.aligned(first, second, w)
        found = cls._of(matrix_to_quaternion(rotation))
        return (found, distance, sensitivity) if return_sensitivity else (found, distance)

    # What they are.

    def as_quat(self, canonical: bool = False, *, scalar_first: bool = False) -> Tensor:
        """Return unit quaternions x y z w (..., 4), w x y z with `scalar_first`.

        `canonical` ones have a positive w, or if that is 0 the first of x, y, z that is not 0.
        """
        q = self._canonical() if canonical else self._wxyz
        return q if scalar_first else scalar_last(q)

    def _canonical(self) -> Tensor:
        """Return quaternions w x y z whose first entry that is not 0 is positive."""
        q = self._wxyz
        w, x, y, z = q.detach().unbind(-1)
        first = torch.where(w != 0, w, torch.where(x != 0, x, torch.where(y != 0, y, z)))
        return torch.where((first < 0)[..., None], -q, q)

    def as_matrix(self) -> Tensor:
        """Return rotations (..., 3, 3)."""
        return quaternion_to_matrix(self._wxyz)

    def as_rotvec(self, degrees: bool = False) -> Tensor:
        """Return rotation vectors (..., 3), of length in [0, pi] radians, or in `degrees`."""
        vector = quaternion_to_axis_angle(self._canonical())
        return vector.rad2deg() if degrees else vector

    def as_mrp(self) -> Tensor:
        """Return modified Rodrigues parameters (..., 3), of length in [0, 1]."""
        return quaternion_to_mrp(self._wxyz)

    def as_euler(self, seq: str, degrees: bool = False, *, suppress_warnings: bool = False) -> Tensor:
        """Return Euler angles (..., 3) about three axes: upper case intrinsic, lower case extrinsic."""
        angles = quaternion_to_euler(self._wxyz, seq)
        return angles.rad2deg() if degrees else angles

    def as_davenport(
        self, axes: Numbers, order: str, degrees: bool = False, *, suppress_warnings: bool = False
    ) -> Tensor:
        """Return angles (..., 3) about three axes (..., 3, 3), neighbors perpendicular, or NaN."""
        name = "intrinsic" if _order(order) == "intrinsic" else "extrinsic"
        angles = matrix_to_davenport(self.as_matrix(), as_tensor("axes", axes, 3, 3), name)
        return angles.rad2deg() if degrees else angles

    def magnitude(self) -> Tensor:
        """Return angles (...) in radians, in [0, pi]."""
        return _vectors.length(self.as_rotvec())

    @property
    def single(self) -> bool:
        """Return whether it is one rotation, without batch dimensions."""
        return self._wxyz.ndim == 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the batch shape."""
        return tuple(self._wxyz.shape[:-1])

    # What is done with them.

    def apply(self, vectors: Numbers, inverse: bool = False) -> Tensor:
        """Return the images of vectors (..., 3); batch dimensions broadcast."""
        q = quaternion_conjugate(self._wxyz) if inverse else self._wxyz
        given = as_tensor("vectors", vectors, 3)
        return quaternion_apply(q, given if isinstance(vectors, Tensor) else given.to(q))

    def inv(self) -> Rotation:
        """Return the inverse rotations."""
        return self._of(quaternion_conjugate(self._wxyz))

    def mean(self, weights: Numbers | None = None, axis: int | tuple[int, ...] | None = None) -> Rotation:
        """Return the mean, in the sense of least squares of matrices, over all or some batch dimensions.

        Weights are at least 0 and broadcast to the batch shape. None of them, or a total of 0, gives NaN.
        """
        q = self._wxyz[None] if self.single else self._wxyz
        over = range(q.ndim - 1) if axis is None else (axis,) if isinstance(axis, int) else axis
        over = sorted({k % (q.ndim - 1) for k in over})
        if not over:
            return self._of(q)
        kept = [k for k in range(q.ndim - 1) if k not in over]
        w = torch.ones(q.shape[:-1], dtype=q.dtype, device=q.device)
        if weights is not None:
            w = as_tensor("weights", weights).to(w).expand(w.shape)
        q, w = q.permute(*kept, *over, -1), w.permute(*kept, *over)
        q, w = q.flatten(len(kept), -2), w.flatten(len(kept))
        some = (w.sum(-1) > 0)[..., None]
        return self._of(torch.where(some, quaternion_mean(q, w), torch.nan))

    def reduce(
        self, left: Rotation | None = None, right: Rotation | None = None, return_indices: bool = False
    ) -> Rotation | tuple[Rotation, Tensor | None, Tensor | None]:
        """Return of all products l r g, of l in `left` and g in `right`, the one of smallest angle.

        With `return_indices` also which l and g these are, each None if there was no group.
        """
        one = self.identity(1)
        l, g = (one if side is None else side for side in (left, right))
        l, g = l._wxyz.reshape(-1, 4).to(self._wxyz), g._wxyz.reshape(-1, 4).to(self._wxyz)
        every = quaternion_multiply(l[:, None], quaternion_multiply(self._wxyz[..., None, None, :], g))
        every = every.flatten(-3, -2)
        best = every[..., 0].abs().argmax(-1)
        found = every.gather(-2, best[..., None, None].expand(*best.shape, 1, 4))[..., 0, :]
        if not return_indices:
            return self._of(found)
        at_left, at_right = best // len(g), best % len(g)
        return self._of(found), None if left is None else at_left, None if right is None else at_right

    def approx_equal(self, other: Rotation, atol: float | None = None, degrees: bool = False) -> Tensor:
        """Return whether angles between rotations are below `atol`: radians, 1e-8 if None, or `degrees`."""
        if atol is None and degrees:
            warnings.warn("`atol` must be set to be in degrees; 1e-8 radians are taken.", stacklevel=2)
        limit = 1e-8 if atol is None else math.radians(atol) if degrees else atol
        return (other * self.inv()).magnitude() < limit

    def __mul__(self, other: Rotation) -> Rotation:
        if not isinstance(other, Rotation):
            return NotImplemented
        return self._of(quaternion_normalize(quaternion_multiply(self._wxyz, other._wxyz)))

    def __pow__(self, n: Tensor | float, modulus: None = None) -> Rotation:
        if modulus is not None:
            raise NotImplementedError("`modulus` must be None.")
        share = torch.as_tensor(n, dtype=self._wxyz.dtype, device=self._wxyz.device)
        share = share.reshape(()) if share.shape == (1,) else share
        q = self._canonical()
        # Of either sign, as in scipy: the first power is the quaternion as it is.
        kept = (share.abs() == 1) & ((q * self._wxyz).detach().sum(-1) < 0)
        found = quaternion_power(q, share)
        return self._of(torch.where(kept[..., None], -found, found))

    def __getitem__(self, indexer: Any) -> Rotation:
        if self.single:
            raise TypeError("A single rotation has no elements.")
        indexer = indexer if isinstance(indexer, tuple) else (indexer,)
        return self._of(self._wxyz[(*indexer, slice(None))] if Ellipsis in indexer else self._wxyz[indexer])

    def __setitem__(self, indexer: Any, value: Rotation) -> None:
        if self.single:
            raise TypeError("A single rotation has no elements.")
        if not isinstance(value, Rotation):
            raise TypeError(f"`value` must be a Rotation; got {type(value).__name__}.")
        changed = self._wxyz.clone()
        changed[indexer] = value._wxyz.to(changed)
        self._wxyz = changed

    def __len__(self) -> int:
        if self.single:
            raise TypeError("A single rotation has no length.")
        return len(self._wxyz)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Rotation]:
        return (self[k] for k in range(len(self)))

    def __repr__(self) -> str:
        return f"Rotation.from_quat({self.as_quat()!r})"


def as_tensor(name: str, value: Numbers, *trailing: int) -> Tensor:
    """Return a tensor of shape (..., *trailing): one as it is, numbers and arrays in float64.

    Tensors of whole numbers become those of torch's default dtype.
    """
    if not isinstance(value, Tensor):
        value = torch.as_tensor(np.asarray(value, dtype=np.float64))
    elif not (value.is_floating_point() or value.is_complex()):
        value = value.to(torch.get_default_dtype())
    check_shape(name, value, *trailing)
    return value


def _order(order: str) -> str:
    if order not in ORDERS:
        raise ValueError(f'`order` must be "extrinsic" or "intrinsic", or "e" or "i"; got {order!r}.')
    return ORDERS[order]


def _generator(
    given: torch.Generator | np.random.Generator | int | None,
) -> torch.Generator | None:
    if given is None or isinstance(given, torch.Generator):
        return given
    if not isinstance(given, int):
        draw = getattr(given, "integers", None) or getattr(given, "randint", None)  # of the old kind
        if draw is None:
            raise TypeError(f"`rng` must be a generator or a seed; got {type(given).__name__}.")
        given = int(draw(2**31 - 1))
    return torch.Generator().manual_seed(given)


def _shape(num: int | None, shape: int | tuple[int, ...] | None) -> tuple[int, ...]:
    if num is not None and shape is not None:
        raise ValueError("`num` and `shape` must not both be given.")
    given = num if shape is None else shape
    return () if given is None else (given,) if isinstance(given, int) else tuple(given)
