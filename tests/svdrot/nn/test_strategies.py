"""What training sees: rotations, raw matrices, or the gradient of the nearest raw numbers of a goal."""

import copy
import io

import pytest
import torch
from cases import hard_matrices

from svdrot import nn
from svdrot.metrics import chordal_distance, geodesic_distance
from svdrot.nn import manifold_gradient
from svdrot.representations import axis_angle_to_matrix, matrix_to_axis_angle
from svdrot.rotations import is_rotation, random_rotation

HEADS = [(name, strategy) for strategy, row in nn.STRATEGIES.items() for name in row.representations]
HEADS.append(("svd", "warmup"))
each_head = pytest.mark.parametrize(("representation", "strategy"), HEADS)
each_fiber = pytest.mark.parametrize("representation", manifold_gradient.FIBERS)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def made(representation, strategy, **options):
    torch.manual_seed(0)
    strategy = nn.AfterWarmup(2) if strategy == "warmup" else strategy
    return nn.RotationHead(32, representation, strategy, **options), torch.randn(6, 32)


# Strategies.


@each_head
def test_every_strategy_projects_in_eval(representation, strategy):
    head, features = made(representation, strategy)
    plain, _ = made(representation, "always")
    assert torch.equal(head.eval()(features), plain(features))


@pytest.mark.parametrize(
    ("representation", "strategy"), [("quaternion", "manifold_gradient"), ("svd", "warmup")]
)
def test_heads_with_a_strategy_export(representation, strategy):
    head, features = made(representation, strategy)
    head.eval()
    batch = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(head, (features,), dynamic_shapes=batch).module()
    torch.testing.assert_close(program(features[:3]), head(features[:3]), rtol=0, atol=1e-5)


@each_head
def test_heads_of_every_strategy_compile_and_vectorize(representation, strategy):
    head, features = made(representation, strategy)
    other = copy.deepcopy(head)
    torch._dynamo.reset()
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    weight = torch.randn(6, 3, 3, generator=seeded())
    for _ in range(4):  # through the end of a warm-up
        results = []
        for model in (head, compiled):
            model.zero_grad()
            value = model(features)
            (value * weight).sum().backward()
            results.append([value, *(parameter.grad for parameter in model.parameters())])
        torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.func.vmap(head)(features), head(features))

    def loss(x, w, buffers):
        return (torch.func.functional_call(head, buffers, x) * w).sum()

    buffers = {name: value.clone() for name, value in head.named_buffers()}
    x = features.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(x, weight, buffers), x)
    each = torch.func.vmap(torch.func.grad(loss), in_dims=(0, 0, None))(features, weight, buffers)
    torch.testing.assert_close(each, expected, rtol=1e-5, atol=1e-5)


def test_the_raw_matrix_is_what_training_sees_until_inference():
    head, features = made("svd", "inference")
    raw = head.linear(features).unflatten(-1, (3, 3))
    assert torch.equal(head(features), raw)
    assert not is_rotation(head(features)).any()
    assert is_rotation(head.eval()(features)).all()


def test_a_warmup_ends_after_its_steps_and_goes_on_from_a_checkpoint():
    head, features = made("svd", "warmup")
    raw = head.linear(features).unflatten(-1, (3, 3))
    rotation = made("svd", "always")[0](features)
    with torch.no_grad():
        assert torch.equal(head(features), raw)  # evaluation in training mode is not a step
    head.eval()(features)
    head.train()
    assert torch.equal(head(features), raw)
    saved = io.BytesIO()
    torch.save(head.state_dict(), saved)
    resumed, _ = made("svd", "warmup")
    resumed.load_state_dict(torch.load(io.BytesIO(saved.getvalue()), weights_only=True))
    for model in (head, resumed):
        assert torch.equal(model(features), raw)
        assert torch.equal(model(features), rotation)


def test_no_steps_of_warmup_are_none():
    torch.manual_seed(0)
    head = nn.RotationHead(32, "svd", nn.AfterWarmup(0))
    assert is_rotation(head(torch.randn(6, 32))).all()


@pytest.mark.parametrize("target", ["always", "inference", "manifold_gradient", "warmup"])
@pytest.mark.parametrize("source", ["always", "warmup"])
def test_checkpoints_load_into_heads_of_any_strategy(source, target):
    head, features = made("svd", source)
    head(features)
    state = head.state_dict()
    assert list(state) == ["linear.weight", "linear.bias"] + ["strategy.step"] * (source == "warmup")
    other = torch.nn.Sequential(nn.RotationHead(32, "svd", made("svd", target)[0].strategy))
    with torch.no_grad():
        other[0].linear.weight.zero_()
    result = other.load_state_dict({f"0.{name}": value for name, value in state.items()})
    assert not result.missing_keys and not result.unexpected_keys
    assert torch.equal(other.eval()(features), head.eval()(features))
    with pytest.raises(RuntimeError, match=r"linear\.bias"):  # only the strategy is lenient
        other.load_state_dict({"0.linear.weight": state["linear.weight"]})


