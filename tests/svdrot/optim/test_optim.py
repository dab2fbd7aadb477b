"""Muon and its relatives: what a step is, what it leaves alone, and that torch's machinery works with it."""

import copy
import inspect
import io
import math
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import toy_optimizers
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from toy_optimizers import MVR1, OPTIMIZERS, LossScaled, NorMuon

from svdrot import optim
from svdrot.optim import (
    ROOT,
    MatrixView,
    MiMuon,
    Muon,
    MuonEq,
    Stack,
    clip_outliers,
    equilibrate,
    singular_gap,
)
from svdrot.polar import newton_schulz
from svdrot.schedules import KELLER_JORDAN, POLAR_EXPRESS, SCHEDULES

# Distance of the default schedule from 1, 1.1e-5, times a step size of at most 2, plus rounding in float32.
POLAR = 5e-5
# Two orders of the same float32 operations, on entries of at most 1; measured 5e-7.
ROUNDING = 3e-6
# bfloat16 has 8 bits, and five steps that triple small singular values triple their errors: two ways to
# evaluate them come apart by this much in an entry of an orthogonal matrix; measured 0.008.
HALF = 0.02

# MiMuon's tau has a unit, MVR1 clips norms at 1, and descent is along the gradient itself.
KNOW_SCALES = {"MiMuon", "MVR1", "Descent"}

SHAPES = {"square": (12, 12), "tall": (40, 8), "wide": (8, 40), "row": (1, 9), "column": (9, 1)}


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def weights(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[Any]:
    """Parameters with gradients; Any, for checkers of types take a gradient for None."""
    params = [nn.Parameter(gaussian(*shape, seed=i).to(dtype)) for i, shape in enumerate(shapes)]
    for i, p in enumerate(params):
        p.grad = gaussian(*p.shape, seed=100 + i).to(dtype)
    return params


def stack_of(optimizer: Muon) -> Stack:
    return Stack(gaussian(1, 8, 8), gaussian(1, 8, 8), {}, optimizer.param_groups[0])


def polar(matrix: torch.Tensor) -> torch.Tensor:
    u, _, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    return (u @ vh).to(matrix.dtype)


def close(actual, expected, tolerance):
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


# What a step is.


@pytest.mark.parametrize("adjust_lr_fn", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_step_is_along_the_polar_factor_of_the_momentum(shape, nesterov, adjust_lr_fn):
    (p,) = weights(shape)
    options = {"weight_decay": 0.3, "momentum": 0.9, "nesterov": nesterov, "adjust_lr_fn": adjust_lr_fn}
    optimizer = Muon([p], 0.1, **options)
    m, n = shape
    size = max(1, m / n) ** 0.5 if adjust_lr_fn == "original" else 0.2 * max(m, n) ** 0.5
    momentum = torch.zeros(shape)
    expected = p.detach().clone()
    for seed in range(3):
        p.grad = gaussian(*shape, seed=seed) + 4 * torch.eye(
            *shape
        )  # no singular value below 1e-3 of the norm
        momentum = 0.9 * momentum + 0.1 * p.grad
        update = 0.1 * p.grad + 0.9 * momentum if nesterov else momentum
        expected = (1 - 0.1 * 0.3) * expected - 0.1 * size * polar(update)
        optimizer.step()
    close(p.detach(), expected, POLAR)


torch_has_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch 2.9 brought Muon")


@torch_has_muon
@pytest.mark.parametrize("adjust_lr_fn", [None, "original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [False, True])
def test_keller_jordan_in_bfloat16_is_the_muon_of_torch(nesterov, adjust_lr_fn):
    options = {"lr": 0.1, "momentum": 0.9, "nesterov": nesterov, "adjust_lr_fn": adjust_lr_fn}
    ours, theirs = weights(*SHAPES.values()), weights(*SHAPES.values())
    mine = Muon(ours, schedule=KELLER_JORDAN, dtype=torch.bfloat16, **options)
    torchs = torch.optim.Muon(theirs, **options)
    steps = 4
    for step in range(steps):
        for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
            p.grad = gaussian(*p.shape, seed=10 * step + i)
            q.grad = p.grad.clone()
        mine.step()
        torchs.step()
    for p, q in zip(ours, theirs, strict=True):
        size = optim.STEP_SIZES[adjust_lr_fn or "original"](*p.shape)
        close(p.detach(), q.detach(), steps * 0.1 * size * HALF)
        momentum = mine.state[p]["momentum_buffer"]
        assert torch.equal(momentum, torchs.state[q]["momentum_buffer"])


@torch_has_muon
def test_state_of_the_muon_of_torch_goes_on_here():
    ours, theirs = weights((6, 4)), weights((6, 4))
    torchs = torch.optim.Muon(theirs, lr=0.1, momentum=0.8)
    torchs.step()
    optimizer = Muon(ours, 0.5)
    optimizer.load_state_dict(torchs.state_dict())
    assert optimizer.param_groups[0]["lr"] == 0.1 and optimizer.param_groups[0]["momentum"] == 0.8
    optimizer.step()
    torchs.step()
    assert torch.equal(
        optimizer.state[ours[0]]["momentum_buffer"], torchs.state[theirs[0]]["momentum_buffer"]
    )


def state_of_torch(**options) -> dict[str, Any]:
    """As of a torch.optim.Muon of any version, which is not asked: its newest options are of newer ones."""
    group = {"lr": 0.1, "weight_decay": 0.1, "momentum": 0.8, "nesterov": True, "eps": 1e-7, "params": [0]}
    group |= {"ns_coefficients": (3.4445, -4.775, 2.0315), "ns_steps": 5, "adjust_lr_fn": None}
    return {"state": {0: {"momentum_buffer": gaussian(6, 4)}}, "param_groups": [group | options]}


def test_what_the_muon_of_torch_iterates_becomes_the_schedule():
    (p,) = weights((6, 4))
    optimizer = Muon([p], 0.5)
    optimizer.load_state_dict(state_of_torch())
    assert optimizer.param_groups[0]["schedule"] == KELLER_JORDAN
    optimizer.load_state_dict(state_of_torch(ns_coefficients=(1.5, -0.5, 0.0), ns_steps=2))
    assert optimizer.param_groups[0]["schedule"] == ((1.5, -0.5, 0.0),) * 2
    assert not optimizer.param_groups[0].keys() & {"ns_steps", "ns_coefficients", "eps"}
    p.grad = gaussian(6, 4)
    optimizer.step()


@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_step_sizes_of_newer_torch(shape):
    (p,) = weights(shape)
    optimizer = Muon([p], 1.0, weight_decay=0.0)
    state = state_of_torch(adjust_lr_fn="spectral_unclamped", weight_decay=0.0, lr=1.0)
    optimizer.load_state_dict(state | {"state": {}})
    p.grad = gaussian(*shape)
    before = p.detach().clone()
    optimizer.step()
    steps = torch.linalg.svdvals(before - p.detach())
    assert ((steps / math.sqrt(shape[0] / shape[1]) - 1).abs() < 0.4).all()  # as near as Jordan's steps come


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"adjust_lr_fn": "of_tomorrow"}, "`adjust_lr_fn` must be one of"),
        ({"eps": 1e-3}, "`eps` of a loaded group has no counterpart and must be 1e-07; got 0.001"),
        ({"amsgrad": True}, "`amsgrad` of a loaded group"),
        ({"damped": 1}, "`damped` of a loaded group is no option here; got 1"),
        ({"ns_steps": 0}, "`schedule` must be a tuple of steps"),
        ({"momentum": 1.5}, "`momentum` must be in"),
    ],
)
def test_what_cannot_be_loaded_is_refused_by_name(change, words):
    (p,) = weights((6, 4))
    optimizer = Muon([p], 0.5)
    with pytest.raises(ValueError, match=re.escape(words)):
        optimizer.load_state_dict(state_of_torch(**change))
    assert optimizer.param_groups[0]["lr"] == 0.5 and not optimizer.state


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"exp_avg": gaussian(6, 4)}, "The state `exp_avg` of parameter 0 of its group is none"),
        ({"momentum_buffer": gaussian(4, 6)}, "must have shape (6, 4); got (4, 6)"),
        ({"momentum_buffer": None}, "must have shape (6, 4); got NoneType"),
    ],
)
def test_states_that_cannot_be_loaded_are_refused_by_name(state, words):
    optimizer = Muon(weights((6, 4)), 0.5)
    with pytest.raises(ValueError, match=re.escape(words)):
        optimizer.load_state_dict(state_of_torch() | {"state": {0: state}})
    assert optimizer.param_groups[0]["lr"] == 0.5 and not optimizer.state


