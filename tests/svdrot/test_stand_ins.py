"""Arrays of numpy at the public door: the same numbers, as arrays."""

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import svdrot
from svdrot import _stand_ins
from tests.support.robustness.calls import Call, tensors_in
from tests.support.robustness.draws import Draw
from tests.support.robustness.subjects import subjects

# What has gradients for a purpose, or state of its own.
OF_TENSORS = ("svdrot.nn", "svdrot.optim", "svdrot.distributions", "svdrot.evaluation.streaming")
OF_TENSORS += ("svdrot.losses.ReducedLoss",)
SUBJECTS = {name: subject for name, subject in subjects().items() if not name.startswith(OF_TENSORS)}


def _parts(value: Any) -> list[Any]:
    return [part for each in value for part in _parts(each)] if isinstance(value, list | tuple) else [value]


def _is_plain(value: Any) -> bool:
    """Whether there is an array with the same numbers and no more to it."""
    if not isinstance(value, Tensor):
        return True
    return value.dtype != torch.bfloat16 and not value.is_conj() and not value.is_neg()


def _as_arrays(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().numpy()
    return type(value)(map(_as_arrays, value)) if type(value) in (list, tuple) else value


def _plain_calls(name: str) -> list[tuple[Call, dict[str, Any]]]:
    """Up to three calls with tensors that arrays can stand for."""
    found, subject = [], SUBJECTS[name]
    for number in range(60):
        draw = Draw(11, number)
        arguments = {parameter: make(draw) for parameter, make in subject.makers.items()}
        parts = _parts(list(arguments.values()))
        if not any(isinstance(part, Tensor) for part in parts):
            continue
        if all(map(_is_plain, parts)):
            found.append((Call(subject, draw, arguments, None, False), arguments))
        if len(found) == 3:
            break
    return found


def _check_same(tensors: Any, arrays: Any) -> None:
    if isinstance(tensors, Tensor):
        assert isinstance(arrays, np.ndarray | np.generic)
        want = tensors.float() if tensors.dtype == torch.bfloat16 else tensors
        eps = torch.finfo(want.dtype).eps if want.is_floating_point() else 0.0
        size = np.max(np.abs(arrays), initial=0.0, where=np.isfinite(arrays)) if eps else 0.0
        # Sums and products by BLAS go by layout, which need not be the same.
        np.testing.assert_allclose(arrays, want.detach().numpy(), rtol=0, atol=16 * eps * size)
        assert arrays.dtype == want.detach().numpy().dtype
    elif isinstance(tensors, list | tuple):
        assert len(tensors) == len(arrays)
        for one, other in zip(tensors, arrays, strict=True):
            _check_same(one, other)
    elif dataclasses.is_dataclass(tensors):
        pairs = zip(tensors_in(tensors), tensors_in(arrays), strict=True)
        assert all(torch.equal(one.nan_to_num(7.0), other.nan_to_num(7.0)) for one, other in pairs)


@pytest.mark.parametrize("name", SUBJECTS)
def test_arrays_give_the_numbers_of_tensors(name):
    for call, arguments in _plain_calls(name):
        before = copy.deepcopy({key: _as_arrays(value) for key, value in arguments.items()})
        want = call(arguments)
        given = {key: _as_arrays(value) for key, value in arguments.items()}
        _check_same(want, call(given))
        for one, other in zip(_parts(list(before.values())), _parts(list(given.values())), strict=True):
            if isinstance(one, np.ndarray):
                np.testing.assert_array_equal(one, other)  # nothing was written into it


def test_most_functions_are_tried():
    assert sum(bool(_plain_calls(name)) for name in SUBJECTS) > 190


def test_results_of_no_dimensions_are_numbers_and_tuples_are_tuples():
    assert isinstance(svdrot.rotation_angle(np.eye(3)), np.float64)
    assert isinstance(svdrot.rotation_angle(np.eye(3, dtype=np.float32)), np.float32)
    distances, indices = svdrot.registration.nearest(np.ones((2, 3)), np.ones((1, 3)))
    assert distances.shape == indices.shape == (2,) and indices.dtype == np.int64


def test_a_transform_holds_tensors_and_moves_arrays():
    cloud = np.random.default_rng(0).normal(size=(50, 3))
    shift = np.array([1.0, 2.0, 3.0])
    fit = svdrot.registration.kabsch(cloud, cloud + shift)
    assert isinstance(fit.translation, Tensor)
    np.testing.assert_allclose(fit.apply(cloud), cloud + shift, atol=1e-12)
    pose = svdrot.Transform(np.eye(3), np.ones(3), np.array(1.0))
    assert isinstance(pose.rotation, Tensor) and pose.shape == ()
    np.testing.assert_array_equal(pose.apply(cloud), cloud + 1)
    lists = svdrot.registration.kabsch([cloud, cloud[:7]], [cloud + 1, cloud[:7] + 2])
    np.testing.assert_allclose(lists.translation, [[1, 1, 1], [2, 2, 2]], atol=1e-12)


@pytest.mark.parametrize(
    "array",
    [
        np.eye(3)[::-1],
        np.asfortranarray(np.arange(9.0).reshape(3, 3)),
        np.eye(6)[::2, ::2],
        np.eye(3).astype(">f8"),
        np.eye(3, dtype=np.float16),
        np.broadcast_to(np.eye(3), (4, 3, 3)),
        np.zeros((0, 3, 3)),
    ],
    ids=["reversed", "fortran", "strided", "big-endian", "half", "read-only", "empty"],
)
@pytest.mark.filterwarnings("error")
def test_whatever_the_layout(array):
    native = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))).copy()
    want = svdrot.special_orthogonalize(torch.from_numpy(native))
    found = svdrot.special_orthogonalize(array)
    np.testing.assert_array_equal(found, want.numpy())
    assert found.dtype == native.dtype


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: svdrot.quaternion_multiply([1.0, 0.0], np.ones(4)),
            "`a` must .* list: .*numpy.array",
        ),
        (lambda: svdrot.quaternion_multiply(np.ones(4), torch.ones(4)), "`a` must .* beside tensors"),
        (lambda: svdrot.quaternion_multiply(torch.ones(4), np.ones(4)), "`b` must .* beside tensors"),
        (lambda: svdrot.slerp(np.eye(3), torch.eye(3), 0.5), "`start` must .* beside tensors"),
        (lambda: svdrot.hat(np.ones(3, int)), "`vector` must be floating point; got torch.int64"),
        (lambda: svdrot.hat(np.ones(3, complex)), "`vector` must .* complex128, which tensors cannot hold"),
        (lambda: svdrot.special_orthogonalize(np.array([["a"]])), "`matrix` must .* <U1"),
        (lambda: svdrot.hat(np.ma.masked_array(np.ones(3), [0, 1, 0])), "`vector` must .* mask would be"),
        (lambda: svdrot.Transform(np.eye(3), np.ones(3), np.array("a")), "`scale` must"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused_by_name(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_errors_of_arrays_are_those_of_tensors():
    with pytest.raises(ValueError, match=r"`matrix` must have shape \(..., n, n\) with n >= 1; got \(3, 2\)"):
        svdrot.special_orthogonalize(np.ones((3, 2)))


def test_tensors_are_called_once():
    calls = []

    @_stand_ins.takes_arrays
    def function(x):
        calls.append(type(x))
        if isinstance(x, np.ndarray):
            raise TypeError
        return x

    function(torch.ones(1))
    assert calls == [Tensor]
    assert isinstance(function(np.ones(1)), np.ndarray)
    assert calls == [Tensor, np.ndarray, Tensor]
