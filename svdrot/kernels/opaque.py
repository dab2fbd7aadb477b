"""The compiled 3x3 backends as operators that `torch.compile` takes as they are, without looking inside.

(Given the formulas in torch operations instead, Inductor recomputes them for each of the nine outputs: 16 ms
for 4,096 matrices on a CPU, where the kernel takes 0.1 ms.)
"""

import torch
from torch import Tensor

from svdrot import kernels


@torch.library.custom_op("svdrot::special_orthogonalize", mutates_args=())
def special_orthogonalize(m: Tensor) -> Tensor:
    return kernels.compiled(m.device.type).special_orthogonalize(m)


@torch.library.custom_op("svdrot::special_orthogonalize_differential", mutates_args=())
def special_orthogonalize_differential(m: Tensor, r: Tensor, t: Tensor, damping: float) -> Tensor:
    return kernels.compiled(m.device.type).special_orthogonalize_differential(m, r, t, damping)


@torch.library.custom_op("svdrot::projection_gap", mutates_args=())
def projection_gap(m: Tensor) -> tuple[Tensor, Tensor]:
    return kernels.compiled(m.device.type).projection_gap(m)


@special_orthogonalize.register_fake
def _(m):
    return torch.empty_like(m)


@special_orthogonalize_differential.register_fake
def _(m, r, t, damping):
    return torch.empty_like(m)


@projection_gap.register_fake
def _(m):
    return m.new_empty(m.shape[0]), torch.empty_like(m)
