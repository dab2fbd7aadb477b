"""Random rotations with densities, in the form of `torch.distributions`.

Every density is with respect to the uniform probability (normalized Haar) measure: the uniform distribution
has density 1 and entropy 0, and every entropy is at most 0. Parameters may be of any batch shape; numerics
run in float64 whatever their dtype, since the terms of a log density cancel, so a device must have it.
"""

from . import divergence as divergence
from .bingham import Bingham as Bingham
from .isotropic_gaussian import IsotropicGaussian as IsotropicGaussian
from .matrix_fisher import MatrixFisher as MatrixFisher
from .rotation_laplace import RotationLaplace as RotationLaplace
from .uniform import UniformRotation as UniformRotation

__all__ = ["Bingham", "IsotropicGaussian", "MatrixFisher", "RotationLaplace", "UniformRotation"]
