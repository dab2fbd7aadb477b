"""Maps of tensors from formulas of scalars: what the library and its users declare."""

import inspect
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib import import_module
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from svdrot._checks import check_shape, common_batch, same_shape
from svdrot._stand_ins import has_arrays, through

from . import door
from .program import MAPS, Program, Shape, array_of, free_name, is_symbolic, program
from .totals import total

MOST_SHAPES = 4096  # to remember


def formula(
    inputs: dict[str, Shape],
    results: Shape | list[Shape],
    *,
    scalars: int = 0,
    guarded: bool | Sequence[str] = True,
    name: str | None = None,
) -> Callable[[Callable[..., Any]], "Map"]:
    """Make a formula a differentiable function of tensors: a decorator.

    The formula is a plain Python function, straight down, of arrays of numbers (of one number for shape ()),
    and of `scalars` further numbers.

    Args:
        inputs: the shape of one element of each argument, of at most two dimensions, by its name.
        results: the shape of one element of the result, or a list of those of several.
        scalars: how many further numbers there are, the same for all elements and without derivatives.
        guarded: whether an element with a NaN or an infinity gives NaN in all of its results and gradients,
            or the names of the arguments for which it does.
        name: unique in the process; that of the formula by default.
    """
    return lambda f: Map(f, inputs, results, scalars=scalars, guarded=guarded, name=name)


