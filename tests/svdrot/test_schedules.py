"""Schedules of Newton-Schulz: what the tables reach, and what the generator promises."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svdrot import schedules
from svdrot.schedules import SCHEDULES, TAYLOR, kim_oh_step, newton_schulz_schedule


def image(schedule, s: np.ndarray) -> np.ndarray:
    for step in schedule:
        s = sum(c * s ** (2 * i + 1) for i, c in enumerate(step))
    return s


def farthest(schedule, lower: float, upper: float = 1.0) -> float:
    return float(np.abs(image(schedule, np.geomspace(lower, upper, 4001)) - 1).max())


# Largest distance from 1 over [0.1, 1] after the steps of the table: published figures, rounded up.
REACHED = {
    "cubic": 1e-15,
    "taylor": 1e-15,
    "keller_jordan": 0.319,
    "you": 0.032,
    "polar_express": 1e-14,
    "polar_express_5": 0.16,
    "cans": 0.13,
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_tables_reach_what_is_known_of_them(name):
    assert farthest(SCHEDULES[name], 0.1) <= REACHED[name]
    s = np.geomspace(1e-12, 1, 4001)
    assert (image(SCHEDULES[name], s) > 0).all()  # no singular direction is reversed


def test_the_generator_without_a_cap_is_the_published_minimax_sequence():
    generated = newton_schulz_schedule(1e-3, cap=0, safety=1)
    np.testing.assert_allclose(generated[:5], schedules.CANS, atol=5.1e-5)


@given(
    st.floats(-6, 0),
    st.sampled_from([0, 0.1, 0.2, 0.35, 0.5]),
    st.sampled_from([1.0, 1.0005, 1.005, 1.02]),
    st.sampled_from([1e-3, 1e-7, 1e-12]),
)
@settings(max_examples=60, deadline=None)
def test_every_singular_value_in_range_arrives(exponent, cap, safety, tolerance):
    lower = 10**exponent
    schedule = newton_schulz_schedule(lower, cap=cap, safety=safety, tolerance=tolerance)
    upper = safety if len(schedule[0]) == 3 and schedule[0] != TAYLOR else 1.0
    assert farthest(schedule, lower, upper) <= tolerance + 1e-14
    below = image(schedule, np.geomspace(lower * 1e-9, lower, 1001))
    assert (below > 0).all() and (below < 1 + tolerance + 1e-14).all()


@pytest.mark.parametrize("lower", [1e-1, 1e-2, 1e-3, 1e-4, 1e-6])
def test_more_steps_are_never_worse(lower):
    schedule = newton_schulz_schedule(lower, tolerance=1e-15)
    errors = [farthest(schedule[:k], lower) for k in range(1, len(schedule) + 1)]
    errors += [farthest((*schedule, TAYLOR), lower)]
    for before, after in pairwise(errors):
        assert after <= before + 1e-15


def test_a_capped_step_spreads_the_upper_part_little():
    s = np.linspace(0.2, 1, 2001)
    spread = {
        cap: np.ptp(np.log(image(newton_schulz_schedule(1e-3, cap=cap)[:1], s))) for cap in (0, 0.1, 0.2)
    }
    assert math.exp(spread[0.2]) < 1.6 < 2 < math.exp(spread[0.1]) < 20 < math.exp(spread[0])
    assert len(newton_schulz_schedule(1e-3, tolerance=1e-9)) <= 8


def test_the_first_step_is_the_best_odd_quintic():
    """Equioscillation: no other is nearer to 1 on the interval."""
    (best, *_) = newton_schulz_schedule(0.05, cap=0, safety=1)
    distance = farthest((best,), 0.05)
    rng = np.random.default_rng(0)
    for size in (1e-3, 1e-2, 1e-1, 1):
        for other in np.array(best) + size * rng.standard_normal((200, 3)):
            assert farthest((tuple(other),), 0.05) >= distance


@pytest.mark.parametrize("kappa", [1, 2, 3, 4, 5])
def test_residuals_of_kim_and_oh_fall_by_their_power(kappa):
    s = np.linspace(1e-3, 1, 2001)
    residual = 1 - image((kim_oh_step(kappa),), s) ** 2
    assert (residual <= (1 - s**2) ** (kappa + 1) + 1e-14).all() and (residual >= -1e-14).all()
    assert kim_oh_step(2) == TAYLOR and kim_oh_step(1) == schedules.CUBIC


def test_shape_knowledge_shortens_a_schedule():
    assert len(newton_schulz_schedule(1e-3, aspect=4)) < len(newton_schulz_schedule(1e-3, aspect=1))
    assert newton_schulz_schedule(1e-3, aspect=1) == newton_schulz_schedule(1e-3)
    assert newton_schulz_schedule(1e-3) is newton_schulz_schedule(1e-3)


@pytest.mark.parametrize(
    "wrong",
    [{"lower": 0}, {"lower": 2}, {"cap": 1}, {"safety": 0.9}, {"tolerance": 0}, {"aspect": 0.5}],
    ids=str,
)
def test_wrong_arguments_are_named(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}`"):
        newton_schulz_schedule(**{"lower": 0.1, **wrong})
    with pytest.raises(ValueError, match="`kappa`"):
        kim_oh_step(0)


def test_a_schedule_that_would_not_end_is_refused():
    with pytest.raises(ValueError, match=r"`cap` 0\.9 and `safety` 1\.5 no step gains"):
        newton_schulz_schedule(0.5, cap=0.9, safety=1.5)
