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
            query, key and value in one weight, the groups of a convolution. Or the rows of each part, where
            they are not equal, as where several queries share a key and a value: (64, 16, 16).

    Example:
        >>> from svdrot.optim import MatrixView
        >>> MatrixView(rows=(1,), batch=(0,)).shape((8, 64, 32))  # eight experts
        (8, 64, 32)
    """

    rows: tuple[int, ...] = (0,)
    batch: tuple[int, ...] = ()
    parts: int | tuple[int, ...] = 1

    def shape(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """Give the number of matrices, rows and columns of a parameter.

        Args:
            shape: of the parameter.

        Returns:
            (matrices, rows, columns).

        Raises:
            ValueError: if the view does not fit the shape, or its parts are not equal: see `shapes`.

        Example:
            >>> from svdrot.optim import MatrixView
            >>> MatrixView(parts=3).shape((12, 5))
            (3, 4, 5)
        """
        return self._only(self.shapes(shape))

    def shapes(self, shape: Sequence[int]) -> list[tuple[int, int, int]]:
        """Give the same for each shape that the matrices have, in the order of the first of each.

        Args:
            shape: of the parameter.

        Returns:
            One (matrices, rows, columns) if all parts are equal.

        Raises:
            ValueError: if the view does not fit the shape.

        Example:
            >>> from svdrot.optim import MatrixView
            >>> MatrixView(parts=(64, 16, 16)).shapes((96, 32))
            [(1, 64, 32), (2, 16, 32)]
        """
        named = (*self.batch, *self.rows)
        axes = range(len(shape))
        if len({*named}) < len(named) or not {*named} <= {*axes} or not self.rows or len(named) == len(shape):
            raise ValueError(
                f"{self} must name different axes of {len(shape)}, and leave one for the columns"
            )
        m = math.prod([shape[i] for i in self.rows])
        n = math.prod([shape[i] for i in axes if i not in named])
        count = math.prod([shape[i] for i in self.batch])
        if isinstance(self.parts, int):
            if self.parts < 1 or m % self.parts:
                raise ValueError(f"{self} must have a number of parts that divides the {m} rows")
            return [(count * self.parts, m // self.parts, n)]
        if not self.parts or min(self.parts) < 1 or sum(self.parts) != m:
            raise ValueError(f"{self} must have parts of at least one row, and of {m} together")
        return [(count * self.parts.count(rows), rows, n) for rows in dict.fromkeys(self.parts)]

    def count_shapes(self) -> int:
        """Give the number of shapes that the matrices of a parameter have.

        Returns:
            1 if all parts are equal.

        Example:
            >>> from svdrot.optim import MatrixView
            >>> MatrixView(parts=(64, 16, 16)).count_shapes()
            2
        """
        return 1 if isinstance(self.parts, int) else len({*self.parts})

    def matrices(self, parameters: Tensor) -> Tensor:
        """Read parameters as matrices.

        Args:
            parameters: k of one shape, (k, *shape), which the view fits.

        Returns:
            Shape (k * matrices, rows, columns); a view of the argument where strides allow it.

        Raises:
            ValueError: if the parts are not equal: see `stacks`.

        Example:
            >>> import torch
            >>> from svdrot.optim import MatrixView
            >>> MatrixView(parts=3).matrices(torch.zeros(2, 12, 5)).shape
            torch.Size([6, 4, 5])
        """
        return self._only(self.stacks(parameters))

    def stacks(self, parameters: Tensor) -> list[Tensor]:
        """Read parameters as matrices, a stack for each shape that these have.

        Args:
            parameters: k of one shape, (k, *shape), which the view fits.

        Returns:
            Stacks of shape (k * matrices, rows, columns), as many as `shapes` are.

        Example:
            >>> import torch
            >>> from svdrot.optim import MatrixView
            >>> [x.shape for x in MatrixView(parts=(6, 3, 3)).stacks(torch.zeros(2, 12, 5))]
            [torch.Size([2, 6, 5]), torch.Size([4, 3, 5])]
        """
        shapes = self.shapes(parameters.shape[1:])
        x = _permuted(parameters, self._order(parameters.ndim))
        if len(shapes) == 1:
            return [x.reshape(-1, *shapes[0][1:])]
        assert not isinstance(self.parts, int)
        pieces = x.reshape(-1, sum(self.parts), shapes[0][2]).split([*self.parts], 1)
        same = [[x for x in pieces if x.shape[1] == m] for _, m, _ in shapes]
        return [torch.stack(some, 1).flatten(0, 1) for some in same]

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
        return self.restore_stacks([matrices], shape)

    def restore_stacks(self, stacks: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
        """Read stacks of matrices as parameters, the inverse of `stacks`.

        Args:
            stacks: of shape (k * matrices, rows, columns), one for each of the `shapes`.
            shape: of one parameter.

        Returns:
            Shape (k, *shape).

        Raises:
            ValueError: if there are not as many stacks as shapes.

        Example:
            >>> import torch
            >>> from svdrot.optim import MatrixView
            >>> stacks = [torch.zeros(2, 6, 5), torch.zeros(4, 3, 5)]
            >>> MatrixView(parts=(6, 3, 3)).restore_stacks(stacks, (12, 5)).shape
            torch.Size([2, 12, 5])
        """
        if len(stacks) != self.count_shapes():
            raise ValueError(f"{self} makes {self.count_shapes()} stacks; got {len(stacks)}.")
        x = stacks[0]
        if len(stacks) > 1:
            assert not isinstance(self.parts, int)
            placed: dict[int, Tensor] = {}
            for stack, rows in zip(stacks, dict.fromkeys(self.parts), strict=True):
                places = [i for i, m in enumerate(self.parts) if m == rows]
                placed |= zip(places, stack.unflatten(0, (-1, len(places))).unbind(1), strict=True)
            x = torch.cat([placed[i] for i in range(len(placed))], 1)
        order = self._order(len(shape) + 1)
        permuted = x.reshape(-1, *[shape[i - 1] for i in order[1:]])
        return _permuted(permuted, [order.index(i) for i in range(len(order))])

    def _only(self, found: list[Any]) -> Any:
        if len(found) > 1:
            raise ValueError(
                f"{self} reads matrices of several shapes: use `shapes`, `stacks`, `restore_stacks`."
            )
        return found[0]

    def _order(self, ndim: int) -> tuple[int, ...]:
        named = (0, *(i + 1 for i in (*self.batch, *self.rows)))
        return (*named, *(i for i in range(ndim) if i not in named))


def _permuted(x: Tensor, order: Sequence[int]) -> Tensor:
    return x if [*order] == [*range(x.ndim)] else x.permute(*order)


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


def viewed(name: str, p: Tensor, view: MatrixView | None) -> list[tuple[int, int]]:
    """Rows and columns of the matrices of a parameter, for each shape that these have."""
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
        return [(m, n) for _, m, n in (view or MatrixView()).shapes(p.shape)]
    except ValueError as error:
        raise ValueError(f"The `view` of `{name}`, of shape {tuple(p.shape)}: {error}.") from None
