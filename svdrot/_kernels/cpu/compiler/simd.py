"""Instructions for numba's kernels that LLVM does not find by itself."""

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

BYTES = 64  # of the widest register; LLVM splits vectors where registers are narrower


@intrinsic
def use_widest_vectors(context):
    """Let LLVM use 512-bit registers in this function, which it otherwise avoids on CPUs that have them.

    Measured: 4,096 float32 projections take 75 us instead of 130. llvmlite does not know the attribute, but
    prints what it is given.
    """

    def generate(context, builder, signature, arguments):
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def integers(context, pointer):
    """Memory of 64-bit integers: pointers of kernels have the type of the points."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.int64)(pointer), generate


@intrinsic
def ones(context, word):
    """How many bits of an integer are set."""

    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.int64(types.int64), generate


@intrinsic
def as_written(context, x):
    """x, whose computation LLVM does not mix with what follows: (x - p) + a stays itself, not x + (a - p)."""

    def generate(context, builder, signature, arguments):
        (x,) = arguments
        kind = {"float": "f32", "double": "f64"}[str(x.type)]
        fence = ir.FunctionType(x.type, [x.type])
        return builder.call(
            cgutils.get_or_insert_function(builder.module, fence, f"llvm.arithmetic.fence.{kind}"), [x]
        )

    return x(x), generate


def width(scalar: Any) -> int:
    """Lanes of the widest register."""
    return BYTES * 8 // scalar.bitwidth


# Nine vectors of w numbers hold w matrices of 9 = 3 x 3 entries. To deal out three vectors, as cards to three
# hands, takes two shuffles for each hand; dealt twice, entry k of every matrix is in vector k. LLVM's own
# code for the same loop moves one number at a time: 4,096 float32 differentials take 69 us by it, not 33.
# Three vectors hold w points, and are dealt once.


def transpositions(scalar: Any, lanes: int, entries: int) -> dict[str, Any]:
    """For `WIDTH` points or numbers, `gather(m, at, x, to)` and `scatter(x, to, m, at)`.

    They begin at m[at], their lanes at x[to]; `x` has a row of `lanes` numbers for each of 3 or 1 entries.
    """
    size = scalar.bitwidth // 8
    wide = width(scalar)
    pointer = types.CPointer(scalar)
    signature = types.void(pointer, types.intp, pointer, types.intp)
    rounds = {1: [], 3: [POINT]}[entries]

    def move(context, builder, arguments, strides, rounds, deal):
        source, first, target, second = arguments

        def places(pointer, offset, stride):
            vector = ir.VectorType(pointer.type.pointee, wide).as_pointer()
            for k in range(entries):
                at = builder.add(offset, ir.Constant(offset.type, k * stride))
                yield builder.bitcast(builder.gep(pointer, [at]), vector)

        vectors = [builder.load(place, align=size) for place in places(source, first, strides[0])]
        for groups in rounds:
            for group in groups:
                hands = deal(builder, *(vectors[k] for k in group))
                for k, hand in zip(group, hands, strict=True):
                    vectors[k] = hand
        for vector, place in zip(vectors, places(target, second, strides[1]), strict=True):
            builder.store(vector, place, align=size)
        return context.get_dummy_value()

    @intrinsic
    def gather(context, m, at, x, to):
        def generate(context, builder, signature, arguments):
            return move(context, builder, arguments, (wide, lanes), rounds, deal)

        return signature, generate

    @intrinsic
    def scatter(context, x, to, m, at):
        def generate(context, builder, signature, arguments):
            return move(context, builder, arguments, (lanes, wide), rounds[::-1], collect)

        return signature, generate

    return {"WIDTH": wide, "gather": gather, "scatter": scatter}


POINT = ((0, 1, 2),)


def deal(builder, a, b, c):
    """Every third of the numbers of a, b and c in a row: from the first, the second, the third on."""
    width = a.type.count
    return [_pick(builder, a, b, c, [3 * i + k for i in range(width)]) for k in range(3)]


def collect(builder, a, b, c):
    """The inverse: one number of a, one of b, one of c, and again."""
    width = a.type.count
    order = [width * (i % 3) + i // 3 for i in range(3 * width)]
    return [_pick(builder, a, b, c, order[width * k : width * (k + 1)]) for k in range(3)]


def _pick(builder, a, b, c, places):
    """Numbers of a, b and c by their places in all three; an instruction picks from two vectors."""
    width = a.type.count

    def mask(indices):
        index = ir.IntType(32)
        return ir.Constant(ir.VectorType(index, width), [ir.Constant(index, i) for i in indices])

    ab = builder.shuffle_vector(a, b, mask([i if i < 2 * width else 0 for i in places]))
    last = [k if i < 2 * width else i - width for k, i in enumerate(places)]
    return builder.shuffle_vector(ab, c, mask(last))


# Products of small matrices, one in each lane: 4 x 4 entries of the result stay in 16 registers while their
# terms are added, so that eight loads serve 16 multiplications.

BLOCK = 4
FUSE = ("contract",)  # llvmlite's own fma takes no vectors


def block_product(scalar: Any) -> dict[str, Any]:
    """`block(x, a, i, k, b, l, count, alpha, beta, d, c, j, mirror)`: C <- alpha A B + beta D for 4 x 4 of C.

    `x` is memory in units of vectors, and all else places and strides in it: entry (r, n) of A is at
    a + r i + n k, (n, s) of B at b + n l + s, (r, s) of D and C at d + r j + s and c + r j + s, with n <
    `count`. The transposed block is written to `mirror`, where that is not c.
    """
    size = scalar.bitwidth // 8
    wide = width(scalar)
    integer, pointer = types.intp, types.CPointer(scalar)
    signature = types.void(pointer, *(integer,) * 6, scalar, scalar, integer, integer, integer, integer)

    @intrinsic
    def block(context, x, a, i, k, b, l, count, alpha, beta, d, c, j, mirror):
        def generate(context, builder, signature, arguments):
            x, a, i, k, b, l, count, alpha, beta, d, c, j, mirror = arguments
            vector = ir.VectorType(x.type.pointee, wide)
            x = builder.bitcast(x, vector.as_pointer())
            index = a.type

            def place(start, *terms):
                for factor, stride in terms:
                    start = builder.add(start, builder.mul(ir.Constant(index, factor), stride))
                return builder.gep(x, [start])

            def load(start, *terms):
                return builder.load(place(start, *terms), align=size)

            def spread(number):
                one = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(index, 0))
                mask = ir.Constant(ir.VectorType(ir.IntType(32), wide), [0] * wide)
                return builder.shuffle_vector(one, one, mask)

            def multiply_add(u, v, w):
                return builder.fadd(builder.fmul(u, v, flags=FUSE), w, flags=FUSE)

            entries = [(r, s) for r in range(BLOCK) for s in range(BLOCK)]
            one = ir.Constant(index, 1)
            sums = {entry: cgutils.alloca_once(builder, vector) for entry in entries}
            for entry in entries:
                builder.store(ir.Constant(vector, [0.0] * wide), sums[entry])
            with cgutils.for_range(builder, count) as loop:
                left = builder.add(a, builder.mul(loop.index, k))
                right = builder.add(b, builder.mul(loop.index, l))
                rows = [load(left, (r, i)) for r in range(BLOCK)]
                columns = [load(right, (s, one)) for s in range(BLOCK)]
                for r, s in entries:
                    total = builder.load(sums[r, s])
                    builder.store(multiply_add(rows[r], columns[s], total), sums[r, s])
            alpha, beta = spread(alpha), spread(beta)
            values = {}
            for r, s in entries:
                scaled = builder.fmul(alpha, builder.load(sums[r, s]))
                values[r, s] = multiply_add(beta, load(d, (r, j), (s, one)), scaled)
            for r, s in entries:
                builder.store(values[r, s], place(c, (r, j), (s, one)), align=size)
            with builder.if_then(builder.icmp_signed("!=", c, mirror)):
                for r, s in entries:
                    builder.store(values[r, s], place(mirror, (s, j), (r, one)), align=size)
            return context.get_dummy_value()

        return signature, generate

    return {"BLOCK": BLOCK, "block": block}


def elimination(scalar: Any) -> dict[str, Any]:
    """`eliminate(x, upper, lower, count, swap, ratio)`: exchange two rows of `count` entries where `swap` is
    positive, then subtract `ratio` times the upper from the lower one. Places in `x` in units of vectors.

    A loop of numba's over the lanes, with its tests for overlapping memory, takes five times as long.
    """
    size = scalar.bitwidth // 8
    integer, pointer = types.intp, types.CPointer(scalar)
    signature = types.void(pointer, *(integer,) * 5)

    @intrinsic
    def eliminate(context, x, upper, lower, count, swap, ratio):
        def generate(context, builder, signature, arguments):
            x, upper, lower, count, swap, ratio = arguments
            vector = ir.VectorType(x.type.pointee, width(scalar))
            x = builder.bitcast(x, vector.as_pointer())

            def place(row, entry):
                return builder.gep(x, [builder.add(row, entry)])

            start = ir.Constant(count.type, 0)
            zero = ir.Constant(vector, [0.0] * vector.count)
            exchanged = builder.fcmp_ordered(">", builder.load(place(swap, start), align=size), zero)
            factor = builder.load(place(ratio, start), align=size)
            with cgutils.for_range(builder, count) as loop:
                places = place(upper, loop.index), place(lower, loop.index)
                u, v = (builder.load(at, align=size) for at in places)
                above, below = builder.select(exchanged, v, u), builder.select(exchanged, u, v)
                below = builder.fsub(below, builder.fmul(factor, above, flags=FUSE), flags=FUSE)
                for at, value in zip(places, (above, below), strict=True):
                    builder.store(value, at, align=size)
            return context.get_dummy_value()

        return signature, generate

    return {"eliminate": eliminate}
