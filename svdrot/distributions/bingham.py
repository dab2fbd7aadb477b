"""The Bingham distribution of unit quaternions."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from svdrot._checks import check_positive
from svdrot._precision import compute_dtype
from svdrot._vectors import one_batch
from svdrot.projection import special_orthogonalize
from svdrot.representations import matrix_to_quaternion

from . import _constraints
from ._fits import LARGEST, form_of_moments, weighted
from ._form import matrix_of_form
from ._matrix import MatrixDistribution
from ._normalizer import entropy, log_normalizer, sample, second_moment
from .matrix_fisher import MatrixFisher


class Bingham(MatrixDistribution):
    r"""Distribution of unit quaternions with density $\exp(q^\top A q) / c(A)$ against the uniform one.

    The density is the same at q and -q. Adding a multiple of the identity to $A$ changes nothing. As a
    distribution of rotations it is `matrix_fisher()`, at the same density: the two families are one.

    See `MatrixFisher` for derivatives, accuracy and NaN: they are the same here.

    Args:
        matrix: A, symmetric, shape (..., 4, 4), for quaternions w x y z; `svdrot.symmetric_10d_to_matrix`
            reads rotations from such a matrix, by its smallest eigenvalue. Only the symmetric part counts.
        validate_args: whether to check parameters and values; torch's default if None.

    Raises:
        ValueError: if the last two dimensions of `matrix` are not (4, 4), or an entry is not finite and
            arguments are checked.
        TypeError: if `matrix` is not a floating-point tensor.

    Source:
        Bingham, "An Antipodally Symmetric Distribution on the Sphere", Ann. Statist. 2 (1974); Prentice,
        "Orientation Statistics without Parametric Assumptions", J. R. Statist. Soc. B 48 (1986).

    Example:
        >>> import torch, svdrot
        >>> belief = svdrot.distributions.Bingham(torch.diag(torch.tensor([50.0, 0.0, 0.0, 0.0])))
        >>> belief.mode
        tensor([1., 0., 0., 0.])
        >>> q = torch.tensor([0.8, 0.6, 0.0, 0.0])
        >>> belief.log_prob(q) == belief.log_prob(-q), belief.log_prob(q) < belief.log_prob(belief.mode)
        (tensor(True), tensor(True))
    """

    support: Any = _constraints.unit_quaternion  # pyright: ignore
    event: ClassVar[tuple[int, ...]] = (4,)

    @classmethod
    def fit(
        cls, quaternions: Tensor, weights: Tensor | None = None, *, largest: float = LARGEST
    ) -> "Bingham":
        """Find the distribution of greatest likelihood for weighted quaternions.

        It is the one with their second moments, found by Newton's steps; see `MatrixFisher.fit`.

        Args:
            quaternions: w x y z of either sign, shape (..., N, 4). Their length does not count.
            weights: shape (..., N), at least 0, of any total. Batch dimensions broadcast. Default: 1.
            largest: what gaps of the eigenvalues are limited to.

        Returns:
            A `Bingham` of batch shape (...), of largest eigenvalue 0. No quaternion, or a total weight of 0,
            gives the uniform distribution. NaN, infinity, zero or a negative weight in what counts gives NaN
            for its item only.

        Raises:
            ValueError: if shapes do not fit, or `largest` is not positive and finite.
            TypeError: if an argument is not floating point.

        Source:
            Bingham, "An Antipodally Symmetric Distribution on the Sphere", Ann. Statist. 2 (1974), section 4.

        Example:
            >>> import torch, svdrot
            >>> _ = torch.manual_seed(0)
            >>> truth = svdrot.distributions.Bingham(torch.diag(torch.tensor([0.0, -5.0, -10.0, -20.0])))
            >>> fit = svdrot.distributions.Bingham.fit(truth.sample((10000,)))
            >>> (fit.matrix - truth.matrix).abs().max() < 1
            tensor(True)
        """
        check_positive("largest", largest)
        q, w, broken = weighted("quaternions", quaternions, weights, 4)
        length = torch.linalg.vector_norm(q, dim=-1, keepdim=True)
        broken = broken | ((length[..., 0] == 0) & (w > 0)).any(-1)
        q = q / torch.where(length > 0, length, 1.0)
        form = form_of_moments((w[..., None] * q).mT @ q, largest)
        found = form + torch.where(broken, torch.nan, 0.0)[..., None, None]
        return cls(found.to(compute_dtype(quaternions)), validate_args=False)

    def matrix_fisher(self) -> MatrixFisher:
        """Return the same distribution on rotations, a `MatrixFisher`."""
        a = (self.matrix + self.matrix.mT) / 2
        return MatrixFisher(matrix_of_form(a) / 4, validate_args=False)

    @property
    def mode(self) -> Tensor:
        """Return the eigenvector of the largest eigenvalue, with w >= 0, shape (*batch_shape, 4).

        Its negative is as likely. The gradient is that of `special_orthogonalize`.
        """
        return matrix_to_quaternion(special_orthogonalize(self.matrix_fisher().matrix))

    @property
    def mean(self) -> Tensor:
        """Return 0, since q and -q are equally likely, shape (*batch_shape, 4)."""
        return torch.zeros_like(self.matrix[..., 0])

    @property
    def second_moment(self) -> Tensor:
        """Return E q q^T, the gradient of the log normalizer, shape (*batch_shape, 4, 4), of trace 1."""
        return second_moment(self.matrix.double()).to(self.matrix.dtype)

    def log_normalizer(self) -> Tensor:
        """Return ln c(A), shape `batch_shape`; its gradient is `second_moment`."""
        return log_normalizer(self.matrix.double()).to(self.matrix.dtype)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw unit quaternions, without a gradient, from torch's global generator.

        Args:
            sample_shape: shape of independent draws of the whole batch.

        Returns:
            Unit quaternions w x y z of either sign, shape (*sample_shape, *batch_shape, 4).
        """
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            q = sample(one_batch(self.matrix.double()), torch.Size(sample_shape).numel())
            return q.to(self.matrix.dtype).reshape(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density of unit quaternions against the uniform measure.

        Args:
            value: w x y z, shape (..., 4); batch dimensions broadcast against `batch_shape`. The length does
                not count.

        Returns:
            Nats, shape (...).

        Raises:
            ValueError: if a shape is wrong, or `value` is not of unit length and arguments are checked.
            TypeError: if `value` is not floating point.
        """
        self._check(value)
        q, a = value.double(), self.matrix.double()
        exponent = (a * q[..., :, None] * q[..., None, :]).sum((-2, -1)) / (q * q).sum(-1)
        return (exponent - log_normalizer(a)).to(self.matrix.dtype)

    def entropy(self) -> Tensor:
        """Return the differential entropy in nats against the uniform measure, shape `batch_shape`.

        It is at most 0, its value at A = 0.
        """
        return entropy(self.matrix.double()).to(self.matrix.dtype)
