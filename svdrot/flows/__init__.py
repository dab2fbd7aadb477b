r"""Flow matching and diffusion on SO(3): what a network is taught, and steps that stay on the group.

Velocities and scores are tangents of the rotation that they are at, in its own frame: $R' = R\, [v]_\times$.
Flow matching draws a time t, `start` from noise and `end` from data, and teaches v(R, t) the velocity of
`geodesic_interpolant`; `euler_step` then goes from noise to data. Diffusion teaches the score of
`svdrot.distributions.IsotropicGaussian` about data of a scale sigma, drawn by its `rsample`, and
`reverse_diffusion_step` or `probability_flow_step` go from large scales to small ones. Times and scales are
tensors, one of each element.
"""

from .interpolants import geodesic_interpolant as geodesic_interpolant
from .steps import euler_step as euler_step
from .steps import probability_flow_step as probability_flow_step
from .steps import reverse_diffusion_step as reverse_diffusion_step

__all__ = ["euler_step", "geodesic_interpolant", "probability_flow_step", "reverse_diffusion_step"]
