"""Random calls of every public function, good ones and bad ones, and the laws that all of them keep.

    python tests/robustness.py --calls 100000 --seed 0
    python tests/robustness.py --calls 100000 --threads 8
    python tests/robustness.py --calls 100000 --fork
    python tests/robustness.py --calls 100000 --memory 64
    PYTHONMALLOC=debug python -X dev tests/robustness.py --calls 100000
    python tests/robustness.py --seed 0 --only 4711

A call is determined by its seed and number alone: `--only` repeats one, and tells what it was. The calls run
in a process of their own, and one that dies is named and begun anew behind the call that it died of.

The functions are those of the public tables, and their arguments are made by the names of their parameters
(`MAKERS`); a function whose parameters have no maker stops everything with a sentence that says what to add.
"""

import argparse
import ast
import contextlib
import ctypes
import dataclasses
import faulthandler
import inspect
import json
import math
import mmap
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree

import svdrot
from svdrot import distributions, losses, nn, optim, registration, representations, symmetries
from svdrot.conventions import CONVENTIONS
from svdrot.registration import Transform
from svdrot.representations._convert import REPRESENTATIONS as CONVERTED
from svdrot.schedules import SCHEDULES

ROOT = Path(svdrot.__file__).parent

# ---------------------------------------------------------------------------------------------- subjects

NOT_CALLED = {
    "svdrot.registration.read_points": "reads a file; see test_files.py",
    "svdrot.registration.read_transform": "reads a file; see test_files.py",
    "svdrot.registration.write_points": "writes a file; see test_files.py",
    "svdrot.registration.write_transform": "writes a file; see test_files.py",
    "svdrot.optim.split_parameters": "takes a module; see test_optim.py",
    "svdrot.nn.Representation": "a row of a table",
    "svdrot.nn.Strategy": "only its subclasses do anything",
    "svdrot.optim.MatrixView": "a setting of the optimizers",
    "svdrot.streaming.AngleStatistic": "only its subclasses do anything",
    "svdrot.polar.check_steps": "says what schedules must be; of `newton_schulz`",
    "svdrot.schedules.shrunk": "of the tables; takes no tensor",
}


def public_functions() -> dict[str, Callable[..., Any]]:
    """Functions and classes in the public tables of svdrot, and of the public modules in them, each once."""
    found: dict[str, Callable[..., Any]] = {}
    modules, seen = [svdrot], set()
    for module in modules:
        for name in _public_names(module):
            value = getattr(module, name)
            if isinstance(value, types.ModuleType):
                modules += [value] if value.__name__.startswith("svdrot") else []
            elif callable(value) and id(value) not in seen:
                seen.add(id(value))
                found[f"{module.__name__}.{name}"] = value
        if module is representations:
            conversions = representations.CONVERSIONS.items()
            found |= {f"svdrot.{name}": f for name, f in conversions if id(f) not in seen}
            seen |= {id(f) for _, f in conversions}
    return found


def _public_names(module: types.ModuleType) -> list[str]:
    """Of `__all__`, or else what a module defines, and what it imports under the same name once more."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    tree = ast.parse(Path(str(module.__file__)).read_text())
    imports = [alias for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    names += [alias.name for alias in imports if alias.asname == alias.name]
    return [name for name in names if not name.startswith("_")]


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is called, and how its arguments are made."""

    name: str
    function: Callable[..., Any]
    makers: dict[str, Callable[["Draw"], Any]]
    spread: str | None  # the parameter that takes any number of positional arguments


def subjects() -> dict[str, Subject]:
    """Of every public function, and of every method that `scenarios` lists for a public class."""
    found, classes = {}, scenarios()
    for name, value in public_functions().items():
        if name in NOT_CALLED or (dataclasses.is_dataclass(value) and value is not Transform):
            continue  # results are read where they are returned
        methods = {name: value} if not isinstance(value, type) else classes.get(value)
        if methods is None:
            raise LookupError(
                f"{name} is a public class without a scenario: add functions that make and use one to "
                "`scenarios` in tests/robustness.py, or the reason why there is none to NOT_CALLED."
            )
        for own, function in methods.items():
            full = own if own == name else f"{name}.{own}"
            found[full] = Subject(full, function, *_makers(full, function))
    return found


def _makers(name: str, function: Callable[..., Any]) -> tuple[dict[str, Callable[["Draw"], Any]], str | None]:
    makers, spread = {}, None
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            spread = parameter.name
        maker = MAKERS.get(f"{name}.{parameter.name}", MAKERS.get(parameter.name))
        if maker is None:
            raise LookupError(
                f"`{parameter.name}` of {name} has no maker: add one to MAKERS in tests/robustness.py, under "
                f'"{parameter.name}" or "{name}.{parameter.name}", or {name} to NOT_CALLED with the reason.'
            )
        makers[parameter.name] = maker
    return makers, spread


Scenarios = dict[str, Callable[..., Any]]

# ----------------------------------------------------------------------------------------------- arguments

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
        self.definite = True  # whether no matrix has several nearest ones, of which rounding chooses
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
        self.made.append(Made(value, lead, _state(value)))
        return value


def _state(value: Tensor) -> tuple[bytes, int]:
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


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-300)


def _rotations(draw: Draw, *shape: int) -> np.ndarray:
    q = _unit(draw.normal(*shape, 4))
    kind = draw.random.randrange(10)
    if kind == 0:
        q = np.broadcast_to([1.0, 0, 0, 0], q.shape)
    elif kind == 1:  # half turns
        q = np.concatenate((np.zeros_like(q[..., :1]), _unit(q[..., 1:])), -1)
    elif kind == 2:  # half turns about an axis of coordinates
        q = np.broadcast_to(np.eye(4)[draw.random.randrange(1, 4)], q.shape)
    elif kind == 3:
        q = _unit(np.array([1.0, 0, 0, 0]) + 10.0 ** -draw.random.randrange(3, 17) * q)
    elif kind == 4:  # quarter turns
        q = _unit(np.broadcast_to(np.eye(4)[0] + np.eye(4)[draw.random.randrange(1, 4)], q.shape))
    w, x, y, z = np.moveaxis(q, -1, 0)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return np.stack([np.stack(row, -1) for row in rows], -2)


def _matrices(draw: Draw, m: int, n: int, *lead: int) -> np.ndarray:
    x = draw.normal(*lead, m, n)
    kind = draw.random.randrange(9)
    k = min(m, n)
    draw.definite &= kind > 5 or k <= 3  # of up to three rows each has its own choice
    if kind == 0:
        return np.zeros_like(x)
    if kind == 1:
        return x[..., :1] * x[..., :1, :]
    if kind == 2 and m == n == 3:
        return _rotations(draw, *lead)
    if kind in (2, 3):  # equal singular values
        u, _, vh = np.linalg.svd(x, full_matrices=False) if x.size else (x[..., :k], None, x[..., :k, :])
        return u @ vh
    if kind == 4:
        return np.broadcast_to(-np.eye(m, n), x.shape)
    if kind == 5:
        return np.ones_like(x)
    return x


