"""Maps of tensors from formulas of scalars: what the library and its users declare."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from svdrot._checks import check_shape

from . import door
from .memory import constant_to_compilers
from .program import Program, Shape, program


class Map:
    """A formula as a differentiable function of tensors.

    Args:
        formula: a function of arrays of symbols (of one symbol for shape ()), and of further numbers.
        inputs: the shape of one element of each argument, by its name.
        results: the shape of one element of the result, or a list of those of several.
        scalars: how many further numbers there are: the same for all elements, without derivatives.
        guarded: whether an element with a NaN or an infinity gives NaN in all of its results and gradients,
            or the names of the arguments for which it does.
        name: unique in the process; that of the formula by default.
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
        self.formula, self.inputs, self.scalars = formula, inputs, scalars
        self.names, self.shapes = tuple(inputs), tuple(inputs.values())
        self.several = isinstance(results, list)
        self.results = tuple(results) if isinstance(results, list) else (results,)
        self.guarded = [*inputs] if guarded is True else guarded or []
        self.name = name or f"{formula.__module__}.{formula.__qualname__}"

    @cached_property
    def program(self) -> Program:
        guarded = [self.names.index(name) for name in self.guarded]
        return program(
            self.formula, self.shapes, self.results, name=self.name, scalars=self.scalars, guarded=guarded
        )

    def __getstate__(self) -> dict[str, Any]:
        """Without the program, which another process makes from the formula."""
        return {name: value for name, value in self.__dict__.items() if name != "program"}

    @constant_to_compilers
    def _declared(self) -> Program:
        return self.program

    def __call__(self, *x: Tensor, scalars: Sequence[float] = ()) -> Any:
        if len(x) != len(self.names) or len(scalars) != self.scalars:
            raise TypeError(
                f"`{self.name}` takes {len(self.names)} tensors ({', '.join(self.names)}) and {self.scalars} "
                f"scalars; got {len(x)} and {len(scalars)}."
            )
        for name, shape, t in zip(self.names, self.shapes, x, strict=True):
            check_shape(name, t, *shape)
        program = self._declared() if torch.compiler.is_compiling() else self.program
        found = door.apply(program, scalars, x)
        return found if self.several else found[0]
