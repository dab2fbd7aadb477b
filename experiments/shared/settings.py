"""Settings of an experiment: types that say which values have a meaning, and refuse the others by name.

    @dataclass(frozen=True)
    class Config(Settings):
        draws: Count = 1000
        noise: Positive = 0.1
        device: Device = "cpu"

`Config(draws=0)` is a ValueError; on the command line `--draws 0` is a line that says so.
"""

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import torch

try:
    import tyro
except ImportError:  # of the command line alone
    tyro = None


@dataclass(frozen=True)
class Rule:
    """What a value must be, in words and as a test."""

    wanted: str
    met: Callable[[Any], bool]


Count = Annotated[int, Rule("at least 1", lambda n: n >= 1)]
Several = Annotated[int, Rule("at least 2", lambda n: n >= 2)]
Amount = Annotated[int, Rule("at least 0", lambda n: n >= 0)]
Seed = Annotated[int, Rule("from 0 to 2^63 - 1", lambda n: 0 <= n < 2**63)]
Positive = Annotated[float, Rule("positive and finite", lambda x: 0 < x < math.inf)]
NotNegative = Annotated[float, Rule("finite and at least 0", lambda x: 0 <= x < math.inf)]
Threshold = Annotated[float, Rule("at least 0", lambda x: x >= 0)]
Share = Annotated[float, Rule("in [0, 1]", lambda x: 0 <= x <= 1)]
Part = Annotated[float, Rule("in [0, 1)", lambda x: 0 <= x < 1)]

_COUNTED = re.compile(r"all|0*[1-9][0-9]*")
Points = Annotated[
    str, Rule("a number of at least 1, or all", lambda n: _COUNTED.fullmatch(str(n)) is not None)
]
"""How many points of a cloud."""

MOST = 8 * (os.cpu_count() or 1)
Threads = Annotated[
    int, Rule(f"from 1 to {MOST}, eight for each core of this machine", lambda n: 1 <= n <= MOST)
]
"""Threads, or processes."""

Out = Annotated[Path, tyro and tyro.conf.arg(help="Folder that the result files go into.")]
"""The same in all experiments: runs/<folder>/<experiment> unless it is given."""

Device = Annotated[
    Literal["cpu", "cuda"],
    Rule("cpu where torch finds no CUDA device", lambda name: name != "cuda" or torch.cuda.is_available()),
]


@dataclass(frozen=True)
class Settings:
    """What the settings of every experiment inherit.

    Raises:
        ValueError: when they are made, if a value is not what the type of its field asks for.
    """

    def __post_init__(self):
        for owner in type(self).__mro__[-2::-1]:  # a class may give a field another default, and a plain type
            for name, kind in get_type_hints(owner, include_extras=True).items():
                _check(name, getattr(self, name), kind)

    def left(self) -> str:
        """Tell what a command leaves that was interrupted, and how to go on."""
        return "Nothing was written."


def _check(name: str, value: Any, kind: Any) -> None:
    arguments = get_args(kind)
    if get_origin(kind) is Annotated:
        kind, *rules = arguments
        _check(name, value, kind)
        for rule in rules:
            if isinstance(rule, Rule) and not rule.met(value):
                raise ValueError(f"`{name}` must be {rule.wanted}; got {value}.")
    elif get_origin(kind) is Literal and value not in arguments:
        raise ValueError(f"`{name}` must be one of {', '.join(map(str, arguments))}; got {value}.")
    elif get_origin(kind) in (Union, UnionType) and value is not None:
        (kind,) = (argument for argument in arguments if argument is not type(None))
        _check(name, value, kind)
    elif get_origin(kind) is tuple:
        if not value:
            raise ValueError(f"`{name}` must not be empty.")
        kinds = [arguments[0]] * len(value) if arguments[1:] == (...,) else arguments
        if len(value) != len(kinds):
            raise ValueError(f"`{name}` must be {len(kinds)} values; got {len(value)}.")
        for each, of in zip(value, kinds, strict=True):
            _check(name, each, of)
