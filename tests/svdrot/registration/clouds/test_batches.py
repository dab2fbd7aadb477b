"""Many pairs of clouds in one call: each as in a call of its own, in order, none the worse for another."""

import dataclasses
import math
import threading
from typing import Any

import pytest
import torch

import svdrot
from svdrot._kernels import cpu
from svdrot.registration import Transform, register, register_batch


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def bumps(n, seed):
    """Points of a bumpy closed surface, turned at random."""
    generator = seeded(seed)
    u = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator, dtype=torch.float64), dim=-1)
    x, y, z = u.unbind(-1)
    r = 1 + 0.25 * x * y + 0.2 * torch.sin(3 * z) + 0.2 * torch.cos(2 * x + y + 1)
    return (r[:, None] * u) @ svdrot.random_rotation(generator=generator, dtype=torch.float64)


SOURCES = [
    bumps(300, 0),
    torch.full((9, 3), torch.nan),
    bumps(400, 1).float(),
    torch.zeros(0, 3),
    torch.ones(50, 3),
    bumps(350, 2),
    torch.full((40, 3), 1e300, dtype=torch.float64),
]


@pytest.fixture
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def same(first, second):
    """Whether two results are equal to the last bit, but for the seconds."""
    if dataclasses.is_dataclass(first):
        names = [field.name for field in dataclasses.fields(first) if field.name != "seconds"]
        return all(same(getattr(first, name), getattr(second, name)) for name in names)
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first.nan_to_num(7), second.nan_to_num(7))
    if isinstance(first, tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second or (first != first and second != second)


@pytest.mark.parametrize("threads", [1, 3], indirect=True)
@pytest.mark.parametrize(
    "options", [{}, {"verdict": False, "refine": None, "scale": True}], ids=("", "scale")
)
def test_each_is_that_of_a_call_of_its_own(threads, options):
    """Bad clouds among them, of different types and lengths, on one target and on as many."""
    one = bumps(380, 9)
    many = [one, one, bumps(300, 8), one, one, one, bumps(200, 7)]
    for target, targets in ((one, [one] * len(SOURCES)), (many, many)):
        found = register_batch(SOURCES, target, **options)
        alone = [register(x, y, **options) for x, y in zip(SOURCES, targets, strict=True)]
        assert len(found) == len(SOURCES) and all(map(same, found, alone))
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_tensors_and_one_source(threads):
    clouds = torch.stack([bumps(300, seed) for seed in range(3)])
    options: dict[str, Any] = {"verdict": False}
    for found, pairs in (
        (register_batch(clouds, clouds.flip(0), **options), zip(clouds, clouds.flip(0), strict=True)),
        (register_batch(clouds, clouds[1], **options), ((x, clouds[1]) for x in clouds)),
        (register_batch(clouds[1], list(clouds), **options), ((clouds[1], y) for y in clouds)),
    ):
        assert all(same(f, register(x, y, **options)) for f, (x, y) in zip(found, pairs, strict=True))
    assert register_batch([], clouds[0]) == register_batch(clouds[:0], clouds[:0]) == []


def test_starts_are_one_or_as_many():
    clouds = torch.stack([bumps(300, seed) for seed in range(2)])
    turn = svdrot.axis_angle_to_matrix(torch.tensor([[0.1, 0, 0], [0, 0, 0.2]], dtype=torch.float64))
    starts = Transform(turn, torch.zeros(2, 3, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    each = [Transform(turn[k], starts.translation[k], starts.scale[k]) for k in range(2)]
    alone = [register(x, x, init=start, verdict=False) for x, start in zip(clouds, each, strict=True)]
    for init in (starts, starts.matrix, each, tuple(starts.matrix)):
        assert all(map(same, register_batch(clouds, clouds, init=init, verdict=False), alone))
    one = register_batch(clouds, clouds, init=each[1], verdict=False)
    assert same(one[1], alone[1]) and one[0].stages[0].name == "start"


def test_bad_arguments_are_refused_by_their_number():
    x = bumps(50, 0)
    for kind, message, call in (
        (ValueError, r"`source\[1\]` must have shape", lambda: register_batch([x, x[:, :2]], x)),
        (TypeError, r"`target\[1\]` must be floating point", lambda: register_batch([x, x], [x, x.long()])),
        (ValueError, "got 2 of `source`, 3 of `target`", lambda: register_batch([x] * 2, [x] * 3)),
        (ValueError, "as many of each", lambda: register_batch([x] * 2, x, init=[torch.eye(4)])),
        (ValueError, "call `register`", lambda: register_batch(x, x)),
        (ValueError, "`voxel` must be", lambda: register_batch([x], x, voxel=math.nan)),
        (ValueError, "`refine` must be one of", lambda: register_batch([x], x, refine="best")),
        (ValueError, "`init` must be rigid", lambda: register_batch([x], x, init=2 * torch.eye(4))),
    ):
        with pytest.raises(kind, match=message):
            call()


@pytest.mark.parametrize("threads", [3], indirect=True)
def test_threads_take_one_item_after_the_other(threads):
    """As many as torch's at once, each alone: neither kernels nor torch's operations take more."""
    together, inside, most = threading.Barrier(3, timeout=30), [], []

    def work(i):
        if i < 3:
            together.wait()  # or there are fewer than three
        inside.append(threading.get_ident())
        most.append(torch.get_num_threads())
        return i, getattr(cpu._here, "is_alone", False)

    assert cpu.each(work, 20) == [(i, True) for i in range(20)]
    assert len({*inside}) == 3 and {*most} == {1}
    assert torch.get_num_threads() == 3 and not getattr(cpu._here, "is_alone", False)


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
def test_what_an_item_raises_is_raised_and_ends_the_others(threads):
    done = []

    def work(i):
        done.append(i)
        if i == 3:
            raise KeyboardInterrupt if threads > 1 else OSError

    with pytest.raises((OSError, KeyboardInterrupt)):
        cpu.each(work, 10_000)
    assert len(done) < 10_000
