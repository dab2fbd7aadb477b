"""Points as arguments: a tensor (..., N, d), or a list of tensors (N_i, d) of different lengths."""

from collections.abc import Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from svdrot._checks import check_shape
from svdrot._stand_ins import takes_arrays

Points = Tensor | Sequence[Tensor]


@takes_arrays
def pad(clouds: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Stack clouds of different lengths into one tensor, padded with zeros, and its mask.

    Args:
        clouds: at least one tensor (N_i, d), or weights (N_i,). They may differ in length and in dtype.

    Returns:
        padded: shape (B, max N, ...), zero past the end of each cloud, in the promoted dtype.
        mask: boolean, shape (B, max N): true where there is a point.

    Raises:
        ValueError: if there is none, or shapes differ in more than the length.
        TypeError: if `clouds` is not a list of tensors.

    Example:
        >>> import torch, svdrot
        >>> points, mask = svdrot.registration.pad([torch.ones(3, 2), torch.ones(1, 2)])
        >>> points.shape
        torch.Size([2, 3, 2])
        >>> mask
        tensor([[ True,  True,  True],
                [ True, False, False]])
    """
    lists, inside = padded({"clouds": clouds}, {})
    return lists["clouds"], inside


def padded(
    required: Mapping[str, Points], optional: Mapping[str, Points | None]
) -> tuple[dict[str, Tensor], Tensor]:
    """Pad lists of tensors, each as many and as long as those of the first, and return them with the mask."""
    given = {**required, **{name: value for name, value in optional.items() if value is not None}}
    lists = {name: _rows(name, value) for name, value in given.items()}
    leader, *_ = lists
    lengths = [*map(len, lists[leader])]
    for name, rows in lists.items():
        if [*map(len, rows)] != lengths:
            raise ValueError(f"`{name}` must be a list of as many and as long tensors as `{leader}`.")
    stacked = {name: pad_sequence(rows, batch_first=True) for name, rows in lists.items()}
    device = stacked[leader].device
    inside = torch.arange(max(lengths), device=device) < torch.tensor(lengths, device=device)[:, None]
    return stacked, inside


def as_tensor(name: str, value: Points, *trailing: int) -> Tensor:
    """Return `value` if it is a floating-point tensor of shape (..., *trailing), or raise."""
    if not isinstance(value, Tensor):
        raise TypeError(f"`{name}` must be a tensor, as the points are; got {type(value).__name__}.")
    check_shape(name, value, *trailing)
    return value


def _rows(name: str, value: object) -> list[Tensor]:
    """Check a list of tensors and bring it to one dtype."""
    if isinstance(value, Tensor):
        raise ValueError(f"`{name}` must be a list of tensors; got a tensor.")
    if not isinstance(value, Sequence) or not all(isinstance(row, Tensor) and row.ndim for row in value):
        raise TypeError(f"`{name}` must be a tensor or a list of tensors; got {type(value).__name__}.")
    if not value:
        raise ValueError(f"`{name}` must hold at least one tensor; got none.")
    if len({row.shape[1:] for row in value}) > 1:
        shapes = ", ".join(str(tuple(row.shape)) for row in value)
        raise ValueError(f"Tensors of `{name}` must differ in nothing but their lengths; got {shapes}.")
    dtype = reduce(torch.promote_types, (row.dtype for row in value))
    return [row.to(dtype) for row in value]