def _vectors(draw: Draw, n: int, *lead: int) -> np.ndarray:
    x = draw.normal(*lead, n)
    kind = draw.random.randrange(9)
    if kind == 0:
        return np.zeros_like(x)
    if kind == 1:
        return np.broadcast_to(np.eye(n)[draw.random.randrange(n)], x.shape)
    if kind == 2:
        return _unit(x)
    if kind == 3:
        return _unit(x) * np.pi
    if kind == 4 and n == 6:  # two parallel directions
        return np.concatenate((x[..., :3], x[..., :1] * x[..., :3]), -1)
    if kind == 5:
        return 10.0 ** -draw.random.randrange(3, 17) * x
    return x


def _clouds(draw: Draw, *shape: int) -> np.ndarray:
    x = draw.normal(*shape)
    kind = draw.random.randrange(8)
    if kind == 0 and shape[-2]:  # in one place
        return np.broadcast_to(x[..., :1, :], x.shape)
    if kind == 1:  # on a line
        return x[..., :1] * _unit(draw.normal(shape[-1]))
    if kind == 2:  # on a plane
        return np.concatenate((x[..., :-1], np.zeros_like(x[..., :1])), -1)
    if kind == 3:  # far away
        return x + 1e4
    if kind == 4:  # on a grid: many equal distances
        return np.round(x)
    return x


def rotation(draw: Draw) -> Tensor:
    lead = draw.lead()
    array = _rotations(draw, *lead)
    if draw.chance(0.1):
        array = array + 10.0 ** -draw.random.randrange(2, 8) * draw.normal(*array.shape)
    if draw.chance(0.07):
        array, draw.sound = _matrices(draw, 3, 3, *lead), False
    return draw.tensor(array, 2, scaled=not draw.sound)


def rotation_list(draw: Draw) -> Tensor:
    return draw.tensor(_rotations(draw, *draw.lead(), draw.count), 3, scaled=False)


def knots(draw: Draw) -> Tensor:
    draw.memo["knots"] = max(2, draw.count)
    return draw.tensor(_rotations(draw, *draw.lead(), draw.memo["knots"]), 3, scaled=False)


def times(draw: Draw) -> Tensor | None:
    ascending = np.cumsum(draw.numpy.random(draw.memo["knots"]) + 0.1)
    return None if draw.chance(0.3) else draw.tensor(ascending, 1, scaled=False)


def matrix(m: int | None = None, n: int | None = None, same: bool = False) -> Callable[[Draw], Tensor]:
    """Any matrices; of random sides where these are None, square where `n` is 0."""

    def make(draw: Draw) -> Tensor:
        rows = m or draw.pick(1, 2, 3, 3, 3, 4, 5, 9)
        columns = rows if n == 0 else n or draw.pick(1, 2, 3, 3, 3, 4, 5, 9)
        array = _matrices(draw, rows, columns, *(draw.batch if same else draw.lead()))
        draw.memo["matrix"] = array
        return draw.tensor(array, 2)

    return make


def factor(draw: Draw) -> Tensor:
    array = draw.memo["matrix"]
    k = min(array.shape[-2:])
    x = array + 1e-9 * draw.normal(*array.shape)
    u, _, vh = np.linalg.svd(x, full_matrices=False) if x.size else (x[..., :k], 0, x[..., :k, :])
    draw.sound = False  # exact for matrices of full rank
    return draw.tensor(u @ vh + 0.01 * draw.normal(*array.shape), 2, scaled=False)


def vector(n: int) -> Callable[[Draw], Tensor]:
    return lambda draw: draw.tensor(_vectors(draw, n, *draw.lead()), 1)


def converted(draw: Draw) -> Tensor:
    """Numbers of a representation: of the one that the name of the function begins with, or any."""
    kind = draw.memo.get("from") or draw.pick(*CONVERTED)
    draw.memo["from"] = kind
    shape = CONVERTED[kind].shape
    if kind == "matrix":
        return rotation(draw)
    return draw.tensor(_vectors(draw, *shape, *draw.lead()), len(shape))


def conventional(there: bool) -> Callable[[Draw], Tensor]:
    def make(draw: Draw) -> Tensor:
        draw.memo["library"] = library = draw.pick(*CONVENTIONS)
        draw.memo["from"] = kind = draw.pick(*CONVENTIONS[library])
        if kind == "matrix":
            return rotation(draw)
        shape = CONVENTIONS[library][kind].shape if there else CONVERTED[kind].shape
        return draw.tensor(draw.normal(*draw.lead(), *shape), len(shape))

    return make


def points(draw: Draw) -> Any:
    """(..., N, 3), as one tensor."""
    return draw.tensor(_clouds(draw, *draw.lead(), draw.count, 3), 2)


def pairs_of_points(draw: Draw) -> Any:
    """(..., N, d), or a list of clouds."""
    dim = draw.memo.setdefault("dim", draw.dim)
    lengths = draw.memo.setdefault("lengths", [draw.random.randrange(5) for _ in range(2)])
    if draw.memo.setdefault("list", draw.chance(0.15)):
        return [draw.tensor(_clouds(draw, n, dim), 2) for n in lengths]
    return draw.tensor(_clouds(draw, *draw.lead(), draw.count, dim), 2)


def per_point(make: Callable[[Draw, tuple[int, ...]], Tensor]) -> Callable[[Draw], Any]:
    """None, (..., N), or a list where the points are one."""

    def made(draw: Draw) -> Any:
        if draw.chance(0.5):
            return None
        if draw.memo.get("list"):
            return [make(draw, (n,)) for n in draw.memo["lengths"]]
        return make(draw, (*draw.lead(), draw.memo.get("rows", draw.count)))

    return made


def _weights(draw: Draw, shape: tuple[int, ...]) -> Tensor:
    array = draw.numpy.random(shape)
    array = np.where(draw.numpy.random(shape) < 0.2, 0, array)
    return draw.tensor(array, 1, scaled=False)


def _mask(draw: Draw, shape: tuple[int, ...]) -> Tensor:
    return draw.kept(torch.from_numpy(np.array(draw.numpy.random(shape) < 0.7)), shape[:-1])


def pose(draw: Draw) -> Any:
    """A transform, or for losses a pair."""
    lead = draw.lead()
    turn = draw.tensor(_rotations(draw, *lead), 2, scaled=False)
    move = draw.tensor(draw.normal(*lead, 3), 1)
    if draw.memo.get("pairs") and draw.chance(0.5):
        return turn, move
    size = np.ones(lead) if draw.chance(0.5) else draw.numpy.random(lead) + 0.1
    return Transform(turn, move, draw.tensor(size, 0, scaled=False))


def loss_pose(draw: Draw) -> Any:
    draw.memo["pairs"] = True
    return pose(draw)


def trajectory(draw: Draw) -> Transform:
    lead = () if draw.memo.get("one") else draw.batch
    shape = (*lead, draw.count)
    turn = draw.tensor(_rotations(draw, *shape), 2, scaled=False)
    return Transform(
        turn, draw.tensor(_clouds(draw, *shape, 3), 1), draw.tensor(np.ones(shape), 0, scaled=False)
    )


