"""Kernels of the CPU: every row length, batch, dtype and layout, and the same bits wherever a row is."""

import math
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import product

import pytest
import torch
from engine_cases import ENGINE, random_formula
from torch import Tensor

from svdrot.engine import cpu, door, operations, words
from svdrot.engine.cpu import machine, threads
from svdrot.engine.cpu._vectors import Kernel
from svdrot.engine.maps import Map
from svdrot.engine.program import program

HALVES = (torch.float16, torch.bfloat16)
DTYPES = (torch.float32, torch.float64, *HALVES)
BLOCK = 16  # rows of the widest


@pytest.fixture
def many_threads(monkeypatch):
    """Every batch of two chunks is worth a thread, of which there are as many as the argument says."""
    monkeypatch.setattr(cpu, "WORTH_A_THREAD", 1)

    def ask(count: int) -> None:
        monkeypatch.setattr(torch, "get_num_threads", lambda: count)

    return ask


def computed(x: Tensor) -> Tensor:
    """In the dtype that is computed in."""
    return x if x.dtype == torch.float64 else x.float()


def places(n: int) -> list[int]:
    """A permutation, or almost, that moves every entry."""
    return [(5 * k + 2) % n for k in range(n)]


@cache
def mixing(n: int) -> Map:
    """x[k] + x[another], for which there is one rounding."""
    return Map(
        lambda x: [x[j] + x[k] for k, j in enumerate(places(n))], {"x": (n,)}, (n,), name=f"mixing {n}"
    )


def mixed(x: Tensor) -> Tensor:
    wide = computed(x)
    return (wide[..., places(x.shape[-1])] + wide).to(x.dtype)


@cache
def rich() -> Map:
    """Every operation and word, and angles for which the C library is asked."""
    formula = random_formula(0, 8)

    def of_symbols(x, y, z):
        a, b, c = formula([*x.ravel(), y, *z], ENGINE)
        return [a, b + words.sin(1000.0 * z[0])], c

    return Map(of_symbols, {"x": (2, 2), "y": (), "z": (3,)}, [(2,), ()], name="rich")


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def equal(a: Tensor, b: Tensor) -> bool:
    """The same dtype, shape and bits, but that one NaN is as good as another."""
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and torch.equal(a.isnan(), b.isnan())
        and torch.equal(a.nan_to_num(), b.nan_to_num())
    )


# Rows and batches -------------------------------------------------------------------------------------------

# All short ones, and of the long ones those of many kinds: a kernel for 47 compiles for half a second.
LENGTHS = [(n, torch.float32) for n in (*range(1, 19), 20, 21, 25, 27, 30, 32, 36, 43, 48)]
LENGTHS += [(n, d) for n in (1, 2, 3, 4, 6, 7, 9, 16, 35, 48) for d in DTYPES[1:]]


@pytest.mark.parametrize("n, dtype", LENGTHS, ids=str)
def test_rows_of_any_length(n, dtype):
    x = draw(2 * BLOCK + 3, n, dtype=dtype)
    assert equal(mixing(n)(x), mixed(x))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", [1, 3, 9])
def test_batches_of_any_size(n, dtype, monkeypatch):
    """And nothing is written beyond the last row."""
    after = []

    def empty(shape, dtype):
        count = math.prod(shape)
        room = torch.full((count + 256,), 7.0, dtype=dtype)
        after.append(room[count:])
        return room[:count].view(shape)

    monkeypatch.setattr(cpu, "empty", empty)
    x = draw(2 * BLOCK + 2, n, dtype=dtype)
    for rows in range(len(x)):
        assert equal(mixing(n)(x[:rows]), mixed(x[:rows]))
    assert len(after) == len(x) and all((room == 7.0).all() for room in after)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no mprotect")
