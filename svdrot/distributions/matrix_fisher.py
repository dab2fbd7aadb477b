"""The matrix Fisher distribution of rotations."""

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from svdrot._checks import check_positive
from svdrot._precision import compute_dtype
from svdrot._vectors import one_batch
from svdrot.projection import special_orthogonalize
from svdrot.representations import matrix_to_quaternion, quaternion_to_matrix

from . import _constraints
from ._fits import LARGEST, form_of_moments, weighted
from ._form import matrix_of_form, quaternion_form
from ._matrix import MatrixDistribution
from ._normalizer import entropy, log_normalizer, sample, second_moment

if TYPE_CHECKING:
    from .bingham import Bingham


class MatrixFisher(MatrixDistribution):
    r"""Distribution of rotations with density $\exp(\operatorname{tr} F^\top R) / c(F)$.

    The density is against the uniform one. With proper singular values $s_1 \ge s_2 \ge |s_3|$ of $F$ (the
    last has the sign of $\det F$) the mode is the rotation nearest to $F$, and for large $s$ the rotation
    vector about the i-th column of $V$, $F = U S V^\top$, is normal with variance $1 / (s_j + s_k)$. Zero
    gives the uniform distribution. Where $s_2 + s_3 = 0$ the mode is not unique; the distribution, its
    normalizer and all their gradients are regular there, and at equal singular values.

    `log_prob` is differentiable twice, `entropy` and `mean` once, with respect to `matrix`. The normalizer is
    accurate to 1e-9 (before rounding to the dtype of `matrix`) at any concentration; a log density, the
    difference of two terms of the size of F, besides to 1e-15 of that size, which is 1e-5 at 1e10.
    Half precision gives float32. A matrix with NaN or infinity gives NaN in its place with
    `validate_args=False`; otherwise torch raises.

    Args:
        matrix: F, shape (..., 3, 3), finite, of any size.
        validate_args: whether to check parameters and values; torch's default if None.

    Raises:
        ValueError: if the last two dimensions of `matrix` are not (3, 3), or an entry is not finite and
            arguments are checked.
        TypeError: if `matrix` is not a floating-point tensor.

    Source:
        Downs, "Orientation Statistics", Biometrika 59 (1972); Lee, "Bayesian Attitude Estimation with the
        Matrix Fisher Distribution on SO(3)", IEEE TAC 63 (2018). Mohlin et al., NeurIPS 2020, as a loss.

    Example:
        >>> import torch, svdrot
        >>> raw = torch.randn(8, 3, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
        >>> truth = svdrot.random_rotation(8)
        >>> svdrot.distributions.MatrixFisher(raw).log_prob(truth).mean().neg().backward()  # as a loss
        >>> sharp = svdrot.distributions.MatrixFisher(100 * torch.eye(3))
        >>> torch.allclose(sharp.mode, torch.eye(3)), sharp.sample((5,)).shape
        (True, torch.Size([5, 3, 3]))
    """

    support: Any = _constraints.rotation  # pyright: ignore
    event: ClassVar[tuple[int, ...]] = (3, 3)

    @classmethod
    def fit(
        cls, rotations: Tensor, weights: Tensor | None = None, *, largest: float = LARGEST
    ) -> "MatrixFisher":
        """Find the distribution of greatest likelihood for weighted rotations.

        It is the one with their mean matrix as `mean`, found by Newton's steps. Not differentiable.

        Args:
            rotations: shape (..., N, 3, 3).
            weights: shape (..., N), at least 0, of any total. Batch dimensions broadcast. Default: 1.
            largest: what gaps of the eigenvalues of the symmetric form are limited to. 1e10 is a standard
                deviation of 1.4e-5 radians. Rotations that are all the same, or three or fewer, have no
                likelihood that is greatest: it grows with the gaps to their limit.

        Returns:
            A `MatrixFisher` of batch shape (...). No rotation, or a total weight of 0, gives the uniform
            distribution. NaN, infinity or a negative weight in what counts gives NaN for its item only.

        Raises:
            ValueError: if shapes do not fit, or `largest` is not positive and finite.
            TypeError: if an argument is not floating point.

        Source:
            Khatri and Mardia, "The von Mises-Fisher matrix distribution in orientation statistics", J. R.
            Statist. Soc. B 39 (1977).

        Example:
            >>> import torch, svdrot
            >>> _ = torch.manual_seed(0)
            >>> truth = svdrot.distributions.MatrixFisher(torch.diag(torch.tensor([20.0, 10.0, 5.0])))
            >>> fit = svdrot.distributions.MatrixFisher.fit(truth.sample((10000,)))
            >>> (fit.matrix - truth.matrix).abs().max() < 1
            tensor(True)
        """
        check_positive("largest", largest)
        r, w, broken = weighted("rotations", rotations, weights, 3, 3)
        q = matrix_to_quaternion(r)
        form = form_of_moments((w[..., None] * q).mT @ q, largest)
        found = matrix_of_form(form) / 4 + torch.where(broken, torch.nan, 0.0)[..., None, None]
        return cls(found.to(compute_dtype(rotations)), validate_args=False)

    def _form(self) -> Tensor:
        """Return the symmetric form A(F), (..., 4, 4), in float64."""
        return quaternion_form(self.matrix.double())

    def bingham(self) -> "Bingham":
        """Return the same distribution on unit quaternions, a `Bingham`."""
        from .bingham import Bingham

        return Bingham(quaternion_form(self.matrix), validate_args=False)

    @property
    def mode(self) -> Tensor:
        """Return the rotation nearest to F, shape (*batch_shape, 3, 3)."""
        return special_orthogonalize(self.matrix)

    @property
    def mean(self) -> Tensor:
        """Return the expected matrix E R, the gradient of the log normalizer, shape (*batch_shape, 3, 3).

        It is a rotation only in the limit of large F, but the rotation nearest to it is the mode.
        """
        return matrix_of_form(second_moment(self._form())).to(self.matrix.dtype)

    def log_normalizer(self) -> Tensor:
        """Return ln c(F), shape `batch_shape`; its gradient is `mean`."""
        return log_normalizer(self._form()).to(self.matrix.dtype)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw rotations, without a gradient, from torch's global generator.

        Args:
            sample_shape: shape of independent draws of the whole batch.

        Returns:
            Rotations, shape (*sample_shape, *batch_shape, 3, 3).
        """
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            q = sample(one_batch(self._form()), torch.Size(sample_shape).numel())
            return quaternion_to_matrix(q).to(self.matrix.dtype).reshape(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density of rotations against the uniform measure.

        The rotations are taken through their quaternions, so rounding off SO(3) does not count.

        Args:
            value: rotations, shape (..., 3, 3); batch dimensions broadcast against `batch_shape`.

        Returns:
            Nats, shape (...), at most the value at the mode.

        Raises:
            ValueError: if a shape is wrong, or `value` is no rotation and arguments are checked.
            TypeError: if `value` is not floating point.
        """
        self._check(value)
        q = matrix_to_quaternion(value.double())
        a = self._form()
        exponent = (a * q[..., :, None] * q[..., None, :]).sum((-2, -1))
        return (exponent - log_normalizer(a)).to(self.matrix.dtype)

    def entropy(self) -> Tensor:
        """Return the differential entropy in nats against the uniform measure, shape `batch_shape`.

        It is at most 0, its value at F = 0.
        """
        return entropy(self._form()).to(self.matrix.dtype)
