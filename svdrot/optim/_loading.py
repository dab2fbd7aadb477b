"""What a state dict brings: options and states of an optimizer of this kind, or of torch's, in our words."""

import difflib
from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor

from svdrot.schedules import KELLER_JORDAN

# Options that describe the model and the machine, not the training: None in state dicts, which keep their
# names because torch.distributed.checkpoint looks for every option that a group has.
NOT_STATE = ("view", "schedule", "process_group")

# What torch's schedulers and its `Optimizer` write into groups.
OF_TORCH = ("params", "param_names", "initial_lr", "swa_lr")
OF_TORCH += ("min_lr", "max_lr", "base_momentum", "max_momentum")

# Options of torch.optim.Muon and AdamW without a counterpart, and the values at which they change nothing.
WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "amsgrad": (False,),
    "capturable": (False, True),
    "decoupled_weight_decay": (True,),
    "differentiable": (False,),
    "eps": (1e-7,),  # the least norm that torch.optim.Muon divides by
    "foreach": (None, False, True),
    "fused": (None, False, True),
}
LIKE = 0.85  # of difflib's ratio: "nestrov" is .93 like "nesterov", "max_momentum" .80 like "momentum"


def check_spelling(group: dict[str, Any], options: Collection[str]) -> None:
    """Refuse what is nearly an option; what is like none is a label of the caller's own."""
    for name in group.keys() - {*options, *OF_TORCH}:
        meant = difflib.get_close_matches(name, options, 1, LIKE)
        if meant:
            raise ValueError(f"`{name}` is no option of a parameter group; did you mean `{meant[0]}`?")


def translated(group: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """A loaded group without what is not state; what torch.optim.Muon iterates becomes the schedule."""
    found = {name: value for name, value in group.items() if name not in NOT_STATE}
    if "ns_steps" in found or "ns_coefficients" in found:
        step = tuple(found.pop("ns_coefficients", KELLER_JORDAN[0]))
        found["schedule"] = (step,) * found.pop("ns_steps", len(KELLER_JORDAN))
    for name in found.keys() - own.keys() - {*OF_TORCH, "schedule"}:
        value = found.pop(name)
        if name not in WITHOUT_EFFECT:
            raise ValueError(
                f"`{name}` of a loaded group is no option here; got {value!r}. Without it in the state dict, "
                "training goes on without what it meant."
            )
        if value not in WITHOUT_EFFECT[name]:
            known = " or ".join(map(repr, WITHOUT_EFFECT[name]))
            raise ValueError(
                f"`{name}` of a loaded group has no counterpart and must be {known}; got {value!r}."
            )
    return found


def check_states(
    loaded: dict[str, Any], known: Collection[str], like_parameter: Collection[str], p: Tensor, parameter: str
) -> None:
    """Refuse states of a parameter that are not among the known ones, or not in its shape."""
    for name, value in loaded.items():
        if name not in known:
            raise ValueError(
                f"The state `{name}` of {parameter} is none of this optimizer, which keeps {_listed(known)}."
            )
        if name in like_parameter and (not isinstance(value, Tensor) or value.shape != p.shape):
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"The state `{name}` of {parameter} must have shape {tuple(p.shape)}; got {got}."
            )


def _listed(names: Collection[str]) -> str:
    quoted: Sequence[str] = [f"`{name}`" for name in names]
    return ", ".join(quoted) or "none"
