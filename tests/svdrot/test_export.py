"""torch.compile, torch.export and ONNX: the same numbers by every road out of Python."""

from functools import partial

import pytest
import torch
from typical import Typical

import svdrot
from svdrot._formulas import projection, turns
from svdrot.engine import opaque

# Inductor and the exporters import what torch itself deprecates.
pytestmark = pytest.mark.filterwarnings("ignore")


class Model(torch.nn.Module):
    """A network that ends in the projection, with everything around it that fuses."""

    def __init__(self, n: int = 3):
        super().__init__()
        self.n = n
        self.linear = torch.nn.Linear(8, n * n)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return svdrot.special_orthogonalize(self.linear(features).unflatten(-1, (self.n, self.n)))


@pytest.fixture
def model() -> Model:
    torch._dynamo.reset()
    torch.manual_seed(0)
    return Model()


def gradients(model, features, weight) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad((model(features) * weight).sum(), tuple(model.parameters()))


def test_compiled_by_inductor_with_a_dynamic_batch(model):
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    for batch in (5, 64, 300):
        features, weight = torch.randn(batch, 8), torch.randn(batch, 3, 3)
        torch.testing.assert_close(compiled(features), model(features), rtol=0, atol=1e-6)
        for a, b in zip(
            gradients(compiled, features, weight), gradients(model, features, weight), strict=True
        ):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 2), (3, 3), (4, 4), (5, 3), (2, 3)])
def test_every_function_compiles_into_one_graph(shape):
    torch._dynamo.reset()
    functions = [svdrot.orthogonalize]
    if shape[0] == shape[1]:
        damped = partial(svdrot.special_orthogonalize, damping=1e-3)
        functions += [svdrot.special_orthogonalize, damped, svdrot.projection_gap]
    m = torch.randn(7, *shape, requires_grad=True)
    for function in functions:
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        results = [f(m) for f in (function, compiled)]
        torch.testing.assert_close(*results, rtol=0, atol=1e-6)
        weight = torch.randn_like(results[0])
        a, b = (torch.autograd.grad(r, m, weight)[0] for r in results)
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_opaque_operator_keeps_torchs_rules():
    m, t = torch.randn(2, 5, 3, 3)
    for f, x, scalars in (
        (projection.project_damped, [m.requires_grad_()], [1e-6]),
        (projection.gap, [m], []),
        (turns.geodesic_distance, [m, t.requires_grad_()], []),
    ):
        torch.library.opcheck(opaque.apply, (f.name, x, scalars))


@pytest.mark.parametrize("n", [2, 3, 4])
def test_export_is_made_of_plain_operations(n):
    model = Model(n).eval()
    program = torch.export.export(
        model, (torch.randn(5, 8),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    assert not [node for node in program.graph.nodes if "svdrot" in str(node.target)]
    for batch in (2, 5, 100):
        features = torch.randn(batch, 8)
        torch.testing.assert_close(program.module()(features), model(features), rtol=0, atol=1e-5)


def onnx_session(model, features, path, is_traced=False):
    """By the exporter of torch, or that of older torch, which traces; for a batch of any size."""
    pytest.importorskip("onnxscript", reason="torch exports to ONNX by onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime", reason="what is exported runs in onnxruntime")
    if is_traced:
        how = {"dynamo": False, "input_names": ["x"], "dynamic_axes": {"x": {0: "batch"}}}
    else:
        how = {"dynamo": True, "dynamic_shapes": ({0: torch.export.Dim("batch")},), "verbose": False}
    torch.onnx.export(model.eval(), (features,), path, **how)
    return onnxruntime.InferenceSession(path)


def run(session, value: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: value.numpy()})[0])


def test_onnxruntime_gives_the_same_rotations(tmp_path):
    session = onnx_session(
        svdrot.nn.SpecialOrthogonalize(), torch.randn(5, 3, 3), tmp_path / "projection.onnx"
    )
    generator = torch.Generator().manual_seed(0)
    for batch in (2, 64, 1000):
        m = torch.randn(batch, 3, 3, generator=generator)
        r = svdrot.special_orthogonalize(m)
        tolerance = 16 * torch.finfo(m.dtype).eps * torch.linalg.matrix_norm(m, 2) / svdrot.projection_gap(m)
        assert ((run(session, m) - r).abs() <= tolerance[:, None, None]).all()
    hard = torch.stack((torch.zeros(3, 3), torch.full((3, 3), torch.nan), -torch.eye(3), torch.ones(3, 3)))
    answers = run(session, hard)
    torch.testing.assert_close(answers[0], torch.eye(3), rtol=0, atol=1e-6)
    assert answers[1].isnan().all() and svdrot.is_rotation(answers[2:]).all()


@pytest.mark.parametrize("is_traced", [False, True], ids=("exported", "traced"))
@pytest.mark.parametrize("representation", svdrot.nn.REPRESENTATIONS)
def test_every_head_exports_to_onnx(representation, is_traced, tmp_path):
    torch.manual_seed(0)
    head = svdrot.nn.RotationHead(8, representation)
    features = torch.randn(20, 8)
    session = onnx_session(head, features[:3], tmp_path / "head.onnx", is_traced)
    torch.testing.assert_close(run(session, features), head(features).detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["icp", "nearest", "estimate_normals", "robust_kabsch"])
def test_what_is_computed_in_memory_is_not_traced(name):
    """A trace has tensors for sizes, which a kernel would take for addresses, and constants for results."""
    call = Typical(f"svdrot.registration.{name}")
    with pytest.raises(NotImplementedError, match="in memory, which"):
        torch.jit.trace(call.__call__, tuple(call.tensors), check_trace=False)
