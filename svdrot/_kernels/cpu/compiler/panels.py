"""Products of single matrices for numba, by blocks that stay in registers while their terms are added."""

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .simd import FUSE, width

PANEL = 8  # rows of a block


def panel_product(scalar: Any, vectors: int) -> Any:
    """`panel(x, a, i, k, b, count, alpha, beta, d, c, stride)`: C <- alpha A B + beta D, 8 rows of C.

    Places in memory `x` of scalars: entry (r, n) of A is at a + r i + n k, n < `count`; rows of B, C and D,
    of so many vectors, are `stride` apart. C may be D or A, not B.
    """
    size = scalar.bitwidth // 8
    wide = width(scalar)
    integer, pointer = types.intp, types.CPointer(scalar)
    signature = types.void(pointer, *(integer,) * 5, scalar, scalar, integer, integer, integer)

    @intrinsic
    def panel(context, x, a, i, k, b, count, alpha, beta, d, c, stride):
        def generate(context, builder, signature, arguments):
            x, a, i, k, b, count, alpha, beta, d, c, stride = arguments
            vector = ir.VectorType(x.type.pointee, wide)
            index = a.type

            def spread(number):
                one = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(index, 0))
                mask = ir.Constant(ir.VectorType(ir.IntType(32), wide), [0] * wide)
                return builder.shuffle_vector(one, one, mask)

            def places(start):
                for r in range(PANEL):
                    for s in range(vectors):
                        at = builder.add(start, builder.mul(ir.Constant(index, r), stride))
                        at = builder.add(at, ir.Constant(index, s * wide))
                        yield (r, s), builder.bitcast(builder.gep(x, [at]), vector.as_pointer())

            def multiply_add(u, v, w):
                return builder.fadd(builder.fmul(u, v, flags=FUSE), w, flags=FUSE)

            entries = [(r, s) for r in range(PANEL) for s in range(vectors)]
            sums = {entry: cgutils.alloca_once(builder, vector) for entry in entries}
            for entry in entries:
                builder.store(ir.Constant(vector, [0.0] * wide), sums[entry])
            with cgutils.for_range(builder, count) as loop:
                left = builder.add(a, builder.mul(loop.index, k))
                right = builder.add(b, builder.mul(loop.index, stride))
                row = []
                for s in range(vectors):
                    at = builder.gep(x, [builder.add(right, ir.Constant(index, s * wide))])
                    row.append(builder.load(builder.bitcast(at, vector.as_pointer()), align=size))
                for r in range(PANEL):
                    at = builder.add(left, builder.mul(ir.Constant(index, r), i))
                    number = spread(builder.load(builder.gep(x, [at]), align=size))
                    for s in range(vectors):
                        total = builder.load(sums[r, s])
                        builder.store(multiply_add(number, row[s], total), sums[r, s])
            alpha, beta = spread(alpha), spread(beta)
            values = {}
            for entry, at in places(d):
                scaled = builder.fmul(alpha, builder.load(sums[entry]))
                values[entry] = multiply_add(beta, builder.load(at, align=size), scaled)
            for entry, at in places(c):
                builder.store(values[entry], at, align=size)
            return context.get_dummy_value()

        return signature, generate

    return panel
