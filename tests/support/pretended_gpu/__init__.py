"""Tensors that say they are on a GPU and compute on the CPU, and a record of what a GPU would have had to do.

    launch   an operation of torch's, which launches at least one kernel
    kernel   one of Triton's, here in its interpreter
    wait     the host needs a number of the device before it can go on
    up       a copy from the host to the device
    down     a copy from the device to the host, for which the host waits, too

with the line of svdrot that was at fault. Tensors of two devices in one operation are refused, as on a GPU.
Library calls (decompositions, sorts) count as one launch and may be more.

`record` is the whole interface. It turns torch inside out for a process of its own: see `__main__`.
"""

import contextlib
import ctypes
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
LIBRARY = str(HERE.parents[2] / "svdrot") + os.sep


def _load_guard() -> None:
    """Before torch is loaded, which looks for devices then, and once."""
    root = Path(str(find_spec("torch").origin)).parent  # pyright: ignore[reportOptionalMemberAccess]
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "guard.so"
        paths = [f"-I{root}/include", f"-L{root}/lib", f"-Wl,-rpath,{root}/lib"]
        command = ["g++", "-shared", "-fPIC", "-O0", "-std=c++20", *paths, HERE / "guard.cpp", "-o", library]
        subprocess.run([*command, "-lc10", "-ltorch_cpu"], check=True, capture_output=True)
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


os.environ["TRITON_INTERPRET"] = "1"
_load_guard()

import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes  # noqa: E402
from torch.utils._pytree import tree_leaves, tree_map  # noqa: E402

# Operations whose result has a size or a value that the host must know.
WAITS = """_local_scalar_dense nonzero masked_select _unique2 unique_dim unique_consecutive bincount equal
is_nonzero _linalg_eigh _linalg_svd linalg_lstsq _linalg_eigvals linalg_eig histc repeat_interleave""".split()
# Memory and metadata alone.
FREE = """empty empty_like new_empty empty_strided new_empty_strided detach alias _unsafe_view _reshape_alias
resize_ set_ lift_fresh is_pinned _has_same_storage_numel""".split()
INDEXING = ("index", "index_put_", "index_put", "_index_put_impl_", "_unsafe_index")


class Event(NamedTuple):
    kind: str
    what: str
    where: str


EVENTS: list[Event] = []
_current = 0  # the index of the current device, as `torch.cuda.device_of` sets it


class Pretended(Tensor):
    """A tensor of a CPU that says it is on a GPU."""

    elem: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, elem: Tensor, device: torch.device):
        kind = {"dtype": elem.dtype, "layout": elem.layout, "device": device, "requires_grad": False}
        lies = {"strides": elem.stride(), "storage_offset": elem.storage_offset()}
        self = torch.Tensor._make_wrapper_subclass(cls, elem.size(), **lies, **kind)
        self.elem = elem
        return self

    def __repr__(self, **_: Any) -> str:
        return f"Pretended({self.elem}, {self.device})"

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _dispatch(function, args, kwargs or {})