def test_a_checkpoint_without_a_warmup_begins_it_anew():
    head, features = made("svd", "warmup")
    head(features)
    head.load_state_dict(made("svd", "always")[0].state_dict())
    assert head.strategy.step == 0
    state = made("svd", "always")[0].state_dict()
    with pytest.raises(RuntimeError, match=r"strategy\.other"):
        head.load_state_dict({**state, "strategy.other": torch.zeros(1)})


@pytest.mark.parametrize("source", ["always", "warmup"])
@pytest.mark.parametrize("target", ["always", "manifold_gradient", "warmup"])
def test_heads_without_memory_take_over_a_checkpoint(source, target):
    """As large models are loaded: made on the device `meta`, with the tensors of the checkpoint in place."""
    trained, features = made("svd", source)
    for _ in range(3):
        trained(features)
    with torch.device("meta"):
        head, _ = made("svd", target)
    result = head.load_state_dict(copy.deepcopy(trained.state_dict()), assign=True)
    assert not result.missing_keys and not result.unexpected_keys
    assert all(tensor.device == features.device for tensor in (*head.parameters(), *head.buffers()))
    if target == "warmup":
        assert head.strategy.step == (3 if source == "warmup" else 0)
    head(features).sum().backward()
    assert torch.equal(head.eval()(features), trained.eval()(features))


def test_a_warmup_that_got_memory_begins_when_it_is_reset():
    with torch.device("meta"):
        head, features = made("svd", "warmup")
        head(features)
    head.to_empty(device="cpu")
    head.strategy.step.fill_(48)  # whatever was in that memory
    for module in (head.linear, head.strategy):  # which hold tensors
        module.reset_parameters()
    assert head.strategy.step == 0
    assert not is_rotation(head(torch.randn(6, 32))).any()


def test_gradients_of_a_warmup_are_those_of_the_raw_matrix_where_the_projection_has_none():
    head, _ = made("svd", "warmup")
    for name, matrix in hard_matrices(torch.float32).items():
        raw = matrix.flatten(-2).clone().requires_grad_()
        head.strategy.step.zero_()
        for warming in (True, True, False):
            value = head.strategy(raw, "svd")
            (gradient,) = torch.autograd.grad(value.sum(), raw)
            assert gradient.isfinite().all() or name == "scale_1e-35", name
            assert not warming or (gradient == 1).all()


def test_wrong_strategies_are_named():
    with pytest.raises(ValueError, match=r"`strategy` must be one of 'always', 'inference', .*; got 'never'"):
        nn.RotationHead(8, "svd", "never")
    with pytest.raises(
        ValueError, match=r"`strategy` AtInference\(\) is for the representations 'svd'; .* is '6d'"
    ):
        nn.RotationHead(8, "6d", "inference")
    with pytest.raises(ValueError, match="`steps` must be an integer >= 0; got -1"):
        nn.AfterWarmup(-1)
    with pytest.raises(ValueError, match="`pull` must be finite and at least 0; got -1"):
        nn.ManifoldGradient(-1)
    assert "(strategy): AfterWarmup(steps=7)" in repr(nn.RotationHead(8, "svd", nn.AfterWarmup(7)))


# Heads.


@pytest.mark.parametrize("representation", nn.REPRESENTATIONS)
def test_heads_near_the_identity_start_there(representation):
    head, _ = made(representation, "always", near_identity=True)
    features = torch.randn(1000, 32, generator=seeded())
    angle = geodesic_distance(head(features), torch.eye(3))
    assert torch.rad2deg(angle).quantile(0.95) < 4
    assert angle.std() > 0  # it sees the features
    head(features).sum().backward()
    assert head.linear.weight.grad.abs().max() > 0


@each_head
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_leaves_the_head_in_float32_and_its_gradients_finite(representation, strategy, dtype):
    head, _ = made(representation, strategy)
    scales = torch.tensor([0, 1e-7, 1e-5, 1, 1e4]).repeat_interleave(4)[:, None]
    hidden = (scales * torch.randn(20, 32, generator=seeded())).requires_grad_()
    with torch.no_grad():
        head.linear.bias.zero_()
    with torch.autocast("cpu", dtype):
        value = head(hidden.to(dtype))
    assert value.dtype == torch.float32 and value.isfinite().all()
    (value * torch.arange(9.0).view(3, 3)).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())


