"""Heads give rotations from any features, in any precision, from the first step on."""

import copy
import pickle

import pytest
import torch
from torch.nn.utils.parametrize import register_parametrization

from svdrot.engine import formula
from svdrot.losses import geodesic
from svdrot.metrics import chordal_distance
from svdrot.nn import (
    REPRESENTATIONS,
    RotationHead,
    RotationLoss,
    SpecialOrthogonalize,
    add_representation,
)
from svdrot.projection import special_orthogonalize
from svdrot.representations import (
    TABLE,
    axis_angle_to_matrix,
    convert_rotation,
    quaternion_to_matrix,
    rotation_9d_to_matrix,
)
from svdrot.rotations import is_rotation, random_rotation

# torch.func and forward-mode AD import torch's own decompositions, which still call torch.jit.script (2.13).

each_representation = pytest.mark.parametrize("representation", REPRESENTATIONS)


def head_and_features(representation, batch=64):
    torch.manual_seed(0)
    return RotationHead(32, representation), torch.randn(batch, 32)


def test_the_table_has_the_representations_of_the_literature():
    features = {name: row.features for name, row in REPRESENTATIONS.items()}
    expected = {"svd": 9, "6d": 6, "quaternion": 4, "axis_angle": 3, "euler": 3, "10d": 10}
    assert features == expected | {"5d": 5, "2vec": 6, "mrp": 3}


@each_representation
def test_a_head_gives_rotations_and_finite_gradients(representation):
    head, features = head_and_features(representation)
    for scale in (0, 1e-20, 1, 1e3):  # zero features leave the bias
        head.zero_grad()
        rotation = head(scale * features)
        assert rotation.shape == (64, 3, 3)
        assert is_rotation(rotation).all(), scale
        (rotation * torch.arange(9.0).view(3, 3)).sum().backward()
        for parameter in head.parameters():
            assert parameter.grad.isfinite().all(), scale


@each_representation
@pytest.mark.parametrize("road", ["head", "loss"])
def test_a_layer_of_zeros_begins_at_the_identity_and_learns(representation, road):
    """Exactly at 0 the direction of raw numbers is undefined, and so would be its gradient: zero."""
    torch.manual_seed(0)
    truth = axis_angle_to_matrix(torch.randn(128, 3))
    hidden = torch.nn.Sequential(torch.nn.Linear(9, 64), torch.nn.ReLU())
    head, loss = RotationHead(64, representation), RotationLoss(representation, "geodesic")
    for parameter in head.parameters():
        torch.nn.init.zeros_(parameter)
    optimizer = torch.optim.Adam([*hidden.parameters(), *head.parameters()], lr=2e-3)
    losses = []
    for _ in range(300):
        features = hidden(truth.flatten(1))
        mean = (
            geodesic(head(features), truth).mean() if road == "head" else loss(head.linear(features), truth)
        )
        losses.append(mean.item())
        optimizer.zero_grad()
        mean.backward()
        optimizer.step()
    assert losses[0] == pytest.approx(geodesic(torch.eye(3), truth).mean().item(), rel=1e-4)
    assert losses[-1] < 0.3 * losses[0]


@each_representation
def test_a_head_is_a_linear_layer_and_a_map(representation):
    head, features = head_and_features(representation)
    row = REPRESENTATIONS[representation]
    assert head.linear.out_features == row.features
    assert torch.equal(head(features), row.to_matrix(head.linear(features)))
    assert [name for name, _ in head.named_parameters()] == ["linear.weight", "linear.bias"]