@pytest.mark.parametrize("name", ["nestrov", "weight_dcay", "adjust_lr", "scheduler", "beta"])
def test_misspelt_options_of_a_group_are_refused(name):
    (p,) = weights((6, 4))
    with pytest.raises(ValueError, match=f"`{name}` is no option of a parameter group; did you mean"):
        Muon([{"params": [p], name: 1}])
    assert Muon([{"params": [p], "label": "encoder", "lr_scale": 0.5}]).param_groups[0]["lr_scale"] == 0.5


@pytest.mark.filterwarnings("ignore")  # of torch.distributed.checkpoint about itself
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_checkpoints_of_torch_distributed(name, flat, tmp_path):
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

    if name == "Descent":
        pytest.skip("torch asks for a state of every parameter")
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    straight, resumed = network(), network()
    first = OPTIMIZERS[name](optim.split_parameters(straight), 0.02, momentum=0.8)
    train(straight, first, range(3))
    model, state = get_state_dict(straight, first, options=options)
    checkpoint.save({"model": model, "optimizer": state}, checkpoint_id=tmp_path)

    second = OPTIMIZERS[name](optim.split_parameters(resumed), 0.5)
    model, state = get_state_dict(resumed, second, options=options)
    found = {"model": model, "optimizer": state}
    checkpoint.load(found, checkpoint_id=tmp_path)
    set_state_dict(
        resumed, second, model_state_dict=model, optim_state_dict=found["optimizer"], options=options
    )
    train(straight, first, range(3, 5))
    train(resumed, second, range(3, 5))
    assert all(map(torch.equal, parameters(straight), parameters(resumed)))


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e10, 1e30])
@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name not in KNOW_SCALES])
def test_scale_of_the_gradients_changes_nothing(name, scale):
    plain, scaled = weights((12, 12), (5, 9)), weights((12, 12), (5, 9))
    for p in scaled:
        p.grad = p.grad * scale
    OPTIMIZERS[name](plain, 0.1).step()
    OPTIMIZERS[name](scaled, 0.1).step()
    for p, q in zip(plain, scaled, strict=True):
        close(p.detach(), q.detach(), ROUNDING)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_zero_gradient_leaves_the_weight_decay(name):
    (p,) = weights((7, 5))
    before = p.detach().clone()
    p.grad = torch.zeros(7, 5)
    OPTIMIZERS[name]([p], 0.1, weight_decay=0.5).step()
    assert torch.equal(p.detach(), (1 - 0.1 * 0.5) * before)


# Without a factor for singular values that rounding lifts above 1, "cans" is for float32.
@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, None) for name in SCHEDULES] + [(name, torch.bfloat16) for name in SCHEDULES if name != "cans"],
    ids=str,
)
def test_rank_one_gradient_is_descended(name, dtype):
    """Polynomials negative at the largest singular value would turn the step round."""
    (p,) = weights((20, 10))
    before = p.detach().clone()
    p.grad = torch.outer(gaussian(20), gaussian(10, seed=1))
    Muon([p], 1.0, weight_decay=0, schedule=SCHEDULES[name], dtype=dtype).step()
    step = before - p.detach()
    direction = p.grad / torch.linalg.matrix_norm(p.grad)
    along = (step * direction).sum()
    assert 0.6 < along / 2**0.5 < 1.4
    if dtype is None:  # Rounding, 6e-8, times the product of the first coefficients, 4e3.
        close(step, along * direction, 1e-3)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_maximize_ascends(name):
    down, up = weights((6, 4)), weights((6, 4))
    OPTIMIZERS[name](down, 0.1, weight_decay=0).step()
    OPTIMIZERS[name](up, 0.1, weight_decay=0, maximize=True).step()
    start = gaussian(6, 4)
    close(up[0].detach() - start, start - down[0].detach(), ROUNDING)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_matrix_goes_its_own_way(name):
    """Many in a call, as few in a call, or one: processes share a group out among them."""
    together, apart = weights(*[(6, 4)] * 5, (9, 3)), weights(*[(6, 4)] * 5, (9, 3))
    together[2].grad *= 1e6
    apart[2].grad *= 1e6
    OPTIMIZERS[name](together, 0.1).step()
    for p in apart:
        OPTIMIZERS[name]([p], 0.1).step()
    for p, q in zip(together, apart, strict=True):
        close(p.detach(), q.detach(), ROUNDING)