def one_trajectory(draw: Draw) -> Transform:
    draw.memo["one"] = True
    return trajectory(draw)


def pose_pairs(draw: Draw) -> Tensor:
    size = draw.random.randrange(4) if draw.count else 0
    return draw.kept(torch.from_numpy(draw.numpy.integers(0, max(1, draw.count), (size, 2))), ())


def fragments(draw: Draw) -> Tensor:
    return draw.kept(torch.from_numpy(np.sort(draw.numpy.integers(0, 9, (draw.count, 2)))), ())


def edges(draw: Draw) -> Tensor:
    draw.memo["edges"] = size = draw.random.randrange(9)
    i = draw.numpy.integers(0, 5, size)
    return draw.kept(torch.from_numpy(np.stack((i, (i + draw.numpy.integers(1, 5, size)) % 5), 1)), ())


def positive(draw: Draw) -> float:
    return draw.pick(0.05, 0.3, 1.0, 2.5)


def number(*values: Any) -> Callable[[Draw], Any]:
    return lambda draw: draw.pick(*values)


def scaled_tensor(draw: Draw) -> Tensor:
    return draw.tensor(draw.numpy.random(draw.lead()) + 0.1, 0, scaled=False)


def row(n: int | None = None) -> Callable[[Draw], Tensor]:
    return lambda draw: draw.tensor(draw.normal(draw.count if n is None else n), 1)


def per_item(draw: Draw) -> Tensor:
    return draw.tensor(np.abs(draw.normal(*draw.lead(), draw.count)), 1)


def stamps(draw: Draw) -> Tensor:
    value = torch.from_numpy(1e9 + np.round(draw.normal(draw.random.randrange(8)), 2))
    return draw.kept(value, ())


def one_cloud(draw: Draw) -> Tensor:
    return draw.tensor(_clouds(draw, draw.pick(0, 1, 3, 4, 9, 40), 3), 2)


def features(draw: Draw) -> Tensor:
    return draw.tensor(draw.normal(draw.count, 5), 2)


def group(draw: Draw) -> Tensor:
    made = draw.pick(symmetries.cyclic(1), symmetries.cyclic(3), symmetries.dihedral(2))
    return draw.kept(made.to(draw.dtype), ())


def shape(draw: Draw) -> tuple[int, ...]:
    draw.memo["one shape"] = draw.batch
    return draw.batch


def generator(draw: Draw) -> torch.Generator | None:
    return torch.Generator().manual_seed(draw.seed) if draw.chance(0.5) else None


def sequence(draw: Draw) -> str:
    return draw.pick(*representations.SEQUENCES)


def surface(draw: Draw) -> Tensor | None:
    return None if draw.chance(0.5) else points(draw)


def icp_scales(draw: Draw) -> Any:
    return [(0.5, 1.0, 2), (None, 0.5, 2)] if draw.memo.get("max_distance", 0) is None else None


def icp_distance(draw: Draw) -> float | None:
    draw.memo["max_distance"] = distance = draw.pick(0.5, 2.0, None)
    return distance


def icp_points(draw: Draw) -> Any:
    draw.memo.setdefault("dim", 3)
    draw.memo.setdefault("lengths", [draw.random.randrange(12) for _ in range(2)])
    return pairs_of_points(draw)


def icp_extra(*trailing: int) -> Callable[[Draw], Any]:
    def make(draw: Draw) -> Any:
        if draw.chance(0.8):
            return None
        leads = [(n,) for n in draw.memo["lengths"]] if draw.memo["list"] else [(*draw.lead(), draw.count)]
        arrays = [_unit(draw.normal(*lead, 3)) for lead in leads]
        if len(trailing) == 2:
            arrays = [x[..., None] * x[..., None, :] + 0.1 * np.eye(3) for x in arrays]
        made = [draw.tensor(x, 1 + len(trailing), grad=False, scaled=False) for x in arrays]
        return made if draw.memo["list"] else made[0]

    return make


def scipy_rotation(draw: Draw) -> Any:
    from scipy.spatial.transform import Rotation

    return Rotation.random(draw.count, random_state=draw.seed)


def unit_quaternion(draw: Draw) -> Tensor:
    return draw.tensor(_unit(draw.normal(*draw.lead(), 4)), 1, scaled=False)


def homogeneous(draw: Draw) -> Tensor:
    draw.sound = False  # the root of a determinant, that of a similarity is not 0
    return matrix(4, 4)(draw)


def axis(draw: Draw) -> Any:
    return draw.pick((0.0, 0.0, 1.0), (1.0, 2.0, 3.0), draw.tensor(_unit(draw.normal(3)), 1, scaled=False))


def covariance_matrix(draw: Draw) -> Tensor:
    x = draw.normal(*draw.lead(), 6, 6)
    return draw.tensor(x @ np.swapaxes(x, -1, -2) + np.eye(6), 2, scaled=False)


def relative(draw: Draw) -> Tensor:
    return draw.tensor(_rotations(draw, draw.memo["edges"]), 2, grad=False, scaled=False)


def edge_weights(draw: Draw) -> Tensor | None:
    return None if draw.chance(0.5) else _weights(draw, (draw.memo["edges"],))


