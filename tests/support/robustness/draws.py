"""The random choices of a call, and the tensors made of them: of any dtype, layout in memory, and batch."""

import ctypes
import dataclasses
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

BATCHES = [(), (1,), (2,), (3,), (2, 1), (2, 3), (0,), (1, 1, 2), (2, 0), (5,), (17,)]
FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
EXTREME = [1e38, 1e-38, 1e-44, 1e15, 1e-20]


@dataclasses.dataclass
class Made:
    """A tensor among the arguments and what it was before the call."""

    tensor: Tensor
    lead: tuple[int, ...]
    before: tuple[bytes, int]


class Draw:
    """Random choices of one call: what its arguments have in common, and every number in them."""

    def __init__(self, seed: int, number: int):
        self.random = random.Random(seed * 1_000_003 + number)
        self.numpy = np.random.default_rng((seed, number))
        self.batch: tuple[int, ...] = self.random.choice(BATCHES)
        self.count = self.random.choice((0, 1, 2, 3, 4, 6, 9))  # of points
        self.dim = self.random.choice((3, 3, 3, 2, 1, 4))
        self.dtype = self.random.choices(FLOATS, (5, 3, 1, 1))[0]
        self.mixed = self.chance(0.1)
        self.grad = self.chance(0.35)
        self.scale = self.random.choice(EXTREME) if self.chance(0.1) else 1.0
        self.odd = self.chance(0.1)  # NaN or infinity somewhere
        self.definite = True  # whether no matrix has several nearest ones, where rounding chooses gradients
        self.sound = True  # whether every argument is what it should be by nature, so that gradients must be
        self.seed = number
        self.memo: dict[str, Any] = {}
        self.made: list[Made] = []

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def pick(self, *values: Any) -> Any:
        return self.random.choice(values)

    def lead(self) -> tuple[int, ...]:
        """The batch, or something that broadcasts to it."""
        if self.chance(0.7):
            return self.batch
        cut = self.random.randrange(len(self.batch) + 1)
        return tuple(1 if self.chance(0.3) else n for n in self.batch[cut:])

    def normal(self, *shape: int) -> np.ndarray:
        return self.numpy.standard_normal(shape)

    def tensor(self, array: np.ndarray, trailing: int, *, grad: bool = True, scaled: bool = True) -> Tensor:
        """Of some floating dtype, laid out somehow in memory, some of it spoiled by NaN and infinity."""
        if scaled and self.scale != 1:
            array = array * self.scale
        if self.odd and array.size and self.chance(0.5):
            array = np.array(array)
            array.flat[self.random.randrange(array.size)] = self.pick(np.nan, np.inf, -np.inf)
        dtype = self.pick(*FLOATS) if self.mixed else self.dtype
        value = _laid_out(self, torch.from_numpy(np.array(array, dtype=np.float64)).to(dtype), trailing)
        value = value.detach()
        if grad and self.grad and self.chance(0.8):
            value.requires_grad_()
        return self.kept(value, array.shape[: array.ndim - trailing])

    def kept(self, value: Tensor, lead: tuple[int, ...]) -> Tensor:
        self.made.append(Made(value, lead, state(value)))
        return value


def state(value: Tensor) -> tuple[bytes, int]:
    if value.is_meta:
        return b"", value._version
    storage = value.untyped_storage()
    return ctypes.string_at(storage.data_ptr(), storage.nbytes()) if storage.nbytes() else b"", value._version


def _laid_out(draw: Draw, value: Tensor, trailing: int) -> Tensor:
    kind = draw.random.randrange(10)
    if kind == 0 and value.ndim:  # every other number of a larger memory
        larger = value.new_full((*value.shape[:-1], 2 * value.shape[-1] + 1), 7.0)
        larger[..., 1::2] = value
        return larger[..., 1::2]
    if kind == 1 and value.ndim > 1:
        order = draw.random.sample(range(value.ndim), value.ndim)
        return value.permute(order).contiguous().permute(*np.argsort(order).tolist())
    if kind == 2 and value.ndim > trailing and value.shape[0] > 1:
        return value[:1].clone().expand(value.shape)
    if kind == 3 and value.dtype in (torch.float32, torch.float64):  # a view that changes the sign
        return torch.complex(torch.zeros_like(value), -value).conj().imag
    if kind == 4 and value.ndim and value.shape[0]:  # from the end of a larger memory
        return torch.cat((value.new_full((3, *value.shape[1:]), 7.0), value))[3:]
    return value