def test_parameters_of_one_shape_share_a_call(monkeypatch):
    calls = []
    direction = Muon.direction
    monkeypatch.setattr(Muon, "direction", lambda *args: calls.append(args[1].shape) or direction(*args))
    Muon(weights(*[(6, 4)] * 20, *[(8, 3)] * 10), 0.1).step()
    assert calls == [(20, 6, 4), (10, 8, 3)]
    calls.clear()
    # Beyond the cache in more than one, of which none is empty.
    Muon(weights(*[(256, 256)] * 5), 0.1).step()
    assert calls == [(2, 256, 256), (2, 256, 256), (1, 256, 256)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_other_dtypes(dtype):
    tolerance = {torch.float64: POLAR, torch.float16: 4e-3, torch.bfloat16: 3e-2}[dtype]  # their rounding
    (p,), (exact,) = weights((6, 4), dtype=dtype), weights((6, 4))
    optimizer = Muon([p], 0.1)
    optimizer.step()
    Muon([exact], 0.1).step()
    close(p.detach().float(), exact.detach(), tolerance)
    assert p.dtype == optimizer.state[p]["momentum_buffer"].dtype == dtype


@pytest.mark.skipif(not hasattr(torch.Tensor, "grad_dtype"), reason="torch 2.10 brought `grad_dtype`")
def test_gradients_in_another_dtype():
    (p,), (q,) = weights((6, 4), dtype=torch.bfloat16), weights((6, 4), dtype=torch.bfloat16)
    p.grad = None
    p.grad_dtype = torch.float32
    p.grad = q.grad.float()
    Muon([p], 0.1).step()
    Muon([q], 0.1).step()
    assert torch.equal(p, q)


def test_products_have_the_dtype_that_is_asked_for():
    (p,) = weights((8, 8))
    for dtype, exact in ((torch.bfloat16, True), (None, False)):
        optimizer = Muon([p], dtype=dtype)
        direction = optimizer.direction(gaussian(1, 8, 8), stack_of(optimizer))
        assert direction.dtype == torch.float32
        assert torch.equal(direction.bfloat16().float(), direction) == exact


@pytest.mark.parametrize("schatten", [2, 8])
def test_momenta_are_divided_by_the_norm_that_is_asked_for(schatten):
    """As a schedule shows that does nothing."""
    (p,) = weights((8, 8))
    optimizer = Muon([p], schatten=schatten, schedule=((1.0, 0.0),))
    direction = optimizer.direction(gaussian(1, 8, 8), stack_of(optimizer))
    close(torch.linalg.vector_norm(torch.linalg.svdvals(direction[0]), schatten), torch.tensor(1.0), 1e-5)


# What a step leaves alone.


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_gradients_and_momenta_are_not_written(name, maximize, nesterov, dtype):
    (p,) = weights((6, 4), dtype=dtype)
    p.grad *= 100
    gradient = p.grad.clone()
    optimizer = OPTIMIZERS[name]([p], 0.1, momentum=0.5, nesterov=nesterov, maximize=maximize)
    for _ in range(2):
        optimizer.step()
    assert torch.equal(p.grad, gradient)
    for state in optimizer.state[p].values():
        assert state.data_ptr() != p.grad.data_ptr() and state.dtype == dtype
    if type(optimizer).momentum is Muon.momentum:
        # Halves are exact: 1/2, then 3/4 of the gradient, up to a bit in 8.
        momentum = optimizer.state[p]["momentum_buffer"]
        torch.testing.assert_close(momentum, (-0.75 if maximize else 0.75) * gradient, rtol=2**-7, atol=0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parameters_without_gradient_are_left(name):
    params = weights((4, 4), (4, 4), (4,), (4,))
    params[0].grad = params[2].grad = None
    optimizer = OPTIMIZERS[name]([{"params": params[:2]}, {"params": params[2:], "algorithm": "adamw"}], 0.1)

    def stepped():
        before = [(p.detach().clone(), copy.deepcopy(optimizer.state.get(p))) for p in params]
        optimizer.step()
        return [
            not (torch.equal(p, old) and same_state(optimizer.state.get(p), state))
            for p, (old, state) in zip(params, before, strict=True)
        ]

    assert stepped() == [False, True, False, True]
    assert params[0] not in optimizer.state and params[2] not in optimizer.state
    for step in range(3):  # and if they had one before
        for p in params:
            p.grad = gaussian(*p.shape, seed=step)
        optimizer.step()
        params[1].grad = None
        assert stepped() == [True, False, True, True]


def same_state(a, b) -> bool:
    a, b = a or {}, b or {}
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# Views.

VIEWS = {
    "conv": (optim.conv, (6, 3, 2, 2), (1, 6, 12)),
    "heads": (optim.heads(3), (12, 5), (3, 4, 5)),
    "experts": (MatrixView(rows=(1,), batch=(0,)), (4, 6, 5), (4, 6, 5)),
    "transposed convolution": (MatrixView(rows=(1,)), (3, 6, 2, 2), (1, 6, 12)),
    "rows of two axes": (MatrixView(rows=(2, 0)), (3, 7, 2), (1, 6, 7)),
    "batch behind": (MatrixView(batch=(2,), parts=2), (8, 3, 5), (10, 4, 3)),
}


@pytest.mark.parametrize(("view", "shape", "viewed"), VIEWS.values(), ids=VIEWS)
def test_view_and_back(view, shape, viewed):
    stack = gaussian(2, *shape)
    assert view.shape(shape) == viewed
    matrices = view.matrices(stack)
    assert matrices.shape == (2 * viewed[0], *viewed[1:])
    assert torch.equal(view.restore(matrices, shape), stack)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("adjust_lr_fn", optim.STEP_SIZES)
@pytest.mark.parametrize(("view", "shape", "viewed"), VIEWS.values(), ids=VIEWS)
def test_step_of_a_view_is_that_of_its_matrices(view, shape, viewed, adjust_lr_fn, name):
    """The step size too, which several optimizers take from the shape of the parameter."""
    whole = weights(shape, shape)
    parts = [nn.Parameter(x.clone()) for x in view.matrices(torch.stack([p.detach() for p in whole]))]
    optimizer = OPTIMIZERS[name](whole, 0.1, view=view, adjust_lr_fn=adjust_lr_fn)
    by_part = OPTIMIZERS[name](parts, 0.1, adjust_lr_fn=adjust_lr_fn)
    for step in range(3):
        for i, p in enumerate(whole):
            p.grad = gaussian(*shape, seed=10 * step + i)
        gradients = view.matrices(torch.stack([p.grad for p in whole]))
        for part, gradient in zip(parts, gradients, strict=True):
            part.grad = gradient.clone()
        optimizer.step()
        by_part.step()
    found = view.matrices(torch.stack([p.detach() for p in whole]))
    close(found, torch.stack([part.detach() for part in parts]), ROUNDING)


def test_entries_of_a_view():
    stack = torch.arange(24).reshape(1, 4, 3, 2)
    assert torch.equal(optim.conv.matrices(stack)[0], stack[0].flatten(1))
    assert torch.equal(optim.heads(2).matrices(stack[..., 0])[1], stack[0, 2:, :, 0])
    view = MatrixView(rows=(1,), batch=(2,))
    assert torch.equal(view.matrices(stack)[1], stack[0, :, :, 1].T)


UNEQUAL = {
    "query, key and value": (MatrixView(parts=(6, 3, 3)), (12, 5), [(1, 6, 5), (2, 3, 5)]),
    "equal ones apart": (MatrixView(parts=(2, 8, 2)), (12, 5), [(2, 2, 5), (1, 8, 5)]),
    "experts": (MatrixView(rows=(3, 1), batch=(0,), parts=(5, 1)), (2, 3, 4, 2), [(2, 5, 4), (2, 1, 4)]),
}


@pytest.mark.parametrize(("view", "shape", "shapes"), UNEQUAL.values(), ids=UNEQUAL)
def test_unequal_parts_and_back(view, shape, shapes):
    stack = gaussian(2, *shape)
    assert view.shapes(shape) == shapes and view.count_shapes() == 2
    stacks = view.stacks(stack)
    assert [x.shape for x in stacks] == [(2 * k, m, n) for k, m, n in shapes]
    assert torch.equal(view.restore_stacks(stacks, shape), stack)
    for read in (lambda: view.shape(shape), lambda: view.matrices(stack)):
        with pytest.raises(ValueError, match="several shapes: use `shapes`, `stacks`, `restore_stacks`"):
            read()
    with pytest.raises(ValueError, match="makes 2 stacks; got 1"):
        view.restore(stacks[0], shape)


def test_parts_of_equal_numbers_of_rows_are_equal():
    stack = gaussian(2, 3, 12, 5)
    counted, listed = MatrixView((1,), (0,), 3), MatrixView((1,), (0,), (4, 4, 4))
    assert listed.shape((3, 12, 5)) == counted.shape((3, 12, 5))
    assert torch.equal(listed.matrices(stack), counted.matrices(stack))
    assert torch.equal(listed.restore(listed.matrices(stack), (3, 12, 5)), stack)


def split(params: list[Any], parts: tuple[int, ...]) -> list[torch.Tensor]:
    return [x for p in params for x in p.detach().split(parts)]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("adjust_lr_fn", optim.STEP_SIZES)
@pytest.mark.parametrize("parts", [(6, 3, 3), (2, 8, 2)], ids=str)
def test_step_of_unequal_parts_is_that_of_as_many_parameters(parts, adjust_lr_fn, name):
    together = weights((12, 5), (12, 5))
    apart: list[Any] = [nn.Parameter(x.clone()) for x in split(together, parts)]
    options = {"adjust_lr_fn": adjust_lr_fn, "momentum": 0.8, "maximize": adjust_lr_fn == "original"}
    optimizer = OPTIMIZERS[name](together, 0.1, view=MatrixView(parts=parts), **options)
    by_part = OPTIMIZERS[name](apart, 0.1, **options)
    for step in range(3):
        for i, p in enumerate(together):
            p.grad = gaussian(12, 5, seed=10 * step + i)
        for part, gradient in zip(apart, split([p.grad for p in together], parts), strict=True):
            part.grad = gradient.clone()
        optimizer.step()
        by_part.step()
    for found, part in zip(split(together, parts), apart, strict=True):
        close(found, part.detach(), ROUNDING)
    if name != "Descent":
        momenta = [optimizer.state[p]["momentum_buffer"] for p in together]
        for found, part in zip(split(momenta, parts), apart, strict=True):
            close(found, by_part.state[part]["momentum_buffer"], ROUNDING)


def test_states_of_unequal_parts_are_kept_for_each_shape():
    params, apart = weights((12, 5), (12, 5)), weights((6, 5), (3, 5), (3, 5))
    optimizer, by_part = NorMuon(params, 0.1, view=MatrixView(parts=(6, 3, 3))), NorMuon(apart, 0.1)
    for part, gradient in zip(apart, params[1].grad.split((6, 3, 3)), strict=True):
        part.grad = gradient.clone()
    optimizer.step()
    by_part.step()
    state = optimizer.state[params[1]]
    assert {name: (*value.shape,) for name, value in state.items()} == {
        "momentum_buffer": (12, 5),
        "row_square_6x5": (1, 6, 1),
        "row_square_3x5": (2, 3, 1),
    }
    found = torch.cat([state["row_square_6x5"].flatten(), state["row_square_3x5"].flatten()])
    close(found, torch.cat([by_part.state[p]["row_square"].flatten() for p in apart]), ROUNDING)


def test_alike_parts_of_all_parameters_share_a_call(monkeypatch):
    calls = []
    direction = Muon.direction
    monkeypatch.setattr(Muon, "direction", lambda *args: calls.append(args[1].shape) or direction(*args))
    Muon(weights((12, 5), (12, 5)), 0.1, view=MatrixView(parts=(3, 6, 3))).step()
    assert calls == [(4, 3, 5), (2, 6, 5)]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_of_unequal_parts_continues_from_a_state_dict(name):
    straight, resumed = weights((12, 5), (12, 5)), weights((12, 5), (12, 5))
    options = {"momentum": 0.8, "view": MatrixView(parts=(6, 3, 3))}
    first, second = OPTIMIZERS[name](straight, 0.1, **options), OPTIMIZERS[name](resumed, 0.5, **options)
    first.step()
    with torch.no_grad():
        for p, q in zip(straight, resumed, strict=True):
            q.copy_(p)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    first.step()
    second.step()
    assert all(map(torch.equal, straight, resumed))


@pytest.mark.parametrize(
    ("saved", "loaded", "words"),
    [
        (3, (6, 3, 3), r"`row_square` of parameter 0 of its group must have shape (12, 5); got (3, 4, 1)"),
        ((6, 3, 3), (8, 2, 2), "`row_square_6x5` of parameter 0 of its group is none of this optimizer"),
        ((6, 3, 3), 3, "`row_square_6x5` of parameter 0 of its group is none of this optimizer"),
    ],
)
def test_states_of_other_parts_are_refused(saved, loaded, words):
    optimizer = NorMuon(weights((12, 5)), 0.1, view=MatrixView(parts=saved))
    optimizer.step()
    other = NorMuon(weights((12, 5)), 0.5, view=MatrixView(parts=loaded))
    with pytest.raises(ValueError, match=re.escape(words)):
        other.load_state_dict(optimizer.state_dict())


def test_a_step_of_unequal_parts_compiles_to_one_graph():
    eager, compiled = weights((12, 5), (12, 5)), weights((12, 5), (12, 5))
    view = MatrixView(parts=(6, 3, 3))
    optimizers = [OPTIMIZERS["Mixed"](params, 0.1, view=view) for params in (eager, compiled)]
    torch._dynamo.reset()
    step = torch.compile(optimizers[1].step, backend="eager", fullgraph=True)
    for _ in range(2):
        optimizers[0].step()
        step()
    for p, q in zip(eager, compiled, strict=True):
        close(p.detach(), q.detach(), ROUNDING)


# AdamW, groups, and errors.


@pytest.mark.parametrize("maximize", [False, True])
def test_adamw_groups_are_the_adamw_of_torch(maximize):
    ours, theirs = weights((5,), (3, 2, 2)), weights((5,), (3, 2, 2))
    matrix = weights((4, 4))
    group = {"params": ours, "algorithm": "adamw", "betas": (0.8, 0.9), "eps": 1e-6, "lr": 0.02}
    mine = Muon([{"params": matrix}, group], 0.1, weight_decay=0.3, maximize=maximize)
    torchs = torch.optim.AdamW(theirs, 0.02, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.3, maximize=maximize)
    for step in range(3):
        for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
            p.grad = gaussian(*p.shape, seed=10 * step + i)
            q.grad = p.grad.clone()
        mine.step()
        torchs.step()
    for p, q in zip(ours, theirs, strict=True):
        assert torch.equal(p, q)


def test_split_parameters():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(10, 8)
            self.conv = nn.Conv1d(8, 8, 3, groups=4)
            self.up = nn.ConvTranspose1d(8, 6, 3)
            self.attention = nn.MultiheadAttention(8, 2)
            self.norm = nn.LayerNorm(8)
            self.linear = nn.Linear(8, 8)
            self.frozen = nn.Linear(8, 8).requires_grad_(False)
            self.tied = nn.Linear(8, 10, bias=False)
            self.tied.weight = self.embedding.weight
            self.head = nn.Linear(8, 3)

    network = Network()
    groups = optim.split_parameters(network, adamw=[network.head])
    named = {name: group for group in groups for name, _ in group["params"]}
    views = {name: group["view"] for name, group in named.items() if "view" in group}
    assert views == {
        "conv.weight": MatrixView(parts=4),
        "up.weight": MatrixView(rows=(1,)),
        "attention.in_proj_weight": MatrixView(parts=3),
        "attention.out_proj.weight": MatrixView(),
        "linear.weight": MatrixView(),
    }
    assert named["head.weight"]["algorithm"] == "adamw"
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert named.keys() == trained
    Muon(groups)  # each parameter once


@pytest.mark.parametrize(
    ("param", "options", "error", "words"),
    [
        (torch.zeros(4), {}, ValueError, r"`a` must be a matrix.*view.*\(4,\).*adamw"),
        (torch.zeros(4, 3, 2, 2), {}, ValueError, r"`a` must be a matrix.*\(4, 3, 2, 2\).*conv"),
        (torch.zeros(0, 3), {}, ValueError, r"`a` must not be empty.*\(0, 3\)"),
        (torch.zeros(4), {"view": optim.conv}, ValueError, r"`a`, of shape \(4,\).*columns"),
        (torch.zeros(4, 3), {"view": optim.heads(3)}, ValueError, r"`a`.*\(4, 3\).*divides the 4 rows"),
        (torch.zeros(4, 3), {"view": MatrixView(parts=(2, 1))}, ValueError, r"`a`.*of 4 together"),
        (torch.zeros(4, 3), {"view": MatrixView(parts=(4, 0))}, ValueError, r"`a`.*at least one row"),
        (torch.zeros(4, 3), {"view": MatrixView(parts=())}, ValueError, r"`a`.*at least one row"),
        (torch.zeros(4, 3), {"view": MatrixView(rows=(2,))}, ValueError, r"`a`.*different axes of 2"),
        (torch.zeros(4, 3), {"view": MatrixView(batch=(0,))}, ValueError, r"`a`.*different axes of 2"),
        (torch.zeros(4, 3, dtype=torch.int32), {}, TypeError, r"`a` must be floating point.*int32"),
        (torch.zeros(4, 3, dtype=torch.complex64), {}, TypeError, r"`a` must be floating.*complex64"),
        (torch.zeros(4, 3).to_sparse(), {}, ValueError, r"`a` must be dense.*sparse_coo"),
        (torch.zeros(4, 3), {"lr": -1.0}, ValueError, r"`lr`.*-1"),
        (torch.zeros(4, 3), {"lr": torch.ones(1)}, ValueError, r"`lr`.*\(1,\)"),
        (torch.zeros(4, 3), {"weight_decay": -1.0}, ValueError, r"`weight_decay`.*-1"),
        (torch.zeros(4, 3), {"momentum": 1.0}, ValueError, r"`momentum`.*1"),
        (torch.zeros(4, 3), {"adjust_lr_fn": "none"}, ValueError, r"`adjust_lr_fn`.*original.*'none'"),
        (torch.zeros(4, 3), {"algorithm": "sgd"}, ValueError, r"`algorithm`.*adamw.*'sgd'"),
        (torch.zeros(4, 3), {"mode": "cr"}, ValueError, r"`mode`.*'rc'.*'cr'"),
        (torch.zeros(4, 3), {"tau": -1.0}, ValueError, r"`tau`.*-1"),
        (torch.zeros(4, 3), {"quantile": 0.0}, ValueError, r"`quantile`.*0"),
        (torch.zeros(4, 3), {"beta2": 1.0}, ValueError, r"`beta2`.*1.0"),
    ],
)
def test_bad_groups_are_refused(param, options, error, words):
    good = [("b", weights((2, 2))[0])]
    kind = {"mode": "MuonEq", "tau": "MiMuon", "quantile": "ROOT", "beta2": "NorMuon"}.get(
        next(iter(options), ""), "Muon"
    )
    optimizer = OPTIMIZERS[kind](good, 0.1)
    group = {"params": [("a", nn.Parameter(param, requires_grad=param.is_floating_point()))]} | options
    with pytest.raises(error, match=words):
        optimizer.add_param_group(group)
    assert [g["param_names"] for g in optimizer.param_groups] == [["b"]]
    optimizer.step()


def test_parameters_without_names_are_told_by_their_place():
    with pytest.raises(ValueError, match="parameter 1 of its group"):
        Muon(weights((2, 2), (2,)))


@pytest.mark.parametrize("algorithm", optim.ALGORITHMS)
def test_sparse_gradients_are_refused(algorithm):
    (p,) = weights((4, 3))
    p.grad = p.grad.to_sparse()
    with pytest.raises(ValueError, match=r"parameter 0 of its group must be dense.*sparse_coo"):
        Muon([{"params": [p], "algorithm": algorithm}]).step()


# torch's machinery.


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(36, 8), nn.Linear(8, 3))


def loss(module: nn.Module, seed: int) -> torch.Tensor:
    return module(gaussian(4, 2, 5, 5, seed=seed)).square().mean()


def train(module: nn.Module, optimizer: torch.optim.Optimizer, seeds: range) -> None:
    for seed in seeds:
        optimizer.zero_grad()
        loss(module, seed).backward()
        optimizer.step()


def parameters(module: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in module.parameters()]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_continues_from_a_state_dict(name):
    straight, resumed = network(), network()
    first = OPTIMIZERS[name](optim.split_parameters(straight), 0.02, momentum=0.8)
    train(straight, first, range(3))

    file = io.BytesIO()
    torch.save({"module": straight.state_dict(), "optimizer": first.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed.load_state_dict(saved["module"])
    second = OPTIMIZERS[name](optim.split_parameters(resumed), 0.5)
    second.load_state_dict(saved["optimizer"])

    train(straight, first, range(3, 6))
    train(resumed, second, range(3, 6))
    assert all(map(torch.equal, parameters(straight), parameters(resumed)))
    assert [g.keys() for g in second.param_groups] == [g.keys() for g in first.param_groups]


MEMORY = """
import resource, sys, torch
from svdrot.optim import Muon
torch.set_num_threads(1)
number, side = map(int, sys.argv[1:])
small = [torch.nn.Parameter(torch.randn(256, 256)) for _ in range(16)]
params = [torch.nn.Parameter(torch.randn(side, side)) for _ in range(number)]
optimizer = Muon([*small, *params], schedule=((1.5, -0.5, 0.1),))
for some in (small, params):  # first what is loaded once, and a portion
    for p in some:
        p.grad = torch.ones_like(p)
        optimizer.state[p]["momentum_buffer"] = torch.ones_like(p)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    optimizer.step()
    for p in some:
        p.grad = None
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) * (1 if sys.platform == "darwin" else 1024) / (number * side**2 * 4))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the peak of memory is not asked for there")
@pytest.mark.parametrize(
    ("number", "side", "most"),
    [
        (200, 256, 0.5),  # all at once would take four times the parameters
        (1, 2048, 4.0),  # the update, the iterate and I - XᵀX, where whole steps take six times the parameter
    ],
)
def test_memory_of_a_step_on_top_of_parameters_gradients_and_momenta(number, side, most):
    command = [sys.executable, "-c", MEMORY, str(number), str(side)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < most


def test_state_of_another_model_is_refused():
    state = Muon(weights((2, 2), (3, 3))).state_dict()
    with pytest.raises(ValueError, match="size"):
        Muon(weights((2, 2))).load_state_dict(state)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_copies_are_independent(name):
    module = network()
    optimizer = OPTIMIZERS[name](optim.split_parameters(module), 0.02)
    train(module, optimizer, range(2))
    again, copied = copy.deepcopy((module, optimizer))
    train(again, copied, range(2, 4))
    train(module, optimizer, range(2, 4))
    assert all(map(torch.equal, parameters(module), parameters(again)))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_pickled_optimizers_go_on(name):
    module = network()
    optimizer = OPTIMIZERS[name](optim.split_parameters(module), 0.02)
    train(module, optimizer, range(2))
    again, copied = pickle.loads(pickle.dumps((module, optimizer)))
    train(again, copied, range(2, 4))
    train(module, optimizer, range(2, 4))
    assert all(map(torch.equal, parameters(module), parameters(again)))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_loss_falls(name):
    module = network()
    before = sum(loss(module, seed).item() for seed in range(4))
    optimizer = OPTIMIZERS[name](optim.split_parameters(module), 0.01, adjust_lr_fn="original")
    for _ in range(10):
        train(module, optimizer, range(4))
    assert sum(loss(module, seed).item() for seed in range(4)) < before / 3


def test_schedulers_reach_all_groups():
    module = network()
    optimizer = Muon(optim.split_parameters(module), 0.02)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, [0.02, 0.01], total_steps=10)
    rates = []
    for seed in range(5):
        train(module, optimizer, range(seed, seed + 1))
        scheduler.step()
        rates.append([group["lr"] for group in optimizer.param_groups])
    muon, adamw = zip(*rates, strict=True)
    assert len({*muon}) == 5
    assert muon == pytest.approx([2 * lr for lr in adamw])
    assert optimizer.param_groups[0]["momentum"] != 0.95  # which this scheduler cycles too


@pytest.mark.parametrize("of_rate", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("algorithm", optim.ALGORITHMS)
def test_a_rate_in_a_tensor_takes_effect_when_it_is_filled(algorithm, dtype, of_rate):
    filled, assigned = weights((6, 4), (3, 3), dtype=dtype), weights((6, 4), (3, 3), dtype=dtype)
    rate = torch.tensor(0.1, dtype=of_rate)
    group = {"algorithm": algorithm, "weight_decay": 0.3}
    by_tensor = Muon([{"params": filled, **group}], rate)
    by_number = Muon([{"params": assigned, **group}], 0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(by_tensor, 0.5)  # fills tensors
    for step in range(3):
        by_tensor.step()
        by_number.step()
        scheduler.step()
        assert by_tensor.param_groups[0]["lr"] is rate
        by_number.param_groups[0]["lr"] = 0.1 * 0.5 ** (step + 1)
    assert rate == torch.tensor(0.1 * 0.5**3, dtype=of_rate)
    for p, q in zip(filled, assigned, strict=True):
        close(p.detach(), q.detach(), 8 * torch.finfo(dtype if dtype.itemsize < 4 else torch.float32).eps)
    rate.zero_()
    before = [p.detach().clone() for p in filled]
    by_tensor.step()
    assert all(map(torch.equal, filled, before))


def test_adamw_groups_with_a_rate_in_a_tensor_are_the_adamw_of_torch():
    ours, theirs = weights((5,), (3, 2, 2)), weights((5,), (3, 2, 2))
    mine = Muon([{"params": ours, "algorithm": "adamw"}], torch.tensor(0.02), weight_decay=0.3)
    torchs = torch.optim.AdamW(theirs, torch.tensor(0.02), weight_decay=0.3)
    for _ in range(3):
        for optimizer in (mine, torchs):
            optimizer.step()
            optimizer.param_groups[0]["lr"].mul_(0.5)
    assert all(map(torch.equal, ours, theirs))


def test_a_rate_in_a_tensor_is_saved_and_loaded():
    first, second = Muon(weights((6, 4)), torch.tensor(0.1)), Muon(weights((6, 4)), torch.tensor(0.5))
    state = io.BytesIO()
    torch.save(first.state_dict(), state)
    state.seek(0)
    second.load_state_dict(torch.load(state, weights_only=True))
    rate = second.param_groups[0]["lr"]
    assert isinstance(rate, torch.Tensor) and rate == torch.tensor(0.1)
    with pytest.raises(ValueError, match="`lr` must be finite and not negative"):
        second.load_state_dict(
            Muon(weights((6, 4)), 0.1).state_dict()
            | {"param_groups": [first.state_dict()["param_groups"][0] | {"lr": torch.tensor(-0.1)}]}
        )
    assert second.param_groups[0]["lr"] is rate


def test_learning_rate_zero_changes_nothing():
    module = network()
    before = parameters(module)
    train(module, Muon(optim.split_parameters(module), 0.0), range(2))
    assert all(map(torch.equal, parameters(module), before))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_closure_and_accumulated_gradients(name):
    plain, closed = network(), network()
    optimizer = OPTIMIZERS[name](optim.split_parameters(plain), 0.02)
    total = loss(plain, 0) + loss(plain, 1)
    total.backward()
    optimizer.step(lambda: total)

    other = OPTIMIZERS[name](optim.split_parameters(closed), 0.02)

    def closure():
        losses = [loss(closed, 0), loss(closed, 1)]
        for value in losses:
            value.backward()
        return sum(losses)

    expected = loss(network(), 0) + loss(network(), 1)
    assert other.step(closure) == expected
    for p, q in zip(parameters(plain), parameters(closed), strict=True):
        close(p, q, ROUNDING)


def test_gradient_scaler():
    plain, scaled = network(), network()
    train(plain, Muon(optim.split_parameters(plain), 0.02), range(2))

    optimizer = Muon(optim.split_parameters(scaled), 0.02)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for seed in range(2):
        optimizer.zero_grad()
        scaler.scale(loss(scaled, seed)).backward()
        scaler.step(optimizer)
        scaler.update()
    assert all(map(torch.equal, parameters(plain), parameters(scaled)))  # powers of 2 are exact

    first = next(scaled.parameters())
    first.grad = torch.full_like(first, torch.inf)
    scaler.scale(torch.zeros(()))
    scaler.step(optimizer)
    assert all(map(torch.equal, parameters(plain), parameters(scaled)))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_step_compiles_to_one_graph(name):
    eager, compiled = network(), network()
    optimizers = [OPTIMIZERS[name](optim.split_parameters(m), torch.tensor(0.02)) for m in (eager, compiled)]
    torch._dynamo.reset()
    count = CompileCounterWithBackend("eager")
    step = torch.compile(optimizers[1].step, backend=count, fullgraph=True)
    for seed in range(4):
        train(eager, optimizers[0], range(seed, seed + 1))
        optimizers[1].zero_grad()
        loss(compiled, seed).backward()
        step()
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] *= 0.9
    assert count.frame_count <= 2  # the first step, which makes the state, and all others
    for p, q in zip(parameters(eager), parameters(compiled), strict=True):
        close(p, q, ROUNDING)


def test_two_processes_do_as_one(tmp_path):
    worker = Path(toy_optimizers.__file__).with_name("muon_worker.py")
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


# The parts, and the optimizers made of them.


def test_equilibrated_rows_and_columns_have_norm_one():
    x = gaussian(3, 8, 5) * torch.logspace(-1, 1, 8)[:, None] * torch.logspace(-0.5, 0.5, 5)
    close(equilibrate(x, "r").norm(dim=-1), torch.ones(3, 8), 1e-3)  # eps leaves a small row a little short
    close(equilibrate(x, "c").norm(dim=-2), torch.ones(3, 5), 1e-3)
    close(equilibrate(x, "r", eps=0).norm(dim=-1), torch.ones(3, 8), 1e-6)
    assert torch.equal(equilibrate(x, "c"), equilibrate(x.mT, "r").mT)


def test_eps_is_in_units_of_the_mean_sum():
    x = 1e10 * torch.tensor([[1.0, 0.0], [0.0, 5**0.5]])  # sums 1 and 5, and a third of their mean is 1
    expected = torch.tensor([1 / 2, 5 / 6]).sqrt()
    close(equilibrate(x, "r", eps=1 / 3).norm(dim=-1), expected, 1e-6)


def test_both_sums_are_of_the_matrix_that_comes_in():
    x = gaussian(8, 5)
    expected = x / x.norm(dim=-1, keepdim=True) / x.norm(dim=-2, keepdim=True)
    factor = expected.norm() / equilibrate(x, "rc").norm()
    close(equilibrate(x, "rc") * factor, expected, 1e-6)


@pytest.mark.parametrize("mode", optim.EQUILIBRATED)
def test_equilibration_at_any_scale_and_of_zeros(mode):
    x = gaussian(6, 4)
    x[2] = x[:, 1] = 0
    for scale in (1e-30, 1e30):
        close(equilibrate(scale * x, mode), equilibrate(x, mode), 1e-6)
    assert (equilibrate(x, mode)[x == 0] == 0).all()
    assert torch.equal(equilibrate(0 * x, mode), torch.zeros(6, 4))


@pytest.mark.parametrize("mode", optim.EQUILIBRATED)
def test_nan_makes_no_plausible_matrix(mode):
    x = gaussian(6, 4)
    x[1, 2] = torch.nan
    assert equilibrate(x, mode).isnan().all()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_gradient_that_is_not_finite_spoils_its_parameter_alone(name):
    good, bad = (torch.nn.Parameter(gaussian(6, 4).float()) for _ in range(2))
    optimizer = OPTIMIZERS[name]([good, bad])
    good.grad, bad.grad = gaussian(6, 4, seed=1).float(), torch.full((6, 4), torch.nan)
    for _ in range(2):
        optimizer.step()
    assert good.isfinite().all() and bad.isnan().all()
    assert all(value.isfinite().all() for value in optimizer.state[good].values())


@pytest.mark.parametrize("size", [(6, 4), (20, 20), (64, 64)], ids=str)
def test_a_momentum_that_dies_out_stays_a_number(size):
    p = torch.nn.Parameter(torch.zeros(size))
    optimizer = Muon([p], lr=0.01, momentum=0.5)
    p.grad = gaussian(*size).float()
    optimizer.step()
    p.grad = torch.zeros(size)
    for _ in range(160):  # 2^-149 is the least number of float32
        optimizer.step()
        assert p.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schatten": 3}, "`schatten` must be 2 or 8"),
        ({"schedule": ()}, "`schedule` must be a tuple of steps"),
        ({"schedule": "polar_express"}, "`schedule` must be a tuple of steps"),
        ({"schedule": lambda m, n: ()}, "`schedule` must be a tuple of steps"),
        ({"dtype": torch.int32}, "`dtype` must be floating point"),
        ({"lr": math.inf}, "`lr` must be finite"),
        ({"algorithm": "adamw", "betas": (2.0, 3.0)}, r"`betas` must be in \[0, 1\)"),
        ({"algorithm": "adamw", "eps": -1}, "`eps` must not be negative"),
    ],
)
def test_options_are_checked_before_the_first_step(options, message):
    with pytest.raises(ValueError, match=message):
        Muon([{"params": [torch.nn.Parameter(torch.zeros(3, 3))], **options}])


def test_equilibration_improves_the_condition():
    """Table of the paper's setting: log-normal rows, lesser log-normal columns."""
    x = gaussian(64, 128) * (1.5 * gaussian(64, 1, seed=1)).exp() * (0.5 * gaussian(1, 128, seed=2)).exp()
    condition = {mode: torch.linalg.cond(equilibrate(x, mode)).item() for mode in optim.EQUILIBRATED}
    assert condition["r"] < torch.linalg.cond(x) / 20
    assert condition["rc"] < condition["r"] < condition["c"]


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.99, 1.0])
def test_clipping_keeps_the_fraction_and_clamps_the_rest(quantile):
    x = gaussian(3, 20, 50) * torch.tensor([1e-20, 1.0, 1e20])[:, None, None]
    clipped = clip_outliers(x, quantile)
    assert ((clipped == x).flatten(1).double().mean(1) == quantile).all()
    largest = clipped.abs().amax((1, 2), keepdim=True)
    assert ((clipped == x) | (clipped == largest * x.sign())).all()
    assert (x.abs()[clipped != x] > largest.expand_as(x)[clipped != x]).all()


def test_clipping_helps_with_outliers_and_costs_without():
    clean = gaussian(64, 4) @ gaussian(4, 128, seed=1) / 2 + 0.3 * gaussian(64, 128, seed=2)
    hit = clean + 100 * gaussian(64, 128, seed=3) * (torch.rand(64, 128) < 0.01)

    def cosine(x):
        return (polar(x) * polar(clean)).sum().item() / 64

    assert cosine(clip_outliers(hit, 0.9)) > 2 * cosine(hit)
    assert cosine(clip_outliers(clean, 0.9)) < 0.95


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (4, 6, 6)])
def test_gap_is_that_of_the_singular_values(shape, relative):
    x = gaussian(*shape)
    s = torch.linalg.svdvals(x.double())
    expected = (s[..., :-1] - s[..., 1:]).amin(-1) / (s[..., 0] if relative else 1)
    for scale in (1e-30, 1.0, 1e30):
        gap = singular_gap(scale * x, relative)
        torch.testing.assert_close(gap.double(), expected * (1 if relative else scale), rtol=1e-5, atol=0)