MAKERS: dict[str, Callable[[Draw], Any]] = {
    **dict.fromkeys(("a", "b", "base", "rotation", "start", "end", "estimate", "truth"), rotation),
    **dict.fromkeys(("quaternion",), vector(4)),
    **dict.fromkeys(("axis_angle", "mrp", "angles", "vector"), vector(3)),
    **dict.fromkeys(("rotation_2vec", "rotation_6d"), vector(6)),
    "rotation_5d": vector(5),
    "rotation_9d": vector(9),
    "symmetric": vector(10),
    "matrix": rotation,
    "value": converted,
    "source": pairs_of_points,
    "target": pairs_of_points,
    "points": points,
    "query": points,
    "weights": per_point(_weights),
    "mask": per_point(_mask),
    "sequence": sequence,
    "dtype": lambda draw: draw.pick(None, *FLOATS),
    "device": number(None, "cpu"),
    "generator": generator,
    "shape": shape,
    "reflection": number(False, True),
    "threshold": positive,
    "rotations": rotation_list,
    "average": lambda draw: draw.tensor(_rotations(draw), 2, scaled=False),
    "norm": number(*registration.averaging.NORMS),
    "representation": number(*nn.REPRESENTATIONS),
    "features": lambda draw: draw.tensor(draw.normal(*draw.lead(), 4), 1, scaled=False),
    "svdrot.convert_rotation.source": lambda draw: draw.memo["from"],
    "svdrot.convert_rotation.target": number(*CONVERTED),
    "svdrot.interpolate_rotations.rotations": knots,
    "at": row(),
    "times": times,
    "angle": number(0.0, 0.1, 1.0, 3.0, math.pi),
    "svdrot.random_small_rotation.scale": number(0.1, 1.0, 0.0),
    "share": lambda draw: draw.pick(0.0, 0.3, 1.0, 2) if draw.chance(0.4) else scaled_tensor(draw),
    "svdrot.special_orthogonalize.matrix": matrix(None, 0),
    "damping": number(None, None, 0.0, 0.1),
    "svdrot.projection_gap.matrix": matrix(None, 0),
    "svdrot.orthogonalize.matrix": matrix(),
    "svdrot.is_rotation.tolerance": number(None, 1e-3),
    # polar
    "svdrot.polar.polar.matrix": matrix(None, 0),
    "special": number(False, True),
    "svdrot.polar.newton_schulz.matrix": matrix(),
    "schedule": number(*SCHEDULES.values()),
    "schatten": number(2, 8),
    "svdrot.polar.polar_refinement.matrix": matrix(same=True),
    "svdrot.polar.polar_certificate.matrix": matrix(None, 0, same=True),
    "svdrot.polar.polar_certificate.factor": factor,
    "factor": factor,
    "h": matrix(3, 3),
    "s": matrix(3, 3),
    # schedules
    "kappa": number(1, 2, 5),
    "lower": number(1.0, 0.1, 1e-3, 1e-6),
    "cap": number(0.2, 0.0, 0.4),
    "safety": number(1.0005, 1.0),
    "svdrot.schedules.newton_schulz_schedule.tolerance": number(1e-9, 1e-3),
    "aspect": number(None, 1.0, 2.0, 16.0),
    # losses
    **{f"svdrot.losses.{f}.{p}": loss_pose for f in ("add", "add_symmetric") for p in ("estimate", "truth")},
    "svdrot.losses.laplace_geodesic.scale": scaled_tensor,
    "svdrot.losses.axial.axis": vector(3),
    "undirected": number(False, True),
    "svdrot.losses.raw_9d.matrix": matrix(3, 3),
    "symmetries": group,
    "loss": number(losses.geodesic, losses.chordal, losses.squared_geodesic, losses.squared_chordal),
    "reduction": number("mean", "sum", "none"),
    # conventions
    "svdrot.conventions.from_convention.value": conventional(True),
    "svdrot.conventions.to_convention.value": conventional(False),
    "library": lambda draw: draw.memo["library"],
    "svdrot.conventions.from_convention.representation": lambda draw: draw.memo["from"],
    "svdrot.conventions.to_convention.representation": lambda draw: draw.memo["from"],
    "degrees": number(False),
    "svdrot.conventions.from_scipy.rotation": scipy_rotation,
    "svdrot.conventions.from_scipy.dtype": number(*FLOATS),
    "svdrot.conventions.to_scipy.matrix": lambda draw: draw.tensor(
        _rotations(draw, draw.count), 2, scaled=False
    ),
    # symmetries
    "order": number(1, 2, 3, 7),
    "axis": axis,
    "second": number(None, (0.3, 0.1, -2.0)),
    **{f"svdrot.symmetries.{g}.dtype": number(*FLOATS) for g in ("tetrahedral", "octahedral", "icosahedral")},
    # optim
    "svdrot.optim.clip_outliers.matrix": matrix(),
    "svdrot.optim.equilibrate.matrix": matrix(),
    "svdrot.optim.singular_gap.matrix": matrix(),
    "quantile": number(0.9, 1.0, 0.01),
    "mode": number("r", "c", "rc"),
    "eps": number(1e-8),
    "relative": number(False, True),
    "rows": number(1, 2, 8, 100),
    "columns": number(1, 2, 8, 100),
    "number": number(1, 2, 8),
    "parameter": lambda draw: draw.tensor(_matrices(draw, draw.pick(1, 3, 5), draw.pick(1, 2, 8)), 2),
    "lr": number(1e-3, 0.0),
    "momentum": number(0.95, 0.0),
    # distributions
    "batch_shape": shape,
    "sample_shape": number((), (2,), (2, 1)),
    "training": number(False, True),
    # registration
    "transform": pose,
    "k": number(1, 2, 5),
    "max_distance": number(None, 0.5, 2.0),
    "svdrot.registration.estimate_normals.k": number(3, 5, 20),
    "radius": number(None, 1.0),
    "viewpoint": lambda draw: draw.pick(None, draw.tensor(draw.normal(3), 1, scaled=False)),
    "voxel": positive,
    "clouds": lambda draw: [draw.tensor(_clouds(draw, n, 3), 2) for n in (2, draw.count)],
    "method": number("least_squares", "huber", "geman_mcclure", "gnc_tls", "gnc_geman_mcclure", "ransac"),
    "svdrot.registration.robust_kabsch.method": number(*registration.robust.METHODS),
    **{
        f"svdrot.registration.{f}.{p}": points
        for f in ("robust_kabsch", "robust_umeyama", "pose_metrics.inlier_ratio")
        for p in ("source", "target")
    },
    "svdrot.registration.pose_metrics.chamfer_distance.source": points,
    "svdrot.registration.pose_metrics.chamfer_distance.target": points,
    "source_surface": surface,
    "target_surface": surface,
    **{
        f"svdrot.registration.{f}.{p}": one_cloud
        for f in ("register", "automatic_voxel")
        for p in ("source", "target")
    },
    "svdrot.registration.fpfh.points": one_cloud,
    "svdrot.registration.voxel_downsample.points": features,
    "attributes": lambda draw: (features(draw),) if draw.chance(0.5) else (),
    "svdrot.registration.match.source": features,
    "svdrot.registration.match.target": features,
    "svdrot.registration.Neighbours.query.points": features,
    "svdrot.registration.Neighbours.query.query": features,
    "svdrot.registration.register.voxel": number(None, 0.5),
    "svdrot.registration.register.method": number("consistency", "ransac"),
    "refine": number(None, "point_to_plane"),
    "svdrot.registration.icp.source": icp_points,
    "svdrot.registration.icp.target": icp_points,
    "svdrot.registration.icp.max_distance": icp_distance,
    "init": lambda draw: None,
    "svdrot.registration.icp.method": number(*registration.icp.__globals__["METHODS"]),
    "kernel": number(*registration.icp.__globals__["KERNELS"]),
    "kernel_parameter": number(None, 0.5),
    "svdrot.registration.icp.max_iterations": number(0, 1, 3),
    "angle_tolerance": number(1e-5),
    "length_tolerance": number(None, 1e-4),
    "scales": icp_scales,
    "source_mask": per_point(_mask),
    "target_mask": per_point(_mask),
    "source_normals": icp_extra(3),
    "target_normals": icp_extra(3),
    "source_covariances": icp_extra(3, 3),
    "target_covariances": icp_extra(3, 3),
    "neighbours": number(3, 20),
    "progress": lambda draw: None,
    "edges": edges,
    "svdrot.registration.synchronize_rotations.relative": relative,
    "svdrot.registration.synchronize_rotations.weights": edge_weights,
    "count": number(None, 7),
    "svdrot.registration.synchronize_rotations.loss": number("squared", "geman_mcclure"),
    "svdrot.registration.synchronize_rotations.scale": number(None, 0.1),
    "max_iterations": number(0, 5),
    **{
        f"svdrot.registration.pose_metrics.{f}.{p}": pose
        for f in (
            *("rotation_error", "translation_error", "add", "point_rmse", "add_symmetric"),
            *("information_rmse",),
        )
        for p in ("estimate", "truth")
    },
    "svdrot.registration.pose_metrics.pose_recall.estimate": trajectory,
    "svdrot.registration.pose_metrics.pose_recall.truth": trajectory,
    "svdrot.registration.pose_metrics.pose_recall.rotation": positive,
    "translation": positive,
    "errors": per_item,
    "thresholds": row(4),
    "maximum": positive,
    "information": covariance_matrix,
    "rmse": per_item,
    "pairs": pose_pairs,
    "svdrot.registration.pose_metrics.registration_recall.pairs": fragments,
    "distance": positive,
    "ratios": per_item,
    "reference": trajectory,
    **{
        f"svdrot.registration.trajectories.{f}.estimate": trajectory
        for f in ("align_trajectories", "align_origins", "absolute_pose_error", "relative_pose_error")
    },
    "svdrot.registration.trajectories.kitti_segment_errors.estimate": one_trajectory,
    "svdrot.registration.trajectories.kitti_segment_errors.mask": lambda draw: (
        None if draw.chance(0.5) else _mask(draw, (draw.count,))
    ),
    **{f"svdrot.registration.trajectories.{f}.trajectory": one_trajectory for f in ("path_pairs",)},
    **{f"svdrot.registration.trajectories.{f}.trajectory": one_trajectory for f in ("angle_pairs",)},
    "svdrot.registration.trajectories.path_lengths.trajectory": one_trajectory,
    "trajectory": trajectory,
    "svdrot.registration.trajectories.align_trajectories.scale": number(False, True),
    "svdrot.registration.trajectories.align_trajectories.mask": lambda draw: (
        None if draw.chance(0.5) else _mask(draw, (*draw.batch, draw.count))
    ),
    "lengths": number((0.5, 2.0), (1.0,)),
    "step": number(1, 10),
    "delta": number(1, 2),
    "svdrot.registration.trajectories.frame_pairs.count": number(0, 1, 5),
    "svdrot.registration.trajectories.path_pairs.tolerance": number(0.1, 0.5),
    "svdrot.registration.trajectories.angle_pairs.tolerance": number(0.1, 0.5),
    "overlapping": number(False, True),
    "first": stamps,
    "svdrot.registration.trajectories.associate.second": stamps,
    "svdrot.registration.trajectories.associate.max_difference": number(0.01, 1.0),
    "offset": number(0.0, 0.5),
    "then": pose,
    "homogeneous": homogeneous,
    "d": number(1, 2, 3),
    # streaming
    "percentiles": number((5, 95)),
    "accuracies": number((5,)),
    "areas": number((30,)),
    "evaluated": rotation,
}
_NUMBERS = {"quaternion": 4, "axis_angle": 3, "mrp": 3, "euler": 3, "rotation_2vec": 6, "rotation_5d": 5}
_NUMBERS |= {"rotation_6d": 6, "rotation_9d": 9, "symmetric_10d": 10}
for _name in set(representations.CONVERSIONS) - set(svdrot.__all__):  # the others have names of parameters
    _from = _name.split("_to_")[0]
    MAKERS[f"svdrot.{_name}.value"] = vector(_NUMBERS[_from]) if _from in _NUMBERS else rotation