def test_nothing_is_read_beyond_the_last_row():
    """The rows end where memory does: to read on is the end of the process."""
    code = """
import ctypes, mmap
import torch
from svdrot.engine.maps import Map
PAGE = mmap.PAGESIZE
memory = mmap.mmap(-1, 3 * PAGE)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
protect = ctypes.CDLL(None).mprotect
assert protect(ctypes.c_void_p(address), PAGE, 0) == 0
assert protect(ctypes.c_void_p(address + 2 * PAGE), PAGE, 0) == 0
function = Map(lambda x: [x[2] + x[0], x[1]], {"x": (3,)}, (2,), name="three")
for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
    for rows in range(1, 36):
        count = 3 * rows
        for start in (0, PAGE - count * dtype.itemsize):
            x = torch.frombuffer(memory, dtype=dtype, count=count, offset=PAGE + start).view(rows, 3)
            x.copy_(torch.arange(count).view(rows, 3))
            pairs = x[rows % 2 :].view(2, rows // 2, 3).transpose(0, 1)
            for view in (x, x[::2], x[rows // 2 :], x.expand(2, rows, 3), pairs, x[-1]):
                y = function(view)
                sums = view[..., 0].double() + view[..., 2].double()  # small whole numbers
                assert torch.equal(y[..., 0], sums.to(dtype))
print("done")
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=300
    )
    assert done.stdout.strip() == "done", done.stderr


def test_empty_batches_have_the_shape_and_dtype():
    for dtype in DTYPES:
        for batch in ((0,), (4, 0), (0, 3)):
            a, b = rich()(*[torch.empty(*batch, *s, dtype=dtype) for s in rich().shapes])
            assert a.shape == (*batch, 2) and b.shape == batch and a.dtype == b.dtype == dtype
    y = torch.empty(0, 3, requires_grad=True)
    (g,) = torch.autograd.grad(mixing(3)(y).sum(), y)
    assert g.shape == (0, 3)
    # Broadcast against a single row, whose gradient is a sum of nothing.
    x, y = torch.ones(1, 1, requires_grad=True), torch.empty(1, 0)
    (g,) = torch.autograd.grad(two()(x, y).sum(), x)
    assert torch.equal(g, torch.zeros(1, 1))


def test_any_number_of_arguments():
    names = [f"x{k}" for k in range(170)]
    function = Map(lambda *x: sum(x[1:], x[0]), dict.fromkeys(names, ()), (), name="many arguments")
    x = [torch.full((20,), float(k)) for k in range(170)]
    assert torch.equal(function(*x), torch.full((20,), 170 * 169 / 2))


# Dtypes -----------------------------------------------------------------------------------------------------


def convert(x: Tensor, target: torch.dtype, compute: torch.dtype) -> Tensor:
    """By a kernel that does nothing else."""
    identity = two_of(x.dtype, target, compute)
    found = torch.empty_like(x, dtype=target)
    arrays = (x.data_ptr(), cpu.DENSE, 0, 1, 1, 1)
    identity.rows(identity.pack(0, 0, len(x), len(x), *arrays, found.data_ptr()), 0, len(x))
    return found


@cache
def two_of(source: torch.dtype, target: torch.dtype, compute: torch.dtype) -> Kernel:
    same = program(words.detached, [()], [()], name=f"identity {source} {target} {compute}")
    return Kernel(same.graph, [source], [target], compute)


def bits(dtype: torch.dtype) -> Tensor:
    """All numbers of a half precision; of single and double all near those and near what lies between two."""
    if dtype in HALVES:
        return torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    whole = {torch.float32: torch.int32, torch.float64: torch.int64}[dtype]
    found = [torch.tensor([math.inf, -math.inf, math.nan, torch.finfo(dtype).max], dtype=dtype)]
    for half in HALVES:
        numbers = bits(half)
        numbers = numbers[numbers.isfinite()].to(dtype)
        between = numbers[:-1].to(dtype) / 2 + numbers[1:].to(dtype) / 2  # halfway
        centers = torch.cat([numbers, between]).view(whole)
        found += [(centers + step).view(dtype) for step in (-1, 0, 1)]
    # NaN of any bits, the last alone among them.
    quiet = torch.tensor(math.inf, dtype=dtype).view(whole)
    found.append((quiet + torch.tensor([1, 2, 3 << 10, 1 << 16, (1 << 22) + 1], dtype=whole)).view(dtype))
    return torch.cat(found)


CONVERSIONS = [(torch.float32, torch.float32, d) for d in HALVES]
CONVERSIONS += [(d, torch.float32, e) for d in HALVES for e in DTYPES[:2]]
CONVERSIONS += [(d, torch.float64, e) for d in DTYPES for e in DTYPES if d != e]


@pytest.mark.parametrize("source, compute, target", CONVERSIONS, ids=str)
def test_conversions_are_those_of_torch(source, compute, target):
    """To the nearest, ties to even, NaN to NaN; a double becomes half by way of float32."""
    x = bits(source)
    assert equal(convert(x, target, compute), x.to(target))


@cache
def two() -> Map:
    return Map(lambda x, y: x * y, {"x": (), "y": ()}, (), guarded=False, name="product of two")


@pytest.mark.parametrize("a, b", [*product(DTYPES, DTYPES)], ids=str)
def test_mixed_dtypes(a, b):
    """The result has the common dtype, each gradient that of its argument."""
    x, y = draw(41, dtype=a).requires_grad_(), draw(41, dtype=b, seed=1).requires_grad_()
    wide = torch.float64 if torch.float64 in (a, b) else torch.float32
    found = two()(x, y)
    common = torch.promote_types(a, b)
    assert equal(found.detach(), (x.detach().to(wide) * y.detach().to(wide)).to(common))
    g = draw(41, dtype=common, seed=2)
    gradients = torch.autograd.grad(found, (x, y), g)
    for gradient, t, other in zip(gradients, (x, y), (y, x), strict=True):
        assert equal(gradient, (g.to(wide) * other.detach().to(wide)).to(t.dtype))


def test_half_precision_is_computed_in_float32():
    """One rounding at the end, not one for each operation."""
    for dtype in HALVES:
        x, y, z = (draw(64, *s, dtype=dtype, seed=k) for k, s in enumerate(rich().shapes))
        for found, exact in zip(rich()(x, y, z), rich()(x.float(), y.float(), z.float()), strict=True):
            assert equal(found, exact.to(dtype))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_cpu_that_cannot_convert_half_precision(dtype, monkeypatch):
    monkeypatch.setattr(machine, "converts_half", lambda: False)
    function = Map(lambda x: [x[1] + x[0], x[0]], {"x": (2,)}, (2,), name=f"without conversion {dtype}")
    x = draw(37, 2, dtype=dtype)
    assert equal(function(x), torch.stack([(x[:, 0].float() + x[:, 1].float()).to(dtype), x[:, 0]], -1))
    (kernel,) = function.program.kernels.values()
    assert (kernel is None) == (dtype == torch.float16)


# Layouts ----------------------------------------------------------------------------------------------------

# Of an array (6, 40, 3, 3): any view whose last two dimensions are (3, 3).
VIEWS = {
    "as it is": lambda x: x,
    "one": lambda x: x[0, 0],
    "transposed rows": lambda x: x.mT,
    "transposed batch": lambda x: x.transpose(0, 1),
    "every second": lambda x: x[:, ::2],
    "every third of each": lambda x: x[::3, ::3],
    "from the middle": lambda x: x[2:5, 7:30],
    "of another dimension": lambda x: x.permute(2, 3, 0, 1)[..., :3, ::14],
    "between": lambda x: x.permute(0, 2, 1, 3)[:, :, :3],
    "expanded": lambda x: x[0, 0].expand(35, 3, 3),
    "expanded outside": lambda x: x[0].expand(4, 40, 3, 3),
    "expanded inside": lambda x: x[:, :1].expand(6, 40, 3, 3),
    "expanded rows": lambda x: x[..., :1, :].expand(6, 40, 3, 3),
    "expanded entries": lambda x: x[..., :1, :1].expand(6, 40, 3, 3),
    "overlapping": lambda x: x.as_strided((30, 3, 3), (4, 2, 1)),
    "diagonal": lambda x: x.as_strided((6, 3, 3), (369, 3, 1)),
    "three strides": lambda x: x[:, :36].unflatten(1, (6, 6)).permute(2, 0, 1, 3, 4),
    "four strides": lambda x: x[:, :36].reshape(2, 3, 6, 6, 3, 3).permute(3, 1, 2, 0, 5, 4),
    "odd address": lambda x: x.flatten()[1 : 1 + 9 * 37].view(37, 3, 3),
    "of one element": lambda x: x[:, 3:4],
    "with ones": lambda x: x[:, None, ::2, None],
    "more columns": lambda x: x.flatten(1)[:, :354].view(6, 59, 6)[:, :, None, :3].expand(6, 59, 3, 3),
}


@cache
def square() -> Map:
    """All entries of a matrix, each with another."""

    def formula(x):
        return [[x[i, j] + x[j, (i + 1) % 3] for j in range(3)] for i in range(3)]

    return Map(formula, {"x": (3, 3)}, (3, 3), name="square")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("view", VIEWS)
def test_any_layout(view, dtype):
    x = VIEWS[view](draw(6, 40, 3, 3, dtype=dtype))
    y = computed(x)
    exact = torch.stack(
        [torch.stack([y[..., i, j] + y[..., j, (i + 1) % 3] for j in range(3)], -1) for i in range(3)], -2
    )
    found = square()(x)
    assert equal(found, exact.to(dtype)) and found.is_contiguous()


# Batches that broadcast: of x, of y.
BATCHES = [
    ((), (5,)),
    ((40,), ()),
    ((40, 1), (1, 30)),
    ((40, 1), (30,)),
    ((3, 1, 7), (1, 5, 1)),
    ((3, 5, 1), (7,)),
    ((2, 1, 3, 1), (5, 1, 4)),
    ((2, 1, 3, 1, 2), (1, 5, 1, 4, 1)),
    ((1, 1), (1,)),
    ((40, 1), (1, 0)),
    ((1, 17, 1), (3, 1, 5)),
]


@pytest.mark.parametrize("a, b", BATCHES, ids=str)
@pytest.mark.parametrize("strided", [False, True])
def test_batches_broadcast(a, b, strided):
    x, y = draw(*a), draw(*b, seed=1)
    if strided:  # the same numbers, elsewhere
        x, y = (
            torch.stack([t, t], -1).transpose(0, -1).contiguous().transpose(0, -1)[..., 1] for t in (x, y)
        )
    assert equal(two()(x, y), x * y)


def test_arguments_with_elements_broadcast_each_in_its_own_way():
    x, y, z = draw(4, 1, 2, 2).mT, draw(3, seed=1), draw(2, 1, 1, 3, seed=2)[..., :].expand(2, 4, 1, 3)
    found = rich()(x, y, z)
    full = [
        t.expand(2, 4, 3, *s).contiguous()
        for t, s in zip((x, y[..., None, None, None].view(3), z), [(2, 2), (), (3,)], strict=True)
    ]
    for a, b in zip(found, rich()(*full), strict=True):
        assert equal(a, b)


# One row, anywhere ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_row_gives_the_same_bits_at_any_place(dtype):
    """Alone, in any lane, in the last block, among others of any kind, in any layout."""
    rows = 2 * BLOCK + 1
    x = [draw(rows, *s, dtype=dtype, seed=k) for k, s in enumerate(rich().shapes)]
    together = rich()(*x)
    for k in range(rows):
        alone = rich()(*[t[k] for t in x])
        tail = rich()(*[t[k:] for t in x])
        for a, b, c in zip(together, alone, tail, strict=True):
            assert torch.equal(a[k], b) and torch.equal(a[k:], c)
    strided = [torch.stack([t, t], 1)[:, 0] for t in x]
    for a, b in zip(together, rich()(*strided), strict=True):
        assert torch.equal(a, b)
    strange = [torch.cat([t[:5], torch.full_like(t[:5], math.nan), 1e4 * t[5:]]) for t in x]
    for a, b in zip(together, rich()(*strange), strict=True):
        assert torch.equal(a[:5], b[:5])


@pytest.mark.parametrize("pool", [False, True], ids=["OpenMP", "a pool"])
def test_a_row_gives_the_same_bits_in_any_number_of_threads(pool, many_threads, monkeypatch):
    asked, share, submitted = [], threads.share, []
    monkeypatch.setattr(threads, "share", lambda *a: asked.append(a[-1]) or share(*a))
    if pool:
        monkeypatch.setattr(threads, "_openmp", lambda: None)
        submit = ThreadPoolExecutor.submit
        monkeypatch.setattr(ThreadPoolExecutor, "submit", lambda *a: submitted.append(a) or submit(*a))
    x = [draw(1111, *s, seed=k) for k, s in enumerate(rich().shapes)]
    broadcast = x[0][:, None], x[1][:33], x[2][:33]
    alone, many = rich()(*x), rich()(*broadcast)
    for count in (2, 3, 7):
        many_threads(count)
        for arguments, expected in ((x, alone), (broadcast, many)):
            for a, b in zip(rich()(*arguments), expected, strict=True):
                assert torch.equal(a, b)
    assert asked == [2, 2, 3, 3, 7, 7]
    assert len(submitted) == (sum(asked) - len(asked) if pool else 0)


def test_kernels_serve_several_threads_at_once(many_threads):
    many_threads(2)
    x = [[draw(500, *s, seed=10 * j + k) for k, s in enumerate(rich().shapes)] for j in range(8)]
    expected = [rich()(*t) for t in x]
    barrier = threading.Barrier(8)

    def work(j):
        barrier.wait()
        return [rich()(*x[j]) for _ in range(5)]

    with ThreadPoolExecutor(8) as pool:
        for found, (a, b) in zip(pool.map(work, range(8)), expected, strict=True):
            assert all(torch.equal(c, a) and torch.equal(d, b) for c, d in found)


@pytest.mark.parametrize("register", [16, 32, 64])
def test_registers_of_any_size_give_the_same_bits(register, monkeypatch):
    """LLVM makes a long vector of short ones, where the machine has only these."""
    for dtype in DTYPES[:2]:
        x = [draw(50, *s, dtype=dtype, seed=k) for k, s in enumerate(rich().shapes)]
        expected = rich()(*x)
        monkeypatch.setattr(machine, "register_bytes", lambda: register)
        function = Map(rich().formula, rich().inputs, [*rich().results], name=f"rich {register} {dtype}")
        for a, b in zip(function(*x), expected, strict=True):
            assert torch.equal(a, b)
        monkeypatch.undo()


# What is not finite -----------------------------------------------------------------------------------------


def chosen(x, y):
    return [x[0] + 1.0, words.where(x[1] > 0.0, y, 2.0 * y)], y


GUARDS = {
    name: Map(chosen, {"x": (2,), "y": ()}, [(2,), ()], guarded=guarded, name=f"guarded {name}")
    for name, guarded in {"all": True, "none": False, "x": ["x"], "y": ["y"]}.items()
}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("guarded", GUARDS)
@pytest.mark.parametrize("writer", ["kernel", "operations"])
def test_what_is_not_finite_stays_in_its_row_and_spoils_all_of_it(guarded, bad, writer):
    function = GUARDS[guarded]

    def run(*x):
        if writer == "kernel":
            return function(*x)
        return operations.run(function.program.name, (), x, door.dtypes_of(function.program, x))

    clean = [draw(39, 2), draw(39, seed=1)]
    expected = run(*clean)
    for k, place in ((0, (17, 0)), (0, (38, 1)), (1, (3,))):
        x = [t.clone() for t in clean]
        x[k][place] = bad
        row, others = place[0], torch.arange(39) != place[0]
        for found, wanted in zip(run(*x), expected, strict=True):
            assert torch.equal(found[others], wanted[others])
            if guarded in ("all", "xy"[k]):
                assert found[row].isnan().all()
        if guarded == "none" and k == 0:
            assert torch.equal(run(*x)[1], expected[1])  # which x does not enter


def test_what_is_not_finite_spoils_all_gradients_of_its_row():
    for bad in (math.nan, math.inf):
        x, y = draw(39, 2), draw(39, seed=1)
        x[17, 1] = bad
        x.requires_grad_(), y.requires_grad_()
        a, b = GUARDS["all"](x, y)
        for g in torch.autograd.grad(a.sum() + b.sum(), (x, y)):
            assert g[17].isnan().all() and g[torch.arange(39) != 17].isfinite().all()
        a, b = GUARDS["none"](x, y)
        (g,) = torch.autograd.grad(b.sum(), y)
        assert torch.equal(g, torch.ones(39))


def test_a_cotangent_that_is_not_finite_spoils_only_what_it_enters():
    x = draw(39, 2).requires_grad_()
    y = draw(39, seed=1).requires_grad_()
    g = torch.ones(39, 2)
    g[17, 0] = math.inf
    gx, gy = torch.autograd.grad(GUARDS["all"](x, y)[0], (x, y), g)
    assert gx[17, 0] == math.inf and gx[17, 1] == 0 and gy.isfinite().all()


# Numbers of the call ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_scalars_are_of_the_call(dtype):
    """One kernel for all, and one program for all derivatives."""
    function = Map(lambda x, s, t: s * x + t, {"x": ()}, (), scalars=2, name=f"line {dtype}")
    x = draw(37, dtype=dtype)
    for s, t in ((2.0, 1.0), (-0.5, 0.25), (1, 0), (1e-3, math.inf), (math.nan, 0.0)):
        found = function(x, scalars=(s, t))
        wanted = torch.tensor(s, dtype=dtype) * x + torch.tensor(t, dtype=dtype)
        # With or without a rounding of the product.
        info = torch.finfo(dtype)
        torch.testing.assert_close(found, wanted, rtol=0, atol=info.eps * 4, equal_nan=True)
        y = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(function(y, scalars=(s, t)).sum(), y)
        torch.testing.assert_close(g, torch.full_like(x, s), rtol=0, atol=0, equal_nan=True)
    assert len(function.program.kernels) == 1


# Sums over rows ---------------------------------------------------------------------------------------------


@cache
def total():
    """The sum of all squares, and what each row has to do with it."""

    def formula(x):
        return x[0] * x[0] + x[1] * x[1], [x[1], x[0]]

    return program(formula, [(2,)], [(), (2,)], name="total", summed=(True, False), guarded=(0,))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sums_over_rows(dtype):
    for rows in (0, 1, 15, 16, 17, 33, 1000):
        x = draw(rows, 2, dtype=dtype)
        found, each = door.apply(total(), (), (x,))
        assert found.shape == () and found.dtype == torch.float64
        wide = computed(x)
        # Each row is rounded twice in the dtype it is computed in, and then no more to speak of.
        squares = (wide * wide).sum(-1).double()
        assert abs(found - (wide.double() ** 2).sum()) <= 2 * torch.finfo(wide.dtype).eps * squares.sum()
        assert equal(each, x.flip(-1))


def test_sums_are_of_the_rows_alone():
    x = draw(50, 2)
    x[40:] = math.nan
    for layout in (x[:40], x.repeat(1, 2)[:40, 1:3].flip(-1), x[:40].T.contiguous().T):
        found, _ = door.apply(total(), (), (layout,))
        torch.testing.assert_close(found, (x[:40].double() ** 2).sum(), rtol=1e-6, atol=0)
    found, _ = door.apply(total(), (), (x[:41],))
    assert found.isnan()
    found, _ = door.apply(total(), (), (x[0].expand(7, 2),))  # a row that is there seven times counts as many
    torch.testing.assert_close(found, 7 * (x[0].double() ** 2).sum(), rtol=1e-6, atol=0)


def test_sums_have_the_same_bits_in_any_number_of_threads(many_threads):
    """Also where much cancels, so that every order of adding gives other bits."""
    cubes = program(lambda x: x * x * x, [()], [()], name="sum of cubes", summed=(True,))
    x = draw(1_000_001, dtype=torch.float64)
    alone = door.apply(cubes, (), (x,))[0]
    for count in (2, 3, 5):
        many_threads(count)
        torch.set_num_threads(count)
        assert torch.equal(door.apply(cubes, (), (x,))[0], alone)


def squares(x: Tensor) -> Tensor:
    return door.apply(total(), (), (x,))[0]


def test_sums_have_derivatives():
    x, t = draw(37, 2, dtype=torch.float64), draw(37, 2, dtype=torch.float64, seed=1)
    y = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(squares(y), y, create_graph=True)
    torch.testing.assert_close(g, 2 * x)
    torch.testing.assert_close(torch.autograd.grad((g * t).sum(), y)[0], 2 * t)
    value, tangent = torch.func.jvp(squares, (x,), (t,))
    torch.testing.assert_close(value, (x * x).sum())
    torch.testing.assert_close(tangent, (2 * x * t).sum())
    torch.testing.assert_close(
        torch.func.hessian(squares)(x[:2]).flatten(), 2 * torch.eye(4).double().flatten()
    )


def test_each_of_a_batch_of_sums_is_its_own():
    x = draw(5, 37, 2, dtype=torch.float64)
    torch.testing.assert_close(torch.func.vmap(squares)(x), (x * x).sum((1, 2)))
    torch.testing.assert_close(torch.func.vmap(squares, in_dims=1)(x), (x * x).sum((0, 2)))
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(squares))(x), 2 * x)