def test_gap_counts_no_zeros():
    frame = polar(gaussian(6, 3))
    other = polar(gaussian(5, 3, seed=1))
    x = frame @ torch.diag(torch.tensor([3.0, 2.5, 1.0])) @ other.T
    torch.testing.assert_close(singular_gap(x), torch.tensor(0.5), rtol=1e-5, atol=0)
    assert singular_gap(x[:1]) == torch.inf
    assert singular_gap(torch.zeros(4, 4)) == torch.inf
    assert singular_gap(torch.eye(4)) == 0
    batch = torch.stack((x[:, :2], torch.full_like(x[:, :2], torch.nan), 2 * x[:, :2]))
    assert singular_gap(batch).isnan().tolist() == [False, True, False]


@pytest.mark.parametrize(
    "function", [lambda x: equilibrate(x, "r"), lambda x: clip_outliers(x, 0.5), singular_gap]
)
def test_parts_check_their_argument(function):
    with pytest.raises(ValueError, match="`matrix` must have shape"):
        function(torch.zeros(3))
    with pytest.raises(TypeError, match="`matrix` must be floating point"):
        function(torch.zeros(3, 3, dtype=torch.int64))


@pytest.mark.parametrize("nesterov", [False, True])
def test_mimuon_is_muon_at_one_end_and_momentum_descent_at_the_other(nesterov):
    shapes = ((6, 4), (8, 8), (6, 4))
    options = {"momentum": 0.5, "nesterov": nesterov, "weight_decay": 0.25}
    open_, muon, shut, descent = (weights(*shapes) for _ in range(4))
    optimizers = [
        MiMuon(open_, 0.1, tau=0, **options),
        Muon(muon, 0.1, **options),
        MiMuon(shut, 0.1, tau=float("inf"), **options),
    ]
    momenta = [torch.zeros_like(p) for p in descent]
    for step in range(3):
        for i, group in enumerate(zip(open_, muon, shut, descent, strict=True)):
            for p in group:
                p.grad = gaussian(*p.shape, seed=10 * step + i)
        for optimizer in optimizers:
            optimizer.step()
        with torch.no_grad():
            for p, m in zip(descent, momenta, strict=True):
                m.lerp_(p.grad, 0.5)
                p.mul_(1 - 0.1 * 0.25).add_(p.grad.lerp(m, 0.5) if nesterov else m, alpha=-0.1)
    assert all(map(torch.equal, open_, muon))
    assert all(map(torch.equal, shut, descent))


