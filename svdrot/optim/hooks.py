"""What the author of a relative of Muon needs: what hooks get, how states are declared, and two marks.

A relative overrides `momentum`, `direction` or both, which `Muon` calls in a step for all parameters of one
shape in a group. It works on batches of matrices, and leaves groups, views, processes and shards to `Muon`.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

Hook = TypeVar("Hook", bound=Callable[..., Tensor])

StateMaker = Callable[[Tensor, dict[str, Any]], Tensor]
"""Make the first state (k, ...) of a parameter from its matrices (k, m, n) and its group."""


class Stack:
    """Hold what a hook gets: B matrices, of all parameters of one shape in a group that have a gradient.

    Hooks may change `state`, in place or by assignment of tensors of the same shapes; all else is to be read
    only. Tensors have the dtype of the parameters in `momentum`, and that of the update, float32 or float64,
    in `direction`. `gradient` and `parameter` are stacked when they are first read, and gathered if sharded.

    Args:
        gradient: shape (B, m, n), negated under `maximize`; or a function without arguments that gives it.
        parameter: shape (B, m, n), before the step; or a function without arguments that gives it.
        state: tensors of shape (B, ...) by the names that the optimizer declared for the hook.
        group: the parameter group, with its options.
        loss: what the closure of `step` returned, detached if it is a tensor; None without a closure. Each of
            several processes has its own, so closures should return the mean.

    Example:
        >>> import torch
        >>> from svdrot.optim import Muon, Stack
        >>> optimizer = Muon([torch.nn.Parameter(torch.zeros(2, 2))], nesterov=False, momentum=0.5)
        >>> state = {"momentum_buffer": torch.zeros(1, 2, 2)}
        >>> stack = Stack(torch.eye(2)[None], torch.zeros(1, 2, 2), state, optimizer.param_groups[0])
        >>> optimizer.momentum(stack)
        tensor([[[0.5000, 0.0000],
                 [0.0000, 0.5000]]])
    """

    def __init__(
        self,
        gradient: Tensor | Callable[[], Tensor],
        parameter: Tensor | Callable[[], Tensor],
        state: dict[str, Tensor],
        group: dict[str, Any],
        loss: Any = None,
    ):
        self._gradient = gradient
        self._parameter = parameter
        self.state = state
        self.group = group
        self.loss = loss

    @property
    def gradient(self) -> Tensor:
        """Give the gradients, shape (B, m, n), negated under `maximize`."""
        if not isinstance(self._gradient, Tensor):
            self._gradient = self._gradient()
        return self._gradient

    @property
    def parameter(self) -> Tensor:
        """Give the parameters before the step, shape (B, m, n)."""
        if not isinstance(self._parameter, Tensor):
            self._parameter = self._parameter()
        return self._parameter

    def select(self, rows: slice | list[int], dtype: torch.dtype) -> "Stack":
        """Take some of the matrices, in another dtype.

        Args:
            rows: which of the B.
            dtype: of all tensors of the result.

        Returns:
            A stack whose states are views of those here if `rows` is a slice and the dtype is the same.

        Example:
            >>> import torch
            >>> from svdrot.optim import Stack
            >>> stack = Stack(torch.zeros(3, 2, 2), torch.zeros(3, 2, 2), {"a": torch.zeros(3, 1, 1)}, {})
            >>> stack.select(slice(0, 2), torch.float64).state["a"].shape
            torch.Size([2, 1, 1])
        """
        return Stack(
            lambda: self.gradient[rows].to(dtype),
            lambda: self.parameter[rows].to(dtype),
            {name: value[rows].to(dtype) for name, value in self.state.items()},
            self.group,
            self.loss,
        )


def per_entry(matrices: Tensor, group: dict[str, Any]) -> Tensor:
    """Declare a state of one number for each entry, zero at first.

    It is kept in the shape of the parameter, and sharded if the parameter is.

    Args:
        matrices: of a parameter, shape (k, m, n).
        group: the parameter group.

    Returns:
        Zeros of shape (k, m, n), in the dtype of `matrices`.

    Example:
        >>> import torch
        >>> from svdrot.optim import per_entry
        >>> per_entry(torch.ones(2, 3, 4), {}).shape
        torch.Size([2, 3, 4])
    """
    return torch.zeros_like(matrices)


def per_row(matrices: Tensor, group: dict[str, Any]) -> Tensor:
    """Declare a state of one number for each row of each matrix, zero at first.

    Args:
        matrices: of a parameter, shape (k, m, n).
        group: the parameter group.

    Returns:
        Zeros of shape (k, m, 1), in the dtype of `matrices`.

    Example:
        >>> import torch
        >>> from svdrot.optim import per_row
        >>> per_row(torch.ones(2, 3, 4), {}).shape
        torch.Size([2, 3, 1])
    """
    return torch.zeros_like(matrices[:, :, :1])


def per_column(matrices: Tensor, group: dict[str, Any]) -> Tensor:
    """Declare a state of one number for each column of each matrix, zero at first.

    Args:
        matrices: of a parameter, shape (k, m, n).
        group: the parameter group.

    Returns:
        Zeros of shape (k, 1, n), in the dtype of `matrices`.

    Example:
        >>> import torch
        >>> from svdrot.optim import per_column
        >>> per_column(torch.ones(2, 3, 4), {}).shape
        torch.Size([2, 1, 4])
    """
    return torch.zeros_like(matrices[:, :1])


def per_matrix(matrices: Tensor, group: dict[str, Any]) -> Tensor:
    """Declare a state of one number for each matrix, zero at first.

    Args:
        matrices: of a parameter, shape (k, m, n).
        group: the parameter group.

    Returns:
        Zeros of shape (k, 1, 1), in the dtype of `matrices`.

    Example:
        >>> import torch
        >>> from svdrot.optim import per_matrix
        >>> per_matrix(torch.ones(2, 3, 4), {}).shape
        torch.Size([2, 1, 1])
    """
    return torch.zeros_like(matrices[:, :1, :1])


# Without a mark a hook gets whole matrices and all that a `Stack` has, wherever it runs, so that what works
# in one process works in all. A mark promises to need less, and saves messages where parameters are sharded.


def elementwise(momentum: Hook) -> Hook:
    """Mark a `momentum` that treats each entry on its own, so that each rank can do its shard.

    The marked hook gets stacks of shape (B, *shape) instead of (B, m, n): of parameters as they are and, if
    they are sharded, of the shards of this rank. All states that it declares must be `per_entry`.

    Args:
        momentum: the hook.

    Returns:
        The same function.

    Example:
        >>> from svdrot.optim import Muon, elementwise
        >>> class Descent(Muon):
        ...     momentum_state = {}
        ...
        ...     @elementwise
        ...     def momentum(self, stack):
        ...         return stack.gradient
    """
    momentum.__dict__["elementwise"] = True
    return momentum


def update_only(direction: Hook) -> Hook:
    """Mark a `direction` that reads neither gradients nor parameters, so that their shards are not gathered.

    The marked hook may read the update, its state, the group and the loss; the others are refused.

    Args:
        direction: the hook.

    Returns:
        The same function.

    Example:
        >>> from svdrot.optim import Muon, update_only
        >>> class Halved(Muon):
        ...     @update_only
        ...     def direction(self, update, stack):
        ...         return super().direction(update, stack) / 2
    """
    direction.__dict__["update_only"] = True
    return direction


def marked(hook: Callable[..., Any], mark: Callable[..., Any]) -> bool:
    """Tell if a hook has the mark."""
    return getattr(hook, mark.__name__, False)


def refused() -> Tensor:
    raise RuntimeError(
        "`direction` is marked `update_only`, and can read no `gradient` or `parameter`. Remove the mark."
    )
