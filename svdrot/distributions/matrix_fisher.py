"""The matrix Fisher distribution of rotations."""

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from svdrot.projection import special_orthogonalize
from svdrot.representations import matrix_to_quaternion, quaternion_to_matrix

from . import _constraints
from ._form import matrix_of_form, quaternion_form
from ._matrix import MatrixDistribution
from ._normalizer import entropy, log_normalizer, sample, second_moment

if TYPE_CHECKING:
    from .bingham import Bingham


class MatrixFisher(MatrixDistribution):
    r"""The distribution of rotations with density $\exp(\operatorname{tr} F^\top R) / c(F)$ against the
    uniform one.

    With proper singular values $s_1 \ge s_2 \ge |s_3|$ of $F$ (the last has the sign of $\det F$) the mode is
    the rotation nearest to $F$, and for large $s$ the rotation vector about the i-th column of $V$, $F = U S
    V^\top$, is normal with variance $1 / (s_j + s_k)$. Zero gives the uniform distribution. Where $s_2 + s_3
    = 0$ the mode is not unique; the distribution, its normaliser and all their gradients are regular there,
    and at equal singular values.

    `log_prob` is differentiable twice, `entropy` and `mean` once, with respect to `matrix`. The normaliser is
    accurate to 1e-9 (before rounding to the dtype of `matrix`) at any concentration; a log density, the
    difference of two terms of the size of F, besides to 1e-15 of that size, which is 1e-5 at 1e10.
    Half precision gives float32. A matrix with NaN or infinity gives NaN in its place with
    `validate_args=False`; otherwise torch raises.

    Args:
        matrix: F, shape (..., 3, 3).

    Raises:
        ValueError: if the last two dimensions of `matrix` are not (3, 3).
        TypeError: if `matrix` is not a floating-point tensor.

    Source:
        Downs, "Orientation Statistics", Biometrika 59 (1972); Lee, "Bayesian Attitude Estimation with the
        Matrix Fisher Distribution on SO(3)", IEEE TAC 63 (2018). Mohlin et al., NeurIPS 2020, as a loss.
    """

    support: Any = _constraints.rotation  # pyright: ignore
    event: ClassVar[tuple[int, ...]] = (3, 3)

    def _form(self) -> Tensor:
        return quaternion_form(self.matrix.double())

    def bingham(self) -> "Bingham":
        """The same distribution on unit quaternions."""
        from .bingham import Bingham

        return Bingham(quaternion_form(self.matrix), validate_args=False)

    @property
    def mode(self) -> Tensor:
        """The rotation nearest to F. Shape (*batch_shape, 3, 3)."""
        return special_orthogonalize(self.matrix)

    @property
    def mean(self) -> Tensor:
        """The expected matrix E R, the gradient of the log normaliser: a rotation only in the limit, but the
        one nearest to it is the mode. Shape (*batch_shape, 3, 3)."""
        return matrix_of_form(second_moment(self._form())).to(self.matrix.dtype)

    def log_normalizer(self) -> Tensor:
        """ln c(F), shape `batch_shape`; its gradient is `mean`."""
        return log_normalizer(self._form()).to(self.matrix.dtype)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            q = sample(self._form().reshape(-1, 4, 4), torch.Size(sample_shape).numel())
            return quaternion_to_matrix(q).to(self.matrix.dtype).reshape(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of rotations (..., 3, 3) against the uniform measure. Shape (...), at most the value at
        the mode; the rotations are taken through their quaternions, so rounding off SO(3) does not count."""
        self._check(value)
        q = matrix_to_quaternion(value.double())
        a = self._form()
        exponent = (a * q[..., :, None] * q[..., None, :]).sum((-2, -1))
        return (exponent - log_normalizer(a)).to(self.matrix.dtype)

    def entropy(self) -> Tensor:
        """Differential entropy in nats against the uniform measure: at most 0, its value at F = 0."""
        return entropy(self._form()).to(self.matrix.dtype)
