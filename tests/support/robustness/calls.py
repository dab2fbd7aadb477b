"""A call: a subject with its arguments, one of them spoiled or none, by seed and number alone."""

import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor

from svdrot import _deprecated
from svdrot.registration import Transform

from .draws import Draw
from .spoiling import OF_TORCH, spoil
from .subjects import Subject, subjects

OLD = {attribute for _, attribute in _deprecated.ATTRIBUTES}  # each warns


@dataclasses.dataclass
class Call:
    """A subject with its arguments, and which of them was spoiled, and how."""

    subject: Subject
    draw: Draw
    arguments: dict[str, Any]
    spoiled: str | None
    option: bool  # whether what was spoiled is neither a tensor nor a transform
    repeatable: bool = True  # whether calling it again gives the same

    def __call__(self, arguments: dict[str, Any] | None = None) -> Any:
        given = dict(self.arguments if arguments is None else arguments)
        spread = self.subject.spread
        if spread is None:
            return self.subject.function(**given)
        before = []
        for name in inspect.signature(self.subject.function).parameters:
            if name == spread:
                break
            before.append(given.pop(name))
        rest = given.pop(spread)
        return self.subject.function(*before, *(rest if isinstance(rest, tuple | list) else [rest]), **given)


# Slow ones are called more rarely: share of the calls of a quick one.
RARE = {
    "svdrot.registration.register": 0.02,
    "svdrot.registration.register_batch": 0.01,
    "svdrot.registration.judge": 0.05,
    "svdrot.registration.fpfh": 0.05,
    "svdrot.registration.icp": 0.2,
    "svdrot.averaging.synchronize_rotations": 0.1,
    "svdrot.registration.robust_kabsch": 0.3,
    "svdrot.registration.robust_umeyama": 0.3,
    "svdrot.evaluation.streaming.rotation_metrics": 0.05,
    "svdrot.schedules.newton_schulz_schedule": 0.3,
}

# What draws from torch's global generator, which calls in other threads turn on.
DRAWN = (".sample", ".rsample", "Head.forward")


class Campaign:
    """The subjects and how often each is called."""

    def __init__(self, threaded: bool = False) -> None:
        self.threaded = threaded
        self.subjects = subjects()
        self.names = list(self.subjects)
        self.shares = np.cumsum([RARE.get(name, 1.0) for name in self.names])

    def call(self, seed: int, number: int, only: str | None = None) -> Call:
        draw = Draw(seed, number)
        at = int(np.searchsorted(self.shares, draw.random.random() * self.shares[-1], "right"))
        subject = self.subjects[only or self.names[at]]
        arguments = {name: make(draw) for name, make in subject.makers.items()}
        spoiled, option = None, False
        given = [name for name in arguments if name not in OF_TORCH]
        if given and draw.chance(0.3):
            name = draw.pick(*given)
            option = not isinstance(arguments[name], Tensor | Transform)
            how, arguments[name] = spoil(draw, arguments[name])
            spoiled = f"{name} {how}"
        repeatable = not (self.threaded and subject.name.endswith(DRAWN))
        return Call(subject, draw, arguments, spoiled, option, repeatable)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor of a result, those of its properties included."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from (tensor for part in value.values() for tensor in tensors_in(part))
    elif isinstance(value, tuple | list):
        yield from (tensor for part in value for tensor in tensors_in(part))
    elif dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value)]
        members = inspect.getmembers(type(value), lambda part: isinstance(part, property))
        properties = [name for name, _ in members if name not in OLD]
        yield from (tensor for name in fields + properties for tensor in tensors_in(getattr(value, name)))
