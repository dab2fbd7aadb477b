"""Load and store blocks of rows, transposed so that each entry is one vector, in any floating dtype.

`count` vectors hold W rows of `count` numbers each. One round of dealing with a prime factor f of `count`
takes f vectors and returns, for each residue, every f-th number of their concatenation."""

from typing import Any

import torch
from llvmlite import ir

from ._lanes import Lanes, Value

INT, WORD = ir.IntType(32), ir.IntType(64)

# bfloat16 is the upper half of a float32, which every machine can take apart.
STORED: dict[torch.dtype, ir.Type] = {
    torch.float32: ir.FloatType(),
    torch.float64: ir.DoubleType(),
    torch.float16: ir.HalfType(),
    torch.bfloat16: ir.IntType(16),
}


class Storage:
    """Loads and stores blocks of `lanes.wide` rows of `count` numbers of a dtype."""

    def __init__(self, lanes: Lanes, dtype: torch.dtype):
        self.lanes, self.wide, self.dtype = lanes, lanes.wide, dtype
        self.stored, self.bytes = STORED[dtype], dtype.itemsize
        self.vector = ir.VectorType(self.stored, self.wide)

    def load(self, pointer: Value, count: int) -> list[Value]:
        """Entry k of all rows, for each k, ready to compute with."""
        return [self._from_memory(v) for v in self._dealt([self._read(pointer, k) for k in range(count)])]

    def store(self, vectors: list[Value], pointer: Value) -> None:
        for k, v in enumerate(self._collected([self._to_memory(v) for v in vectors])):
            self.lanes.builder.store(v, self._place(pointer, k), align=self.bytes)

    def _read(self, pointer: Value, k: int) -> Any:
        return self.lanes.builder.load(self._place(pointer, k), align=self.bytes)

    def _place(self, pointer: Value, k: int) -> Value:
        b = self.lanes.builder
        return b.bitcast(b.gep(pointer, [WORD(k * self.wide)]), self.vector.as_pointer())

    # Between dtypes.

    def _from_memory(self, v: Value) -> Value:
        b, target = self.lanes.builder, self.lanes.vector
        if self.dtype == torch.bfloat16:
            words = b.zext(v, ir.VectorType(INT, self.wide))
            shift = ir.Constant(words.type, [16] * self.wide)
            v = b.bitcast(b.shl(words, shift), ir.VectorType(ir.FloatType(), self.wide))
        return v if v.type == target else b.fpext(v, target)

    def _to_memory(self, v: Value) -> Value:
        b = self.lanes.builder
        single = ir.VectorType(ir.FloatType(), self.wide)
        if v.type == self.vector:
            return v
        if self.dtype == torch.float64:
            return b.fpext(v, self.vector)
        v = v if v.type == single else b.fptrunc(v, single)
        if self.dtype == torch.bfloat16:
            return self._to_bfloat16(v)
        return v if self.dtype == torch.float32 else b.fptrunc(v, self.vector)

    def _to_bfloat16(self, v: Value) -> Value:
        """To the nearest, ties to even; a NaN must not become an infinity."""
        b, words = self.lanes.builder, ir.VectorType(INT, self.wide)

        def constant(value: int) -> ir.Constant:
            return ir.Constant(words, [value] * self.wide)

        bits = b.bitcast(v, words)
        odd = b.and_(b.lshr(bits, constant(16)), constant(1))
        rounded = b.add(b.add(bits, odd), constant(0x7FFF))
        rounded = b.select(b.fcmp_unordered("uno", v, v), constant(0x7FC00000), rounded)
        return b.trunc(b.lshr(rounded, constant(16)), self.vector)

    # Between rows and entries.

    def _dealt(self, vectors: list[Value]) -> list[Value]:
        count = len(vectors)
        if count == 1:
            return vectors
        f = _least_factor(count)
        groups = [
            [self._pick(vectors[i : i + f], [r + f * k for k in range(self.wide)]) for r in range(f)]
            for i in range(0, count, f)
        ]
        parts = [self._dealt([group[r] for group in groups]) for r in range(f)]
        return [parts[k % f][k // f] for k in range(count)]

    def _collected(self, vectors: list[Value]) -> list[Value]:
        """The inverse of `_dealt`."""
        count, wide = len(vectors), self.wide
        if count == 1:
            return vectors
        f = _least_factor(count)
        parts = [self._collected(vectors[r::f]) for r in range(f)]
        order = [wide * (j % f) + j // f for j in range(wide * f)]
        return [
            self._pick([parts[r][i] for r in range(f)], order[wide * k : wide * (k + 1)])
            for i in range(count // f)
            for k in range(f)
        ]

    def _pick(self, vectors: list[Value], places: list[int]) -> Any:
        """Numbers by their places in the concatenation; an instruction picks from two vectors."""
        result, filled = None, [False] * self.wide
        for start in range(0, len(vectors), 2):
            pair = vectors[start : start + 2]
            low = start * self.wide
            here = [p - low if low <= p < low + len(pair) * self.wide else None for p in places]
            if all(p is None for p in here):
                continue
            picked = self._shuffle(pair[0], pair[-1], here)
            if result is None:
                result = picked
            else:
                result = self._shuffle(
                    result, picked, [i if filled[i] else self.wide + i for i in range(self.wide)]
                )
            filled = [before or p is not None for before, p in zip(filled, here, strict=True)]
        return result

    def _shuffle(self, a: Value, b: Value, places: list[int | None]) -> Value:
        mask = ir.Constant(ir.VectorType(INT, self.wide), [INT(0 if p is None else p) for p in places])
        return self.lanes.builder.shuffle_vector(a, b, mask)


def _least_factor(count: int) -> int:
    return next(f for f in range(2, count + 1) if count % f == 0)
