"""pytorch3d 0.7.9 by its names, on the functions of svdrot: `transforms`, and the alignment of `ops`.

Quaternions are w x y z. The functions of `transforms` make matrices for column vectors; `Transform3d`,
`se3_exp_map`, `se3_log_map` and `corresponding_points_alignment` have matrices for row vectors, as there.

Example:
    >>> import torch
    >>> from svdrot.compat.pytorch3d.transforms import Rotate, axis_angle_to_matrix
    >>> quarter = axis_angle_to_matrix(torch.tensor([0.0, 0.0, torch.pi / 2]))
    >>> x = torch.tensor([[1.0, 0.0, 0.0]])
    >>> (quarter @ x.mT).mT.round().abs()
    tensor([[0., 1., 0.]])
    >>> Rotate(quarter.mT).transform_points(x).round().abs()
    tensor([[0., 1., 0.]])
"""

from . import ops as ops
from . import transforms as transforms
