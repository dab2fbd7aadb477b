"""Programs of the engine as Triton kernels: right in Triton's interpreter, or on a GPU where there is one,
and what they compile to.

pytest tests/svdrot/engine/test_gpu_writer.py --require-gpu
"""

import math
import sys
import warnings
from types import SimpleNamespace

import mpmath
import numpy as np
import pytest
import torch
from formula_maps import MAPS, drawn, programs
from offline_gpu import TARGETS, compiled
from torch.utils._python_dispatch import TorchDispatchMode

from svdrot.engine import cpu, door, layout, words
from svdrot.engine.maps import Map
from svdrot.engine.program import program

pytest.importorskip("triton", reason="triton comes with CUDA builds of torch, and from PyPI on Linux")

from svdrot.engine import gpu as on_gpu
from svdrot.engine.gpu import _words as triton_words
from svdrot.engine.gpu import _writer as writer

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # where kernels run: interpreted on a CPU
INTERPRETED = DEVICE == "cpu"

# In units of what roundings of the arguments change, and of one rounding of the result: each of the some 16
# operations on the longest way from an argument to a result rounds once, as often up as down.
UNITS = 4
SERIES = 1 / 6  # second derivatives lose this power of eps where the series of `conversions` end


@pytest.fixture(autouse=True)
def quiet():
    """Triton's interpreter computes in numpy, which warns of 1 / 0."""
    with np.errstate(all="ignore"):
        yield


def run(p, x, scalars=()):
    """The outputs of a program by its Triton kernel, back on the CPU."""
    return [y.cpu() for y in on_gpu.run(p, scalars, [t.to(DEVICE) for t in x])]


def conditioning(p, x, eps):
    """The results in float64, and for each row how much the largest entry of any rounding is."""
    exact = cpu.run(p, (), x)
    generator = torch.Generator().manual_seed(1)
    signs = [torch.randint(0, 2, (16, *t.shape), generator=generator).double() * 2 - 1 for t in x]
    rounded = cpu.run(p, (), [t * (1 + eps * s) for t, s in zip(x, signs, strict=True)])
    units = []
    for y, shape, near in zip(exact, p.graph.shapes, rounded, strict=True):
        dims = tuple(range(-len(shape), 0))
        wobble, size = (near - y).abs().amax(0), y.abs()
        unit = wobble.amax(dims, keepdim=True) + eps * size.amax(dims, keepdim=True) if dims else wobble
        units.append(unit + eps * size)
    return exact, units


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", ["value", "vjp", "jvp", "vjp of vjp"])
@pytest.mark.parametrize("name", MAPS)
def test_maps_and_their_derivatives(name, kind, dtype):
    p, eps = programs(name)[kind], torch.finfo(dtype).eps
    x = [t.float().double() for t in drawn(p, 200)]  # a whole program of lanes, and part of one
    exact, units = conditioning(p, x, eps)
    bound = UNITS * (eps**-SERIES if p.order == 2 else 1)
    for y, found, unit in zip(exact, run(p, [t.to(dtype) for t in x]), units, strict=True):
        assert found.dtype == dtype and found.is_contiguous()
        assert ((found - y).abs() <= bound * unit).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["value", "vjp"])
@pytest.mark.parametrize("name", ["axis_angle_to_matrix", "matrix_to_quaternion", "geodesic_distance"])
def test_half_precision_is_a_format_of_storage(name, kind, dtype):
    p = programs(name)[kind]
    x = [t.to(dtype) for t in drawn(p, 200)]
    exact, units = conditioning(p, [t.double() for t in x], torch.finfo(torch.float32).eps)
    for y, found, unit in zip(exact, run(p, x), units, strict=True):
        assert found.dtype == dtype
        # One rounding at the end; Triton's interpreter cuts bfloat16 off instead.
        assert ((found.double() - y).abs() <= UNITS * unit + torch.finfo(dtype).eps * y.abs()).all()