# Slow ones are called more rarely: share of the calls of a quick one.
RARE = {
    "svdrot.registration.register": 0.02,
    "svdrot.registration.fpfh": 0.05,
    "svdrot.registration.icp": 0.2,
    "svdrot.registration.synchronize_rotations": 0.1,
    "svdrot.registration.robust_kabsch": 0.3,
    "svdrot.registration.robust_umeyama": 0.3,
    "svdrot.streaming.rotation_metrics": 0.05,
    "svdrot.schedules.newton_schulz_schedule": 0.3,
}


# ---------------------------------------------------------------------------------------------- scenarios


def _of_matrix(kind: type, matrix: Callable[[Draw], Tensor], value: Callable[[Draw], Tensor]) -> Scenarios:
    """What a distribution with one matrix answers."""
    name = f"svdrot.distributions.{kind.__name__}"

    def density(matrix, value):
        return kind(matrix, validate_args=False).log_prob(value)

    def validated_density(matrix, value):
        return kind(matrix).log_prob(value)

    def sample(matrix, sample_shape):
        return kind(matrix, validate_args=False).sample(sample_shape)

    def moments(matrix):
        of = kind(matrix, validate_args=False)
        return of.mean, of.mode, of.log_normalizer(), of.entropy()

    found = {"log_prob": density, "validated": validated_density, "sample": sample, "moments": moments}
    MAKERS.update({f"{name}.{method}.matrix": matrix for method in found})
    MAKERS.update({f"{name}.{method}.value": value for method in ("log_prob", "validated")})
    return found


def _uniform(batch_shape, dtype, sample_shape):
    of = distributions.UniformRotation(batch_shape, dtype=dtype)
    drawn = of.sample(sample_shape)
    return drawn, of.log_prob(drawn), of.entropy()


def _gaussian_density(rotation, scale, evaluated):
    return distributions.IsotropicGaussian(rotation, scale, validate_args=False).log_prob(evaluated)


def _gaussian_moments(rotation, scale):
    of = distributions.IsotropicGaussian(rotation, scale, validate_args=False)
    return of.mean, of.mode, of.entropy()


def _gaussian_sample(rotation, scale, sample_shape):
    return distributions.IsotropicGaussian(rotation, scale, validate_args=False).rsample(sample_shape)


def _head(kind: type) -> Callable[..., Any]:
    def forward(features, representation, training):
        head = kind(4, representation).train(training)
        floating = isinstance(features, Tensor) and features.is_floating_point()
        return head.to(features.dtype if floating else torch.float32)(features)

    return forward


def _strategy(make: Callable[[], nn.Strategy]) -> Callable[..., Any]:
    def forward(rotation_9d, training):
        return make().train(training)(rotation_9d, "svd")

    return forward


def _steps(make: Callable[..., torch.optim.Optimizer]) -> Callable[..., Any]:
    def step(parameter, lr, momentum):
        weight = torch.nn.Parameter(parameter.detach().clone())
        weight.grad = parameter.detach()
        make([weight], lr=lr, momentum=momentum).step()
        return weight.detach()

    return step


def _metric(make: Callable[[], Any]) -> Callable[..., Any]:
    def compute(estimate, truth):
        metric = make()
        metric.update(estimate, truth)
        return metric.compute()

    return compute


def _query(points, query, k, max_distance):
    return registration.Neighbours(points).query(query, k, max_distance)


def _project(matrix, damping):
    return nn.SpecialOrthogonalize(damping)(matrix)


def _reduced(estimate, truth, reduction):
    return losses.ReducedLoss(losses.geodesic, reduction)(estimate, truth)