class Map:
    """A formula as a differentiable function of tensors; of symbols it is the formula itself. See
    `formula`.
    """

    def __init__(
        self,
        formula: Callable[..., Any],
        inputs: dict[str, Shape],
        results: Shape | list[Shape],
        *,
        scalars: int = 0,
        guarded: bool | Sequence[str] = True,
        name: str | None = None,
    ):
        parameters = [p for p in inspect.signature(formula).parameters if p in inputs]
        if len(parameters) == len(inputs) and parameters != [*inputs]:
            raise TypeError(f"`inputs` must be in the order of the formula: {', '.join(parameters)}.")
        self.formula: Callable[..., Any] = formula
        self.inputs: dict[str, Shape] = inputs
        self.scalars: int = scalars
        self._origin: Map | None = None
        self.names: tuple[str, ...] = tuple(inputs)
        self.shapes: tuple[Shape, ...] = tuple(inputs.values())
        self.several: bool = isinstance(results, list)
        self.results: tuple[Shape, ...] = tuple(results) if isinstance(results, list) else (results,)
        wanted = [*inputs] if guarded is True else guarded or []
        self.guarded: list[int] = [self.names.index(name) for name in wanted]
        self.name: str = free_name(name or f"{formula.__module__}.{formula.__qualname__}")
        MAPS[self.name] = self
        self._good: set[Any] = set()  # shapes and dtypes of arguments
        self.__doc__ = formula.__doc__
        self.__name__: str = self.name.rpartition(".")[2]

    def named(self, *names: str) -> "Map":
        """The same with other names of the arguments, for errors."""
        other = Map.__new__(Map)
        other.__dict__.update(self.__dict__, names=names, _origin=self)
        other.__dict__.pop("program", None)
        return other

    @cached_property
    def program(self) -> Program:
        if self._origin is not None:
            return self._origin.program
        return program(
            self.formula,
            self.shapes,
            self.results,
            name=self.name,
            scalars=self.scalars,
            guarded=self.guarded,
        )

    def __reduce__(self) -> Any:
        """By the name of its formula, if that is the name of the map; else without the program, which another
        process makes anew."""
        module, name = self.formula.__module__, self.formula.__qualname__
        if "<" not in name and isinstance(_found(module, name), Map):
            return _named, (module, name, self.names)
        state = {name: value for name, value in self.__dict__.items() if name != "program"}
        return _restored, (state,)

    def __call__(self, *x: Any, scalars: Sequence[float] = ()) -> Any:
        """Tensors (..., *shape), whose batch dimensions broadcast, to tensors (..., *result)."""
        if not isinstance(x[0], Tensor):
            if is_symbolic(x):
                return self._of_symbols(*x, *scalars)
            if has_arrays(x):
                return through(self, *x, scalars=scalars)
        if torch.compiler.is_compiling():  # which must not look into the making of programs
            self._check(x, scalars)
            found = door.written_down(self.name, scalars, x, len(self.results))
        else:
            found = door.at_once(self.program, scalars, x)
            if found is None:
                self._check_once(x, scalars)
                found = door.apply(self.program, scalars, x)
        return tuple(found) if self.several else found[0]

    def mean(self, *x: Tensor, scalars: Sequence[float] = ()) -> Tensor:
        """The mean of a number over all elements, (), with its gradients in one pass over memory."""
        return self._total(x, scalars, is_mean=True)

    def sum(self, *x: Tensor, scalars: Sequence[float] = ()) -> Tensor:
        """The sum of a number over all elements, (), with its gradients in one pass over memory."""
        return self._total(x, scalars, is_mean=False)

    def _total(self, x: tuple[Tensor, ...], scalars: Sequence[float], is_mean: bool) -> Tensor:
        if self.results != ((),):
            raise TypeError(f"a sum or mean is of one number; `{self.__name__}` has shapes {self.results}.")
        if torch.compiler.is_compiling():
            values = self(*x, scalars=scalars).to(torch.promote_types(x[0].dtype, torch.float32))
            return values.mean() if is_mean else values.sum()
        self._check_once(x, scalars)
        return total(self.program, scalars, x, is_mean)

    def _of_symbols(self, *x: Any) -> Any:
        """The formula itself, as part of another one; scalars may be symbols, too."""
        count = len(self.shapes)
        if len(x) != count + self.scalars:
            raise TypeError(
                f"`{self.__name__}` takes {', '.join(self.names)} and {self.scalars} scalars; got {len(x)}."
            )
        arrays = [array_of(v, shape) for v, shape in zip(x, self.shapes, strict=False)]
        found = self.formula(*arrays, *x[count:])
        parts = found if self.several else (found,)
        shaped = [array_of(part, shape) for part, shape in zip(parts, self.results, strict=True)]
        return tuple(shaped) if self.several else shaped[0]

    def _check_once(self, x: tuple[Any, ...], scalars: Sequence[float]) -> None:
        """Shapes and dtypes that came before are good: to ask each takes 3 us of the 9 of a small call."""
        try:
            key = tuple([(t.shape, t.dtype) for t in x])
            if key in self._good and len(scalars) == self.scalars:
                return
        except (AttributeError, TypeError):  # no tensor; a shape of symbols
            key = None
        self._check(x, scalars)
        if key is not None and len(self._good) < MOST_SHAPES:
            self._good.add(key)

    def _check(self, x: tuple[Any, ...], scalars: Sequence[float]) -> None:
        if len(x) != len(self.shapes) or len(scalars) != self.scalars:
            raise TypeError(
                f"`{self.__name__}` takes {len(self.names)} tensors ({', '.join(self.names)}) and "
                f"{self.scalars} scalars; got {len(x)} and {len(scalars)}."
            )
        for i, shape in enumerate(self.shapes):
            check_shape(self.names[i], x[i], *shape)
        if len(x) > 1:
            self._check_batches(x)

    def _check_batches(self, x: tuple[Tensor, ...]) -> None:
        batches = [t.shape[: t.ndim - len(shape)] for t, shape in zip(x, self.shapes, strict=True)]
        if not all(same_shape(batch, batches[0]) for batch in batches):
            common_batch(**dict(zip(self.names, batches, strict=True)))


def _found(module: str, name: str) -> Any:
    return attrgetter(name)(sys.modules[module])


def _named(module: str, name: str, names: tuple[str, ...]) -> Map:
    import_module(module)
    found = _found(module, name)
    return found if found.names == names else found.named(*names)


def _restored(state: dict[str, Any]) -> Map:
    found = Map.__new__(Map)
    found.__dict__.update(state)
    MAPS.setdefault(found.name, found)
    return found
