"""Layers: heads that regress rotations and rigid motions, when they project, the projection itself, and
losses of raw numbers; rotations and poses that are parameters, and weights that stay orthonormal.
"""

from .distributions import BinghamHead as BinghamHead
from .distributions import IsotropicGaussianHead as IsotropicGaussianHead
from .distributions import MatrixFisherHead as MatrixFisherHead
from .distributions import RotationLaplaceHead as RotationLaplaceHead
from .heads import RigidHead as RigidHead
from .heads import RotationHead as RotationHead
from .learnable import Pose as Pose
from .learnable import Rotation as Rotation
from .losses import RotationLoss as RotationLoss
from .parametrizations import SpecialOrthogonal as SpecialOrthogonal
from .parametrizations import Stiefel as Stiefel
from .parametrizations import orthogonal as orthogonal
from .projection import SpecialOrthogonalize as SpecialOrthogonalize
from .representations import REPRESENTATIONS as REPRESENTATIONS
from .representations import Representation as Representation
from .representations import add_representation as add_representation
from .strategies import STRATEGIES as STRATEGIES
from .strategies import AfterWarmup as AfterWarmup
from .strategies import Always as Always
from .strategies import AtInference as AtInference
from .strategies import ManifoldGradient as ManifoldGradient
from .strategies import Strategy as Strategy

__all__ = [
    "REPRESENTATIONS",
    "STRATEGIES",
    "AfterWarmup",
    "Always",
    "AtInference",
    "BinghamHead",
    "IsotropicGaussianHead",
    "ManifoldGradient",
    "MatrixFisherHead",
    "Pose",
    "Representation",
    "RigidHead",
    "Rotation",
    "RotationHead",
    "RotationLaplaceHead",
    "RotationLoss",
    "SpecialOrthogonal",
    "SpecialOrthogonalize",
    "Stiefel",
    "Strategy",
    "add_representation",
    "orthogonal",
]