def scenarios() -> dict[type, Scenarios]:
    """For each public class that is more than a result, functions that make one and use it."""
    from svdrot import streaming

    made = {
        Transform: {
            "apply": lambda transform, points: transform.apply(points),
            "compose": lambda transform, then: then @ transform,
            "inverse": lambda transform: transform.inverse(),
            "from_matrix": lambda homogeneous: Transform.from_matrix(homogeneous),
            "identity": lambda d: Transform.identity(d),
        },
        registration.Neighbours: {"query": _query},
        losses.ReducedLoss: {"forward": _reduced},
        nn.SpecialOrthogonalize: {"forward": _project},
        nn.RotationHead: {"forward": _head(nn.RotationHead)},
        nn.RigidHead: {"forward": _head(nn.RigidHead)},
        nn.Always: {"forward": _strategy(nn.Always)},
        nn.AtInference: {"forward": _strategy(nn.AtInference)},
        nn.AfterWarmup: {"forward": _strategy(lambda: nn.AfterWarmup(1))},
        nn.ManifoldGradient: {"forward": _strategy(nn.ManifoldGradient)},
        optim.Muon: {"step": _steps(optim.Muon)},
        optim.ROOT: {"step": _steps(optim.ROOT)},
        optim.MuonEq: {"step": _steps(optim.MuonEq)},
        optim.MiMuon: {"step": _steps(lambda *given, **options: optim.MiMuon(*given, tau=0.1, **options))},
        distributions.MatrixFisher: _of_matrix(distributions.MatrixFisher, matrix(3, 3), rotation),
        distributions.RotationLaplace: _of_matrix(distributions.RotationLaplace, matrix(3, 3), rotation),
        distributions.Bingham: _of_matrix(distributions.Bingham, matrix(4, 4), unit_quaternion),
        distributions.UniformRotation: {"sample": _uniform},
        distributions.IsotropicGaussian: {
            "log_prob": _gaussian_density,
            "moments": _gaussian_moments,
            "rsample": _gaussian_sample,
        },
        streaming.MeanDegrees: {"compute": _metric(streaming.MeanDegrees)},
        streaming.StdDegrees: {"compute": _metric(streaming.StdDegrees)},
        streaming.MedianDegrees: {"compute": _metric(streaming.MedianDegrees)},
        streaming.PercentileDegrees: {"compute": _metric(lambda: streaming.PercentileDegrees(90))},
        streaming.AccuracyAtDegrees: {"compute": _metric(lambda: streaming.AccuracyAtDegrees(5))},
        streaming.AreaUnderAccuracy: {"compute": _metric(lambda: streaming.AreaUnderAccuracy(30))},
    }
    for name in ("log_prob", "moments", "rsample"):
        MAKERS[f"svdrot.distributions.IsotropicGaussian.{name}.scale"] = scaled_tensor
    return made


# ------------------------------------------------------------------------------------------------ one call


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


# What torch and Python are handed as it is, and refuse themselves.
OF_TORCH = {
    *("dtype", "device", "generator", "shape", "sample_shape", "batch_shape"),
    *("training", "special", "undirected", "reflection", "degrees", "overlapping", "loss", "progress"),
}


def spoil(draw: Draw, value: Any) -> tuple[str, Any]:
    """Something else in place of an argument, and in words what."""
    if isinstance(value, Tensor):
        ways = [
            ("is nothing", lambda: None),
            ("is a string", lambda: "x"),
            ("is a list of numbers", lambda: [0.5, 1.0, 2.0]),
            ("is a number", lambda: 0.5),
            ("is an array", lambda: np.ones((3, 3))),
            ("is a transform", lambda: Transform.identity()),
            ("is one number", lambda: torch.tensor(1.0)),
            ("is empty", lambda: torch.zeros(0)),
            ("is integer", lambda: value.detach().nan_to_num(0, 0, 0).to(torch.int64)),
            ("is boolean", lambda: value.detach() != 0),
            ("is complex", lambda: value.detach().to(torch.complex64)),
            ("has one dimension more behind", lambda: value.detach()[..., None]),
        ]
        if value.ndim:
            ways += [
                ("has one dimension less", lambda: value.detach().sum(-1)),
                ("has no numbers at the end", lambda: value.detach()[..., :0]),
                ("has twice the numbers", lambda: torch.cat((value.detach(), value.detach()), -1)),
                ("has one row more", lambda: torch.cat((value.detach(), value.detach()[:1]))),
            ]
            # Of which there is none in BATCHES: it broadcasts with none but one.
            ways += [
                ("has another batch", lambda: torch.stack((value.detach(),) * 7).expand(7, *value.shape))
            ]
        how, make = draw.pick(*ways)
        return how, make()
    if isinstance(value, Transform):
        other = Transform.identity(2)
        ways = [
            ("is nothing", lambda: None),
            ("is a matrix", lambda: torch.eye(4)),
            ("is a rotation", lambda: value.rotation.detach()),
            ("is a string", lambda: "x"),
            ("is of the plane", lambda: other),
            (
                "has another batch",
                lambda: Transform(torch.eye(3).expand(7, 3, 3), torch.zeros(7, 3), torch.ones(7)),
            ),
        ]
        how, make = draw.pick(*ways)
        return how, make()
    if isinstance(value, str):
        odd = draw.pick("nonsense", None, 3)
    elif isinstance(value, int | float):
        odd = draw.pick(math.nan, math.inf, -math.inf, -1, -0.5, 0, None, "x")
    else:
        odd = draw.pick("x", 3, [], [None], (1, 2))
    return f"is {odd!r}", odd


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
        properties = [name for name, part in inspect.getmembers(type(value)) if isinstance(part, property)]
        yield from (tensor for name in fields + properties for tensor in tensors_in(getattr(value, name)))


# ---------------------------------------------------------------------------------------------------- laws


@dataclasses.dataclass(frozen=True)
class Finding:
    law: str
    subject: str
    what: str


def findings(call: Call) -> list[Finding]:
    """The laws that a call breaks."""
    broken: list[Finding] = []

    def note(law: str, what: str) -> None:
        broken.append(Finding(law, call.subject.name, what))

    try:
        torch.manual_seed(call.draw.seed)
        outputs = list(tensors_in(call()))
    except Exception as error:  # of whatever kind: that is what is asked
        complaint = refusal(call, error)
        if complaint:
            note(*complaint)
        _unchanged(call, note)
        return broken
    _unchanged(call, note)
    if call.spoiled is None:
        _kinds(call, outputs, note)
        gradients = _gradients(call, outputs, note)
        if call.repeatable and call.draw.chance(0.4):
            _alone(call, outputs, gradients, note)
        if call.repeatable and call.draw.chance(0.2):
            _layout(call, outputs, note)
        _unchanged(call, note)
    return broken


NAMED = re.compile("`[^`]+`")