def test_the_common_dtype():
    p = MAPS["geodesic_distance"].program
    a, b = drawn(p, 10)
    for given in [
        (torch.float16, torch.float32),
        (torch.float32, torch.float64),
        (torch.float64, torch.half),
    ]:
        x = [t.to(dtype) for t, dtype in zip((a, b), given, strict=True)]
        (found,), (expected,) = run(p, x), cpu.run(p, (), x)
        assert found.dtype == expected.dtype == torch.promote_types(*given)
        torch.testing.assert_close(found, expected)
    half = (a.half(), b.half())
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        assert run(p, half)[0].dtype == torch.float32
    assert run(p, half)[0].dtype == torch.float16


def rotations(*batch, seed=0):
    return drawn(MAPS["matrix_to_mrp"].program, *batch, seed=seed)[0].float().to(DEVICE)


ARRANGEMENTS = {
    "transposed": lambda: (rotations(150).mT, rotations(150, seed=1)),
    "sliced": lambda: (rotations(450)[::3], rotations(150, seed=1)),
    "columns first": lambda: (rotations(150).permute(1, 2, 0).contiguous().permute(2, 0, 1), rotations(150)),
    "the same for all": lambda: (rotations(150), rotations(seed=1)),
    "each with each": lambda: (rotations(30, 1), rotations(7, seed=1)),
    "each with each, transposed": lambda: (rotations(30, 1).mT, rotations(1, 7, seed=1).mT),
    "batch dimensions swapped": lambda: (rotations(20, 9).transpose(0, 1), rotations(9, 20, seed=1)),
    "dimensions of one": lambda: (rotations(30, 10)[:, None, :5, None], rotations(1, 1, 5, 1, seed=1)),
    "three that differ": lambda: (rotations(3, 1, 5), rotations(1, 8, 1, seed=1)),
    "one": lambda: (rotations(), rotations(seed=1)),
    "none": lambda: (rotations(0), rotations(0)),
    "none of seven": lambda: (rotations(0, 7), rotations(7)),
}


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_arrays_lie_as_they_like(arrangement):
    p = MAPS["geodesic_distance"].program
    a, b = ARRANGEMENTS[arrangement]()
    copies = [t.contiguous() for t in torch.broadcast_tensors(a, b)]
    (found,), (expected,) = on_gpu.run(p, (), (a, b)), on_gpu.run(p, (), copies)
    # The same operations; which products a compiler joins with a sum may depend on the kernel.
    torch.testing.assert_close(found, expected, rtol=0, atol=0 if INTERPRETED else 1e-6)