def test_mimuon_gates_each_matrix():
    params, muon = weights((4, 4), (4, 4)), weights((4, 4), (4, 4))
    start = [p.detach().clone() for p in params]
    for pair in (params, muon):
        pair[0].grad = torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0]))
        pair[1].grad = torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.9]))
    options = {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
    MiMuon(params, 0.1, tau=0.5, **options).step()
    Muon(muon, 0.1, **options).step()
    assert torch.equal(params[0], muon[0])
    assert torch.equal(params[1], start[1] - 0.1 * params[1].grad)


def test_fewer_steps_are_orthogonalized_as_tau_grows():
    batch = gaussian(200, 8, 8)
    batch = batch / torch.linalg.matrix_norm(batch)[:, None, None]
    shares = [(singular_gap(batch) >= tau).double().mean().item() for tau in (0, 1e-8, 1e-3, 1e-2, 1e-1, 1)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 1 and shares[-1] == 0 and len({*shares}) > 3


@pytest.mark.parametrize("mode", optim.EQUILIBRATED)
def test_muoneq_steps_along_the_polar_factor_of_the_equilibrated(mode):
    (p,) = weights((9, 6))
    start = p.detach().clone()
    MuonEq([p], 0.1, mode=mode, weight_decay=0).step()
    close(p.detach(), start - 0.1 * 0.2 * 3 * polar(equilibrate(p.grad, mode)), POLAR)


def test_root_steps_along_the_polar_factor_of_the_clipped():
    (p,) = weights((40, 10))
    p.grad[3, 4] = 1e6
    start = p.detach().clone()
    optimizer = ROOT([p], 0.1, weight_decay=0)
    optimizer.step()
    expected = start - 0.1 * 0.2 * 40**0.5 * polar(clip_outliers(p.grad, 0.9))
    close(p.detach(), expected, 2e-3)  # the schedule stops at 1e-3


def spectra() -> dict[str, torch.Tensor]:
    """Singular values of momenta: of independent entries, with a few large ones, falling, of a network."""
    g = gaussian(64, 256, seed=3)
    free = torch.linalg.svdvals(g)
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 16))
    x, y = torch.randn(512, 32), torch.randn(512, 16)
    weight, momentum = network[0].weight, torch.zeros(64, 32)
    for _ in range(20):
        (gradient,) = torch.autograd.grad((network(x) - y).square().mean(), weight)
        momentum = 0.95 * momentum + gradient
        with torch.no_grad():
            weight -= 0.1 * gradient
    return {
        "independent": free,
        "spiked": torch.cat((100 * free[:2], free[2:])),
        "power": torch.arange(1.0, 65) ** -1,
        "geometric": torch.logspace(0, -4, 64),
        "network": torch.linalg.svdvals(momentum),
    }


