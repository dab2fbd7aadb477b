"""Whether a tensor is memory that a kernel may read."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

ORDINARY = (Tensor, torch.nn.Parameter)
# Modes that write operations down, or put tensors without memory in place of others. (Others only look on.)
RECORDERS = (torch._C._TorchDispatchModeKey.PROXY, torch._C._TorchDispatchModeKey.FAKE)  # pyright: ignore
BEFORE_AUTOGRAD = torch._C.DispatchKey.PreDispatch  # where some of them are


def is_exporting() -> bool:
    """Whether `torch.export` is at work: `torch.compiler.is_exporting` of torch 2.8 is True under
    `torch.compile`, too."""
    return torch.compiler._is_exporting_flag


def in_memory(*tensors: Tensor | None) -> bool:
    """True if a kernel may read the memory of these tensors directly.

    Not for a compiler, exporter or tracer, which write operations down; nor for fake tensors and other
    subclasses, tensors with a sign still to be taken, and zeros of forward mode, which have no memory.
    """
    if torch.compiler.is_compiling() or torch._C._is_tracing():
        return False
    if torch._C._dispatch_tls_is_dispatch_key_included(BEFORE_AUTOGRAD):
        return False
    if torch._C._len_torch_dispatch_stack() and any(map(torch._C._get_dispatch_mode, RECORDERS)):
        return False
    for x in tensors:  # not `all`, of a generator: 0.4 us of the 14 of a projection
        if x is not None and (type(x) not in ORDINARY or x.is_neg() or x._is_zerotensor()):
            return False
    return True


def with_signs(x: Sequence[Tensor]) -> Sequence[Tensor]:
    """Take the sign that views of conjugates still have to take, so that they are memory like others."""
    if torch.compiler.is_compiling():
        return x
    for t in x:
        if t.is_neg():
            return [t.resolve_neg() for t in x]
    return x


def is_differentiable_record(in_function: bool = False) -> bool:
    """Whether operations are written down for a program that may be differentiated itself.

    Not without gradients; but torch.jit.trace traces once more without them, to compare, and they are not
    wanted there only under torch.inference_mode(). Not by `torch.compile`, which has the derivatives of what
    it compiles. Not for ONNX, which has none.

    Args:
        in_function: whether it is the forward of an autograd Function, where torch has turned gradients off.
    """
    wanted = (
        in_function or torch.is_grad_enabled() or (_is_traced() and not torch.is_inference_mode_enabled())
    )
    return wanted and _is_recording()


def _is_traced() -> bool:
    return not torch.compiler.is_compiling() and torch._C._is_tracing()


def _is_recording() -> bool:
    if is_exporting() or _is_traced():
        return not torch.onnx.is_in_onnx_export()
    if torch.compiler.is_compiling():
        return False
    if torch._C._dispatch_tls_is_dispatch_key_included(BEFORE_AUTOGRAD):
        return True
    return bool(torch._C._len_torch_dispatch_stack() and torch._C._get_dispatch_mode(RECORDERS[0]))


def unseen_by_dynamo(function: Any) -> Any:
    """A function that Dynamo calls and does not trace, as `torch.compiler.assume_constant_result`, which
    imports all of Dynamo.
    """
    function._dynamo_marked_constant = True
    return function
