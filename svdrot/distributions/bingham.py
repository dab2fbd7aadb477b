"""The Bingham distribution of unit quaternions."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from svdrot.projection import special_orthogonalize
from svdrot.representations import matrix_to_quaternion

from . import _constraints
from ._form import matrix_of_form
from ._matrix import MatrixDistribution
from ._normalizer import entropy, log_normalizer, sample, second_moment
from .matrix_fisher import MatrixFisher


class Bingham(MatrixDistribution):
    r"""The distribution of unit quaternions, the same at q and -q, with density $\exp(q^\top A q) / c(A)$
    against the uniform one on the sphere.

    Adding a multiple of the identity to $A$ changes nothing. As a distribution of rotations it is
    `matrix_fisher()`, at the same density: the two families are one.

    Regularity, accuracy and NaN are as in `MatrixFisher`.

    Args:
        matrix: A, symmetric, shape (..., 4, 4), for quaternions w x y z; `svdrot.symmetric_10d_to_matrix`
            makes one from ten numbers. Only its symmetric part counts.

    Raises:
        ValueError: if the last two dimensions of `matrix` are not (4, 4).
        TypeError: if `matrix` is not a floating-point tensor.

    Source:
        Bingham, "An Antipodally Symmetric Distribution on the Sphere", Ann. Statist. 2 (1974); Prentice,
        "Orientation Statistics without Parametric Assumptions", J. R. Statist. Soc. B 48 (1986).
    """

    support: Any = _constraints.unit_quaternion  # pyright: ignore
    event: ClassVar[tuple[int, ...]] = (4,)

    def matrix_fisher(self) -> MatrixFisher:
        """The same distribution on rotations."""
        a = (self.matrix + self.matrix.mT) / 2
        return MatrixFisher(matrix_of_form(a) / 4, validate_args=False)

    @property
    def mode(self) -> Tensor:
        """The eigenvector of the largest eigenvalue, with w >= 0; its negative is as likely. Shape
        (*batch_shape, 4). The gradient is that of `special_orthogonalize`."""
        return matrix_to_quaternion(special_orthogonalize(self.matrix_fisher().matrix))

    @property
    def mean(self) -> Tensor:
        """0, since q and -q are equally likely. Shape (*batch_shape, 4)."""
        return torch.zeros_like(self.matrix[..., 0])

    @property
    def second_moment(self) -> Tensor:
        """E q q^T, the gradient of the log normaliser. Shape (*batch_shape, 4, 4), of trace 1."""
        return second_moment(self.matrix.double()).to(self.matrix.dtype)

    def log_normalizer(self) -> Tensor:
        """ln c(A), shape `batch_shape`; its gradient is `second_moment`."""
        return log_normalizer(self.matrix.double()).to(self.matrix.dtype)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            q = sample(self.matrix.double().reshape(-1, 4, 4), torch.Size(sample_shape).numel())
            return q.to(self.matrix.dtype).reshape(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of unit quaternions (..., 4) against the uniform measure. Shape (...); the length of
        `value` does not count."""
        self._check(value)
        q, a = value.double(), self.matrix.double()
        exponent = (a * q[..., :, None] * q[..., None, :]).sum((-2, -1)) / (q * q).sum(-1)
        return (exponent - log_normalizer(a)).to(self.matrix.dtype)

    def entropy(self) -> Tensor:
        """Differential entropy in nats against the uniform measure: at most 0, its value at A = 0."""
        return entropy(self.matrix.double()).to(self.matrix.dtype)
