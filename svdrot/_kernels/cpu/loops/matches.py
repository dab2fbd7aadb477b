# pyright: reportUndefinedVariable=false
"""Nearest rows of two tables, from both sides, for numba. Float32.

Squares of distances are products of rows that are two numbers longer, a block of eight rows with all of the
other table at a time, and are never kept.
"""

from typing import Any

import torch

KERNELS = {
    # memory, rows, columns, numbers of a row, stride of the columns; of each row the nearest column and how
    # near; of each column the nearest row and how near
    "nearest_both_ways": ("pointer", *("intp",) * 4, *("pointer",) * 4, "pointer", "intp", "intp"),
}
BLOCK = 8
LANES = 16


def nearest_both_ways(
    memory, rows, columns, size, stride, there, near, back, near_back, scratch, start, stop
):
    """The least entries of A B by rows and columns, and where they are, the first of equal ones.

    In memory lie A (rows, size), rows padded to whole blocks; B (size, stride), columns padded to whole
    vectors; and a block of products (8, stride), finite. Places are numbers of the dtype.
    """
    use_widest_vectors()
    blocks = (rows + BLOCK - 1) // BLOCK
    b = blocks * BLOCK * size
    c = b + size * stride
    product = carray(memory, (c + BLOCK * stride,))[c:]
    to, least = carray(there, (rows,)), carray(near, (rows,))
    of, least_of = carray(back, (columns,)), carray(near_back, (columns,))
    one, zero = dtype(1), dtype(0)
    for block in range(blocks):
        for j in range(stride // LANES):
            at = j * LANES
            panel(memory, block * BLOCK * size, size, 1, b + at, size, one, zero, c + at, c + at, stride)
        for r in range(min(BLOCK, rows - block * BLOCK)):
            row, i = product[r * stride : r * stride + columns], block * BLOCK + r
            best, place = row[0], dtype(i)
            for j in range(columns):
                best = min(best, row[j])
            for j in range(columns):
                smaller = row[j] < least_of[j]
                least_of[j] = where(smaller, row[j], least_of[j])
                of[j] = where(smaller, place, of[j])
            least[i] = best
            j = 0
            while row[j] != best:
                j += 1
            to[i] = dtype(j)


HELPERS = ()


def vocabulary(dtype: torch.dtype, scalar: Any) -> dict[str, Any]:
    from svdrot._kernels.cpu.compiler import panels

    assert scalar.bitwidth == 32
    return {"dtype": scalar, "panel": panels.panel_product(scalar, 1), "BLOCK": BLOCK, "LANES": LANES}
