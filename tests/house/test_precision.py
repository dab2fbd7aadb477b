"""Autocast and TF32 are for networks: everything public keeps the precision of its arguments under both."""

import ast
from pathlib import Path

import pytest
import torch
from robustness.calls import Call, Campaign, tensors_in
from torch import Tensor
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

import svdrot
from svdrot import _precision
from svdrot._vectors import image, product

ROOT = Path(svdrot.__file__).parent
aten = torch.ops.aten
CALLS = (
    900  # of which a third has numbers to compare; longer: python tests/house/test_precision.py FIRST LAST
)

# Products that are meant to follow the user's settings, or whose numbers are drawn anew in every call.
EXEMPT = {
    "svdrot.nn.RotationHead.forward": "its linear layer is a part of the network",
    "svdrot.nn.RigidHead.forward": "its linear layers are a part of the network",
    **{
        f"svdrot.nn.{name}Head.forward": "its linear layer is a part of the network"
        for name in ("MatrixFisher", "Bingham", "RotationLaplace", "IsotropicGaussian")
    },
    "svdrot.polar.newton_schulz": "the bare iteration, whose products are as the caller's",
    "svdrot.optim.Muon.step": "of newton_schulz",
    "svdrot.optim.MuonEq.step": "of newton_schulz",
    "svdrot.optim.MiMuon.step": "of newton_schulz",
    "svdrot.optim.ROOT.step": "of newton_schulz",
    "svdrot.random_rotation": "takes a generator that goes on",
    "svdrot.random_rotation_within": "takes a generator that goes on",
    "svdrot.random_small_rotation": "takes a generator that goes on",
}


