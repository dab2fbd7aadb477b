"""What the GPU kernels compile to, checked without a GPU, and what only a GPU can show.

pytest tests/svdrot/test_gpu.py --require-gpu
"""

import warnings

import cases
import numpy as np
import pytest
import torch
from offline_gpu import compiled

import svdrot
from svdrot._kernels import products
from svdrot._kernels.operations import iteration
from svdrot.polar import newton_schulz
from svdrot.schedules import newton_schulz_schedule

pytest.importorskip("triton", reason="triton comes with CUDA builds of torch, and from PyPI on Linux")

# Machine instructions at most, float32 and float64: the measured counts with some room. Some 650 are issued
# while memory delivers a matrix.
INSTRUCTIONS = {
    "project": (530, 1200),
    "differentiate": (360, 740),
    "measure_gap": (490, 970),
    "differentiate_gap": (650, 1130),
}

# Of `gram`, in float32 and in bfloat16, of which float16 differs in the names of instructions alone: with 256
# threads a program may have 255 registers each, and 160 KiB of shared memory are there on both.
GRAM_INSTRUCTIONS = {"fp32": 2500, "bf16": 1900}  # bf16: 1888 by Triton 3.4
GRAM_SHARED = {"fp32": 48 * 1024, "bf16": 96 * 1024}

# Over pairs of points, in float64 whatever the points, one to a thread: with room, so that a spill is seen.
PAIR_INSTRUCTIONS = {"_moments": 1200, "_gradients": 450, "_misfits": 300}

# For matrices of up to 16 and 64 columns. They are loops: what is issued is many times that.
SMALL_INSTRUCTIONS = {16: 7000, 64: 12500}
# Bytes that a thread puts away: none of factors and rotations in float32, but some of derivatives, where six
# matrices share the registers, and of float64, which needs twice as many.
SMALL_STACK = {("fp32", 16): 32, ("fp32", 64): 448, ("fp64", 16): 192, ("fp64", 64): 1100}


def test_kernels_compile_without_spills_and_within_their_instructions():
    found = compiled("lanes")
    assert len(found) == 8
    for kernel in found:
        if kernel["dtype"] == "float32":
            assert kernel["stack"] == kernel["local"] == 0, kernel
        assert kernel["stack"] <= 8, kernel  # one number, by Triton 3.4
        single, double = INSTRUCTIONS[kernel["kernel"]]
        assert 100 < kernel["instructions"] <= (single if kernel["dtype"] == "float32" else double), kernel
        assert kernel["registers"] <= (64 if kernel["dtype"] == "float32" else 128), kernel


@pytest.mark.parametrize("sign", [-1, 0, 1], ids=["low", "either way", "high"])
def test_roots_of_a_gpu_are_exact_enough(sign, monkeypatch):
    """Reciprocals and roots of the projection come from one that is off by 2 units in the last place at most
    (PTX, rsqrt.approx), always to one side, or each its own way: within the contract of the CPU."""
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    if torch.cuda.is_available():
        pytest.skip("compiled")
    exact, generator = interpreter.InterpreterBuilder.create_rsqrt, np.random.default_rng(0)
    used = []

    def rsqrt(self, x):
        found = exact(self, x)
        off = sign or generator.choice([-1.0, 1.0], found.data.shape)
        used.append(off)
        return interpreter.TensorHandle(
            (found.data * (1 + off * 2.0**-22)).astype(found.data.dtype), found.dtype
        )

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_rsqrt", rsqrt)
    from svdrot._formulas.projection import project
    from svdrot.engine import gpu as on_gpu

    m = torch.cat(list(cases.regular_matrices(torch.float32).values()))
    w = torch.randn(m.shape, generator=torch.Generator().manual_seed(0))
    (r,) = on_gpu.run(project.program, (), [m])
    assert len(used) > 5
    derivative = project.program.vjp((True,), (True,), True)
    (d,) = on_gpu.run(derivative, (), [m, r, w])
    x = m.double().requires_grad_()
    exact_r = svdrot.special_orthogonalize(x)
    (exact_d,) = torch.autograd.grad(exact_r, x, w.double())
    eps, one = torch.finfo(torch.float32).eps, torch.eye(3, dtype=torch.float64)
    assert (torch.linalg.matrix_norm(r.double().mT @ r.double() - one) <= 8 * eps).all()
    s1 = torch.linalg.matrix_norm(m.double(), 2)
    unit = 32 * eps * s1 / svdrot.projection_gap(m.double())
    good = unit < 1e-1
    assert good.sum() > 0.9 * len(m)
    assert (torch.linalg.matrix_norm(r - exact_r) <= unit)[good].all()
    size = torch.linalg.matrix_norm(exact_d)
    assert (torch.linalg.matrix_norm(d - exact_d) <= 4 * unit * size)[good].all()


def test_symmetric_products_compile_without_spills_and_within_their_instructions():
    found = compiled("products")
    assert len(found) == 4
    for kernel in found:
        assert kernel["stack"] == kernel["local"] == 0, kernel
        assert 100 < kernel["instructions"] <= GRAM_INSTRUCTIONS[kernel["dtype"]], kernel
        assert kernel["registers"] <= 255 and kernel["shared"] <= GRAM_SHARED[kernel["dtype"]], kernel