@each_representation
def test_a_head_learns(representation):
    """Sixty steps of Adam bring a linear head most of the way to the rotations of a few inputs."""
    head, features = head_and_features(representation, batch=8)
    target = random_rotation(8, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = chordal_distance(head(features), target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@each_representation
def test_half_precision_and_autocast(representation, dtype):
    head, features = head_and_features(representation)
    with torch.autocast("cpu", dtype):
        rotation = head(features)
    assert rotation.dtype == torch.float32
    assert is_rotation(rotation).all()  # to float32 rounding, though the raw numbers have 8 or 11 bits

    low = head.to(dtype)
    rotation = low(features.to(dtype))
    assert rotation.dtype == dtype
    assert is_rotation(rotation).all()
    raw = low.linear(features.to(dtype))
    in_float32 = REPRESENTATIONS[representation].to_matrix(raw.float())
    assert torch.equal(rotation, in_float32.to(dtype))  # rounded once, at the end


@each_representation
def test_heads_take_any_batch_shape_and_transforms(representation):
    head, features = head_and_features(representation, batch=6)
    rotation = head(features)
    torch.testing.assert_close(head(features.view(2, 3, 32)), rotation.view(2, 3, 3, 3))
    assert head(features[:0]).shape == (0, 3, 3)
    torch.testing.assert_close(torch.func.vmap(head)(features), rotation)
    jacobian = torch.func.vmap(torch.func.jacrev(head))(features)
    torch.testing.assert_close(torch.func.vmap(torch.func.jacfwd(head))(features), jacobian)


@each_representation
def test_heads_survive_copies(representation):
    head, features = head_and_features(representation)
    for other in (copy.deepcopy(head), pickle.loads(pickle.dumps(head))):
        assert torch.equal(other(features), head(features))


def test_a_head_compiles_whole():
    head, features = head_and_features("6d")
    compiled = torch.compile(head, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(features), head(features))


def test_heads_say_what_they_are():
    assert "representation='svd'" in repr(RotationHead(8, "svd"))
    with pytest.raises(ValueError, match=r"`representation` must be one of 'svd', '6d', .*; got 'matrix'\."):
        RotationHead(8, "matrix")


@pytest.mark.parametrize("damping", [None, 0.1])
def test_the_projection_layer_is_the_projection(damping):
    layer = SpecialOrthogonalize(damping)
    matrix = torch.randn(5, 3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ours, theirs = layer(matrix), special_orthogonalize(matrix, damping=damping)
    assert torch.equal(ours, theirs)
    weight = torch.arange(9.0).view(3, 3)  # damping shows in the gradient alone
    ours, theirs = (torch.autograd.grad((r * weight).sum(), matrix)[0] for r in (ours, theirs))
    assert torch.equal(ours, theirs)
    assert repr(layer) == f"SpecialOrthogonalize({'' if damping is None else 'damping=0.1'})"


def test_the_svd_head_is_the_9d_representation_and_keeps_nan_in_its_place():
    raw = torch.randn(7, 9, generator=torch.Generator().manual_seed(0))
    raw[2, 4], raw[5, 0] = torch.nan, torch.inf
    rotation = REPRESENTATIONS["svd"].to_matrix(raw)
    torch.testing.assert_close(rotation, rotation_9d_to_matrix(raw), rtol=0, atol=0, equal_nan=True)
    assert rotation.isnan().all((-2, -1)).tolist() == [False, False, True, False, False, True, False]


def test_representations_of_a_user_are_checked_and_may_be_replaced():
    def made(sign):
        @formula({"numbers": (3,)}, (3, 3), name=f"test_heads.made {sign}")
        def read(numbers):
            x, y, z = sign * numbers
            n = 1 + x * x + y * y + z * z
            return (
                (1 - 2 * (y * y + z * z) / n, 2 * (x * y - z) / n, 2 * (x * z + y) / n),
                (2 * (x * y + z) / n, 1 - 2 * (x * x + z * z) / n, 2 * (y * z - x) / n),
                (2 * (x * z - y) / n, 2 * (y * z + x) / n, 1 - 2 * (x * x + y * y) / n),
            )

        return read

    @formula({"matrix": (3, 3)}, (3,), name="test_heads.write")
    def write(m):
        k = 1 + m[0, 0] + m[1, 1] + m[2, 2]
        return (m[2, 1] - m[1, 2]) / k, (m[0, 2] - m[2, 0]) / k, (m[1, 0] - m[0, 1]) / k

    truth = random_rotation(5, generator=torch.Generator().manual_seed(0))
    numbers = write(truth)
    try:
        for sign in (1.0, -1.0):
            add_representation("signed", made(sign), write)
            turned = truth if sign > 0 else truth.mT
            for found in (
                convert_rotation(numbers, "signed", "matrix"),
                quaternion_to_matrix(convert_rotation(numbers, "signed", "quaternion")),
                REPRESENTATIONS["signed"].to_matrix(numbers),
            ):
                torch.testing.assert_close(found, turned, rtol=0, atol=1e-5)
            assert RotationLoss("signed")(numbers, turned) < 1e-3
            with pytest.raises(ValueError, match="`name` must be new; 'signed' is a representation already"):
                add_representation("signed", made(sign), write)
            del REPRESENTATIONS["signed"], TABLE["signed"]
    finally:
        REPRESENTATIONS.pop("signed", None), TABLE.pop("signed", None)
    with pytest.raises(TypeError, match=r"`write` must be a formula, made by `svdrot.engine.formula`"):
        add_representation("signed", made(1.0), lambda m: m)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"`read` must be a formula from \(n,\) to \(3, 3\)"):
        add_representation("signed", write, write)
    with pytest.raises(ValueError, match=r"`write` must be a formula from \(3, 3\) to \(3,\)"):
        add_representation("signed", made(1.0), made(1.0))
    assert "signed" not in REPRESENTATIONS and "signed" not in TABLE


# The projection as a parametrization of a weight.


def parametrized(*shape, dtype=torch.float32, damping=None):
    torch.manual_seed(0)
    layer = torch.nn.Module()
    layer.weight = torch.nn.Parameter(torch.randn(*shape, dtype=dtype))
    return layer, SpecialOrthogonalize(damping)


def defect(matrix):
    return (matrix.mT @ matrix - torch.eye(matrix.shape[-1], dtype=matrix.dtype)).abs().max()


@pytest.mark.parametrize("n", [1, 2, 3, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("batch", [(), (4,)])
def test_a_weight_that_is_a_rotation_is_kept_and_may_be_assigned(n, dtype, batch):
    layer, projection = parametrized(*batch, n, n, dtype=dtype, damping=0.1)
    eps = torch.finfo(dtype).eps
    first, second = special_orthogonalize(torch.randn(2, *batch, n, n).double()).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(first)
    free = layer.weight
    register_parametrization(layer, "weight", projection)
    assert layer.parametrizations.weight.original is free  # an optimizer that has it goes on
    torch.testing.assert_close(layer.weight.detach(), first, rtol=0, atol=4 * n * eps)

    given = second.clone()
    layer.weight = second
    torch.testing.assert_close(layer.weight.detach(), given, rtol=0, atol=4 * n * eps)
    layer.weight.sum().backward()
    torch.optim.SGD([free], 0.1).step()
    assert torch.equal(second, given)  # steps do not write to what was assigned
    assert defect(layer.weight.detach().double()) < 20 * eps * n


def test_a_weight_that_is_no_rotation_becomes_its_nearest_when_registered():
    layer, projection = parametrized(3, 3)
    raw = layer.weight.detach().clone()
    register_parametrization(layer, "weight", projection)
    assert torch.equal(layer.parametrizations.weight.original, raw)
    assert torch.equal(layer.weight, special_orthogonalize(raw))


WRONG = {
    "scaled": 2 * torch.eye(3),
    "mirror": torch.diag(torch.tensor([1.0, 1.0, -1.0])),
    "bent": torch.eye(3) + 1e-4,
    "nan": torch.full((3, 3), torch.nan),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_rotation_is_not_assigned(kind):
    layer, projection = parametrized(3, 3)
    register_parametrization(layer, "weight", projection)
    before = layer.weight.detach().clone()
    with pytest.raises(ValueError, match=r"`value` must hold rotations, .*; got .*det R = .*Assign"):
        layer.weight = WRONG[kind]
    assert torch.equal(layer.weight, before)
    with pytest.raises(ValueError, match=r"at \(1,\)"):
        projection.right_inverse(torch.stack((torch.eye(3), WRONG[kind])))


def test_what_is_no_square_matrix_is_refused_when_registered():
    with pytest.raises(ValueError, match=r"`value` must have shape \(\.\.\., n, n\).*; got \(3, 2\)"):
        register_parametrization(*(parametrized(3, 2)[0], "weight", SpecialOrthogonalize()))


def test_a_rotation_to_the_rounding_of_products_is_one():
    _, projection = parametrized(3, 3)
    chain = torch.eye(3)
    for step in special_orthogonalize(torch.randn(5, 3, 3)):
        chain = chain @ step
    torch.testing.assert_close(projection(projection.right_inverse(chain)), chain, rtol=0, atol=1e-6)


def test_a_weight_without_numbers_may_be_parametrized():
    layer = torch.nn.Linear(3, 3, device="meta")
    register_parametrization(layer, "weight", SpecialOrthogonalize())
    assert layer.weight.is_meta and layer.weight.shape == (3, 3)
