"""How parameters are read as matrices, and which of a module are."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class MatrixView(NamedTuple):
    """Says how a parameter is read as a batch of matrices: each axis counts rows, matrices, or columns.

    Args:
        rows: axes that count the rows.
        batch: axes that count matrices, such as that of the experts in a stack of layers. All axes in neither
            of the two count columns.
        parts: number of equal parts into which the rows fall, each a matrix of its own: attention heads,
            query, key and value in one weight, the groups of a convolution.

    Example:
        >>> from svdrot.optim import MatrixView
        >>> MatrixView(rows=(1,), batch=(0,)).shape((8, 64, 32))  # eight experts
        (8, 64, 32)
    """

    rows: tuple[int, ...] = (0,)
    batch: tuple[int, ...] = ()
    parts: int = 1

    def shape(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """Give the number of matrices, rows and columns of a parameter.

        Args:
            shape: of the parameter.

        Returns:
            (matrices, rows, columns).

        Raises:
            ValueError: if the view does not fit the shape.

        Example:
            >>> from svdrot.optim import MatrixView
            >>> MatrixView(parts=3).shape((12, 5))
            (3, 4, 5)
        """
        named = (*self.batch, *self.rows)
        axes = range(len(shape))
        if len({*named}) < len(named) or not {*named} <= {*axes} or not self.rows or len(named) == len(shape):
            raise ValueError(
                f"{self} must name different axes of {len(shape)}, and leave one for the columns"
            )
        m = math.prod([shape[i] for i in self.rows])
        if self.parts < 1 or m % self.parts:
            raise ValueError(f"{self} must have a number of parts that divides the {m} rows")
        count = math.prod([shape[i] for i in self.batch]) * self.parts
        return count, m // self.parts, math.prod([shape[i] for i in axes if i not in named])

    def matrices(self, parameters: Tensor) -> Tensor:
        """Read parameters as matrices.

        Args:
            parameters: k of one shape, (k, *shape), which the view fits.

        Returns:
            Shape (k * matrices, rows, columns); a view of the argument where strides allow it.

        Example:
            >>> import torch
            >>> from svdrot.optim import MatrixView
            >>> MatrixView(parts=3).matrices(torch.zeros(2, 12, 5)).shape
            torch.Size([6, 4, 5])
        """
        _, m, n = self.shape(parameters.shape[1:])
        return parameters.permute(self._order(parameters.ndim)).reshape(-1, m, n)

    def restore(self, matrices: Tensor, shape: Sequence[int]) -> Tensor:
        """Read matrices as parameters, the inverse of `matrices`.

        Args:
            matrices: shape (k * matrices, rows, columns).
            shape: of one parameter.

        Returns:
            Shape (k, *shape).

        Example:
            >>> import torch
            >>> from svdrot.optim import MatrixView
            >>> MatrixView(parts=3).restore(torch.zeros(6, 4, 5), (12, 5)).shape
            torch.Size([2, 12, 5])
        """
        order = self._order(len(shape) + 1)
        permuted = matrices.reshape(-1, *[shape[i - 1] for i in order[1:]])
        return permuted.permute([order.index(i) for i in range(len(order))])

    def _order(self, ndim: int) -> tuple[int, ...]:
        named = (0, *(i + 1 for i in (*self.batch, *self.rows)))
        return (*named, *(i for i in range(ndim) if i not in named))


conv: MatrixView = MatrixView()
"""Reads (out, in, *kernel) as one matrix (out, in * kernel)."""


def heads(number: int) -> MatrixView:
    """Read a weight (number * size, in) as `number` matrices (size, in).

    Args:
        number: of heads, at least 1; it must divide the rows.

    Returns:
        The view, for the option `view` of a group.

    Example:
        >>> from svdrot.optim import heads
        >>> heads(3).shape((12, 5))
        (3, 4, 5)
    """
    return MatrixView(parts=number)


def split_parameters(module: nn.Module, adamw: Iterable[nn.Module] = ()) -> list[dict[str, Any]]:
    """Make parameter groups for `Muon`: weights of linear, convolution and attention layers, and the rest.

    Embeddings, norms and biases are the rest, and so is a weight that is in any of it too, such as that of a
    head tied to an embedding. Parameters that need no gradient are in no group.

    Args:
        module: its parameters are shared out.
        adamw: modules of it all of whose parameters go to AdamW. Name the last layer of the network here, and
            the first if it takes raw inputs.

    Returns:
        Groups with names: one for each view, and the one for AdamW at the end, whose options may be added to.

    Example:
        >>> import torch
        >>> from svdrot.optim import split_parameters
        >>> [[name for name, _ in group["params"]] for group in split_parameters(torch.nn.Linear(3, 2))]
        [['weight'], ['bias']]
    """
    views: dict[Tensor, MatrixView | None] = {}
    rest = {p for other in adamw for p in other.parameters()}
    for layer in module.modules():
        for name, p in layer.named_parameters(recurse=False):
            view = None if p in rest else _layer_view(layer, name)
            views[p] = view if views.get(p, view) == view else None
    groups: dict[MatrixView | None, list[tuple[str, Tensor]]] = {}
    for name, p in module.named_parameters():
        if p.requires_grad:
            groups.setdefault(views[p], []).append((name, p))
    others = groups.pop(None, [])
    split: list[dict[str, Any]] = [{"params": params, "view": view} for view, params in groups.items()]
    return split + ([{"params": others, "algorithm": "adamw"}] if others else [])


def _layer_view(layer: nn.Module, name: str) -> MatrixView | None:
    if isinstance(layer, nn.MultiheadAttention) and name == "in_proj_weight":
        return MatrixView(parts=3)  # query, key, value
    if isinstance(layer, nn.MultiheadAttention) and name.endswith("_proj_weight"):
        return MatrixView()
    if name != "weight":
        return None
    if isinstance(layer, nn.Linear):
        return MatrixView()
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return MatrixView(parts=layer.groups)
    if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d) and layer.groups == 1:
        return MatrixView(rows=(1,))  # (in, out, *kernel)
    return None


def viewed(name: str, p: Tensor, view: MatrixView | None) -> tuple[int, int]:
    """Rows and columns of the matrices of a parameter."""
    if p.layout != torch.strided:
        raise ValueError(f"`{name}` must be dense; got {p.layout}.")
    if not p.numel():
        raise ValueError(f"`{name}` must not be empty; got shape {tuple(p.shape)}.")
    if p.ndim != 2 and view is None:
        raise ValueError(
            f"`{name}` must be a matrix, or its group have a `view` that reads it as matrices; got shape"
            f" {tuple(p.shape)}. Convolution kernels take `view=conv`; vectors, and shards of flattened"
            ' matrices, `algorithm="adamw"`.'
        )
    try:
        return (view or MatrixView()).shape(p.shape)[1:]
    except ValueError as error:
        raise ValueError(f"The `view` of `{name}`, of shape {tuple(p.shape)}: {error}.") from None
