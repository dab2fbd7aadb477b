"""The arithmetic of a block: one LLVM vector for each node of a graph, one lane for each row."""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from llvmlite import ir

from svdrot.engine.elementary import FAR
from svdrot.engine.graph import Node
from svdrot.engine.walk import ordered

Value = Any  # of LLVM, which has no types here
FLAGS = ("contract", "nsz")  # a product may join the sum it goes into; neither NaN nor infinity is ruled out
INT, FLAG = ir.IntType(32), ir.IntType(1)


@lru_cache(4096)
def _same(kind: ir.VectorType, value: float, sign: float) -> ir.Constant:
    """A vector of one number, which all kernels share: it writes itself out once. 0 and -0 differ by sign."""
    return ir.Constant(kind, [value] * kind.count)


class Lanes:
    """Writes operations on vectors of `wide` numbers, float or double, to the end of a basic block."""

    def __init__(self, module: ir.Module, builder: Any, scalar: ir.Type, wide: int):
        self.module, self.builder, self.scalar, self.wide = module, builder, scalar, wide
        self.is_double = isinstance(scalar, ir.DoubleType)
        self.bits = ir.IntType(64 if self.is_double else 32)
        self.vector, self.words = ir.VectorType(scalar, wide), ir.VectorType(self.bits, wide)
        self.suffix = f"v{wide}f{self.bits.width}"

    def compute(self, outputs: Sequence[Node], leaves: Mapping[Any, Value]) -> list[Value]:
        """The vectors of the outputs, from those of the inputs by their names."""
        done: dict[int, Value] = {}
        for n in ordered(outputs):
            if n.op == "input":
                done[id(n)] = leaves[n.value]
            elif n.op == "constant":
                done[id(n)] = self.constant(n.value)
            else:
                done[id(n)] = self.operation(n, [done[id(a)] for a in n.args])
        return [done[id(o)] for o in outputs]

    def spoiled(self, results: list[Value], numbers: list[Value]) -> list[Value]:
        """The results, all NaN in lanes where one of the numbers is not finite: 0 times it is NaN."""
        b, poison = self.builder, None
        for x in numbers:
            nothing = b.fmul(x, self.constant(0.0), flags=FLAGS)
            poison = nothing if poison is None else b.fadd(poison, nothing, flags=FLAGS)
        return results if poison is None else [b.fadd(r, poison) for r in results]

    def operation(self, n: Node, a: list[Value]) -> Any:
        b = self.builder
        match n.op:
            case "add":
                return b.fadd(*a, flags=FLAGS)
            case "sub":
                return b.fsub(*a, flags=FLAGS)
            case "mul":
                return b.fmul(*a, flags=FLAGS)
            case "div":
                return b.fdiv(*a, flags=FLAGS)
            case "neg":
                return b.fneg(*a, flags=FLAGS)
            case "lt":
                return b.fcmp_ordered("<", *a)
            case "le":
                return b.fcmp_ordered("<=", *a)
            case "eq":
                return b.fcmp_ordered("==", *a)
            case "and":
                return b.and_(*a)
            case "or":
                return b.or_(*a)
            case "not":
                return b.not_(*a)
            case "where":
                return b.select(*a)
            case "sqrt" | "floor":
                return self.intrinsic(n.op, *a)
            case "abs":
                return self.intrinsic("fabs", *a)
            case "detached" | "once" | "roughly":
                return a[0]
            case "far":
                return self.far(n.value, *a)
            case "ldexp":
                return self.ldexp(*a)
            case "exponent":
                return self.exponent(*a)
            case "mantissa":
                return self.mantissa(*a)
        raise NotImplementedError(n.op)

    def constant(self, value: float) -> ir.Constant:
        return _same(self.vector, value, math.copysign(1.0, value))

    def word(self, value: int) -> ir.Constant:
        return _same(self.words, value, 1.0)

    def splat(self, value: Value) -> Value:
        first = self.builder.insert_element(ir.Constant(self.vector, ir.Undefined), value, INT(0))
        return self.builder.shuffle_vector(
            first, first, ir.Constant(ir.VectorType(INT, self.wide), [0] * self.wide)
        )

    def intrinsic(self, name: str, *arguments: Value) -> Value:
        kind = ir.FunctionType(self.vector, [self.vector] * len(arguments))
        return self.builder.call(
            self._declared(f"llvm.{name}.{self.suffix}", kind), arguments, fastmath=FLAGS
        )

    def _declared(self, name: str, kind: ir.FunctionType) -> ir.Function:
        return self.module.globals.get(name) or ir.Function(self.module, kind, name)

    # The bits of numbers: sign, exponent, fraction.

    @property
    def fraction(self) -> int:
        return 52 if self.is_double else 23

    @property
    def bias(self) -> int:
        return 1023 if self.is_double else 127

    def exponent(self, x: Value) -> Value:
        """k of x = m 2^k for a normal positive x and m in [1, 2)."""
        b = self.builder
        k = b.lshr(b.bitcast(x, self.words), self.word(self.fraction))
        return b.sitofp(b.sub(k, self.word(self.bias)), self.vector)

    def mantissa(self, x: Value) -> Value:
        b = self.builder
        fraction = b.and_(b.bitcast(x, self.words), self.word((1 << self.fraction) - 1))
        return b.bitcast(b.or_(fraction, self.word(self.bias << self.fraction)), self.vector)

    def ldexp(self, x: Value, k: Value) -> Value:
        """x 2^k, in two steps: 2^k itself may be too large or too small."""
        b = self.builder
        suffix = f"v{self.wide}i{self.bits.width}.{self.suffix}"
        convert = self._declared(f"llvm.fptosi.sat.{suffix}", ir.FunctionType(self.words, [self.vector]))
        whole = b.call(convert, [k])
        half = b.ashr(whole, self.word(1))
        for part in (half, b.sub(whole, half)):
            power = b.shl(b.add(part, self.word(self.bias)), self.word(self.fraction))
            x = b.fmul(x, b.bitcast(power, self.vector), flags=FLAGS)
        return x

    def far(self, name: str, x: Value) -> Value:
        """sin or cos of the lanes with an angle beyond `FAR` by the C library, if there are any."""
        function = self.module.globals.get(f"far_{name}") or self._far(name)
        return self.builder.call(function, [x])

    def _far(self, name: str) -> ir.Function:
        function = ir.Function(self.module, ir.FunctionType(self.vector, [self.vector]), f"far_{name}")
        function.linkage = "private"
        double = ir.DoubleType()
        exact = self._declared(f"svdrot_{name}", ir.FunctionType(double, [double]))
        entry, lane, inside, after, done = (
            function.append_basic_block(block) for block in ("entry", "lane", "inside", "after", "done")
        )
        b: Any = ir.IRBuilder(entry)
        here = Lanes(self.module, b, self.scalar, self.wide)
        (x,) = function.args
        size = here.intrinsic("fabs", x)
        far = b.fcmp_ordered(">", size, here.constant(FAR))
        far = b.and_(far, b.fcmp_ordered("<", size, here.constant(float("inf"))))
        some = b.icmp_unsigned("!=", b.bitcast(far, ir.IntType(self.wide)), ir.IntType(self.wide)(0))
        start = b.fsub(x, x)  # NaN of what is not finite
        b.cbranch(some, lane, done)

        b: Any = ir.IRBuilder(lane)
        i, result = b.phi(INT), b.phi(self.vector)
        b.cbranch(b.extract_element(far, i), inside, after)
        b: Any = ir.IRBuilder(inside)
        number = b.extract_element(x, i)
        number = b.call(exact, [number if self.is_double else b.fpext(number, double)])
        found = b.insert_element(result, number if self.is_double else b.fptrunc(number, self.scalar), i)
        b.branch(after)
        b: Any = ir.IRBuilder(after)
        merged, following = b.phi(self.vector), b.add(i, INT(1))
        merged.add_incoming(result, lane)
        merged.add_incoming(found, inside)
        b.cbranch(b.icmp_signed("<", following, INT(self.wide)), lane, done)
        i.add_incoming(INT(0), entry)
        i.add_incoming(following, after)
        result.add_incoming(start, entry)
        result.add_incoming(merged, after)

        b: Any = ir.IRBuilder(done)
        final = b.phi(self.vector)
        final.add_incoming(start, entry)
        final.add_incoming(merged, after)
        b.ret(final)
        return function
