"""The uniform distribution of rotations."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from svdrot._checks import check_shape, common_batch
from svdrot.rotations import random_rotation

from . import _constraints


class UniformRotation(Distribution):
    """The uniform (Haar) distribution on SO(3): density 1, entropy 0, mean the zero matrix, and no mode.

    Args:
        batch_shape: number of independent copies.
        dtype: of samples; `torch.get_default_dtype()` if None.
        device: of samples.

    Raises:
        TypeError: if `dtype` is not floating point.

    Source:
        Miles, "On Random Rotations in R^3", Biometrika 52 (1965).
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}  # pyright: ignore
    support: Any = _constraints.rotation  # pyright: ignore
    has_rsample: ClassVar[bool] = True

    def __init__(
        self,
        batch_shape: tuple[int, ...] = (),
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if dtype is not None and not dtype.is_floating_point:
            raise TypeError(f"`dtype` must be floating point; got {dtype}.")
        self._zero = torch.zeros(batch_shape, dtype=dtype, device=device)
        super().__init__(torch.Size(batch_shape), torch.Size((3, 3)), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "UniformRotation":
        dtype, device = self._zero.dtype, self._zero.device
        new = UniformRotation(self._zero.expand(batch_shape).shape, dtype=dtype, device=device)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        """The expected matrix, 0: not a rotation."""
        return self._zero[..., None, None].expand(*self.batch_shape, 3, 3)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))[:-2]
        return random_rotation(*shape, dtype=self._zero.dtype, device=self._zero.device)

    def log_prob(self, value: Tensor) -> Tensor:
        """0 where `value` is finite, NaN where it is not. Shape (...)."""
        check_shape("value", value, 3, 3)
        common_batch(batch_shape=self.batch_shape, value=value.shape[:-2])
        if self._validate_args:
            self._validate_sample(value)
        finite = value.isfinite().all(-1).all(-1)
        return self._zero + torch.where(finite, 0.0, torch.nan).to(self._zero.dtype)

    def entropy(self) -> Tensor:
        return self._zero
