"""Laws of every public function, found from the public tables: derivatives in derivatives, exports.

Here each function has one transform, and each kind of derivative that the library writes by hand a share of
the pairs. The scripts `nesting` and `exports` of tests/support go over all of them.
"""

import zlib

import pytest
import torch
from exports import verdict
from nesting import NO_DERIVATIVES, REFUSALS, TRANSFORMS, Ray, judged, pairs
from typical import Typical, found, of_any_size

# Inductor and the exporters import what torch itself deprecates; torch batches some of its operations slowly.
pytestmark = pytest.mark.filterwarnings("ignore")

EAGER = [name for name in TRANSFORMS if name != "compile"]
NO_EMPTY_VMAP = (
    "select(): index 0 out of range",  # torch's own batching of `2 * x` for numbers x
    "randomness error mode",
    "data-dependent control flow",
    "has no transforms of torch.func",
)
# A pair of (function, size) for each autograd Function of the library.
KINDS = [
    ("svdrot.matrix_to_quaternion", 3),
    ("svdrot.special_orthogonalize", 3),
    ("svdrot.special_orthogonalize", 4),
    ("svdrot.orthogonalize", 4),
    ("svdrot.registration.kabsch", 3),
    ("svdrot.registration.kabsch", 4),
    ("svdrot.polar.polar_refinement", 4),
    ("svdrot.distributions.Bingham.log_prob", 3),
    ("svdrot.distributions.MatrixFisher.log_prob", 3),
    ("svdrot.distributions.RotationLaplace.log_prob", 3),
    ("svdrot.averaging.average_rotations", 3),
    ("svdrot.losses.geodesic", 3),
]


def share(name: str, many: list) -> int:
    """A place in a list that depends on the name alone, so that all places are taken by some name."""
    return zlib.crc32(name.encode()) % len(many)


@pytest.mark.parametrize("name", [name for name in found() if name not in NO_DERIVATIVES])
def test_a_derivative_of_every_function_is_that_of_differences(name):
    try:
        ray = Ray(name)
    except LookupError as reason:
        pytest.skip(str(reason))
    said = judged(ray, EAGER[share(name, EAGER)])
    assert said == "right" or any(words in said for words in REFUSALS)


@pytest.mark.parametrize(("name", "size"), KINDS)
def test_derivatives_of_derivatives_are_those_of_differences(name, size):
    ray, eager = Ray(name, size), [pair for pair in pairs() if "compile" not in pair]
    first = share(name, eager[:6])
    for pair in [("jvp", "jvp"), *eager[first::6]]:
        said = judged(ray, *pair)
        assert said == "right" or any(words in said for words in REFUSALS), pair


@pytest.mark.parametrize("pair", [("grad",), ("grad", "jvp"), ("hessian",)])
def test_an_error_of_a_millionth_shows(pair, monkeypatch):
    ray, (name, *_) = Ray("svdrot.special_orthogonalize"), pair
    right = TRANSFORMS[name]
    assert judged(ray, *pair) == "right"
    monkeypatch.setitem(TRANSFORMS, name, lambda f: lambda s: (1 + 1e-6) * right(f)(s))
    assert judged(ray, *pair).startswith("WRONG")


def test_a_compiled_map_keeps_its_tangents():
    """Compiled first without forward mode, in which the operator that stands for a map has no derivative."""
    ray = Ray("svdrot.special_orthogonalize")
    compiled = torch.compile(ray, backend="aot_eager")
    compiled(torch.zeros(2, dtype=torch.float64))
    assert judged(compiled, "dual") == "right"


@pytest.mark.parametrize("name", ["svdrot.special_orthogonalize", "svdrot.losses.geodesic"])
def test_a_transform_inside_a_compiled_function_is_right(name):
    """Dynamo leaves the transform to Python, and then comes by the functions that it calls."""
    assert judged(Ray(name), "compile", "vjp") == "right"


@pytest.mark.parametrize("name", [name for name in of_any_size() if any(Typical(name).batched)])
def test_an_empty_batch_has_empty_results_and_gradients(name):
    full = Typical(name, 4, size=4)
    tensors = [t[:0] if batched else t for t, batched in zip(full.tensors, full.batched, strict=True)]
    tensors = [t.requires_grad_() if t.is_floating_point() else t for t in tensors]
    results = full(*tensors)
    assert [r.shape for r in results] == [(0,)[: r.ndim] + r.shape[1:] for r in full(*full.tensors)]
    roots = [r.sum() for r in results if r.requires_grad]
    if roots:
        moved = [t for t in tensors if t.requires_grad]
        gradients = torch.autograd.grad(roots, moved, allow_unused=True)
        assert all(g is None or g.shape == t.shape for g, t in zip(gradients, moved, strict=True))
    dims = tuple(0 if batched else None for batched in full.batched)
    try:
        mapped = torch.vmap(lambda *t: tuple(full(*t)), dims)(*[t.detach() for t in tensors])
    except (RuntimeError, IndexError, NotImplementedError) as error:
        if not any(words in str(error) for words in NO_EMPTY_VMAP):
            raise
    else:
        assert all(len(r) == 0 for r in mapped)


def test_what_is_differentiable_once_says_so():
    ray = Ray("svdrot.projection_gap")
    assert "projection_gap is differentiable once" in judged(ray, "jvp", "jvp")


@pytest.mark.parametrize(
    ("name", "road"),
    [
        ("svdrot.matrix_to_quaternion", "strict"),
        ("svdrot.matrix_to_axis_angle", "onnx"),
        ("svdrot.matrix_to_euler", "onnx"),
        ("svdrot.log_map", "not strict"),
        ("svdrot.slerp", "not strict"),
        ("svdrot.quaternion_slerp", "onnx"),
        ("svdrot.quaternion_mean", "strict"),
        ("svdrot.rotation_between", "strict"),
        ("svdrot.matrix_to_davenport", "not strict"),
        ("svdrot.Transform.compose", "not strict"),
        ("svdrot.registration.kabsch", "not strict"),
        ("svdrot.registration.umeyama", "strict"),
        ("svdrot.losses.laplace_geodesic", "not strict"),
    ],
)
def test_exports_keep_a_dynamic_batch(name, road):
    if road == "onnx":
        pytest.importorskip("onnxscript", reason="torch exports to ONNX by onnxscript")
        pytest.importorskip("onnxruntime", reason="what is exported runs in onnxruntime")
    assert verdict(name, road) == "right"