def refusal(call: Call, error: Exception) -> tuple[str, str] | None:
    """What is wrong with an error: it should be a TypeError or ValueError, of ours, for bad input alone."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(str(ROOT))]
    where = f"{Path(frames[-1].filename).relative_to(ROOT)}:{frames[-1].lineno}" if frames else "outside"
    said = f"{type(error).__name__} at {where}: {str(error).splitlines()[0] if str(error) else ''}"[:200]
    if not frames or isinstance(error, MemoryError) or "allocate memory" in str(error):
        return None
    if isinstance(error, ImportError) and "pip install" in str(error):
        return None
    if isinstance(error, ValueError) and call.subject.name.endswith((".validated", ".to_scipy")):
        return None  # of torch.distributions and of scipy
    if isinstance(error, TypeError) and call.option:
        return None  # Python's own, of an option of another kind
    if not isinstance(error, TypeError | ValueError):
        return "a result, a TypeError or a ValueError", f"[{call.spoiled or 'good input'}] {said}"
    if not NAMED.search(str(error)):
        return "an error names the argument", f"[{call.spoiled or 'good input'}] {said}"
    if call.spoiled is None and not call.draw.odd:
        return "good input is taken", said
    return None


def _unchanged(call: Call, note: Callable[[str, str], None]) -> None:
    for made in call.draw.made:
        if _state(made.tensor) != made.before:
            note("no input is changed", f"{tuple(made.tensor.shape)} {made.tensor.dtype}")
        if made.tensor.is_leaf and made.tensor.grad is not None:
            note("no input is changed", "grad was set")


def _kinds(call: Call, outputs: list[Tensor], note: Callable[[str, str], None]) -> None:
    given = [made.tensor.dtype for made in call.draw.made if made.tensor.is_floating_point()]
    allowed = {*given, torch.float64, torch.float32}
    for output in outputs:
        if output.device.type != "cpu":
            note("results are where the arguments are", str(output.device))
        if output.is_floating_point() and given and output.dtype not in allowed:
            note("results are in a dtype of the arguments", f"{output.dtype} of {given}")


def _gradients(call: Call, outputs: list[Tensor], note: Callable[[str, str], None]) -> dict[int, Tensor]:
    """With respect to every argument, by place; noted where not finite though the arguments are."""
    leaves = [(i, made.tensor) for i, made in enumerate(call.draw.made) if made.tensor.requires_grad]
    ends = [output for output in outputs if output.requires_grad]
    if not leaves or not ends:
        return {}
    generator = torch.Generator().manual_seed(call.draw.seed)
    pulls = [torch.randn(end.shape, generator=generator).to(end.dtype) for end in ends]
    try:
        values = torch.autograd.grad(ends, [leaf for _, leaf in leaves], pulls, allow_unused=True)
    except Exception as error:
        note("a gradient", f"{type(error).__name__}: {str(error).splitlines()[0]}"[:200])
        return {}
    gradients = {i: value for (i, _), value in zip(leaves, values, strict=True) if value is not None}
    draw = call.draw
    usual = (
        draw.sound
        and draw.scale == 1
        and not draw.odd
        and torch.float16 not in {tensor.dtype for tensor in (*(made.tensor for made in draw.made), *outputs)}
    )
    finite = all(made.tensor.isfinite().all() for made in draw.made if not made.tensor.is_meta)
    known = not any(output.isnan().any() for output in outputs if output.is_floating_point())
    if usual and finite and known:
        for value in gradients.values():
            if not value.isfinite().all():
                note("finite gradients of finite input", f"{tuple(value.shape)} {value.dtype}")
                break
    return gradients


def _alone(
    call: Call, outputs: list[Tensor], gradients: dict[int, Tensor], note: Callable[[str, str], None]
) -> None:
    """With NaN in one element of an argument, all others are what they were."""
    batch = call.draw.batch
    size = math.prod(batch)
    if size < 2 or not call.draw.definite or call.subject.name.endswith(TOGETHER):
        return
    places = [
        i
        for i, made in enumerate(call.draw.made)
        if batch
        and made.lead[: len(batch)] == batch
        and made.tensor.is_floating_point()
        and made.tensor.numel()
    ]
    if not places:
        return
    place = call.draw.pick(*places)
    tensor = call.draw.made[place].tensor
    element = call.draw.random.randrange(size)
    odd = tensor.detach().clone(memory_format=torch.contiguous_format)
    part = odd.view(size, -1)[element]
    part[call.draw.random.randrange(len(part))] = call.draw.pick(math.nan, math.inf)
    odd.requires_grad_(tensor.requires_grad)
    arguments = _replaced(call.arguments, {id(tensor): odd})
    try:
        torch.manual_seed(call.draw.seed)
        others = list(tensors_in(call(arguments)))
    except Exception as error:
        note(
            "a NaN is no error",
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200],
        )
        return
    kept = torch.arange(size) != element
    for before, after in zip(outputs, others, strict=True):
        if before.shape != after.shape:
            note("a NaN stays in its place", f"shape {tuple(before.shape)} became {tuple(after.shape)}")
        elif before.shape[: len(batch)] == batch:
            a, b = (x.detach().reshape(size, -1)[kept] for x in (before, after))
            if not _alike(a, b):
                note("a NaN stays in its place", f"{before.dtype} {tuple(before.shape)}: {_difference(a, b)}")
                return
    if place in gradients and call.draw.sound:
        ends = [end for end in others if end.requires_grad]
        generator = torch.Generator().manual_seed(call.draw.seed)
        pulls = [torch.randn(end.shape, generator=generator).to(end.dtype) for end in ends]
        (value,) = torch.autograd.grad(ends, [odd], pulls, allow_unused=True)
        if value is not None:
            a, b = (x.reshape(size, -1)[kept] for x in (gradients[place], value))
            if not _alike(a, b):
                note("a NaN stays in its place in gradients", f"{tuple(value.shape)}: {_difference(a, b)}")


def _replaced(value: Any, by: dict[int, Any]) -> Any:
    return _pytree.tree_map(lambda leaf: by.get(id(leaf), leaf), value)


def _alike(a: Tensor, b: Tensor) -> bool:
    if not a.is_floating_point():
        return torch.equal(a, b)
    eps = torch.finfo(a.dtype).eps
    return torch.allclose(a, b, rtol=1e4 * eps, atol=1e4 * eps, equal_nan=True)


def _difference(a: Tensor, b: Tensor) -> str:
    apart = (a.double() - b.double()).abs().nan_to_num(0)
    largest = apart.amax().item() if apart.numel() else 0
    return f"NaN {int(a.isnan().sum())} became {int(b.isnan().sum())}, apart by {largest:.1e}"


def _layout(call: Call, outputs: list[Tensor], note: Callable[[str, str], None]) -> None:
    """How the arguments lie in memory changes nothing."""
    plain = {
        id(made.tensor): _plain(made.tensor) for made in call.draw.made if isinstance(made.tensor, Tensor)
    }
    if call.draw.scale != 1 or not call.draw.sound or any(output.is_meta for output in outputs):
        return
    if any(made.tensor.dtype.itemsize < 4 for made in call.draw.made):
        return
    torch.manual_seed(call.draw.seed)
    if call.arguments.get("generator") is not None:
        call.arguments["generator"].manual_seed(call.draw.seed)
    again = list(tensors_in(call(_replaced(call.arguments, plain))))
    for before, after in zip(outputs, again, strict=True):
        if before.shape != after.shape or not _alike(before.detach(), after.detach()):
            what = _difference(before.detach(), after.detach()) if before.shape == after.shape else "shapes"
            note("layout in memory changes nothing", f"{before.dtype} {tuple(before.shape)}: {what}")
            return


def _plain(value: Tensor) -> Tensor:
    plain = torch.empty(value.shape, dtype=value.dtype)
    return plain.copy_(value.detach()).requires_grad_(value.requires_grad)


# What draws from torch's global generator, which calls in other threads turn on.
DRAWN = (".sample", ".rsample", "Head.forward")
# One answer of all elements; random numbers of which how many are drawn depends on all; errors of others.
TOGETHER = (
    "segment_errors",
    "_pairs",
    "path_lengths",
    ".sample",
    ".rsample",
    ".compute",
    ".validated",
    ".to_scipy",
)

# ----------------------------------------------------------------------------------------------------- run


WARMING = 10**9  # number of the first of the calls that load every kernel


class Report:
    """Findings by kind: how many, and the number of the first call of each."""

    def __init__(self) -> None:
        self.kinds: dict[str, list[Any]] = {}

    def add(self, number: int, finding: Finding) -> None:
        kind = re.sub(r"-?\d[\d.e+-]*", "#", finding.what.split(":")[0])
        self.merge({f"{finding.law} | {finding.subject} | {kind}": [1, number, finding.what]})

    def merge(self, kinds: dict[str, list[Any]]) -> None:
        for key, (count, number, what) in kinds.items():
            known = self.kinds.setdefault(key, [0, number, what])
            known[0] += count

    def __str__(self) -> str:
        rows = [
            f"{count:6} times, first in call {n}: {key}\n{'':13}{what}"
            for key, (count, n, what) in sorted(self.kinds.items())
        ]
        return "\n".join(rows)


def work(options: argparse.Namespace) -> None:
    """The calls from `--first` on, in this process; the number of the last one begun goes to `--state`."""
    campaign, report = Campaign(options.threads > 1), Report()
    with Path(options.state).open("r+b") as file:
        state = mmap.mmap(file.fileno(), 8)
    warnings.simplefilter("default")
    warnings.showwarning = lambda message, category, filename, line, *_: report.add(
        int.from_bytes(state[:], "little"),
        Finding("no warning", f"{Path(filename).name}:{line}", str(message)[:160]),
    )

    def one(number: int) -> None:
        state[:] = number.to_bytes(8, "little")
        for finding in findings(campaign.call(options.seed, number)):
            report.add(number, finding)

    def block(numbers: range) -> None:
        faulthandler.dump_traceback_later(options.patience, exit=True)
        if options.threads > 1:
            list(pool.map(one, numbers))
        else:
            for number in numbers:
                one(number)

    last = options.first + options.calls
    blocks = [range(at, min(at + options.block, last)) for at in range(options.first, last, options.block)]
    if options.threads > 1 or options.fork or options.memory:
        for number in range(WARMING, WARMING + 2000):  # kernels are loaded and compiled in one thread
            findings(campaign.call(options.seed, number))
    with ThreadPoolExecutor(options.threads) as pool:
        for numbers in blocks:
            if options.fork or options.memory:
                report.merge(_in_a_child(block, numbers, report, options.memory, state))
            else:
                block(numbers)
            Path(options.report).write_text(json.dumps({"next": numbers.stop, "kinds": report.kinds}))
    faulthandler.cancel_dump_traceback_later()


def _in_a_child(
    block: Callable[[range], None], numbers: range, report: Report, memory: int, state: mmap.mmap
) -> dict[str, list[Any]]:
    """The findings of calls in a fork of this process, with so many MiB more than it has, if that is told."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        report.kinds.clear()
        if memory:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * os.sysconf("SC_PAGE_SIZE") + memory * 2**20
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        with contextlib.suppress(MemoryError):
            block(numbers)
        with os.fdopen(theirs, "w") as file:
            json.dump(report.kinds, file)
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as file:
        said = file.read()
    _, status = os.waitpid(child, 0)
    if status == 0:
        return json.loads(said)
    number = int.from_bytes(state[:], "little")
    return {f"a process lives | in a child | status {status}": [1, number, f"status {status}"]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first call")
    parser.add_argument("--only", type=int, help="repeat one call, and tell about it")
    parser.add_argument("--threads", type=int, default=1, help="calls at a time")
    parser.add_argument(
        "--fork", action="store_true", help="every block of calls in a fork of a warm process"
    )
    parser.add_argument("--memory", type=int, default=0, help="the same, with so many MiB to spare")
    parser.add_argument("--block", type=int, default=500)
    parser.add_argument("--patience", type=float, default=300, help="seconds for a block, or it hangs")
    parser.add_argument("--state", help=argparse.SUPPRESS)
    parser.add_argument("--report", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.only is not None:
        tell(options.seed, options.only)
    elif options.state:
        work(options)
    else:
        sys.exit(supervise(options))


def supervise(options: argparse.Namespace) -> int:
    """A process for the calls, and another one behind each call that one dies of; 1 if there is a finding."""
    report, at, last, start = Report(), options.first, options.first + options.calls, time.perf_counter()
    print(f"{svdrot.__file__}, seed {options.seed}, calls {at} to {last}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        state, found = Path(folder, "state"), Path(folder, "report")
        while at < last:
            state.write_bytes(bytes(8))
            found.unlink(missing_ok=True)
            given = [
                f"--{name}={getattr(options, name)}"
                for name in ("seed", "threads", "memory", "block", "patience")
            ]
            given += [f"--first={at}", f"--calls={last - at}", f"--state={state}", f"--report={found}"]
            child = subprocess.Popen(
                [sys.executable, __file__, *given, *(["--fork"] if options.fork else [])]
            )
            while child.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(60)
                number = int.from_bytes(state.read_bytes(), "little")
                print(f"{time.perf_counter() - start:7.0f} s: call {number}", flush=True)
            told = json.loads(found.read_text()) if found.exists() else {"next": at, "kinds": {}}
            report.merge(told["kinds"])
            if child.returncode == 0:
                break
            number = int.from_bytes(state.read_bytes(), "little")
            print(f"Call {number}: the process ended with {child.returncode}.", flush=True)
            report.merge({f"a process lives | {child.returncode}": [1, number, f"call {number}"]})
            at = max(number, told["next"]) + 1
    print(report)
    print(f"{len(report.kinds)} kinds of findings in {options.calls} calls.")
    return int(bool(report.kinds))


def tell(seed: int, number: int) -> None:
    call = Campaign().call(seed, number)
    print(call.subject.name, "with", call.spoiled or "good input")
    for name, value in call.arguments.items():
        print(f"  {name} = {value!r}")
    for finding in findings(call):
        print(finding.law, "|", finding.what)
    print(call())


if __name__ == "__main__":
    main()