def test_antipodal_and_degenerate_raw_numbers_are_survived():
    axis = torch.eye(3).repeat(4, 1)
    vectors = torch.cat((torch.zeros(3, 3), torch.pi * axis, -torch.pi * axis, 2 * torch.pi * axis))
    raws = {
        "axis_angle": vectors,
        "quaternion": torch.cat((torch.zeros(1, 4), torch.eye(4), -torch.eye(4))),
        "6d": torch.cat((torch.zeros(1, 6), torch.ones(1, 6), torch.tensor([[1.0, 0, 0, -2, 0, 0]]))),
        "svd": torch.cat((torch.zeros(1, 9), -torch.eye(3).view(1, 9), torch.ones(1, 9))),
        "10d": torch.cat((torch.zeros(1, 10), torch.ones(1, 10))),
    }
    for name, raw in raws.items():
        strategies = [key for key, row in nn.STRATEGIES.items() if name in row.representations]
        for strategy in strategies:
            x = raw.clone().requires_grad_()
            value = nn.STRATEGIES[strategy]()(x, name)
            (gradient,) = torch.autograd.grad((value * torch.arange(9.0).view(3, 3)).sum(), x)
            assert value.isfinite().all() and gradient.isfinite().all(), (name, strategy)


@pytest.mark.parametrize(
    ("representation", "strategy"), [("6d", "always"), ("quaternion", "manifold_gradient")]
)
def test_a_rigid_head_gives_a_rotation_and_a_translation(representation, strategy):
    torch.manual_seed(0)
    head = nn.RigidHead(32, representation, strategy, near_identity=True)
    features = torch.randn(2, 5, 32)
    rotation, translation = head(features)
    assert rotation.shape == (2, 5, 3, 3) and translation.shape == (2, 5, 3)
    (rotation.sum() + translation.sum()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())
    head.eval()
    assert translation.abs().max() < 0.1
    program = torch.export.export(head, (features,)).module()
    torch.testing.assert_close(program(features), head(features), rtol=0, atol=1e-5)
    assert is_rotation(head(features)[0]).all()
    with torch.autocast("cpu", torch.bfloat16):
        assert [value.dtype for value in head(features)] == [torch.float32] * 2


# The projective manifold gradient.


def raw_numbers(representation, dtype=torch.float64, count=40):
    return torch.randn(count, nn.REPRESENTATIONS[representation].features, dtype=dtype, generator=seeded())


def lifted(representation, x, omega):
    rotation = nn.REPRESENTATIONS[representation].to_matrix(x)
    return manifold_gradient.FIBERS[representation].lift(x, rotation, omega)


def jacobian(representation, x):
    """Of rotation vectors with respect to the raw numbers, (..., 3, features)."""
    to_matrix = nn.REPRESENTATIONS[representation].to_matrix
    at = to_matrix(x)

    def turn(x, at):
        return matrix_to_axis_angle(at.mT @ to_matrix(x))

    return torch.func.vmap(torch.func.jacrev(turn))(x, at)


def metric(representation):
    """Square roots of the weights of the raw numbers in the norm of the representation."""
    weight = torch.ones(nn.REPRESENTATIONS[representation].features, dtype=torch.float64)
    if representation == "10d":  # off-diagonal entries count twice
        weight[[1, 2, 3, 5, 6, 8]] = 2**0.5
    return weight


@each_fiber
def test_the_lift_is_the_pseudo_inverse_of_the_jacobian(representation):
    x, scale = raw_numbers(representation), metric(representation)
    omega = torch.randn(40, 3, dtype=torch.float64, generator=seeded(1))
    inverse = torch.linalg.pinv(jacobian(representation, x) / scale) / scale[:, None]
    torch.testing.assert_close(
        lifted(representation, x, omega), (inverse @ omega[..., None])[..., 0], rtol=1e-9, atol=1e-9
    )


def fiber(representation, goal):
    """A basis of the linear space of raw numbers whose rotation is `goal`, (features, k), and its metric."""
    u, v, _ = goal.unbind(-1)
    zero = torch.zeros(3, dtype=goal.dtype)
    q = nn.REPRESENTATIONS["quaternion"].from_matrix(goal)
    symmetric = [e + e.mT for e in torch.eye(9, dtype=goal.dtype).view(9, 3, 3)]
    other = torch.linalg.svd(q[None]).Vh[1:]
    pairs = [(a, b) for i, a in enumerate(other) for b in other[i:]]
    row, column = torch.triu_indices(4, 4)
    return {
        "svd": torch.stack([(goal @ s).flatten() for s in symmetric], -1),
        "6d": torch.stack((torch.cat((u, zero)), torch.cat((zero, u)), torch.cat((zero, v))), -1),
        "quaternion": q[:, None],
        "10d": torch.stack(
            [
                (torch.outer(a, b) + torch.outer(b, a))[row, column]
                for a, b in [(q, q), *pairs]  # q an eigenvector
            ],
            -1,
        ),
    }[representation]


