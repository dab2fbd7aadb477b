"""A typical call of every public function: good arguments, one batch dimension, nothing spoiled.

Found from the public tables as the calls of `robustness` are, so that a new function takes part unasked.
"""

import dataclasses
import random
import statistics
from functools import cache
from typing import Any

import numpy as np
import torch
from robustness.calls import Call
from robustness.draws import Draw
from robustness.subjects import Subject, subjects
from torch import Tensor
from torch.utils import _pytree as pytree

POINTS = 12


class _Last(random.Random):
    """Chooses what comes last: among the kinds of an array it is the one without a peculiarity."""

    def randrange(self, start, stop=None, step=1):
        return (start if stop is None else stop) - 1


class Plain(Draw):
    """The choices of a typical call: the usual option, and tensors row after row."""

    def __init__(self, batch: tuple[int, ...], dtype: torch.dtype, seed: int, size: int):
        super().__init__(seed, 0)
        self.random = _Last()
        self.batch, self.dtype, self.count, self.dim = batch, dtype, POINTS, size
        self.mixed = self.grad = self.odd = False
        self.scale = 1.0

    def chance(self, share: float) -> bool:
        return False

    def pick(self, *values: Any) -> Any:
        sizes = {type(value) for value in values} == {int} and self.dim in values
        return self.dim if sizes else statistics.mode(values)  # the first of those that are named most often

    def lead(self) -> tuple[int, ...]:
        return self.batch

    def tensor(self, array: np.ndarray, trailing: int, *, grad: bool = True, scaled: bool = True) -> Tensor:
        value = torch.from_numpy(np.array(array, dtype=np.float64)).to(self.dtype)
        return self.kept(value, array.shape[: array.ndim - trailing])


@cache
def found() -> dict[str, Subject]:
    return subjects()


@cache
def of_any_size() -> list[str]:
    """Functions whose arguments change with the size that they are asked for."""

    def shapes(name: str, size: int) -> list[torch.Size]:
        return [t.shape for t in Typical(name, size=size).tensors]

    return [name for name in found() if shapes(name, 3) != shapes(name, 4)]


class Typical:
    """A public function as one of tensors: those among its arguments, with what else it takes bound.

    Where matrices or points may have any size it is `size`.
    """

    def __init__(
        self, name: str, batch: int = 4, dtype: torch.dtype = torch.float64, seed: int = 0, size: int = 3
    ):
        self.draw = draw = Plain((batch,), dtype, seed, size)
        subject = found()[name]
        arguments = {key: make(draw) for key, make in subject.makers.items()}
        leaves, self._spec = pytree.tree_flatten(arguments)
        self._fixed = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self._call = Call(subject, draw, arguments, None, option=False)
        self.tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        batched = {id(made.tensor) for made in draw.made if made.lead[:1] == (batch,)}
        self.batched = [id(t) in batched for t in self.tensors]
        self.places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        leaves = list(self._fixed)
        for place, tensor in zip(self.places, tensors, strict=True):
            leaves[place] = tensor
        return tuple(_tensors(self._call(pytree.tree_unflatten(leaves, self._spec))))


def _tensors(value: Any) -> list[Tensor]:
    """Those that a result holds; not those of its properties."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = [*value.values()]
    elif dataclasses.is_dataclass(value):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    return [t for part in value for t in _tensors(part)] if isinstance(value, tuple | list) else []
