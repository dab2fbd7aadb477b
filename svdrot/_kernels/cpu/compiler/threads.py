"""A batch that threads share: one block of 64-bit words for all of them.

In it are the next row, which each thread advances by a chunk to take its part until none is left, the chunk,
the number of rows, how many threads have come, where the scratch of the first is, how many bytes each has,
and then the arguments of the kernel."""

import ctypes
import struct
from collections.abc import Sequence
from typing import Any

from svdrot.engine.cpu import threads as _threads

NEXT, CHUNK, ROWS, COME, SCRATCH, BYTES, ARGUMENTS = range(7)


def run(
    kernel: Any, arguments: Sequence[float], scratch: int, size: int, rows: int, chunk: int, threads: int
) -> None:
    """Call `kernel` on all rows, with `size` bytes of scratch for each thread."""
    block = bytearray(kernel.block.pack(0, chunk, rows, 0, scratch, size, *arguments))
    address = ctypes.addressof(ctypes.c_char.from_buffer(block))
    _threads.share(kernel.entry, kernel.work, address, threads)


def block(kinds: Sequence[str]) -> struct.Struct:
    """What threads need to call a kernel with arguments of these kinds.

    The last three each thread finds for itself.
    """
    return struct.Struct(f"={ARGUMENTS}q" + "".join("d" if kind == "double" else "q" for kind in kinds[:-3]))