@each_fiber
def test_it_is_the_limit_of_the_nearest_raw_numbers_of_a_goal(representation):
    """The construction of Chen et al., with their step tau to the goal and without the pull."""
    scale = metric(representation)
    for x in raw_numbers(representation, count=10):
        rotation = nn.REPRESENTATIONS[representation].to_matrix(x)
        omega = torch.randn(3, dtype=torch.float64, generator=seeded(2))
        errors = []
        for tau in (1e-2, 1e-4):
            basis = fiber(representation, rotation @ axis_angle_to_matrix(-tau * omega))
            nearest = torch.linalg.pinv(basis * scale[:, None]) @ (x * scale)
            published = (x - basis @ nearest) / tau
            errors.append((published - lifted(representation, x, omega)).norm() / x.norm())
        assert errors[1] < 1e-3 and errors[1] < errors[0] / 50  # first order in tau


@each_fiber
def test_a_step_turns_the_rotation_down_the_gradient_at_any_size_of_the_raw_numbers(representation):
    """The rotation of x - eta g turns by -eta omega; by backpropagation it would be by 1 / |x|^2 of that."""
    row = nn.REPRESENTATIONS[representation]
    x = raw_numbers(representation)
    weight = torch.randn(40, 3, 3, dtype=torch.float64, generator=seeded(3))
    for size in (1e-8, 1.0, 1e8):
        at = (size * x).requires_grad_()
        rotation = nn.ManifoldGradient(0)(at, representation)
        (gradient,) = torch.autograd.grad((rotation * weight).sum(), at)
        a = rotation.mT @ weight
        omega = torch.stack([a[..., i, j] - a[..., j, i] for i, j in ((2, 1), (0, 2), (1, 0))], -1).detach()
        moved = row.to_matrix(at.detach() - 1e-6 * gradient)
        turn = matrix_to_axis_angle(rotation.detach().mT @ moved) / 1e-6
        torch.testing.assert_close(turn, -omega, rtol=1e-3, atol=1e-3)


@each_fiber
@pytest.mark.parametrize("pull", [0.0, 0.3])
def test_any_reduction_gives_the_same_up_to_its_factor(representation, pull):
    x = raw_numbers(representation).requires_grad_()
    target = random_rotation(40, dtype=torch.float64, generator=seeded(4))

    def gradient(reduce):
        loss = chordal_distance(nn.ManifoldGradient(pull)(x, representation), target).square()
        return torch.autograd.grad(reduce(loss), x)[0]

    total = gradient(torch.sum)
    torch.testing.assert_close(gradient(torch.mean), total / 40, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient(lambda loss: 65536 * loss.mean()), total * 65536 / 40)
    weight = torch.rand(40, dtype=torch.float64, generator=seeded(5))
    torch.testing.assert_close(gradient(lambda loss: (weight * loss).sum()), weight[:, None] * total)


@each_fiber
def test_the_pull_goes_to_the_standard_numbers_and_turns_nothing(representation):
    row = nn.REPRESENTATIONS[representation]
    x = raw_numbers(representation)
    standard = manifold_gradient.FIBERS[representation].standard(x, row.to_matrix(x))
    turn = (jacobian(representation, x) @ (x - standard)[..., None])[..., 0]
    torch.testing.assert_close(turn, torch.zeros_like(turn), rtol=0, atol=1e-8)
    torch.testing.assert_close(row.to_matrix(standard), row.to_matrix(x))
    assert (standard.norm(dim=-1) > 0.9).all()


@each_fiber
@pytest.mark.parametrize("reduce", [torch.mean, torch.sum])
def test_a_head_learns_by_it(representation, reduce):
    head, features = made(representation, "manifold_gradient")
    target = random_rotation(6, generator=seeded(1))
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = chordal_distance(head(features), target).square()
        reduce(loss).backward()
        optimizer.step()
        losses.append(loss.mean().item())
    assert losses[-1] < losses[0] / 20


def test_it_is_finite_where_the_projection_is_singular_and_forward_derivatives_are_refused():
    strategy = nn.ManifoldGradient()
    for name, matrix in hard_matrices(torch.float32).items():
        x = matrix.flatten(-2).clone().requires_grad_()
        rotation = strategy(x, "svd")
        (gradient,) = torch.autograd.grad((rotation * torch.arange(9.0).view(3, 3)).sum(), x)
        assert is_rotation(rotation).all() and gradient.isfinite().all(), name
    with pytest.raises(RuntimeError, match="jvp"):
        torch.func.jvp(lambda x: strategy(x, "svd"), (torch.randn(2, 9),), (torch.randn(2, 9),))
