"""The product of a matrix with its own transpose in Triton: half the tiles are computed, the others mirrored.

Triton's interpreter adds bfloat16 as integers, so that only a GPU shows whether those are right.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

# Rows and columns of a tile, terms at a time, warps, stages, by the bytes of a number; larger ones spill.
TILES = {4: (64, 16, 4, 3), 2: (128, 32, 8, 3)}


def gram(x: Tensor, alpha: float, c: Tensor, beta: float) -> Tensor:
    """alpha X Xᵀ + beta C for X (B, m, k) of any strides and symmetric C, (B, m, m) or (m, m).

    float32, bfloat16 or float16, summed in float32 and never in TF32.
    """
    batch, rows, inner = x.shape
    result = x.new_empty(batch, rows, rows)
    block, depth, warps, stages = TILES[x.element_size()]
    tiles = triton.cdiv(rows, block)
    strides = *x.stride(), *c.expand_as(result).stride()
    if result.numel():
        kernel: Any = _gram[(batch * tiles * (tiles + 1) // 2,)]
        with torch.cuda.device_of(x):
            options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}
            kernel(x, c, result, rows, inner, *strides, alpha, beta, block, depth, **options)
    return result


@triton.jit
def _gram(
    x,
    c,
    result,
    rows,
    inner,
    x_batch,
    x_row,
    x_column,
    c_batch,
    c_row,
    c_column,
    alpha,
    beta,
    BLOCK: tl.constexpr,
    DEPTH: tl.constexpr,
):
    tiles = tl.cdiv(rows, BLOCK)
    count = tiles * (tiles + 1) // 2
    batch, tile = (tl.program_id(0) // count).to(tl.int64), tl.program_id(0) % count
    # Tile t of the lower triangle, by rows, is in row i with i (i + 1) / 2 <= t; the root may be off by one.
    i = ((tl.sqrt(8.0 * tile + 1.0) - 1.0) / 2.0).to(tl.int32)
    i = tl.where(i * (i + 1) // 2 > tile, i - 1, i)
    i = tl.where((i + 1) * (i + 2) // 2 <= tile, i + 1, i)
    j = tile - i * (i + 1) // 2
    r, s = i * BLOCK + tl.arange(0, BLOCK), j * BLOCK + tl.arange(0, BLOCK)
    r_lives, s_lives = r < rows, s < rows
    r, s, k = r.to(tl.int64), s.to(tl.int64), tl.arange(0, DEPTH).to(tl.int64)
    x += batch * x_batch
    total = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(0, inner, DEPTH):
        at = start + k
        lives, columns = at < inner, at * x_column
        a = tl.load(x + r[:, None] * x_row + columns[None, :], r_lives[:, None] & lives[None, :], 0.0)
        b = tl.load(x + s[None, :] * x_row + columns[:, None], lives[:, None] & s_lives[None, :], 0.0)
        total = tl.dot(a, b, total, input_precision="ieee")
    lives = r_lives[:, None] & s_lives[None, :]
    added = tl.load(c + batch * c_batch + r[:, None] * c_row + s[None, :] * c_column, lives, 0.0)
    value = (alpha * total + beta * added.to(tl.float32)).to(result.dtype.element_ty)
    result += batch * rows * rows
    tl.store(result + r[:, None] * rows + s[None, :], value, lives)
    if i != j:
        tl.store(result + s[:, None] * rows + r[None, :], tl.trans(value), tl.trans(lives))
