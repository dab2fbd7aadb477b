"""What batches of transforms have in common with tensors: shape, elements, dtype, device, copies."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ._checks import common_batch, same_shape

if TYPE_CHECKING:
    from .transform import Transform


class Batch:
    """Give transforms the shape of their batch dimensions, and what else tensors can do.

    What comes of a result of registration is a plain `Transform`, without what the result knows beside it.
    """

    rotation: Tensor
    translation: Tensor
    scale: Tensor

    def _plain(self, rotation: Tensor, translation: Tensor, scale: Tensor) -> "Transform":
        raise NotImplementedError

    def _each(self, function: Callable[[Tensor], Tensor]) -> "Transform":
        return self._plain(function(self.rotation), function(self.translation), function(self.scale))

    @property
    def shape(self) -> torch.Size:
        """Return the batch shape, to which those of rotation, translation and scale broadcast."""
        turns, moves, scales = self.rotation.shape[:-2], self.translation.shape[:-1], self.scale.shape
        if same_shape(turns, moves) and same_shape(turns, scales):
            return scales
        return common_batch(rotation=turns, translation=moves, scale=scales)

    def __len__(self) -> int:
        """Return the size of the first batch dimension; a TypeError if there is none."""
        shape = self.shape
        if not shape:
            raise TypeError("A transform without batch dimensions has no length.")
        return shape[0]

    def __bool__(self) -> bool:
        """Return True: it is something, whatever its length."""
        return True

    def __iter__(self) -> "Iterator[Transform]":
        """Go through the first batch dimension."""
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> "Transform":
        """Return transforms by their place in the batch: all that tensors take, numbers, slices, masks, None.

        The dimensions of a rotation or translation are none of the batch: an index too many is an IndexError.
        """
        batch = self.shape
        d = self.translation.shape[-1]
        found = index if isinstance(index, tuple) else (index,)
        scale = self.scale.expand(batch)[found]  # which refuses what does not fit
        whole = (slice(None),)
        # An index that names all dimensions ends where the batch does; another one has an ellipsis there.
        found = found if any(part is Ellipsis for part in found) else (*found, Ellipsis)
        rotation = self.rotation.expand(*batch, d, d)[found + 2 * whole]
        return self._plain(rotation, self.translation.expand(*batch, d)[found + whole], scale)

    def to(self, *args: Any, **kwargs: Any) -> "Transform":
        """Return the transforms in another dtype, or on another device.

        Args:
            args: what `torch.Tensor.to` takes.
            kwargs: what `torch.Tensor.to` takes.

        Returns:
            Transforms of the same shape.

        Example:
            >>> import torch, svdrot
            >>> svdrot.Transform.identity().to(torch.float64).scale
            tensor(1., dtype=torch.float64)
        """
        return self._each(lambda x: x.to(*args, **kwargs))

    def double(self) -> "Transform":
        """Return the transforms in float64."""
        return self._each(Tensor.double)

    def float(self) -> "Transform":
        """Return the transforms in float32."""
        return self._each(Tensor.float)

    def detach(self) -> "Transform":
        """Return the transforms as constants to gradients, sharing memory."""
        return self._each(Tensor.detach)

    def clone(self) -> "Transform":
        """Return copies, through which gradients pass."""
        return self._each(Tensor.clone)

    def numpy(self) -> np.ndarray:
        """Return homogeneous matrices as an array, shape (..., d + 1, d + 1), without gradient.

        Of bfloat16, which numpy does not have, in float32.

        Example:
            >>> import svdrot
            >>> svdrot.Transform.identity(2).numpy().shape
            (3, 3)
        """
        matrix = self._plain(self.rotation, self.translation, self.scale).matrix.detach().cpu()
        return (matrix.float() if matrix.dtype == torch.bfloat16 else matrix).numpy()