class TensorFloat32(TorchDispatchMode):
    """Rounds what goes into products of float32 to ten bits of fraction, as the units of a GPU do."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function in (aten.mm.default, aten.bmm.default, aten.mv.default, aten.dot.default):
            args = tuple(map(rounded, args))
        elif function in (aten.addmm.default, aten.baddbmm.default):
            args = (args[0], *map(rounded, args[1:3]), *args[3:])
        return function(*args, **(kwargs or {}))


def rounded(x: Tensor) -> Tensor:
    if x.dtype != torch.float32:
        return x
    bits = x.contiguous().view(torch.int32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


MODES = {"autocast": lambda: torch.autocast("cpu", torch.bfloat16), "tf32": TensorFloat32}


def faults(first: int, last: int) -> list[str]:
    """The calls that a mode makes more than twice as wrong as they are."""
    campaign, found = Campaign(), []
    for number in range(first, last):
        call = campaign.call(0, number)
        draw = call.draw
        good = call.spoiled is None and draw.definite and not (draw.odd or draw.mixed)
        if not good or draw.dtype.itemsize < 4 or draw.scale != 1 or call.subject.name in EXEMPT:
            continue
        try:
            plain = outcome(call)
        except (TypeError, ValueError):  # which shapes do not fit is for other tests
            continue
        for name, mode in MODES.items():
            with pytest.MonkeyPatch.context() as patch:
                if name == "tf32":  # as on a device that has it
                    patch.setattr(_precision, "is_reduced", lambda m: m.dtype == torch.float32)
                with mode():
                    reduced = outcome(call)
            if not all(map(torch.equal, plain, reduced)) and not as_exact(call, plain, reduced):
                found.append(f"{call.subject.name}, call {number}, under {name}")
    return found


def outcome(call: Call, arguments=None) -> list[Tensor]:
    torch.manual_seed(0)
    return [t.detach().nan_to_num() for t in tensors_in(call(arguments)) if t.is_floating_point()]


def as_exact(call: Call, plain: list[Tensor], reduced: list[Tensor]) -> bool:
    """Whether errors, against the call in float64, are within twice those without the mode, and rounding."""

    def doubled(value: Tensor) -> Tensor:
        return value.double() if value.is_floating_point() else value

    truth = outcome(call, _pytree.tree_map_only(Tensor, doubled, call.arguments))
    for a, b, c in zip(plain, reduced, truth, strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        if a.numel() and a.shape == c.shape:
            # Or of what float64 leaves of a number that is 0, and a square.
            rounding = max(4 * torch.finfo(a.dtype).eps * c.abs().max(), 16 * 2.0**-104)
            if (b - c).abs().max() > 2 * (a - c).abs().max() + rounding:
                return False
    return True


def test_everything_public_is_as_exact_under_autocast_and_tf32():
    assert not (found := faults(0, CALLS)), "\n".join(found)


def test_a_product_that_is_not_is_told():
    a = torch.eye(3) + 0.1 * torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    for mode in MODES.values():
        with mode():
            assert ((a @ a).float() - a.double() @ a.double()).abs().max() > 1e-4
            assert (product(a, a) - a.double() @ a.double()).abs().max() < 1e-6


@pytest.mark.parametrize("d", [1, 2, 3, 4])
@pytest.mark.parametrize("dtypes", [("float32", "float32"), ("float64", "float32"), ("bfloat16", "bfloat16")])
def test_products_and_images(d, dtypes):
    torch.manual_seed(0)
    a, b, v = torch.randn(5, 1, d, d), torch.randn(4, d, d), torch.randn(4, d)
    a, b, v = a.to(getattr(torch, dtypes[0])), *(x.to(getattr(torch, dtypes[1])) for x in (b, v))
    wide = torch.promote_types(a.dtype, b.dtype)
    eps = torch.finfo(wide).eps
    found, expected = product(a, b), a.double() @ b.double()
    assert found.dtype == wide and found.shape == (5, 4, d, d)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=4 * d * eps * expected.abs().max())
    found, expected = image(a, v), (a.double() @ v.double()[..., None])[..., 0]
    assert found.dtype == wide and found.shape == (5, 4, d)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=4 * d * eps * expected.abs().max())
    with torch.autocast("cpu", torch.bfloat16):
        assert product(a, b).dtype == torch.promote_types(wide, torch.float32)


# Files that take products by `@` and its kin, and why they may.
PRODUCTS = {
    "_formulas": "arrays of symbols",
    "_kernels/operations/iteration.py": "n x n, called in full precision, or by an optimizer that chooses",
    "_kernels/cpu/clouds.py": "numpy, which has one precision",
    "_kernels/products.py": "n x n, called in full precision",
    "_kernels/operations/any_size.py": "n x n, in full precision",
    "_kernels/operations/nearby.py": "n x n, in full precision",
    "nn/parametrizations.py": "n x n, in full precision",
    "optim/riemannian.py": "n x n, in full precision",
    "_kernels/gpu/gram.py": "a kernel that says which units it takes",
    "_kernels/gpu/tiles.py": "kernels that say which units they take",
    "_kernels/operations/pairs.py": "float64",
    "polar.py": "n x n, in full precision",
    "optim/variants.py": "float64",
    "distributions": "float64",
    "averaging/_rotation_descent.py": "float64",
    "epipolar/fits.py": "float64",
    "averaging/graphs.py": "float64",
    "averaging/rotations.py": "float64",
    "registration/clouds/neighbors.py": "float64",
    "registration/clouds/_candidates.py": "numpy",
    "registration/clouds/_finish.py": "numpy",
    "registration/clouds/_global": "numpy",
    "registration/clouds/_levels.py": "numpy",
    "registration/clouds/_starts.py": "numpy",
    "registration/pairs/robust.py": "numpy",
    "registration/clouds/icp.py": "float64",
    "registration/clouds/global_registration.py": "float64",
    "evaluation/trajectories.py": "of transforms",
    "evaluation/poses.py": "of transforms",
    "registration/pairs/_hypotheses.py": "float64",
    "averaging/_cycles.py": "float64",
    "registration/clouds/_iterations.py": "float64",
    "registration/clouds/_steps.py": "float64",
    "registration/clouds/_verdict": "float64, of numpy",
    "registration/_motions.py": "float64, of numpy",
    "registration/_uncertainty.py": "of transforms",
    "io/transforms.py": "float64",
    "conventions": "float64",
}
NAMES = {"matmul", "einsum", "bmm", "mm", "mv", "addmm", "baddbmm", "tensordot", "inner", "vecdot", "dot"}


def products_in(tree: ast.AST) -> list[int]:
    """Lines with a product that torch may take in less than the precision of its numbers."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            lines.append(node.lineno)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in NAMES:
            lines.append(node.lineno)
    return lines


def test_products_of_small_matrices_have_one_home():
    assert products_in(ast.parse("a @ b\ntorch.einsum('ij,jk', a, b)\na.mv(b)\na * b")) == [1, 2, 3]
    used = set()
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if lines := products_in(ast.parse(path.read_text())):
            allowed = {key for key in PRODUCTS if name == key or name.startswith(f"{key}/")}
            assert allowed, f"{name}:{lines[0]}: use svdrot._vectors, or say in PRODUCTS why it may."
            used |= allowed
    assert used == set(PRODUCTS), f"Nothing there any more: {set(PRODUCTS) - used}"


if __name__ == "__main__":
    import sys

    print(*faults(*map(int, sys.argv[1:3])), sep="\n")
