"""Relative entropies in closed form, where `torch.distributions.kl_divergence` looks for them."""

from torch import Tensor
from torch.distributions import register_kl

from ._form import quaternion_form
from ._normalizer import log_normalizer, second_moment
from .bingham import Bingham
from .isotropic_gaussian import IsotropicGaussian
from .matrix_fisher import MatrixFisher
from .rotation_laplace import RotationLaplace
from .uniform import UniformRotation


def _between_forms(p: Tensor, q: Tensor) -> Tensor:
    """Return the relative entropy of two Bingham distributions from their symmetric forms."""
    p, q = p.double(), q.double()
    return log_normalizer(q) - log_normalizer(p) + ((p - q) * second_moment(p)).sum((-2, -1))


@register_kl(MatrixFisher, MatrixFisher)
def _fisher_fisher(p: MatrixFisher, q: MatrixFisher) -> Tensor:
    return _between_forms(quaternion_form(p.matrix), quaternion_form(q.matrix)).to(p.matrix.dtype)


@register_kl(Bingham, Bingham)
def _bingham_bingham(p: Bingham, q: Bingham) -> Tensor:
    return _between_forms(p.matrix, q.matrix).to(p.matrix.dtype)


@register_kl(MatrixFisher, UniformRotation)
@register_kl(RotationLaplace, UniformRotation)
@register_kl(IsotropicGaussian, UniformRotation)
def _to_uniform(p: MatrixFisher | RotationLaplace | IsotropicGaussian, q: UniformRotation) -> Tensor:
    return q.entropy() - p.entropy()


@register_kl(UniformRotation, MatrixFisher)
def _uniform_fisher(p: UniformRotation, q: MatrixFisher) -> Tensor:
    return p.entropy() + q.log_normalizer()


@register_kl(UniformRotation, UniformRotation)
def _uniform_uniform(p: UniformRotation, q: UniformRotation) -> Tensor:
    return p.entropy() + q.entropy()