def test_strides_of_a_vector_and_of_numbers():
    x = torch.randn(6, 150, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    p = program(lambda v, s, t: (v[0] - s) * v[1] + t, [(2,), (), ()], [()], name="strides of vectors")
    (found,) = on_gpu.run(p, (), (x[::3].T, x[1], x[2, :1]))
    torch.testing.assert_close(found, (x[0] - x[1]) * x[3] + x[2, 0], rtol=0, atol=0 if INTERPRETED else 1e-6)


def test_arrays_are_not_copied():
    p = MAPS["geodesic_distance"].program
    for name, arrangement in ARRANGEMENTS.items():
        if name != "three that differ" and "none" not in name:
            x = arrangement()
            found = layout.strided(p.graph.inputs, x).arrays
            assert [t.data_ptr() for t in found] == [t.data_ptr() for t in x]


def test_rows_further_apart_than_an_int32_reaches():
    memory = torch.empty(2**31 + 100, dtype=torch.float16, device=DEVICE)  # of which three pages are touched
    x = memory.as_strided((3, 2), (2**30, 1))
    x.copy_(torch.arange(6.0).reshape(3, 2))
    p = program(lambda v: v[0] * 2.0 + v[1], [(2,)], [()], name="far apart")
    assert run(p, (x,))[0].tolist() == [1.0, 7.0, 13.0]


def test_rows_are_counted_in_int64_where_an_int32_is_too_small(monkeypatch):
    p = MAPS["geodesic_distance"].program
    a, b = rotations(30, 1), rotations(7, seed=1)
    written = record_kernels(monkeypatch)
    p.kernels.clear()
    (expected,) = on_gpu.run(p, (), (a, b))
    monkeypatch.setattr(on_gpu, "WIDE", 1)
    (found,) = on_gpu.run(p, (), (a, b))
    assert written == [(2, torch.int32), (2, torch.int64)]
    torch.testing.assert_close(found, expected, rtol=0, atol=0 if INTERPRETED else 1e-6)


def record_kernels(monkeypatch):
    """The levels of batch dimensions and the type of indices of each kernel that is written from here on."""
    written, kernel = [], writer.kernel
    monkeypatch.setattr(writer, "kernel", lambda *a: written.append(a[-2:]) or kernel(*a))
    return written


@pytest.mark.parametrize("count", range(1, 21))
def test_rows_of_any_length_are_stored_in_their_place_and_nowhere_else(count):
    p = program(lambda v: v[::-1], [(count,)], [(count,)], name=f"reversed {count}")
    x = torch.randn(150, count, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    dtypes = [torch.float32]
    kernel = writer.kernel(p.name, p.graph, dtypes, dtypes, torch.float32, (True,), 1, torch.int64)
    memory = torch.full((64 + 256 * count + 64,), torch.nan, device=DEVICE)
    y = memory[64 : 64 + 150 * count]
    kernel[(2,)](x, y, 150)
    assert torch.equal(y.reshape(150, count), x.flip(-1))
    assert memory.isnan().sum() == memory.numel() - y.numel()


@pytest.mark.parametrize("kind", ["value", "vjp"])
@pytest.mark.parametrize("name", ["quaternion_to_matrix", "matrix_to_axis_angle", "geodesic_distance"])
def test_what_is_not_finite_stays_in_its_lane(name, kind):
    p = programs(name)[kind]
    clean = [t.float() for t in drawn(p, 200)]
    expected = run(p, clean)
    rows = {3: torch.nan, 4: torch.inf, 77: -torch.inf, 130: torch.nan, 199: torch.inf}
    for i in p.graph.guarded:
        x = [t.clone() for t in clean]
        for k, (row, value) in enumerate(rows.items()):
            flat = x[i][row].reshape(-1)
            flat[k * 5 % len(flat)] = value
            x[i][row] = flat.reshape(x[i][row].shape)
        bad = torch.zeros(200, dtype=torch.bool)
        bad[list(rows)] = True
        for y, found in zip(expected, run(p, x), strict=True):
            assert found[bad].isnan().all()
            assert torch.equal(found[~bad], y[~bad])


def test_any_entry_that_is_not_finite_spoils_the_row():
    p = program(lambda v, w: v[0], [(3,), (2,)], [()], name="one entry", guarded=(0,))
    v = torch.arange(15.0).reshape(5, 3)
    v[0, 2], v[1, 1], v[2, 0] = torch.nan, -torch.inf, torch.inf
    (found,) = run(p, (v, torch.full((5, 2), torch.nan)))
    assert found[:3].isnan().all() and found[3:].tolist() == [9.0, 12.0]


CONDITIONS = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "and": lambda a, b: (a < 1.5) & (b < 1.5),
    "or": lambda a, b: (a < 1.5) | (b < 1.5),
    "not": lambda a, b: ~(a < b),
    "with a constant": lambda a, b: ((a < b) & True) | False,
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_conditions(name):
    condition = CONDITIONS[name]
    p = program(lambda a, b: words.where(condition(a, b), 1.0, 0.0), [(), ()], [()], name=f"if {name}")
    a = torch.tensor([1.0, 2.0, 1.0, 2.0, torch.nan, 1.0, 0.0])
    b = torch.tensor([1.0, 2.0, 2.0, 1.0, 1.0, torch.nan, -0.0])
    assert torch.equal(run(p, (a, b))[0].bool(), condition(a, b))


def test_an_argument_without_guard_spoils_only_what_it_goes_into():
    p = program(lambda a, b: words.where(a > 0.0, b, 1.0), [(), ()], [()], name="unguarded")
    a, b = torch.tensor([1.0, -1.0, torch.nan]), torch.tensor([2.0, torch.nan, torch.inf])
    assert run(p, (a, b))[0].tolist() == [2.0, 1.0, 1.0]


@pytest.mark.parametrize("number", [1e-15, 0.1, -0.0, 1.0, 5e-324, -1.7e308, math.inf])
def test_numbers_of_a_call_are_exact(number):
    p = program(lambda a, s, t: a * t, [()], [()], name="numbers of a call", scalars=2)
    for dtype in (torch.float64, torch.float32):
        (found,) = run(p, (torch.ones(3, dtype=dtype),), (2.0, number))
        expected = torch.tensor([number] * 3, dtype=torch.float64).to(dtype)
        assert torch.equal(found, expected) and torch.equal(found.signbit(), expected.signbit())


def test_constants_are_of_the_precision_of_the_computation():
    p = program(lambda a: words.where(a > 0.0, 0.1, 0.3), [()], [()], name="two constants")
    assert run(p, (torch.tensor([1.0, -1.0], dtype=torch.float64),))[0].tolist() == [0.1, 0.3]


@pytest.mark.parametrize("rows", [0, 1, 128, 1000])
def test_sums_over_all_rows(rows):
    p = program(lambda a: (a[0] * a[1], a * 2.0), [(2,)], [(), (2,)], name="sums", summed=(True, False))
    x = torch.randn(rows, 2, generator=torch.Generator().manual_seed(0))
    total, doubled = run(p, (x,))
    terms = (x[:, 0] * x[:, 1]).double()
    assert total.dtype == torch.float64 and total.shape == ()
    # A tree of at most 32 levels.
    assert abs(total.item() - math.fsum(terms)) <= 32 * torch.finfo(torch.float64).eps * terms.abs().sum()
    assert torch.equal(doubled, 2 * x) and torch.equal(total, run(p, (x,))[0])


def samples(dtype):
    """Numbers of all sizes, angles near and far; in float64 the one that is nearest to a multiple of pi/2,
    and two near ones with a carry between the words of the product that their reduction takes."""
    generator = torch.Generator().manual_seed(0)
    size = math.log10(torch.finfo(dtype).max) - 0.1
    power, sign, angle, unit = torch.rand(4, 150, dtype=torch.float64, generator=generator) * 2 - 1
    all_sizes = 10 ** (power * size) * sign.sign()
    hard = [(6381956970095103, 797), (8008846302102459, 71), (5905920868397110, 601), (0, 0)]
    hard = torch.tensor([math.ldexp(*parts) for parts in hard], dtype=torch.float64)
    x = torch.cat([all_sizes, 500 * angle, unit, hard]).to(dtype)
    return x[x.isfinite()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ["sin", "cos", "atan2", "exp", "expm1", "log", "log1p", "sqrt", "floor"])
def test_elementary_functions_over_the_whole_range(name, dtype):
    p = program(getattr(words, name), [(), ()] if name == "atan2" else [()], [()], name=f"elementary {name}")
    x = samples(dtype)
    x = (x, x.flip(0)) if name == "atan2" else (x.abs(),) if name in ("log", "log1p", "sqrt") else (x,)
    (found,) = run(p, x)
    assert found.dtype == dtype
    about, seen = torch.finfo(dtype), 0
    with mpmath.workprec(1400):
        for *arguments, y in zip(*(t.tolist() for t in x), found.tolist(), strict=True):
            if name == "log" and arguments == [0.0]:
                assert y == -math.inf
                continue
            truth = getattr(mpmath, name)(*map(mpmath.mpf, arguments))
            if truth == 0 or about.tiny <= abs(truth) <= about.max:
                seen += 1
                assert abs(y - truth) <= 2 * about.eps * abs(truth), arguments
    assert seen >= 150


def test_functions_of_what_is_not_finite():
    x = torch.tensor([torch.nan, torch.inf, -torch.inf])
    for name in ("sin", "cos", "exp", "expm1", "log", "log1p", "sqrt"):
        p = program(getattr(words, name), [()], [()], name=f"elementary {name}")
        torch.testing.assert_close(run(p, (x,))[0], getattr(torch, name)(x), equal_nan=True)


def test_the_digits_of_two_over_pi():
    digits = [getattr(word, "value", word) for word in triton_words.TWO_OVER_PI.value]
    assert digits[0] == 0 and len(digits) == 20
    with mpmath.workprec(1400):
        exact = int(mpmath.floor(2 / mpmath.pi * mpmath.mpf(2) ** (64 * 19)))
    assert sum(word << 64 * (19 - k) for k, word in enumerate(digits)) == exact


# From a call to a kernel ----------------------------------------------------------------------------------


class Operations(TorchDispatchMode):
    """What torch does outside of kernels."""

    def __init__(self):
        super().__init__()
        self.launching, self.names, self.launches = False, [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not self.launching:
            self.names.append(func._schema.name)
        return func(*args, **(kwargs or {}))

    def watched(self, kernel):
        def launch(grid):
            def run(*arguments, **options):
                self.launching = True
                self.launches.append(kernel.__name__)
                kernel[grid](*arguments, **options)
                self.launching = False

            return run

        return type("Kernel", (), {"__getitem__": staticmethod(launch)})()


def test_one_launch_each_way_and_nothing_else(monkeypatch):
    m = Map(MAPS["matrix_to_axis_angle"].formula, {"matrix": (3, 3)}, (3,), name="one launch")
    seen, kernel = Operations(), writer.kernel
    monkeypatch.setattr(writer, "kernel", lambda *a: seen.watched(kernel(*a)))
    if INTERPRETED:
        monkeypatch.setattr(cpu, "run", on_gpu.run)
    x, w = rotations(5).requires_grad_(), torch.ones(5, 3, device=DEVICE)
    with seen:
        y = m(x)
        assert seen.launches == ["map_one_launch"]
        (g,) = torch.autograd.grad(y, x, w)
        m(x), m(x.detach())
        assert m(x[:0]).shape == (0, 3)  # by no launch
    assert seen.launches == ["map_one_launch", "map_one_launch_vjp_1_1_0", *["map_one_launch"] * 2]
    assert set(seen.names) <= {"aten::empty", "aten::detach", "aten::slice"}
    monkeypatch.undo()
    (expected,) = torch.autograd.grad(m(x), x, w)
    torch.testing.assert_close(g, expected, rtol=1e-4, atol=1e-5)


def test_kernels_of_one_program_for_both_devices():
    p = program(lambda a: a * 2.0, [()], [()], name="for both")
    x = torch.ones(3)
    for _ in range(2):
        assert torch.equal(cpu.run(p, (), (x,))[0], run(p, (x,))[0])
    assert len(p.kernels) == 2


def tensor(device):
    return SimpleNamespace(is_cpu=device == "cpu", is_cuda="cuda" in device, device=torch.device(device))


def test_each_device_has_its_kernels():
    places = ("cpu cpu", "cuda:0 cuda:0", "cpu cuda:0", "cuda:0 cpu", "cuda:0 cuda:1", "xpu:0", "cpu meta")
    kernels = {names: door._kernels([tensor(name) for name in names.split()]) for names in places}
    assert kernels.pop("cpu cpu") is cpu and kernels.pop("cuda:0 cuda:0") is on_gpu
    assert not any(kernels.values())  # what is on several devices must not come into a kernel


@pytest.mark.parametrize("system, package", [("linux", "triton"), ("win32", "triton-windows")])
def test_a_machine_without_triton_is_told_once_and_still_served(system, package, monkeypatch):
    from svdrot import engine

    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setitem(sys.modules, "svdrot.engine.gpu", None)
    monkeypatch.delattr(engine, "gpu")
    door._of_gpus.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match=f"Install `{package}`"):
            assert door._kernels([tensor("cuda:0")]) is None
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert door._kernels([tensor("cuda:0")]) is None
    finally:
        door._of_gpus.cache_clear()


# What kernels compile to ----------------------------------------------------------------------------------

# An H100 issues 132 x 4 x 32 instructions per cycle of 1.755 GHz, which are 8.9 for each byte that its memory
# delivers; an A100 of 2 TB/s 9.7. Below that a map of float32 is as fast as memory.
PER_NUMBER = 4 * 9
# Never reached by most rows: roots and quotients of subnormal numbers, angles beyond the range of the
# polynomials, which float64 finds in a longer table.
RARE = {"float32": 300, "float64": 450}
# So that there are 24 warps (float32) or 16 for each multiprocessor, enough to wait for memory.
REGISTERS = {"float32": 80, "float64": 128}
# Two formulas at once, of which each row takes one, or two quaternions and their arc: 20 warps.
LARGER = {"rotation_between": 96, "quaternion_slerp": 96}


def check(kernels):
    for kernel in kernels:
        assert kernel["stack"] == kernel["local"] == 0, kernel
        precision = "float64" if kernel["dtype"] == "float64" else "float32"
        assert kernel["registers"] <= LARGER.get(kernel["map"], REGISTERS[precision]), kernel
        assert 50 < kernel["instructions"] <= PER_NUMBER * kernel["numbers"] + RARE[precision], kernel
        # Nothing is approximate but what a formula calls so (`svdrot.engine.words.roughly`).
        assert all("rsqrt.approx" in word for word in kernel.get("approximate", [])), kernel


@pytest.mark.long
def test_maps_compile_without_spills_and_within_their_instructions():
    found = compiled("formulas", "--dtype=float32", "--kinds=value,vjp", "--targets=90")
    assert len(found) == 2 * len(MAPS)
    check(found)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_a_map_compiles_for_each_gpu(dtype):
    targets = f"--targets={','.join(map(str, TARGETS))}"
    found = compiled("formulas", "axis_angle_to_matrix", f"--dtype={dtype}", "--kinds=vjp", targets)
    assert len(found) == len(TARGETS)
    check(found)


# On a GPU -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", MAPS)
def test_gradients_of_the_gpu_are_those_of_the_cpu(gpu, name, dtype):
    m = MAPS[name]
    x = [t.to(dtype) for t in drawn(m.program, 1000)]
    results = []
    for device in ("cpu", gpu):
        leaves = [t.to(device).requires_grad_() for t in x]
        y = m(*leaves)
        g = torch.autograd.grad(y, leaves, torch.ones_like(y))
        results.append([t.detach().cpu() for t in (y, *g)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


def test_more_rows_than_an_int32_counts(gpu):
    p = program(lambda a, b: a * b, [(), ()], [()], name="many rows", summed=(True,))
    a = torch.tensor([[1.0], [2.0]], device=gpu)
    b = torch.ones(2**30 + 200, device=gpu, dtype=torch.float16)
    assert on_gpu.run(p, (), (a, b))[0].item() == 3 * (2**30 + 200)


def test_one_kernel_each_way_and_no_synchronization(gpu):
    m = MAPS["matrix_to_axis_angle"]
    x, w = rotations(1000).requires_grad_(), torch.ones(1000, 3, device=gpu)
    torch.autograd.grad(m(x), x, w)  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            torch.autograd.grad(m(x), x, w)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    launched = [event.name for event in profile.events() if event.device_type.name == "CUDA"]
    assert len(launched) == 2 and all(name.startswith("map_") for name in launched)


def test_capture_in_a_cuda_graph(gpu):
    m = Map(lambda v, s: v * s, {"v": (3,)}, (3,), scalars=1, name="captured")
    x = torch.randn(1000, 3, device=gpu)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        m(x, scalars=(1e-15,))
    side.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = m(x, scalars=(1e-15,))
    x.copy_(torch.randn_like(x))
    graph.replay()
    assert torch.equal(captured, m(x, scalars=(1e-15,)))
