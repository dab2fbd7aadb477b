"""Derivatives in derivatives: every public function under every two of torch's transforms.

    PYTHONPATH=. python tests/support/nesting.py RESULT.csv [part of a name ...]  # goes on where it stopped
    PYTHONPATH=. python tests/support/nesting.py RESULT.csv --page docs/transforms.md

A function is taken along two random directions about a typical argument: of two numbers, cheap to transform.
What comes out is compared with differences of the function itself, which know nothing of torch's transforms.
"""

import csv
import itertools
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from typical import Typical, found, of_any_size

Function = Callable[[Tensor], Tensor]  # of two numbers, to any shape
ALONG = torch.tensor([0.8, -0.6], dtype=torch.float64)
NEAR = torch.tensor([[0.0, 0.0], [0.02, 0.01], [-0.01, 0.03]], dtype=torch.float64)
STEPS = [2.5e-3 * 2**k for k in range(6)]  # over the 0.1 by which sides move an argument
EPS = 2.0**-52
OPERATIONS = 100  # whose roundings add up in a value, or in a derivative of it
REFUSALS = ("projection_gap is differentiable once", "has no further derivative")  # not wrong, and said so

# Whose transforms are not what differences of the values are, and why.
NO_DERIVATIVES = {
    "svdrot.nn.ManifoldGradient.forward": "gives another direction, by its purpose",
    "svdrot.registration.icp": "chooses pairs; see test_icp.py",
    "svdrot.registration.robust_kabsch": "chooses pairs, and is differentiable in its last fit",
    "svdrot.registration.robust_umeyama": "chooses pairs, and is differentiable in its last fit",
    "svdrot.nn.RotationHead.forward": "draws its weights",
    "svdrot.nn.RigidHead.forward": "draws its weights",
    **{
        f"svdrot.nn.{name}Head.forward": "draws its weights"
        for name in ("MatrixFisher", "Bingham", "RotationLaplace", "IsotropicGaussian")
    },
    **{
        f"svdrot.distributions.{name}.fit": "has no derivative"
        for name in ("MatrixFisher", "Bingham", "IsotropicGaussian")
    },
    "svdrot.distributions.IsotropicGaussian.rsample": "draws",
    **dict.fromkeys(
        ("svdrot.se3_log", "svdrot.Transform.log"), "is not defined beside scale 1; see test_se3.py"
    ),
    **{
        f"svdrot.distributions.{name}.validated": "looks at the numbers"
        for name in ("Bingham", "MatrixFisher", "RotationLaplace")
    },
}


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


def _difference(f: Function, along: Tensor, step: float) -> Function:
    """A derivative along a direction by central differences of fourth order."""

    def quotient(s):
        values = [f(s + k * step * along) for k in (-2, -1, 1, 2)]
        return (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)

    return quotient


ENLARGED = (1 + 8 + 8 + 1) / 12  # rounding of values in a difference, over the step


def _jacobian(f: Function, step: float) -> Function:
    sides = torch.eye(2, dtype=torch.float64)
    return lambda s: torch.stack([_difference(flat(f), side, step)(s) for side in sides], -1)


def _sum(f: Function) -> Function:
    return lambda s: f(s).sum().reshape(1)


def _gradient(f: Function, step: float) -> Function:
    return lambda s: _jacobian(_sum(f), step)(s)[0]


