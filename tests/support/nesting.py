"""Derivatives in derivatives: every public function under every two of torch's transforms.

    PYTHONPATH=. python tests/support/nesting.py RESULT.csv [part of a name ...]  # goes on where it stopped

A function is taken along two random directions about a typical argument: of two numbers, cheap to transform.
What comes out is compared with differences of the function itself, which know nothing of torch's transforms.
"""

import csv
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from typical import Typical, found, of_any_size

Function = Callable[[Tensor], Tensor]  # of two numbers, to any shape
ALONG = torch.tensor([0.8, -0.6], dtype=torch.float64)
NEAR = torch.tensor([[0.0, 0.0], [0.02, 0.01], [-0.01, 0.03]], dtype=torch.float64)
STEP = 2e-3
REFUSALS = ("projection_gap is differentiable once", "has no further derivative")  # not wrong, and said so


def flat(f: Function) -> Function:
    return lambda s: f(s).reshape(-1)


def _batched_gradients(f: Function) -> Function:
    def jacobian(s):
        s = s if s.requires_grad else s.clone().requires_grad_()
        value = flat(f)(s)
        each = torch.eye(len(value), dtype=value.dtype)
        (found,) = torch.autograd.grad(value, s, each, is_grads_batched=True, create_graph=True)
        return found

    return jacobian


def _vectorized(strategy: str) -> Callable[[Function], Function]:
    def transformed(f: Function) -> Function:
        options = {"strategy": strategy, "vectorize": True}
        if strategy == "reverse-mode":
            options["create_graph"] = True
        return lambda s: torch.autograd.functional.jacobian(flat(f), s, **options)

    return transformed


def _dual(f: Function) -> Function:
    def along(s):
        with torch.autograd.forward_ad.dual_level():
            value = f(torch.autograd.forward_ad.make_dual(s, ALONG.to(s)))
            tangent = torch.autograd.forward_ad.unpack_dual(value).tangent
            return torch.zeros_like(value) if tangent is None else tangent

    return along


TRANSFORMS: dict[str, Callable[[Function], Function]] = {
    "grad": lambda f: grad(lambda s: flat(f)(s).sum()),
    "vjp": lambda f: lambda s: vjp(f, s)[1](torch.ones_like(f(s)))[0],
    "jvp": lambda f: lambda s: jvp(f, (s,), (ALONG.to(s),))[1],
    "jacrev": lambda f: jacrev(flat(f)),
    "jacfwd": lambda f: jacfwd(flat(f)),
    "hessian": lambda f: hessian(lambda s: flat(f)(s).sum()),
    "vmap": lambda f: lambda s: vmap(f)(s + NEAR.to(s)),
    "is_grads_batched": _batched_gradients,
    "vectorize": _vectorized("reverse-mode"),
    "vectorize forward": _vectorized("forward-mode"),
    "dual": _dual,
    "compile": lambda f: torch.compile(f, backend="aot_eager"),
}


def _difference(f: Function, along: Tensor) -> Function:
    """A derivative along a direction by central differences of fourth order."""

    def quotient(s):
        steps = [f(s + k * STEP * along) for k in (-2, -1, 1, 2)]
        return (steps[0] - 8 * steps[1] + 8 * steps[2] - steps[3]) / (12 * STEP)

    return quotient


def _jacobian(f: Function) -> Function:
    sides = torch.eye(2, dtype=torch.float64)
    return lambda s: torch.stack([_difference(flat(f), side)(s) for side in sides], -1)


def _sum(f: Function) -> Function:
    return lambda s: f(s).sum().reshape(1)


DIFFERENCES: dict[str, Callable[[Function], Function]] = {
    "grad": lambda f: lambda s: _jacobian(_sum(f))(s)[0],
    "vjp": lambda f: lambda s: _jacobian(_sum(f))(s)[0],
    "jvp": lambda f: _difference(f, ALONG),
    "jacrev": _jacobian,
    "jacfwd": _jacobian,
    "hessian": lambda f: lambda s: _jacobian(lambda z: _jacobian(_sum(f))(z)[0])(s),
    "vmap": lambda f: lambda s: torch.stack([f(s + near) for near in NEAR]),
    "is_grads_batched": _jacobian,
    "vectorize": _jacobian,
    "vectorize forward": _jacobian,
    "dual": lambda f: _difference(f, ALONG),
    "compile": lambda f: f,
}
ORDERS = dict.fromkeys(TRANSFORMS, 1) | {"hessian": 2, "vmap": 0, "compile": 0}


