"""Newton-Schulz and the product of a matrix with its transpose beside cuBLAS, and Muon beside torch's."""

import torch
from torch import Tensor

import svdrot
from experiments.benchmarks._device import Call
from experiments.benchmarks._gpu import Report
from experiments.shared.timing import medians
from svdrot import optim, schedules

COST, COST_ON_CPU = 20, 6
DTYPES = ("float32", "bfloat16", "float16")
MATRICES = 8  # of a step of Muon, of each shape


def stage(report: Report) -> None:
    for part in report.each((products, iterations, steps), "parts of the iteration"):
        part(report)


def timed(report: Report, calls: dict[str, Call]) -> dict[str, float]:
    return medians(calls, report.config.device, report.sizes.rounds, report.sizes.pause)[0]


def products(report: Report) -> None:
    if not report.gpu:
        report.omit("products of a matrix with its transpose: the kernel takes a GPU")
        return
    from svdrot._kernels.gpu import gram

    for side, dtype in report.each([(s, d) for s in report.sizes.sides for d in DTYPES], "products"):
        x = (torch.randn(1, side, side, device="cuda") / side**0.5).to(getattr(torch, dtype))
        one = torch.eye(side, device="cuda", dtype=x.dtype)
        by_cublas = torch.baddbmm(one[None], x, x.mT, alpha=-1.0)
        off = (gram.gram(x, -1.0, one, 1.0) - by_cublas).abs().max().item()
        calls: dict[str, Call] = {
            "gram": lambda x=x, one=one: gram.gram(x, -1.0, one, 1.0),
            "cuBLAS": lambda x=x, one=one: torch.baddbmm(one[None], x, x.mT, alpha=-1.0),
        }
        found = timed(report, calls)
        row = {"side": side, "dtype": dtype, "gram µs": 1e6 * found["gram"]}
        row |= {"cuBLAS / gram": found["cuBLAS"] / found["gram"], "difference": off}
        report.add("1 - X Xᵀ", **row)


def by_products(x: Tensor) -> Tensor:
    """Five quintic steps as Muon's authors write them, products by cuBLAS."""
    x = x / x.norm(dim=(-2, -1), keepdim=True)
    for a, b, c in schedules.KELLER_JORDAN:
        s = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(s, s, s, beta=b, alpha=c), x, beta=a)
    return x


def iterations(report: Report) -> None:
    device = report.config.device
    dtypes = DTYPES[:2] if report.gpu else DTYPES[:1]
    shapes = [(1, side, side) for side in report.sizes.sides]
    shapes += [(4, min(report.sizes.sides), 4 * min(report.sizes.sides))]
    for shape, dtype in report.each([(s, d) for s in shapes for d in dtypes], "iterations"):
        kind = getattr(torch, dtype)
        m = torch.randn(shape, device=device)

        def ours(m: Tensor = m, kind: torch.dtype = kind) -> Tensor:
            return svdrot.polar.newton_schulz(m, schedules.KELLER_JORDAN, dtype=kind)

        def theirs(m: Tensor = m, kind: torch.dtype = kind) -> Tensor:
            return by_products(m.to(kind))

        off = (ours() - theirs()).abs().max().item()
        found = timed(report, {"svdrot": ours, "cuBLAS": theirs})
        row = {"shape": "x".join(map(str, shape)), "dtype": dtype, "svdrot µs": 1e6 * found["svdrot"]}
        row |= {"cuBLAS / svdrot": found["cuBLAS"] / found["svdrot"], "difference": off}
        report.add("Newton-Schulz, five steps", **row)


def steps(report: Report) -> None:
    """Steps of optimizers with the same coefficients on the same matrices."""
    side, device = min(report.sizes.sides), report.config.device
    shapes = [(side, side), (side, 4 * side), (4 * side, side)]
    coefficients = schedules.KELLER_JORDAN[0]
    makers = {
        "svdrot": lambda p: optim.Muon(
            p, 1e-3, schedule=schedules.KELLER_JORDAN, dtype=torch.bfloat16, weight_decay=0.1
        )
    }
    if Muon := getattr(torch.optim, "Muon", None):
        makers["torch"] = lambda p: Muon(p, 1e-3, ns_coefficients=coefficients)
    calls: dict[str, Call] = {}
    for name, make in makers.items():
        generator = torch.Generator(device).manual_seed(0)
        p = [torch.nn.Parameter(torch.zeros(s, device=device)) for s in shapes for _ in range(MATRICES)]
        for each in p:
            each.grad = torch.randn(each.shape, device=device, generator=generator)
        calls[name] = make(p).step
    found = timed(report, calls)
    row = {"matrices": 3 * MATRICES, "side": side, "svdrot ms": 1e3 * found["svdrot"]}
    row["torch / svdrot"] = found["torch"] / found["svdrot"] if "torch" in found else "–"
    report.add("A step of Muon", **row)