@pytest.mark.parametrize("name", spectra())
def test_the_schedule_of_root_takes_no_spectrum_for_granted(name):
    """Nearer to the polar factor than Jordan's five steps, of whatever falls."""
    s = spectra()[name].double()
    group = ROOT(weights((64, 256))).param_groups[0]
    diagonal = torch.diag(s)
    ours = newton_schulz(diagonal, group["schedule"], schatten=group["schatten"])
    jordan = newton_schulz(diagonal, KELLER_JORDAN)
    eye = torch.eye(len(s), dtype=torch.float64)
    assert (ours - eye).square().sum() < 0.5 * (jordan - eye).square().sum()


def test_schedules_of_shapes():
    """Asked for once per shape of a matrix; the further from square, the fewer steps."""
    asked = []

    def schedule(rows, columns):
        asked.append((rows, columns))
        return optim.shape_schedule(rows, columns)

    params = weights((8, 8), (8, 8), (8, 64), (4, 2, 4))
    optimizer = Muon(params[:3], schedule=schedule)
    optimizer.add_param_group({"params": params[3:], "view": optim.conv})
    optimizer.step()
    assert sorted(asked) == [(4, 8), (8, 8), (8, 64)]
    lengths = [len(optim.shape_schedule(8, 8 * aspect)) for aspect in (1, 2, 8, 64)]
    assert lengths == sorted(lengths, reverse=True) and lengths[-1] < lengths[0]
    assert optim.shape_schedule(8, 64) is optim.shape_schedule(64, 8)
    assert Muon(weights((8, 8))).param_groups[0]["schedule"] == POLAR_EXPRESS[:7]


