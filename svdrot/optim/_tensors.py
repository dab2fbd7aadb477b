"""Stacks of alike parameters, in portions and shared out, and parameters that are shards."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from svdrot import _kernels

from .views import MatrixView

STACKED = 2**22  # bytes of parameters that are stepped at once


def stacked(tensors: list[Tensor]) -> Tensor:
    """Stack tensors as torch does, but leave a single one where it is."""
    return torch.stack(tensors) if len(tensors) > 1 else tensors[0][None]


class Alike(NamedTuple):
    """Hold parameters that are stepped together: of one shape, dtype, device and, if sharded, layout.

    A stack of them, (K, *shape), is of what this rank holds; their matrices, (B, m, n) for each shape that
    these have, are whole.
    """

    params: list[Tensor]
    view: MatrixView

    def portions(self) -> list["Alike"]:
        """Cut into so many that a step stays small beside the parameters, as far as one of them is small."""
        length = max(1, STACKED // max(1, self.params[0].numel() * self.params[0].itemsize))
        some = [self.params[i : i + length] for i in range(0, len(self.params), length)]
        return [Alike(params, self.view) for params in some]

    def matrices(self, stack: Tensor) -> list[Tensor]:
        if self.is_sharded():
            stack = torch.stack([whole(x, p) for x, p in zip(stack.unbind(), self.params, strict=True)])
        return self.view.stacks(stack)

    def gather(self, tensors: list[Tensor]) -> list[Tensor]:
        """The matrices of what is held for each parameter."""
        return self.matrices(stacked(tensors))

    def restore(self, matrices: Sequence[Tensor]) -> list[Tensor]:
        """What this rank holds of the parameters with these matrices."""
        restored = self.view.restore_stacks(matrices, self.params[0].shape).unbind()
        return [shard(x, p) for x, p in zip(restored, self.params, strict=True)]

    def state_names(self, name: str) -> list[str]:
        return state_names(name, self.view, self.params[0].shape)

    def is_sharded(self) -> bool:
        return _is_dtensor(self.params[0])


def state_names(name: str, view: MatrixView, shape: Sequence[int]) -> list[str]:
    """Under which names a state that is not like its parameter is kept: one for each shape of matrices."""
    if view.count_shapes() == 1:
        return [name]
    return [f"{name}_{m}x{n}" for _, m, n in view.shapes(shape)]


class Once:
    """Hold a list that is made, and gathered, when the first of its items is asked for."""

    def __init__(self, make: Callable[[], list[Tensor]]):
        self._make = make
        self._made: list[Tensor] | None = None

    def item(self, i: int) -> Callable[[], Tensor]:
        return lambda: self._all()[i]

    def _all(self) -> list[Tensor]:
        if self._made is None:
            self._made = self._make()
        return self._made


def alike(params: Sequence[Tensor], view: MatrixView) -> list[Alike]:
    keys = [(p.shape, p.dtype, p.device, *_layout(p)) for p in params]
    return [Alike([params[i] for i in same], view) for same in grouped(keys)]


def grouped(keys: Sequence[Hashable]) -> list[list[int]]:
    """The indices of equal keys, together."""
    groups: dict[Hashable, list[int]] = {}
    for i, key in enumerate(keys):
        groups.setdefault(key, []).append(i)
    return list(groups.values())


CACHED = 2**19  # bytes of a batch on a CPU


def portions(stack: Tensor) -> list[slice]:
    """Cut a batch, on a CPU, to stay in the cache of a core: 1.5 times as fast for 100 of 64x64."""
    if not len(stack) or _kernels.side(stack) != "cpu":
        return [slice(None)][: len(stack)]
    length = max(1, CACHED // (stack.shape[1:].numel() * stack.itemsize))
    return [slice(i, i + length) for i in range(0, len(stack), length)]


def owners(costs: Sequence[int], ranks: int) -> list[int]:
    """A rank for each cost, so that all have about the same: the largest first, to the least laden."""
    load, owner = [0] * ranks, [0] * len(costs)
    for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
        owner[i] = load.index(min(load))
        load[owner[i]] += costs[i]
    return owner


def gradient(p: Tensor) -> Tensor:
    """The gradient in the dtype of its parameter, and sharded as it is."""
    gradient: Any = p.grad
    if _is_dtensor(p):
        sharded: Any = p
        gradient = gradient.redistribute(sharded.device_mesh, sharded.placements)
    return gradient.to(p.dtype)


# DTensors are told by what they have, for the import of their module would take longer than that of svdrot.


def _is_dtensor(tensor: Tensor) -> bool:
    return hasattr(tensor, "device_mesh")


def _layout(tensor: Any) -> tuple[Hashable, ...]:
    return (tensor.device_mesh, tensor.placements) if _is_dtensor(tensor) else ()


def local(tensor: Any) -> Tensor:
    return tensor.to_local() if _is_dtensor(tensor) else tensor


def whole(update: Tensor, like: Any) -> Tensor:
    if not _is_dtensor(like):
        return update
    from torch.distributed.tensor import DTensor

    sharded = DTensor.from_local(
        update, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )
    return sharded.full_tensor()


def shard(direction: Tensor, like: Any) -> Tensor:
    if not _is_dtensor(like):
        return direction
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(direction, like.device_mesh, like.placements, src_data_rank=None).to_local()
