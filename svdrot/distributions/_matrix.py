"""What the distributions share whose one parameter is a matrix."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from svdrot._checks import check_shape, common_batch
from svdrot._precision import compute_dtype

from . import _constraints


class MatrixDistribution(Distribution):
    """Share what distributions have in common whose one parameter is a square matrix (..., n, n).

    `event` is the shape of one draw; its last size is n.
    """

    event: ClassVar[tuple[int, ...]]
    arg_constraints: ClassVar[dict[str, Any]] = {"matrix": _constraints.matrix}  # pyright: ignore

    def __init__(self, matrix: Tensor, *, validate_args: bool | None = None) -> None:
        check_shape("matrix", matrix, self.event[-1], self.event[-1])
        self.matrix: Tensor = matrix.to(compute_dtype(matrix))
        super().__init__(matrix.shape[:-2], torch.Size(self.event), validate_args=validate_args)

    def _check(self, value: Tensor) -> None:
        """Check the shape of a value and, if arguments are checked, the value itself."""
        check_shape("value", value, *self.event)
        common_batch(matrix=self.batch_shape, value=value.shape[: value.ndim - len(self.event)])
        if self._validate_args:
            self._validate_sample(value)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """Return the distribution with its batch shape expanded, as every distribution of torch does.

        Args:
            batch_shape: the new batch shape.

        Returns:
            A distribution of the same class whose parameter is a view of this one.
        """
        new = type(self)(self.matrix.expand(*batch_shape, *self.matrix.shape[-2:]), validate_args=False)
        new._validate_args = self._validate_args
        return new