def test_gaps_of_too_few_singular_values_have_a_finite_gradient():
    for matrix in (torch.zeros(2, 3), torch.ones(3, 1), torch.ones(3, 3), torch.eye(3)):
        matrix = matrix.requires_grad_()
        singular_gap(matrix).backward()
        assert matrix.grad is not None and matrix.grad.isfinite().all()


# Hooks, by toys that use public names only.


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_normuon_is_its_rule(shape, nesterov):
    """As in zichongli5/NorMuon, one matrix at a time, with the exact polar factor."""
    (p,) = weights(shape)
    m, n = shape
    lr, decay, beta, beta2 = 0.1, 0.3, 0.9, 0.8
    optimizer = NorMuon([p], lr, beta2=beta2, weight_decay=decay, momentum=beta, nesterov=nesterov)
    w, momentum, v = p.detach().clone(), torch.zeros(m, n), torch.zeros(m, 1)
    for seed in range(4):
        p.grad = gaussian(m, n, seed=seed) + 4 * torch.eye(m, n)
        momentum = momentum + (1 - beta) * (p.grad - momentum)
        o = polar(p.grad + beta * (momentum - p.grad) if nesterov else momentum)
        size = o.norm()
        v = v + (1 - beta2) * (o.square().mean(-1, keepdim=True) - v)
        o = o / (v.sqrt() + 1e-10)
        o = o * size / (o.norm() + 1e-10) * max(1, m / n) ** 0.5
        w = (1 - lr * decay) * w - lr * o
        optimizer.step()
    close(p.detach(), w, POLAR)


