"""Products of small matrices, images of points and lengths, in the precision of the data.

Not by `@`: that falls to bfloat16 under autocast, and on many devices to the three digits of TF32 where torch
may take less for float32 (`torch.set_float32_matmul_precision`). For 3x3 these are kernels, and faster than
batched products of BLAS: 2.4 times for 4,096.
"""

import torch
from torch import Tensor

from ._formulas import products
from ._precision import compute_dtype, result_dtype


def product(a: Tensor, b: Tensor) -> Tensor:
    """The matrices a b, (..., d, d), of whatever dtypes; batch dimensions broadcast."""
    if a.shape[-2:] == b.shape[-2:] == (3, 3):
        return products.product(a, b)
    a, b, result = _promoted(a, b)
    found = a[..., :, 0, None] * b[..., None, 0, :]
    for k in range(1, a.shape[-1]):
        found = found + a[..., :, k, None] * b[..., None, k, :]
    return found.to(result)


def image(matrix: Tensor, vector: Tensor) -> Tensor:
    """The vectors M v, (..., d), of matrices (..., d, d); batch dimensions broadcast."""
    if matrix.shape[-2:] == (3, 3):
        return products.image(matrix, vector)
    matrix, vector, result = _promoted(matrix, vector)
    found = matrix[..., 0] * vector[..., 0, None]
    for k in range(1, matrix.shape[-1]):
        found = found + matrix[..., k] * vector[..., k, None]
    return found.to(result)


def one_batch(x: Tensor, kept: int = 2) -> Tensor:
    """Make the dimensions before the last `kept` one, (B, ...); B is counted, for of none -1 says nothing."""
    lead, rest = x.shape[:-kept], x.shape[-kept:]
    if len(lead) == 1:
        return x
    count = 1
    for size in lead:
        count = count * size
    return x.reshape(count, *rest)


def _promoted(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, torch.dtype]:
    """Both in the dtype to compute in, and that of the result."""
    common = torch.promote_types(a.dtype, b.dtype)
    a, b = a.to(common), b.to(common)
    return a.to(compute_dtype(a)), b.to(compute_dtype(b)), result_dtype(a)


def length(v: Tensor) -> Tensor:
    """Euclidean norm over the last dimension with zero derivatives of every order at zero.

    `torch.linalg.vector_norm` has a NaN second derivative there (torch 2.13). The largest entry is taken out,
    as a constant, which changes no derivative: the second one of the root of a square is its power -3/2, and
    leaves float32 for a length of 1e-13.
    """
    largest = v.detach().abs().amax(-1, keepdim=True)
    zero = largest == 0
    unit = v / torch.where(zero, 1, largest)
    squared = torch.where(zero[..., 0], 1, (unit * unit).sum(-1))
    return largest[..., 0] * squared.sqrt()


def root(x: Tensor) -> Tensor:
    """Square root of what is not negative, with zero derivatives at zero."""
    zero = x == 0
    return torch.where(zero, 0, torch.where(zero, 1, x).sqrt())