class _Everything(TorchDispatchMode):
    """Operations that make tensors of none, too."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _dispatch(function, args, kwargs or {})


def _on_gpu(device: Any) -> torch.device | None:
    if device is None:
        return None
    device = torch.device(device)
    if device.type != "cuda":
        return None
    return device if device.index is not None else torch.device("cuda", _current)


def _note(kind: str, what: str) -> None:
    frame = sys._getframe(1)
    while frame and not frame.f_code.co_filename.startswith(LIBRARY):
        frame = frame.f_back
    where = f"{frame.f_code.co_filename[len(LIBRARY) :]}:{frame.f_lineno}" if frame else "outside"
    EVENTS.append(Event(kind, what, where))


def _dispatch(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = function._schema.name.split("::")[1]
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    ours = [x for x in tensors if isinstance(x, Pretended)]
    asked = _on_gpu(kwargs.get("device"))
    device = ours[0].device if ours else asked
    if name == "_to_copy":
        device = _copied(ours, kwargs.get("device"), asked)
    elif name == "copy_":
        into, of = (isinstance(x, Pretended) for x in args[:2])
        if into or of:
            _note("launch" if into and of else "up" if into else "down", name)
        device = args[0].device if into else None
    elif device is not None:
        _check_together(name, ours, tensors)
        _count(function, name, args)
    return _computed(function, args, kwargs, ours, device)


def _copied(ours: list[Pretended], wanted: Any, asked: torch.device | None) -> torch.device | None:
    here = ours[0].device if ours else None
    there = here if wanted is None else asked
    if here is not None or there is not None:
        _note(
            "launch" if here == there else "down" if there is None else "up" if here is None else "peer", "to"
        )
    return there


def _check_together(name: str, ours: list[Pretended], tensors: list[Tensor]) -> None:
    others = [x for x in tensors if not isinstance(x, Pretended) and x.ndim > 0]
    devices = {str(x.device) for x in ours} | ({"cpu"} if others and name not in INDEXING else set())
    if len(devices) > 1:
        _note("mixed", name)
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {devices} in {name}")
    if others and ours:
        _note("up", name)  # an index, which torch copies


def _count(function: Any, name: str, args: Any) -> None:
    views = any(r.alias_info is not None and not r.alias_info.is_write for r in function._schema.returns)
    by_mask = name in INDEXING and any(x is not None and x.dtype == torch.bool for x in args[1])
    if name in WAITS or by_mask:
        _note("wait", name)
    if not views and name not in FREE:
        _note("launch", name)


def _computed(
    function: Any, args: Any, kwargs: dict[str, Any], ours: list[Pretended], device: torch.device | None
) -> Any:
    args, kwargs = tree_map(_plain, (args, kwargs))
    if kwargs.get("device") is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if kwargs.get("pin_memory"):
        kwargs = {**kwargs, "pin_memory": False}
    known = {id(x.elem): x for x in ours}  # what is written in place stays what it is

    def wrapped(x: Any) -> Any:
        if not isinstance(x, Tensor) or device is None:
            return x
        return known[id(x)] if id(x) in known else Pretended(x, device)

    return tree_map(wrapped, function(*args, **kwargs))


def _plain(x: Any) -> Any:
    return x.elem if isinstance(x, Pretended) else x


def on(x: Tensor, device: str = "cuda:0") -> Tensor:
    """A copy that says it is on a GPU, and wants gradients if `x` does."""
    with torch.no_grad():
        found = Pretended(x.detach().clone(), torch.device(device))
    return found.requires_grad_(x.requires_grad)


def back(x: Tensor) -> Tensor:
    """What a tensor holds, on the CPU, without a word in the record."""
    return x.detach().elem if isinstance(x, Pretended) else x.detach()


@contextlib.contextmanager
def record() -> Iterator[list[Event]]:
    """The events of what is done inside."""
    _install()
    EVENTS.clear()
    with torch.autograd.set_multithreading_enabled(False), _Everything():
        yield EVENTS


# What does not go through the dispatcher ------------------------------------------------------------------

_installed = False


def _install() -> None:
    global _installed
    if _installed:
        return
    _installed = True
    torch.cuda._lazy_init = lambda: None
    torch.cuda.device_of = _device_of
    _replace_conversions()
    _replace_launches()
    from svdrot.engine import memory

    memory.ORDINARY = (*memory.ORDINARY, Pretended)


@contextlib.contextmanager
def _device_of(x: Tensor) -> Iterator[None]:
    global _current
    before, _current = _current, x.device.index if isinstance(x, Pretended) else _current
    try:
        yield
    finally:
        _current = before


def _replace_conversions() -> None:
    """Of numbers to tensors and back, which torch does without its dispatcher."""
    tensor, as_tensor, tolist, new_tensor = torch.tensor, torch.as_tensor, Tensor.tolist, Tensor.new_tensor
    generator = torch.Generator

    def made(kind: str, f: Any) -> Any:
        def make(data: Any, *args: Any, device: Any = None, **options: Any) -> Tensor:
            there = _on_gpu(device)
            if there is None or isinstance(data, Pretended):
                return f(data, *args, device=device, **options)
            _note("up", kind)
            with _disable_current_modes():
                return Pretended(f(data, *args, **options), there)

        return make

    def as_list(self: Tensor) -> Any:
        if not isinstance(self, Pretended):
            return tolist(self)
        _note("wait", "tolist")
        return tolist(self.elem)

    def new(self: Tensor, data: Any, *args: Any, **options: Any) -> Tensor:
        if not isinstance(self, Pretended):
            return new_tensor(self, data, *args, **options)
        _note("up", "new_tensor")
        with _disable_current_modes():
            return Pretended(new_tensor(self.elem, data, *args, **options), self.device)

    torch.tensor, torch.as_tensor = made("tensor", tensor), made("as_tensor", as_tensor)
    Tensor.tolist, Tensor.new_tensor = as_list, new
    torch.Generator = type("Generator", (generator,), {"__new__": lambda cls, device="cpu": generator("cpu")})


def _replace_launches() -> None:
    from triton.runtime import interpreter

    run = interpreter.GridExecutor.__call__

    def launch(self: Any, *args: Any, **options: Any) -> Any:
        tensors = [x for x in tree_leaves((args, options)) if isinstance(x, Tensor)]
        ours = [x for x in tensors if isinstance(x, Pretended)]
        if ours:
            _note("kernel", self.fn.__name__)
            if len(ours) < len(tensors) or {x.device.index for x in ours} != {_current}:
                _note("mixed", self.fn.__name__)
                raise RuntimeError(f"{self.fn.__name__} was launched on device {_current} with others'")
        with _disable_current_modes():
            return run(self, *tree_map(_plain, args), **tree_map(_plain, options))

    interpreter.GridExecutor.__call__ = launch