def test_kernels_over_pairs_compile_within_their_registers():
    found = compiled("pairs")
    assert len(found) == 12
    for kernel in found:
        assert kernel["local"] <= 2, kernel  # one number, of float64 points without weights
        assert 100 < kernel["instructions"] <= PAIR_INSTRUCTIONS[kernel["kernel"]], kernel
        assert kernel["registers"] <= 128, kernel


@pytest.mark.long
def test_kernels_for_small_matrices_compile_within_their_registers():
    found = compiled("small_matrices")
    assert len(found) == 16
    for kernel in found:
        assert 100 < kernel["instructions"] <= SMALL_INSTRUCTIONS[kernel["side"]], kernel
        assert kernel["registers"] <= 255 and kernel["shared"] <= 48 * 1024, kernel
        assert kernel["stack"] <= SMALL_STACK[kernel["dtype"], kernel["side"]], kernel
        if kernel["kernel"] == "_polar":
            assert kernel["stack"] <= (128 if kernel["dtype"] == "fp64" else 0), kernel


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(1, 70, 50), (3, 130, 33), (2, 257, 1), (1, 64, 200), (2, 1, 1)], ids=str)
def test_the_symmetric_product(shape, dtype, request):
    """On a GPU, or else in Triton's interpreter, which cannot add bfloat16."""
    from svdrot._kernels.gpu import gram

    device = request.getfixturevalue("gpu") if dtype == torch.bfloat16 else "cpu"
    device = "cuda" if torch.cuda.is_available() else device
    batch, rows, inner = shape
    x = torch.randn(batch, rows, 2 * inner, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    c = torch.randn(batch, rows, rows, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    c = c + c.mT
    for factor in (x[..., :inner], x[..., :inner].mT.contiguous().mT, x[..., ::2]):
        for added in (c, c[0]):
            got = gram.gram(factor, -1.5, added, 0.5)
            exact = -1.5 * (factor.double() @ factor.double().mT) + 0.5 * added.double()
            scale = factor.double().square().sum(-1).amax() + added.abs().amax()
            assert got.dtype == dtype and (got - exact).abs().amax() <= 8 * torch.finfo(dtype).eps * scale
            # On the diagonal of tiles as symmetric as the product of a tile with its transpose is.
            assert (got - got.mT).abs().amax() <= 8 * torch.finfo(dtype).eps * scale
    assert gram.gram(x[:0], 1.0, c[:0], 1.0).shape == (0, rows, rows)


@pytest.mark.parametrize("shape", [(70, 70), (66, 90), (90, 66)], ids=str)
def test_the_iteration_by_symmetric_products(shape, monkeypatch):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    m = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    schedule = newton_schulz_schedule(1e-3)
    expected = newton_schulz(m, schedule)
    asked = []
    gram = iteration._gram()
    assert gram is not None
    by_gram = gram.gram
    monkeypatch.setattr(gram, "gram", lambda *a: asked.append(a) or by_gram(*a))
    monkeypatch.setattr(iteration, "TILED_ON", (device,))
    monkeypatch.setattr(products, "iterates", lambda *_: False)  # in one kernel, on a CPU
    newton_schulz(m, schedule)
    assert not asked  # too small
    monkeypatch.setattr(iteration, "TILED", 64)
    torch.testing.assert_close(newton_schulz(m, schedule), expected, rtol=0, atol=2e-5)
    assert len(asked) == 2 * len(schedule)  # E and its square
    del asked[:]
    m.requires_grad_()
    newton_schulz(m, schedule).sum().backward()
    torch.func.vmap(lambda m: newton_schulz(m, schedule))(m.detach())
    assert not asked and m.grad is not None and m.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_gpu_gives_the_rotations_of_the_cpu(gpu, dtype):
    m = torch.cat(list(cases.regular_matrices(torch.float32).values())).clamp(-6e4, 6e4).to(dtype)
    w = torch.randn(m.shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    results = []
    for device in ("cpu", gpu):
        x = m.to(device).requires_grad_()
        r = svdrot.special_orthogonalize(x)
        results.append((r.detach().cpu(), torch.autograd.grad(r, x, w.to(device))[0].cpu()))
    (r, d), (r_gpu, d_gpu) = results
    eps = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
    s1 = torch.linalg.matrix_norm(m.double(), 2)
    unit = (32 * eps * s1 / svdrot.projection_gap(m.double()))[:, None, None] + 2 * torch.finfo(dtype).eps
    good = (unit < 1e-1).flatten() if dtype in (torch.float32, torch.float64) else unit.isfinite().flatten()
    assert ((r - r_gpu).abs() <= unit)[good].all()
    assert ((d - d_gpu).abs() <= unit * d.double().norm(dim=(-2, -1), keepdim=True))[good].all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("n", [4, 16, 33, 64, 300])
def test_larger_factors_and_gradients_of_the_gpu_are_those_of_the_cpu(gpu, n, special, dtype):
    m = torch.randn(3, n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    w = torch.randn(m.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    results = []
    for x in (m.clone().requires_grad_(), m.to(gpu, dtype).requires_grad_()):
        q = svdrot.polar.polar(x, special=special)
        q.backward(w.to(x))
        results.append((q.detach().cpu().double(), x.grad.cpu().double()))
    (q, g), (q_gpu, g_gpu) = results
    s = torch.linalg.svdvals(m)
    gap = s[:, -1] + s[:, -2] if not special else svdrot.projection_gap(m)
    unit = 32 * n**0.5 * torch.finfo(dtype).eps * s[:, 0] / gap
    assert (torch.linalg.matrix_norm(q - q_gpu) <= unit).all()
    assert (torch.linalg.matrix_norm(g - g_gpu) <= 4 * unit * torch.linalg.matrix_norm(g)).all()


def test_the_host_waits_for_larger_factors_once_each_way(gpu):
    m = torch.eye(16, device=gpu) + 0.01 * torch.randn(100, 16, 16, device=gpu)
    m.requires_grad_()
    svdrot.special_orthogonalize(m).sum().backward()  # compiles, allocates
    torch.cuda.synchronize()
    try:
        with warnings.catch_warnings(record=True) as waits:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")  # which warns that it is a prototype
            svdrot.special_orthogonalize(m).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert sum("called a synchronizing" in str(wait.message) for wait in waits) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_large_symmetric_products_of_the_gpu(gpu, dtype):
    from svdrot._kernels.gpu import gram

    side = iteration.TILED
    for x in (torch.randn(2, side, side + 8, device=gpu), torch.randn(1, 300, side, device=gpu).mT):
        x = (x / x.shape[-1] ** 0.5).to(dtype)
        one = torch.eye(side, device=gpu, dtype=dtype)
        exact = one - x.double() @ x.double().mT
        bound = 16 * torch.finfo(dtype).eps
        torch.testing.assert_close(gram.gram(x, -1.0, one, 1.0).double(), exact, rtol=0, atol=bound)


def test_one_kernel_each_way_and_no_synchronization(gpu):
    m = torch.randn(1000, 3, 3, device=gpu, requires_grad=True)
    w = torch.randn_like(m)
    torch.autograd.grad(svdrot.special_orthogonalize(m), m, w)  # compiles
    torch.cuda.synchronize()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that it is a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            r = svdrot.special_orthogonalize(m)
            torch.autograd.grad(r, m, w)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    launched = [event.name for event in profile.events() if event.device_type.name == "CUDA"]
    assert len(launched) == 2


def test_one_kernel_each_way_for_small_matrices(gpu):
    m = torch.eye(16, device=gpu) + 0.01 * torch.randn(100, 16, 16, device=gpu)
    m.requires_grad_()
    w = torch.randn_like(m)
    torch.autograd.grad(svdrot.special_orthogonalize(m), m, w)  # compiles
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        torch.autograd.grad(svdrot.special_orthogonalize(m), m, w)
    launched = [event.name for event in profile.events() if event.device_type.name == "CUDA"]
    assert sum("memcpy" not in name.lower() for name in launched) == 2, launched


def test_capture_in_a_cuda_graph(gpu):
    m = torch.randn(1000, 3, 3, device=gpu, requires_grad=True)
    w = torch.randn_like(m)

    def step():
        r = svdrot.special_orthogonalize(m)
        return r, *torch.autograd.grad(r, m, w)

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        step()
    side.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        m.copy_(torch.randn_like(m))
    graph.replay()
    for a, b in zip(captured, step(), strict=True):
        assert torch.equal(a, b)


def test_compiled_by_inductor_on_the_gpu(gpu):
    torch._dynamo.reset()
    m = torch.randn(100, 3, 3, device=gpu, requires_grad=True)
    w = torch.randn_like(m)
    compiled = torch.compile(svdrot.special_orthogonalize, fullgraph=True)
    r = compiled(m)
    torch.testing.assert_close(r, svdrot.special_orthogonalize(m), rtol=0, atol=1e-6)
    (a,), (b,) = (torch.autograd.grad(f(m), m, w) for f in (compiled, svdrot.special_orthogonalize))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_alignment_of_pairs_is_that_of_the_cpu(gpu, dtype):
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 5, 9000, 3, dtype=dtype, generator=generator)
    w = torch.rand(5, 9000, dtype=dtype, generator=generator)
    w[:, ::7] = 0
    results = []
    for device in ("cpu", gpu):
        leaves = [z.to(device).requires_grad_() for z in (x, x + 0.1 * noise, w)]
        fit = svdrot.registration.umeyama(*leaves)
        gradients = torch.autograd.grad((fit.rotation.square() @ fit.translation[..., None]).sum(), leaves)
        results.append(
            [z.cpu() for z in (fit.rotation, fit.translation, fit.scale, fit.residual, *gradients)]
        )
    for on_cpu, on_gpu in zip(*results, strict=True):
        torch.testing.assert_close(on_gpu, on_cpu)
