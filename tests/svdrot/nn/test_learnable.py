"""Rotations and poses as parameters: what a step does, what undoes it, and what is kept."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import rotation_cases
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

import svdrot
from svdrot.nn import Pose, Rotation

EPS = {dtype: torch.finfo(dtype).eps for dtype in (torch.float32, torch.float64)}
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.2, momentum=0.5),
    "adam": lambda p: torch.optim.Adam(p, lr=0.05),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.5),
    "line search": lambda p: torch.optim.LBFGS(p, line_search_fn="strong_wolfe"),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rotations(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return svdrot.random_rotation(*shape, dtype=dtype, generator=seeded(seed))


def off(rotation: Tensor) -> float:
    return (rotation.mT @ rotation - torch.eye(3, dtype=rotation.dtype)).abs().max().item()


def chordal(rotation: Tensor, truth: Tensor) -> Tensor:
    return (rotation - truth).square().sum()


def trained(module: nn.Module, optimizer: torch.optim.Optimizer, loss, steps: int) -> float:
    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    for _ in range(steps):
        optimizer.step(closure)
    return loss().item()


# LBFGS of torch 2.8 itself makes a number of a loss with a gradient.
@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_gets_there(name):
    """The chordal distance to a rotation has one minimum, and saddle points that random starts miss."""
    truth, module = rotations(6), Rotation(6, dtype=torch.float64)
    optimizer, steps = OPTIMIZERS[name](module.parameters()), 10 if "l" in name[:2] else 400
    trained(module, optimizer, lambda: chordal(module(), truth), steps)
    for group in optimizer.param_groups:  # what bounds a step bounds the last error
        group["lr"] *= 1e-4
    trained(module, optimizer, lambda: chordal(module(), truth), steps)
    assert svdrot.geodesic_distance(module(), truth).max() < 1e-4
    assert off(module()) < 4 * EPS[torch.float64]


@pytest.mark.parametrize("dtype", EPS, ids=str)
def test_a_step_is_the_exponential_of_the_gradient_whatever_was_before(dtype):
    module = Rotation(5, initial=rotations(5, dtype=dtype))
    optimizer, weights = (
        torch.optim.SGD(module.parameters(), lr=0.3),
        torch.randn(5, 3, 3, dtype=dtype, generator=seeded()),
    )
    for _ in range(20):
        optimizer.zero_grad()
        before = module()
        (before * weights).sum().backward()
        a = before.detach().mT @ weights
        gradient = svdrot.vee(a - a.mT)  # d<W, R exp(y)> / dy at 0
        assert module.turn.grad is not None
        torch.testing.assert_close(module.turn.grad, gradient, rtol=0, atol=32 * EPS[dtype])
        optimizer.step()
        expected = before.detach() @ svdrot.axis_angle_to_matrix(-0.3 * gradient)
        # the difference of tangents that have grown to some radians
        torch.testing.assert_close(module().detach(), expected, rtol=0, atol=64 * EPS[dtype])


def test_the_gradient_is_the_derivative_by_differences():
    start, weights = rotations(4), torch.randn(4, 3, 3, dtype=torch.float64, generator=seeded())
    module = Rotation(4, initial=start)
    with torch.no_grad():
        module.turn += 0.5
    (module() * weights).sum().backward()
    here, step = module().detach(), 1e-6
    for i in range(3):
        turn = step * torch.eye(3, dtype=torch.float64)[i]
        ends = [(svdrot.exp_map(here, sign * turn) * weights).sum((-2, -1)) for sign in (1, -1)]
        assert module.turn.grad is not None
        torch.testing.assert_close(
            module.turn.grad[:, i], (ends[0] - ends[1]) / (2 * step), rtol=0, atol=1e-8
        )


def test_rounding_does_not_add_up():
    module = Rotation(50, dtype=torch.float32)
    generator = seeded()
    for _ in range(20_000):
        with torch.no_grad():
            module.turn += 0.01 * torch.randn(50, 3, generator=generator)
        module()
    assert off(module().detach()) < 4 * EPS[torch.float32]


def test_a_parameter_that_is_put_back_puts_the_rotation_back():
    """Along a line, as a line search goes; in between there are forwards."""
    module = Rotation(4, initial=rotations(4))
    before, x = module().detach().clone(), module.turn.detach().clone()
    direction = torch.randn(4, 3, dtype=torch.float64, generator=seeded())
    for t in (1.0, 0.3, 2.5):
        with torch.no_grad():
            module.turn.copy_(x + t * direction)
        expected = before @ svdrot.axis_angle_to_matrix(t * direction)
        torch.testing.assert_close(module().detach(), expected, rtol=0, atol=1e-14)
    with torch.no_grad():
        module.turn.copy_(x)
    torch.testing.assert_close(module().detach(), before, rtol=0, atol=1e-14)


def test_forwards_in_between_change_nothing():
    """Gradients that add up, evaluation, forwards without gradients: the same bits."""
    found = []
    for busy in (False, True):
        module = Rotation(4, initial=rotations(4))
        optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
        truth = rotations(4, seed=1)
        for _ in range(10):
            optimizer.zero_grad()
            if busy:
                with torch.no_grad():
                    module()
                module.eval()()
                module.train()
                (chordal(module(), truth) / 2 + chordal(module(), truth) / 2).backward()
                module.state_dict()
            else:
                chordal(module(), truth).backward()
            optimizer.step()
        found.append(module().detach())
    torch.testing.assert_close(*found, rtol=0, atol=1e-14)


def test_without_gradients_nothing_is_written():
    module = Rotation(3, initial=rotations(3))
    with torch.no_grad():
        module.turn += 1.0
        module()
        assert not module.turn_before.any()
    with torch.inference_mode():
        module()
    frozen = Rotation(3).requires_grad_(False)
    assert not frozen().requires_grad


@pytest.mark.parametrize("kind", [Rotation, Pose])
def test_a_state_has_what_is_there_and_brings_it_back(kind):
    module = kind(5, dtype=torch.float64)
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    truth = svdrot.Transform.random(5, dtype=torch.float64, generator=seeded())

    def loss(module):
        found = module()
        found = found if kind is Rotation else found.matrix
        return chordal(found[..., :3, :3], truth.rotation) / 10

    loss(module).backward()
    optimizer.step()  # between a step and the next forward
    state = module.state_dict()
    assert [*state] == (["rotation"] if kind is Rotation else ["rotation", "translation"])
    state = copy.deepcopy(state)
    others = [kind(5, dtype=torch.float64), copy.deepcopy(module), pickle.loads(pickle.dumps(module))]
    others[0].load_state_dict(state)
    with torch.device("meta"):
        empty = kind(5, dtype=torch.float64)
    empty.load_state_dict(state, assign=True)
    within = nn.ModuleDict({"a": kind(5, dtype=torch.float64)})
    within.load_state_dict({f"a.{name}": value for name, value in state.items()})
    for other in (*others, empty, within["a"]):
        torch.testing.assert_close(loss(other), loss(module), rtol=0, atol=1e-13)
        loss(other).backward()


def test_quaternions_are_loaded():
    truth, module = rotations(2, 3), Rotation(2, 3, dtype=torch.float64)
    module.load_state_dict({"rotation": svdrot.matrix_to_quaternion(truth)})
    torch.testing.assert_close(module().detach(), truth, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"rotation": torch.ones(3, 3)}, "that is 2.4 from the nearest rotation"),
        ({"rotation": -torch.eye(3)}, "that is 2 from the nearest rotation"),
        ({"rotation": torch.eye(3).expand(2, 3, 3)}, "size mismatch for rotation"),
        ({"rotation": torch.zeros(5)}, "must have shape"),
        ({}, "Missing key"),
        ({"rotation": torch.eye(3), "else": torch.zeros(1)}, "Unexpected key"),
    ],
)
def test_other_states_are_refused(state, message):
    with pytest.raises(RuntimeError, match=message):
        Rotation().load_state_dict(state)


def test_half_precision_is_for_storage():
    module = Rotation(4, initial=rotations(4, dtype=torch.float32).bfloat16())
    assert module.turn.dtype == torch.float32 and off(module()) < 4 * EPS[torch.float32]
    with pytest.raises(TypeError, match="float32 or float64"):
        Rotation(dtype=torch.bfloat16)
    with pytest.raises(TypeError, match="keep the module in float32"):
        module.bfloat16()()
    with torch.no_grad():
        assert module().dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        found = Rotation(4)()
    assert found.dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"initial": torch.ones(3, 3)}, ValueError, "must hold rotations"),
        ({"initial": torch.eye(4)}, ValueError, r"must have shape \(..., 3, 3\)"),
        ({"initial": torch.eye(3).expand(2, 3, 3)}, ValueError, "must broadcast"),
        ({"initial": torch.eye(3).long()}, TypeError, "floating-point"),
    ],
)
def test_other_beginnings_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Rotation(**arguments)
    with pytest.raises(TypeError, match="whole numbers"):
        Rotation(1.5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="must be a Transform"):
        Pose(initial=torch.eye(4))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="of scale 1"):
        Pose(initial=svdrot.Transform(torch.eye(3), torch.zeros(3), torch.tensor(2.0)))


@pytest.mark.parametrize("kind", [Rotation, Pose])
def test_a_gradient_that_is_no_number_spoils_its_own_row(kind):
    module = kind(4, dtype=torch.float64)
    before = [x.detach().clone() for x in parts(module)]
    module.turn.grad = torch.zeros_like(module.turn)
    module.turn.grad[1, 0] = torch.nan
    torch.optim.SGD([module.turn], lr=1.0).step()
    for x, y in zip(parts(module), before, strict=True):
        assert x[1].isnan().any() or y.ndim == 2
        assert torch.equal(x[[0, 2, 3]], y[[0, 2, 3]])


def parts(module: nn.Module) -> list[Tensor]:
    found = module()
    return [found] if isinstance(found, Tensor) else [found.rotation, found.translation]


def test_weight_decay_does_nothing_after_a_restart():
    module = Rotation(4, initial=rotations(4))
    with torch.no_grad():
        module.turn += 1.0
    before = module().detach()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, weight_decay=0.5)
    module.turn.grad = torch.zeros_like(module.turn)
    module.restart()
    optimizer.step()
    torch.testing.assert_close(module().detach(), before, rtol=0, atol=1e-15)


def test_an_average_of_models_is_between_them():
    module = Rotation(3, initial=rotations(3))
    average = torch.optim.swa_utils.AveragedModel(module)
    average.update_parameters(module)
    turn = torch.tensor([0.0, 0.0, 0.1], dtype=torch.float64)
    first = module().detach()
    with torch.no_grad():
        module.turn += turn
    module()
    average.update_parameters(module)
    expected = svdrot.exp_map(first, turn / 2)
    torch.testing.assert_close(average().detach(), expected, rtol=0, atol=1e-12)


def test_assigned_rotations_are_there_and_what_is_learned_goes_on():
    module = Rotation(4, dtype=torch.float64)
    with torch.no_grad():
        module.turn += 1.0
    module()
    module.assign(rotations(1))
    torch.testing.assert_close(module().detach(), rotations(1).expand(4, 3, 3), rtol=0, atol=1e-15)
    pose = Pose(4, dtype=torch.float64)
    pose.assign(svdrot.Transform.random(4, dtype=torch.float64, generator=seeded()))
    truth = svdrot.Transform.random(4, dtype=torch.float64, generator=seeded())
    torch.testing.assert_close(pose().matrix, truth.matrix, rtol=0, atol=1e-15)


def test_compiled_it_trains_alike():
    truth, found = rotations(4, dtype=torch.float32), []
    for compiled in (False, True):
        module = Rotation(4)
        call = torch.compile(module, fullgraph=True) if compiled else module
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.5)
        for _ in range(5):
            optimizer.zero_grad()
            chordal(call(), truth).backward()
            optimizer.step()
        found.append(module().detach())
    torch.testing.assert_close(*found, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [Rotation, Pose])
def test_exported_it_writes_nothing(kind):
    module = kind(4, dtype=torch.float64)
    with torch.no_grad():
        module.turn += 0.5
    program = torch.export.export(module, ())
    graphs = [str(part.graph) for part in program.graph_module.modules() if isinstance(part, GraphModule)]
    assert graphs and "copy_" not in "".join(graphs)
    found = program.module()()
    values = [found] if isinstance(found, Tensor) else [found.rotation, found.translation]
    for x, y in zip(values, parts(module), strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-15)


def test_transforms_of_torch_see_the_map_itself():
    """R exp(x - x₀), with its derivative by x, and nothing written."""
    module = Rotation(4, initial=rotations(4))

    def entries(turn: Tensor) -> Tensor:
        return torch.func.functional_call(module, {"turn": turn}, ())

    turn = torch.randn(4, 3, dtype=torch.float64, generator=seeded())
    found, along = torch.func.jvp(entries, (turn,), (torch.ones_like(turn),))
    torch.testing.assert_close(found, svdrot.exp_map(module.rotation, turn).detach(), rtol=0, atol=1e-14)
    ends = [svdrot.exp_map(module.rotation, turn + s * 1e-6) for s in (1, -1)]
    torch.testing.assert_close(along, (ends[0] - ends[1]) / 2e-6, rtol=0, atol=1e-8)

    def size(turn: Tensor) -> Tensor:
        return (entries(turn) * module.rotation.detach().mT).sum()

    ends = [size(turn + s * 1e-6 * turn) for s in (1, -1)]
    along = (torch.func.grad(size)(turn) * turn).sum()
    torch.testing.assert_close(along, (ends[0] - ends[1]) / 2e-6, rtol=0, atol=1e-7)
    assert not module.turn_before.any()


@pytest.mark.parametrize("kind", [Rotation, Pose])
def test_forward_mode_writes_nothing(kind):
    module = kind(4, dtype=torch.float64)
    with torch.autograd.forward_ad.dual_level():
        turn = torch.autograd.forward_ad.make_dual(module.turn, torch.ones_like(module.turn))
        found = torch.func.functional_call(module, {"turn": turn}, ())
        found = found if kind is Rotation else found.rotation
        tangent = torch.autograd.forward_ad.unpack_dual(found).tangent
        assert torch.autograd.forward_ad.unpack_dual(module.rotation).tangent is None
    expected = svdrot.hat(torch.ones(4, 3, dtype=torch.float64))
    torch.testing.assert_close(tangent, expected, rtol=0, atol=1e-14)


def test_a_pose_steps_along_its_twist():
    start = svdrot.Transform.random(5, dtype=torch.float64, generator=seeded())
    module = Pose(5, initial=start)
    points = torch.randn(5, 10, 3, dtype=torch.float64, generator=seeded(1))
    weights = torch.randn(5, 10, 3, dtype=torch.float64, generator=seeded(2))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        before = svdrot.Transform(*(x.detach() for x in vars(module()).values()))
        twist = torch.zeros(5, 6, dtype=torch.float64, requires_grad=True)
        (before.compose(svdrot.Transform.exp(twist)).apply(points) * weights).sum().backward()
        (module().apply(points) * weights).sum().backward()
        assert twist.grad is not None and module.turn.grad is not None and module.shift.grad is not None
        found = torch.cat((module.turn.grad, module.shift.grad), -1)
        torch.testing.assert_close(found, twist.grad, rtol=0, atol=1e-12)
        optimizer.step()
        expected = before.compose(svdrot.Transform.exp(-0.1 * twist.grad))
        torch.testing.assert_close(module().matrix.detach(), expected.matrix, rtol=0, atol=1e-12)


def test_poses_are_found():
    points = torch.randn(3, 30, 3, dtype=torch.float64, generator=seeded())
    truth = svdrot.Transform.random(3, dtype=torch.float64, generator=seeded(1))
    module = Pose(3, dtype=torch.float64)
    options = {"line_search_fn": "strong_wolfe", "tolerance_grad": 0, "tolerance_change": 0}
    optimizer = torch.optim.LBFGS(module.parameters(), **options)

    def loss() -> Tensor:
        return (module().apply(points) - truth.apply(points)).square().mean()

    trained(module, optimizer, loss, 5)
    angle, length = module().distance(truth)
    assert angle.max() < 1e-6 and length.max() < 1e-6


def test_two_processes_do_as_one(tmp_path):
    worker = Path(rotation_cases.__file__).with_name("learnable_worker.py")
    processes = [
        subprocess.Popen(
            [sys.executable, str(worker), str(rank), str(tmp_path / "meeting")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
