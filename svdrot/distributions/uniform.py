"""The uniform distribution of rotations."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from svdrot._checks import check_shape, common_batch
from svdrot.rotations import random_rotation

from . import _constraints


class UniformRotation(Distribution):
    """Uniform distribution of rotations (Haar measure).

    Its density is 1, its entropy 0, its mean the zero matrix, and it has no mode.

    Args:
        batch_shape: shape of independent copies.
        dtype: of samples, floating point; `torch.get_default_dtype()` if None.
        device: of samples; torch's default device if None.
        validate_args: whether to check values; torch's default if None.

    Raises:
        TypeError: if `dtype` is not floating point.

    Source:
        Miles, "On Random Rotations in R^3", Biometrika 52 (1965).

    Example:
        >>> import torch, svdrot
        >>> from torch.distributions import kl_divergence
        >>> prior = svdrot.distributions.UniformRotation()
        >>> prior.sample((5,)).shape
        torch.Size([5, 3, 3])
        >>> belief = svdrot.distributions.MatrixFisher(torch.diag(torch.tensor([5.0, 3.0, 2.0])))
        >>> torch.allclose(kl_divergence(belief, prior), -belief.entropy())
        True
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
        """Return the distribution with its batch shape expanded, as every distribution of torch does.

        Args:
            batch_shape: the new batch shape.

        Returns:
            A `UniformRotation` of that batch shape.
        """
        dtype, device = self._zero.dtype, self._zero.device
        new = UniformRotation(self._zero.expand(batch_shape).shape, dtype=dtype, device=device)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        """Return the expected matrix 0, no rotation, shape (*batch_shape, 3, 3)."""
        return self._zero[..., None, None].expand(*self.batch_shape, 3, 3)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw rotations from torch's global generator.

        Args:
            sample_shape: shape of independent draws of the whole batch.

        Returns:
            Rotations, shape (*sample_shape, *batch_shape, 3, 3).
        """
        shape = self._extended_shape(torch.Size(sample_shape))[:-2]
        return random_rotation(*shape, dtype=self._zero.dtype, device=self._zero.device)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density against the uniform measure: 0 where `value` is finite.

        Args:
            value: rotations, shape (..., 3, 3); batch dimensions broadcast against `batch_shape`.

        Returns:
            Zeros, shape (...); NaN where `value` is not finite.

        Raises:
            ValueError: if a shape is wrong, or `value` is no rotation and arguments are checked.
            TypeError: if `value` is not floating point.
        """
        check_shape("value", value, 3, 3)
        common_batch(batch_shape=self.batch_shape, value=value.shape[:-2])
        if self._validate_args:
            self._validate_sample(value)
        finite = value.isfinite().all(-1).all(-1)
        return self._zero + torch.where(finite, 0.0, torch.nan).to(self._zero.dtype)

    def entropy(self) -> Tensor:
        """Return the differential entropy against the uniform measure, 0, shape `batch_shape`."""
        return self._zero