# What transforms compute, by differences with a step; and how often they differentiate.
DIFFERENCES: dict[str, tuple[Callable[[Function, float], Function], int]] = {
    "gradient": (_gradient, 1),
    "along": (lambda f, step: _difference(f, ALONG, step), 1),
    "jacobian": (_jacobian, 1),
    "hessian": (lambda f, step: _jacobian(_gradient(f, step), step), 2),
    "batch": (lambda f, step: lambda s: torch.stack([f(s + near) for near in NEAR]), 0),
    "itself": (lambda f, step: f, 0),
}
KINDS = {
    "grad": "gradient",
    "vjp": "gradient",
    "jvp": "along",
    "dual": "along",
    "hessian": "hessian",
    "vmap": "batch",
    "compile": "itself",
} | dict.fromkeys(("jacrev", "jacfwd", "is_grads_batched", "vectorize", "vectorize forward"), "jacobian")


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

    def condition(self) -> float:
        """How much larger than those of the arguments the relative errors of values are."""
        generator, size, zero = torch.Generator().manual_seed(2), 1e-6, torch.zeros(2, dtype=torch.float64)
        value, start, changes = self(zero), self.start, []
        for _ in range(4):
            self.start = [
                t * (1 + size * torch.randn(t.shape, generator=generator)) if t.is_floating_point() else t
                for t in start
            ]
            changes.append((self(zero) - value).abs().max())
        self.start = start
        return max(1.0, float(max(changes) / size / value.abs().max()))

    def __call__(self, s: Tensor) -> Tensor:
        at = [
            t if side is None else t + s[0] * side[0] + s[1] * side[1]
            for t, side in zip(self.start, self.sides, strict=True)
        ]
        results = [r for r in self.call(*at) if r.is_floating_point()]
        # Of sines, or torch has nothing to say of second derivatives of what is linear.
        pairs = zip(self.weights, results, strict=True)
        parts = [(w * r.sin()).reshape(2, r.numel()).sum(1) for w, r in pairs]
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


class Differences:
    """What transforms of a function should give, and how far that is from certain, by differences alone."""

    def __init__(self, f: Function):
        self.f = f
        self.values: dict[tuple[float, ...], Tensor] = {}
        self.found: dict[tuple[str, ...], tuple[Tensor, float]] = {}
        self.condition = f.condition() if isinstance(f, Ray) else 1.0

    def value(self, s: Tensor) -> Tensor:
        """The function: differences of differences come back to the same points."""
        place = tuple(round(x, 9) for x in s.tolist())
        if place not in self.values:
            self.values[place] = self.f(s).detach()
        return self.values[place]

    def expected(self, *names: str) -> tuple[Tensor, float]:
        """The value of nested transforms, from the outermost inwards, and a bound of its error.

        A step leaves an error of fourth order, of which the change from twice the step is fifteen times; and
        rounding, whose size over the step to the power of the derivative is known. The best step is taken.
        """
        kinds = tuple(KINDS[name] for name in names)
        if kinds not in self.found:
            order = sum(DIFFERENCES[kind][1] for kind in kinds)
            at = [self._nested(kinds, step) for step in (STEPS if order else STEPS[:1])]
            size = self.value(torch.zeros(2, dtype=torch.float64)).abs().max()
            rounding = OPERATIONS * EPS * self.condition
            bounds = [
                float((coarse - fine).abs().max() + rounding * size * (ENLARGED / step) ** order)
                for fine, coarse, step in zip(at, at[1:] or at, STEPS, strict=False)
            ]
            best = min(range(len(bounds)), key=lambda k: bounds[k])
            # The transform rounds, too, where differences need none: of values, or of batches of them.
            self.found[kinds] = at[best], bounds[best] + float(rounding * (size + at[best].abs().max()))
        return self.found[kinds]

    def _nested(self, kinds: tuple[str, ...], step: float) -> Tensor:
        f: Function = self.value
        for kind in reversed(kinds):
            f = DIFFERENCES[kind][0](f, step)
        return f(torch.zeros(2, dtype=torch.float64)).reshape(-1)


@lru_cache(maxsize=8)
def differences(f: Function) -> Differences:
    return Differences(f)


def judged(ray: Function, *names: str) -> str:
    """`right`, an error in words, or `WRONG` with both values; of transforms from the outermost inwards."""
    transformed = ray
    for name in reversed(names):
        transformed = TRANSFORMS[name](transformed)
    torch._dynamo.reset()
    try:
        value = transformed(torch.zeros(2, dtype=torch.float64)).detach().reshape(-1)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:150] if str(error) else ''}"
    expected, bound = differences(ray).expected(*names)
    if value.numel() != expected.numel():
        return f"WRONG: {value.numel()} numbers instead of {expected.numel()}"
    error = (value - expected).abs().max()
    if error <= bound:
        return "right"
    return f"WRONG by {error:.2g}, {bound:.2g} allowed: {value.tolist()} instead of {expected.tolist()}"