class Ray:
    """A public function along two directions, as two numbers: sums of its results with random weights."""

    def __init__(self, name: str, size: int = 3):
        call = Typical(name, batch=2, size=size)
        generator = torch.Generator().manual_seed(1)
        moved = [t.is_floating_point() for t in call.tensors]
        if not any(moved):
            raise LookupError("no argument of floating point")
        self.start = call.tensors
        self.sides = [
            0.1 * torch.randn(2, *t.shape, generator=generator, dtype=torch.float64) * (t != 0) if m else None
            for t, m in zip(call.tensors, moved, strict=True)
        ]
        results = [r for r in call(*call.tensors) if r.is_floating_point()]
        if not results:
            raise LookupError("no result of floating point")
        self.weights = [torch.randn(2, *r.shape, generator=generator, dtype=torch.float64) for r in results]
        self.call = call
        if not self(torch.zeros(2, dtype=torch.float64, requires_grad=True)).requires_grad:
            raise LookupError("no derivative")

    def __call__(self, s: Tensor) -> Tensor:
        at = [
            t if side is None else t + s[0] * side[0] + s[1] * side[1]
            for t, side in zip(self.start, self.sides, strict=True)
        ]
        results = [r for r in self.call(*at) if r.is_floating_point()]
        # Of sines, or torch has nothing to say of second derivatives of what is linear.
        parts = [(w * r.sin()).flatten(1).sum(1) for w, r in zip(self.weights, results, strict=True)]
        return torch.stack(parts).sum(0)


def of_torch(s: Tensor) -> Tensor:
    """What torch alone is asked first: a pair that it does not do right for its own functions is not ours."""
    mixed = torch.stack((2 * s[0] - s[1], s[0] + s[1] + 1))
    return torch.sin(mixed) + torch.linalg.norm(s + 1) * torch.exp(s[0])


@cache
def pairs() -> list[tuple[str, str]]:
    """The pairs (outer, inner) that torch does right for functions of its own."""
    every = [(outer, inner) for outer in TRANSFORMS for inner in TRANSFORMS]
    return [pair for pair in every if judged(of_torch, *pair) == "right"]


def judged(ray: Function, *names: str) -> str:
    """`right`, an error in words, or `WRONG` with both values; of transforms from the outermost inwards."""
    s = torch.zeros(2, dtype=torch.float64)
    difference = transformed = ray
    for name in reversed(names):
        difference, transformed = DIFFERENCES[name](difference), TRANSFORMS[name](transformed)
    expected = difference(s)
    torch._dynamo.reset()
    try:
        value = transformed(s).detach()
    except Exception as error:
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:150] if str(error) else ''}"
    if value.numel() != expected.numel():
        return f"WRONG: shape {tuple(value.shape)} instead of {tuple(expected.shape)}"
    value, expected = value.reshape(-1), expected.reshape(-1)
    # Rounding of a difference is that of values over a power of the step; a fourth-order formula adds more.
    order = sum(ORDERS[name] for name in names)
    size = ray(s).abs().max() + expected.abs().max()
    # Wide, for what differences miss: a derivative that is dropped or taken twice is off by far more.
    tolerance = 4e-3 * expected.abs().max() + 1e-12 * size / STEP**order + 1e-6 * size
    if ((value - expected).abs() <= tolerance).all():
        return "right"
    return f"WRONG: {value.tolist()} instead of {expected.tolist()}"


def main(path: str, *only: str) -> None:
    result = Path(path)
    done = set()
    if result.exists():
        with result.open(newline="") as file:
            done = {tuple(row[:3]) for row in csv.reader(file)}
    with result.open("a", newline="") as file:
        writer = csv.writer(file)
        for name in found():
            if only and not any(part in name for part in only):
                continue
            for size in (3, 4) if name in of_any_size() else (3,):
                title = name if size == 3 else f"{name} of size {size}"
                try:
                    ray: Any = Ray(name, size)
                except LookupError as reason:
                    print(name, reason)
                    break
                for outer, inner in pairs():
                    if (title, outer, inner) in done:
                        continue
                    verdict = judged(ray, outer, inner)
                    writer.writerow((title, outer, inner, verdict))
                    file.flush()
                    if verdict != "right":
                        print(title, outer, "of", inner, verdict, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