@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_mvr1_is_its_rule(gamma):
    """For each head of a weight; a `momentum` that is not elementwise gets matrices."""
    (p,) = weights((12, 9))
    lr, mu = 0.1, 0.6
    optimizer = MVR1([p], lr, gamma=gamma, momentum=mu, weight_decay=0, view=optim.heads(3))
    w = p.detach().clone().view(3, 4, 9)
    momentum, last = torch.zeros(3, 4, 9), torch.zeros(3, 4, 9)
    for seed in range(4):
        p.grad = (gaussian(12, 9, seed=seed) + torch.eye(4, 9).repeat(3, 1)) * torch.tensor(0.2)
        gradient = p.grad.clone().view(3, 4, 9)
        for i in range(3):
            c = gradient[i] + gamma * mu / (1 - mu) * (gradient[i] - last[i])
            c = c / max(1, c.norm())
            momentum[i] = mu * momentum[i] + (1 - mu) * c
            w[i] -= lr * polar(momentum[i])
        last = gradient
        optimizer.step()
    close(p.detach().view(3, 4, 9), w, POLAR)


def test_the_loss_of_a_closure_reaches_the_hooks():
    scaled, plain = weights((6, 4)), weights((6, 4))
    start = scaled[0].detach().clone()
    value = torch.tensor(4.0, requires_grad=True)
    optimizer = LossScaled(scaled, 0.1, weight_decay=0)
    assert optimizer.step(lambda: value) is value
    Muon(plain, 0.1, weight_decay=0).step()
    close(scaled[0].detach() - start, 2 * (plain[0].detach() - start), ROUNDING)
    seen: list[torch.Tensor] = []
    keeping = hooked(momentum=lambda self, stack: seen.append(stack.loss) or stack.gradient)
    keeping(plain).step(lambda: value)
    assert seen == [4] and not seen[0].requires_grad  # no hook keeps a graph


@pytest.mark.parametrize("toy", [NorMuon, MVR1])
def test_toys_are_short_and_use_public_names(toy):
    source = inspect.getsource(toy)
    assert source.count("\n") < 40
    assert not re.search(r"\b_[a-z]", source.replace("__init__", ""))


class Seen(Muon):
    """Muon that keeps what its hooks get."""

    momentum_state: ClassVar = Muon.momentum_state | {"row": optim.per_row, "column": optim.per_column}
    direction_state: ClassVar = {"one": optim.per_matrix, "row": optim.per_row}

    def momentum(self, stack):
        self.first = stack
        update = super().momentum(stack)
        stack.state["row"] = stack.state["row"] + 1
        stack.state["column"] += 2
        return update

    def direction(self, update, stack):
        self.second, self.update = stack, update
        _ = stack.gradient, stack.parameter
        stack.state["one"] = stack.state["one"] + stack.state["row"].mean((1, 2), keepdim=True)
        return super().direction(update, stack)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize(("view", "shape", "viewed"), VIEWS.values(), ids=VIEWS)
def test_hooks_get_all_matrices_of_a_shape(view, shape, viewed, maximize, dtype):
    params, other = weights(shape, shape, shape, dtype=dtype), weights((2, 2), dtype=dtype)
    params[1].grad = None
    group = {"params": params, "view": view}
    optimizer = Seen([{"params": other}, group], 0.1, maximize=maximize)
    k, m, n = viewed
    gradient = view.matrices(torch.stack([params[0].grad, params[2].grad])) * (-1 if maximize else 1)
    parameter = view.matrices(torch.stack([params[0], params[2]]).detach())
    optimizer.step(lambda: 3.0)
    for stack in (optimizer.first, optimizer.second):
        assert torch.equal(stack.gradient.to(dtype), gradient)
        assert torch.equal(optimizer.second.parameter.to(dtype), parameter)
        assert stack.loss == 3.0 and stack.group is optimizer.param_groups[1]
    assert optimizer.update.shape == (2 * k, m, n)
    assert optimizer.first.gradient.dtype == dtype and optimizer.second.gradient.dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in optimizer.second.state.values())

    for p in (params[0], params[2]):
        state = optimizer.state[p]
        assert {*state} == {"momentum_buffer", "row", "column", "one"}
        assert state["momentum_buffer"].shape == shape and state["momentum_buffer"].stride() == p.stride()
        assert state["row"].eq(torch.ones(k, m, 1)).all() and state["one"].eq(torch.ones(k, 1, 1)).all()
        assert state["column"].eq(torch.full((k, 1, n), 2.0)).all()
        assert all(value.dtype == dtype for value in state.values())


def test_states_of_portions_come_together():
    """Stacks beyond the cache go to `direction` in parts."""
    params = weights(*[(256, 256)] * 5)
    optimizer = NorMuon(params, 0.1)
    optimizer.step()
    for p in params:
        (alone,) = weights((256, 256))
        alone.grad = p.grad
        one = NorMuon([alone], 0.1)
        one.step()
        close(optimizer.state[p]["row_square"], one.state[alone]["row_square"], ROUNDING)
        assert optimizer.state[p]["row_square"].min() > 0


def test_state_of_muon_goes_on_in_a_relative():
    ours, theirs = weights((6, 4)), weights((6, 4))
    muon = Muon(theirs, 0.1, momentum=0.5)
    muon.step()
    optimizer = NorMuon(ours, 0.1)
    optimizer.load_state_dict(muon.state_dict())
    assert optimizer.param_groups[0]["beta2"] == 0.95
    optimizer.step()
    muon.step()
    assert torch.equal(optimizer.state[ours[0]]["momentum_buffer"], muon.state[theirs[0]]["momentum_buffer"])
    assert optimizer.state[ours[0]]["row_square"].shape == (1, 6, 1)


def hooked(**members) -> type[Muon]:
    return type("Hooked", (Muon,), members)


def undeclared(self, stack):
    stack.state["other"] = stack.gradient
    return stack.gradient


def broadcast(self, stack):
    stack.state["momentum_buffer"] = stack.gradient[:, :1]
    return stack.gradient


@pytest.mark.parametrize(
    ("members", "error", "message"),
    [
        ({"momentum": undeclared}, ValueError, r"`momentum` of Hooked must leave the states .*'other'"),
        (
            {"momentum": broadcast},
            ValueError,
            r"`momentum_buffer` a tensor of its shape \(2, 6, 4\); got \(2, 1, 4\)",
        ),
        ({"momentum": lambda self, stack: stack.gradient.mT}, ValueError, r"`momentum`.*\(2, 6, 4\)"),
        ({"direction": lambda self, update, stack: update.mT}, ValueError, r"`direction`.*\(2, 6, 4\)"),
        (
            {"direction": optim.update_only(lambda self, update, stack: stack.parameter)},
            RuntimeError,
            "`direction` is marked `update_only`",
        ),
        (
            {"direction_state": {"a": lambda matrices, group: matrices[0]}},
            ValueError,
            r"The state `a` must .*\(1, 6, 4\).*got \(6, 4\)",
        ),
        ({"momentum_state": {"a": optim.per_row}}, ValueError, "`a` of an `elementwise` momentum"),
    ],
)
def test_mistakes_in_hooks_are_told(members, error, message):
    with pytest.raises(error, match=message):
        hooked(**members)(weights((6, 4), (6, 4))).step()


def test_a_step_is_captured_in_a_graph_only_if_it_was_told(monkeypatch):
    """A graph would repeat the learning rate, and AdamW's correction, of the step that was captured."""

    class Stream:
        def is_capturing(self):
            return True

    p = torch.nn.Parameter(torch.eye(2))
    p.grad = torch.ones(2, 2)
    optimizer = Muon([p], lr=0.1)
    capturing = Muon([p], lr=torch.tensor(0.1), capturable=True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)  # of older versions
    with pytest.raises(RuntimeError, match=r"graph capture of step.* Muon .*capturable is False"):
        optimizer.step()
    assert torch.equal(p, torch.eye(2))
    capturing.step()
    assert not torch.equal(p, torch.eye(2))


def test_optimizers_pickled_before_they_were_capturable():
    optimizer = Muon([torch.nn.Parameter(torch.eye(2))])
    state = optimizer.__getstate__()
    del state["param_groups"][0]["capturable"]
    old = Muon.__new__(Muon)
    old.__setstate__(state)
    assert old.param_groups[0]["capturable"] is False
