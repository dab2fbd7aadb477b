"""`Rotation` and `Slerp` as scipy.spatial.transform has them, over tensors, differentiable.

`from svdrot.compat.scipy import Rotation` takes the place of `from scipy.spatial.transform import Rotation`.
Numbers, lists and arrays become tensors of float64, or of the dtype and device of the rotations they meet;
tensors keep their dtype, device and gradient; what comes out is a tensor.

The differences from scipy 1.17, on purpose:

- Any batch shape, wherever scipy takes one dimension.
- Bad rows give NaN in their place and not an error for all: zero quaternions, matrices of no positive
  determinant, axes that are not perpendicular, and means of nothing.
- No warning at gimbal lock; `suppress_warnings` is accepted and not read. The third angle is 0 there, too.
- Quaternions that come from matrices have w >= 0. scipy has the largest entry positive.
- `random` draws from torch, other rotations than scipy from the same seed; `rng` may be a `torch.Generator`.
- `create_group` has the elements in another order, the identity first.

Example:
    >>> import torch
    >>> from svdrot.compat.scipy import Rotation
    >>> turn = Rotation.from_euler("zyx", [90, 0, 0], degrees=True)
    >>> turn.apply([1.0, 0.0, 0.0]).round().abs()
    tensor([0., 1., 0.], dtype=torch.float64)
    >>> vector = torch.tensor([0.0, 0.0, 0.5], requires_grad=True)
    >>> Rotation.from_rotvec(vector).magnitude().backward()
    >>> vector.grad.round()
    tensor([0., 0., 1.])
"""

from .rotation import Rotation as Rotation
from .slerp import Slerp as Slerp
