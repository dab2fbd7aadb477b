"""What the GPU kernels compile to, checked without a GPU, and what only a GPU can show.

pytest tests/test_gpu.py --require-gpu
"""

import json
import os
import subprocess
import sys

import cases
import pytest
import torch

import svdrot
from svdrot import kernels

pytest.importorskip("triton", reason="triton comes with CUDA builds of torch, and from PyPI on Linux")

# Machine instructions at most, float32 and float64. In float32 what a multiprocessor can issue while memory
# delivers the next matrices, so that bandwidth is the limit; in float64 the measured count with some room.
INSTRUCTIONS = {
    "_project": (700, 1250),
    "_differentiate": (400, 650),
    "_measure_gap": (600, 1200),
}

# In a process of its own: Triton compiles or interprets, and decides on import.
COMPILE = """
import json, pathlib, re, subprocess, tempfile
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.backends import nvidia
from triton.compiler import ASTSource
from svdrot.kernels import gpu

cuobjdump = pathlib.Path(nvidia.__file__).parent / "bin" / "cuobjdump"
formulas = {
    gpu._project: "nearest_rotation",
    gpu._differentiate: "nearest_rotation_differential",
    gpu._measure_gap: "gap_and_derivative",
}
found = []
for kernel, formula in formulas.items():
    for dtype, name in ((torch.float32, "fp32"), (torch.float64, "fp64")):
        for capability in (80, 90):
            *arguments, function, block = kernel.arg_names
            signature = {a: {"batch": "i32", "damping": "fp32"}.get(a, "*" + name) for a in arguments}
            signature |= {function: "constexpr", block: "constexpr"}
            constants = {(len(arguments),): gpu.FORMULAS[dtype][formula], (len(arguments) + 1,): gpu.BLOCK}
            source = ASTSource(kernel, signature=signature, constexprs=constants)
            compiled = triton.compile(
                source, target=GPUTarget("cuda", capability, 32), options={"enable_fp_fusion": True}
            )
            with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
                file.write(compiled.asm["cubin"])
                file.flush()
                dump = lambda flag: subprocess.run(
                    [cuobjdump, flag, file.name], capture_output=True, text=True, check=True
                ).stdout
                code, usage = dump("-sass"), dump("-res-usage")
            found.append({
                "kernel": kernel.__name__,
                "dtype": name,
                "capability": capability,
                "instructions": len(re.findall(r"^\\s+/\\*[0-9a-f]{4,}\\*/", code, re.M)),
                "local": len(re.findall(r"\\b(?:LDL|STL)\\b", code)),
                "registers": int(re.search(r"REG:(\\d+)", usage)[1]),
                "stack": int(re.search(r"STACK:(\\d+)", usage)[1]),
            })
print(json.dumps(found))
"""


def test_kernels_compile_without_spills_and_within_their_instructions():
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 12
    for kernel in found:
        assert kernel["stack"] == kernel["local"] == 0, kernel
        single, double = INSTRUCTIONS[kernel["kernel"]]
        assert 100 < kernel["instructions"] <= (single if kernel["dtype"] == "fp32" else double), kernel
        assert kernel["registers"] <= (64 if kernel["dtype"] == "fp32" else 128), kernel


def test_a_machine_without_triton_is_told_and_still_served(monkeypatch):
    monkeypatch.setitem(sys.modules, "svdrot.kernels.gpu", None)
    monkeypatch.delattr(kernels, "gpu", raising=False)  # where an earlier test has imported it
    kernels.compiled.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="Install `triton`"):
            assert kernels.compiled("cuda") is kernels.reference
    finally:
        kernels.compiled.cache_clear()


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


def test_one_kernel_each_way_and_no_synchronisation(gpu):
    m = torch.randn(1000, 3, 3, device=gpu, requires_grad=True)
    w = torch.randn_like(m)
    torch.autograd.grad(svdrot.special_orthogonalize(m), m, w)  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            r = svdrot.special_orthogonalize(m)
            torch.autograd.grad(r, m, w)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    launched = [event.name for event in profile.events() if event.device_type.name == "CUDA"]
    assert sorted(launched) == ["_differentiate", "_project"]


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