PAGE = """# Derivatives in derivatives

Of how many public functions the transform of a row, applied to that of a column, is what differences of the
function itself are, of {functions} with a derivative ({rows:,} cases); the others refuse in words. None is
wrong. "52 / 52": of 52 that were asked. "-": torch does not do this pair right for a function of its own.

{table}

Refused, by how many cases:

{refused}

Not asked, since their transforms are not what differences of their values are:

{others}

`python tests/support/nesting.py RESULT.csv` makes the cases in about two hours, `--page` this page.
"""


def page(path: str) -> str:
    """What the cases in a file come to, in Markdown."""
    with Path(path).open(newline="") as file:
        rows = [row for row in csv.reader(file) if row[0].partition(" of size")[0] not in NO_DERIVATIVES]
    if wrong := [row for row in rows if row[3].startswith("WRONG")]:
        raise ValueError(f"There are wrong ones: {wrong}")
    right, made = (dict.fromkeys(itertools.product(TRANSFORMS, TRANSFORMS), 0) for _ in range(2))
    refused: dict[str, int] = {}
    for _, outer, inner, said in rows:
        made[outer, inner] += 1
        right[outer, inner] += said == "right"
        if said != "right":
            refused[said] = refused.get(said, 0) + 1
    functions = len({row[0] for row in rows})

    def cell(right: int, made: int) -> str:
        return "-" if not made else str(right) if made == functions else f"{right} / {made}"

    table = ["| | " + " | ".join(TRANSFORMS) + " |", "|---" + "|---:" * len(TRANSFORMS) + "|"]
    for outer in TRANSFORMS:
        cells = (cell(right[outer, inner], made[outer, inner]) for inner in TRANSFORMS)
        table.append(f"| {outer} | " + " | ".join(cells) + " |")
    often = sorted(refused.items(), key=lambda item: -item[1])
    return PAGE.format(
        functions=functions,
        rows=len(rows),
        table="\n".join(table),
        refused="\n".join(f"* {count}: {said}" for said, count in often),
        others="\n".join(f"* `{name}`: {why}" for name, why in NO_DERIVATIVES.items()),
    )


def main(path: str, *only: str) -> None:
    if only[:1] == ("--page",):
        Path(only[1]).write_text(page(path))
        return
    warnings.simplefilter("ignore")  # of Dynamo, of each graph that breaks
    result = Path(path)
    done = set()
    if result.exists():
        with result.open(newline="") as file:
            done = {tuple(row[:3]) for row in csv.reader(file)}
    with result.open("a", newline="") as file:
        writer = csv.writer(file)
        for title, outer, inner, ray in _cases(only):
            if (title, outer, inner) in done:
                continue
            verdict = judged(ray, outer, inner)
            writer.writerow((title, outer, inner, verdict))
            file.flush()
            if verdict != "right":
                print(title, outer, "of", inner, verdict, flush=True)


def _cases(only: tuple[str, ...]) -> Iterator[tuple[str, str, str, Ray]]:
    """Go over all functions without `compile` first, which takes seconds where the others take minutes."""
    for compiled in (False, True):
        chosen = [pair for pair in pairs() if ("compile" in pair) == compiled]
        for name in found():
            if name in NO_DERIVATIVES or (only and not any(part in name for part in only)):
                continue
            for size in (3, 4) if name in of_any_size() else (3,):
                try:
                    ray = Ray(name, size)
                except LookupError as reason:
                    print(name, reason)
                    break
                title = name if size == 3 else f"{name} of size {size}"
                yield from ((title, *pair, ray) for pair in chosen)


if __name__ == "__main__":
    main(*sys.argv[1:])
