"""Every method of scipy's `Rotation`, and `Slerp`, through our door, beside scipy itself."""

import inspect

import numpy as np
import pytest
import torch
from rotation_cases import HARD
from scipy.spatial.transform import Rotation as Theirs
from scipy.spatial.transform import Slerp as TheirSlerp
from torch import Tensor

import svdrot
from svdrot.compat.scipy import Rotation, Slerp

CLOSE = 1e-12  # a few hundred units of rounding: both take several sines and a root
GROUPS = ["I", "O", "T", "C1", "C5", "D1", "D2", "D6"]
RANDOM = HARD["random"].numpy()
Q = Theirs.from_matrix(RANDOM).as_quat()
METHODS = sorted(n for n in dir(Theirs) if not n.startswith("_"))
SPECIAL = ["__mul__", "__pow__", "__getitem__", "__setitem__", "__len__", "__iter__", "__bool__", "__init__"]


def test_every_method_is_here_with_the_same_arguments():
    assert not [name for name in (*METHODS, *SPECIAL) if not hasattr(Rotation, name)]
    for name in METHODS:
        theirs, ours = getattr(Theirs, name), getattr(Rotation, name)
        if not callable(theirs):
            continue
        try:
            given = [*inspect.signature(theirs).parameters]
        except ValueError:  # compiled, before scipy 1.17
            continue
        own = [*inspect.signature(ours).parameters]
        assert given == [argument for argument in own if argument in given], name  # older ones have fewer


def ours(quat=Q) -> Rotation:
    return Rotation.from_quat(quat)


def theirs(quat=Q) -> Theirs:
    return Theirs.from_quat(quat)


def has(method: str, argument: str) -> bool:
    """Whether the installed scipy has it; those of the oldest versions do not have all."""
    if not hasattr(Theirs, method):
        return False
    try:
        return argument in inspect.signature(getattr(Theirs, method)).parameters
    except ValueError:
        return argument in (getattr(Theirs, method).__doc__ or "")


def close(a: Tensor, b, atol: float = CLOSE) -> None:
    torch.testing.assert_close(a, torch.as_tensor(np.asarray(b)), rtol=0, atol=atol)


def same(a: Rotation, b: Theirs, atol: float = CLOSE) -> None:
    close(a.as_matrix(), b.as_matrix(), atol)


@pytest.mark.parametrize("case", HARD)
def test_numbers_of_hard_rotations(case):
    quat = Theirs.from_matrix(HARD[case].numpy()).as_quat()
    a, b = ours(quat), theirs(quat)
    close(a.as_quat(), b.as_quat())
    close(a.as_matrix(), b.as_matrix())
    close(a.magnitude(), b.magnitude(), 1e-9)
    if has("as_quat", "canonical"):
        close(a.as_quat(canonical=True), b.as_quat(canonical=True))
    if has("as_quat", "scalar_first"):
        close(a.as_quat(scalar_first=True), b.as_quat(scalar_first=True))
        same(Rotation.from_quat(quat, scalar_first=True), Theirs.from_quat(quat, scalar_first=True))
    same(Rotation.from_matrix(HARD[case]), Theirs.from_matrix(HARD[case].numpy()))
    # Where w is 0 to rounding, both signs are right.
    signed = a.as_rotvec()
    aligned = signed * torch.where((signed * torch.as_tensor(b.as_rotvec())).sum(-1, True) < 0, -1, 1)
    close(aligned, b.as_rotvec(), 1e-9)
    same(Rotation.from_rotvec(a.as_rotvec()), b)
    same(Rotation.from_rotvec(a.as_rotvec(degrees=True), degrees=True), b)
    same(Rotation.from_mrp(a.as_mrp()), b)
    sound = a.magnitude() < 3.1
    close(a.as_mrp()[sound], b.as_mrp()[sound.numpy()])


@pytest.mark.filterwarnings("ignore:Gimbal lock detected")
@pytest.mark.parametrize("sequence", svdrot.representations.SEQUENCES)
def test_euler_angles(sequence):
    a, b = ours(), theirs()
    close(a.as_euler(sequence, degrees=True), b.as_euler(sequence, degrees=True), 1e-10)
    angles = np.random.default_rng(0).normal(size=(5, 3))
    same(Rotation.from_euler(sequence, angles), Theirs.from_euler(sequence, angles))
    locked = Theirs.from_euler(sequence, [[0.3, np.pi / 2 if sequence[0] != sequence[2] else 0.0, 0.5]])
    found = ours(locked.as_quat()).as_euler(sequence)
    same(Rotation.from_euler(sequence, found), locked, 1e-7)  # scipy takes angles within 1e-7 for locked
    assert found[0, 2] == 0


def test_euler_angles_about_fewer_axes():
    for sequence, angles in (("x", 30), ("Z", [30]), ("x", [[30], [40]]), ("xy", [10, 20]), ("ZX", [[1, 2]])):
        same(Rotation.from_euler(sequence, angles, True), Theirs.from_euler(sequence, angles, True))
    for sequence in ("", "xx", "xyzx", "xY", "a"):
        with pytest.raises(ValueError, match="axes"):
            Rotation.from_euler(sequence, [1.0] * max(len(sequence), 1))


@pytest.mark.skipif(not hasattr(Theirs, "from_davenport"), reason="scipy has Davenport's angles from 1.11 on")
@pytest.mark.parametrize("order", ["e", "extrinsic", "i", "intrinsic"])
def test_davenport_angles(order):
    axes = np.array([[1.0, 1, 0], [0, 0, 2], [1, -1, 0]])
    angles = np.random.default_rng(0).normal(size=(5, 3))
    for k in (1, 2, 3):
        a = Rotation.from_davenport(axes[:k], order, angles[:, :k])
        close(a.as_quat(), Theirs.from_davenport(axes[:k], order, angles[:, :k]).as_quat())
    close(ours().as_davenport(axes, order, True), theirs().as_davenport(axes, order, True), 1e-10)
    assert Rotation.from_davenport([[1.0, 0, 0], [1.0, 1, 0]], order, [0.1, 0.2]).as_matrix().isnan().all()


def test_algebra():
    a, b = ours(Q[:9]), theirs(Q[:9])
    c, d = ours(Q[9:18]), theirs(Q[9:18])
    close((a * c).as_quat(), (b * d).as_quat())
    close((a * c[0]).as_quat(), (b * d[0]).as_quat())
    close(a.inv().as_quat(), b.inv().as_quat())
    for n in (0, 1, -1, 2, 0.3, -2.5):
        close((a**n).as_quat(), (b**n).as_quat())
        assert torch.equal((a ** torch.tensor([n])).as_quat(), (a**n).as_quat()) or n in (0.3, -2.5)
    exponents = torch.linspace(-2, 2, 9, dtype=torch.float64)
    close((a**exponents)[3].as_quat(), (b[3] ** exponents[3].item()).as_quat())
    product, factor = c, a
    for _ in range(60):  # lengths do not drift
        product = product * factor * product
    close(product.as_quat().norm(dim=-1), np.ones(9))
    v = np.random.default_rng(1).normal(size=(9, 3))
    for inverse in (False, True):
        close(a.apply(v, inverse), b.apply(v, inverse))
        close(a[0].apply(v, inverse), b[0].apply(v, inverse))
        close(a.apply(v[0], inverse), b.apply(v[0], inverse))
    if hasattr(Theirs, "approx_equal"):
        near = b * Theirs.from_rotvec([0.0, 0, 1e-3])
        for atol, degrees in ((1e-2, False), (1e-4, False), (1e-2, True), (0.1, True)):
            found = a.approx_equal(ours(near.as_quat()), atol, degrees)
            assert found.tolist() == b.approx_equal(near, atol, degrees).tolist()
    with pytest.warns(UserWarning, match="`atol` must be set"):
        a.approx_equal(a, degrees=True)


def test_elements():
    a, b = ours(), theirs()
    for index in (0, -1, slice(2, 9, 3), [3, 1], np.arange(len(Q)) % 2 == 0):
        at = torch.as_tensor(index) if isinstance(index, np.ndarray) else index
        close(a[at].as_quat(), b[index].as_quat())
        assert a[at].single == b[index].single
    assert len(a) == len(b) and len([*a]) == len(a) and bool(a) and a.shape == (len(b),)
    a[1:3] = a[5]
    assert torch.equal(a[2].as_quat(), a[5].as_quat())
    joined = Rotation.concatenate([a, a[0]])
    assert len(joined) == len(a) + 1 and torch.equal(joined[-1].as_quat(), a[0].as_quat())
    for call in (len, lambda r: r[0], iter_first):
        with pytest.raises(TypeError):
            call(a[0])
    assert Rotation.identity().single and Rotation.identity(3).shape == (3,)
    assert Rotation.identity(shape=(2, 3)).shape == (2, 3) == Rotation.random(shape=(2, 3)).shape
    same(Rotation.identity(3), Theirs.identity(3))


def iter_first(r):
    return next(iter(r))


def test_draws_repeat_and_are_uniform():
    def draw():
        return Rotation.random(4000, torch.Generator().manual_seed(0)).as_matrix()

    assert torch.equal(draw(), draw())
    for seed in (lambda: 3, lambda: np.random.default_rng(3)):
        assert torch.equal(Rotation.random(5, seed()).as_quat(), Rotation.random(5, seed()).as_quat())
    rng = np.random.default_rng(3)
    assert not torch.equal(Rotation.random(5, rng).as_quat(), Rotation.random(5, rng).as_quat())
    # Of uniform rotations every entry has mean 0 and mean square 1/3; 5 standard errors.
    assert draw().mean(0).abs().max() < 5 / np.sqrt(3 * 4000)


def test_means():
    a, b = ours(), theirs()
    same(a.mean(), b.mean())
    w = np.random.default_rng(2).uniform(size=len(Q))
    same(a.mean(w), b.mean(w))
    same(a[0].mean(), b[0].mean())
    assert torch.equal(a.mean(axis=()).as_quat(), a.as_quat())
    batch = ours(Q[:24].reshape(2, 3, 4, 4))
    assert batch.mean(axis=1).shape == (2, 4) and batch.mean(axis=(0, -1)).shape == (3,)
    same(batch.mean(axis=1)[1, 2], theirs(Q[:24].reshape(2, 3, 4, 4)[1, :, 2]).mean())
    assert a.mean(np.zeros(len(Q))).as_quat().isnan().all() and a[:0].mean().as_quat().isnan().all()


@pytest.mark.parametrize("axis", "xYZ")
@pytest.mark.parametrize("name", GROUPS)
def test_groups_are_those_of_scipy_in_another_order(name, axis):
    a, b = Rotation.create_group(name, axis).as_matrix(), Theirs.create_group(name, axis).as_matrix()
    assert a.shape == b.shape
    apart = (a[:, None] - torch.from_numpy(b)).abs().amax((-2, -1))
    assert apart.amin(0).max() < CLOSE and apart.amin(1).max() < CLOSE
    close(a[0], np.eye(3))


def test_reductions():
    left, right = Theirs.create_group("C4"), Theirs.create_group("T")
    for sides in ((left, None), (None, right), (left, right)):
        given = [None if side is None else ours(side.as_quat()) for side in sides]
        a, at_left, at_right = ours().reduce(*given, return_indices=True)
        b, their_left, their_right = theirs().reduce(*sides, return_indices=True)
        close(a.magnitude(), b.magnitude(), 1e-9)  # of two as small either is right
        for at, there, side in ((at_left, their_left, sides[0]), (at_right, their_right, sides[1])):
            assert (at is None) == (side is None) == (there is None)
        l = 1 if at_left is None else given[0][at_left]
        product = ours() if at_left is None else l * ours()
        product = product if at_right is None else product * given[1][at_right]
        close(product.as_matrix(), a.as_matrix())
    single = ours()[3].reduce(ours(left.as_quat()))
    assert single.single


def test_alignment_of_vectors():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 7, 3))
    w = rng.uniform(size=7)
    recent = has("as_quat", "scalar_first")  # older ones know no infinite weights
    for weights in (None, w, np.where(np.arange(7) == 2, np.inf, w))[: 3 if recent else 2]:
        found, distance = Rotation.align_vectors(a, b, weights)
        expected, left = Theirs.align_vectors(a, b, weights)
        same(found, expected, 1e-9)
        close(distance, left, 1e-9)
    *_, sensitivity = Rotation.align_vectors(a, b, w, return_sensitivity=True)
    close(sensitivity, Theirs.align_vectors(a, b, w, return_sensitivity=True)[2], 1e-9)
    for pair in ((a[0], b[0]), (a[:1], b[:1])) if recent else ():
        found, distance = Rotation.align_vectors(*pair)
        expected, left = Theirs.align_vectors(*pair)
        same(found, expected, 1e-9)
        close(distance, left, 1e-9)
    many, _ = Rotation.align_vectors(torch.as_tensor(np.stack((a, b))), torch.as_tensor(np.stack((b, a))))
    same(many[0], Theirs.align_vectors(a, b)[0], 1e-9)


def test_slerp():
    times = [0.0, 1.0, 1.5, 4.0]
    at = np.array([0.0, 0.2, 1.0, 1.3, 3.9, 4.0])
    found = Slerp(times, ours(Q[:4]))
    expected = TheirSlerp(times, theirs(Q[:4]))
    same(found(at), expected(at))
    same(found(0.7), expected(0.7))
    assert found(0.7).single and found([-1.0, 5.0]).as_quat().isnan().all()
    assert Slerp([0.0, 0.0], ours(Q[:2]))([0.0]).as_quat().isnan().all()
    with pytest.raises(ValueError, match=r"`times` must have shape \(4,\); got \(3,\)"):
        Slerp(times[:3], ours(Q[:4]))
    with pytest.raises(ValueError, match=r"`rotations` must have shape \(N,\) with N >= 2"):
        Slerp([0.0], ours(Q[:1]))


def test_gradients_dtypes_and_batches():
    vector = torch.randn(2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def through(v: Tensor) -> Tensor:
        r = Rotation.from_rotvec(v)
        return (
            ((r * r.inv() ** 0.5) ** 3).apply(v.flip(-1))
            + r.mean(axis=1).as_rotvec()[:, None]
            + r.as_euler("zyx")
        )

    assert torch.autograd.gradcheck(through, vector.requires_grad_())
    single = Rotation.from_rotvec(vector.detach().float())
    for part in (single.as_quat(), single.as_matrix(), single.magnitude(), (single * single).as_mrp()):
        assert part.dtype == torch.float32
    zero = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    Rotation.from_rotvec(zero).magnitude().backward()
    assert zero.grad is not None and not zero.grad.any()  # of a length at 0


# What is different on purpose.


def test_bad_rows_are_nan_and_no_others():
    quat = torch.tensor([[0.0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 1, 1]])
    assert Rotation.from_quat(quat).as_matrix().isnan().all(-1).all(-1).tolist() == [False, True, False]
    with pytest.raises(ValueError, match="zero norm"):
        Theirs.from_quat(quat.numpy())
    matrix = torch.stack((torch.eye(3), -torch.eye(3), torch.zeros(3, 3)))
    assert Rotation.from_matrix(matrix).as_quat().isnan().all(-1).tolist() == [False, True, True]
    with pytest.raises(ValueError, match=r"[Nn]on-positive determinant"):
        Theirs.from_matrix(matrix.numpy())


def test_matrices_that_are_no_rotations_give_the_nearest():
    raw = np.random.default_rng(0).normal(size=(50, 3, 3))
    raw = raw[np.linalg.det(raw) > 0.1]
    same(Rotation.from_matrix(raw), Theirs.from_matrix(raw), 1e-9)


def test_whole_numbers_are_numbers():
    quarter = Rotation.from_euler("z", torch.tensor(90), degrees=True)
    assert quarter.as_quat().dtype == torch.get_default_dtype()
    assert Rotation.from_quat(torch.tensor([0, 0, 0, 1])).apply(torch.tensor([1, 2, 3])).tolist() == [1, 2, 3]


def test_wrong_arguments_are_named():
    with pytest.raises(TypeError, match="`rotations` must be a Rotation, or several"):
        Rotation.concatenate([ours(), 3])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"`quat` must have shape \(\.\.\., 4\); got \(3,\)"):
        Rotation.from_quat([0.0, 0.0, 1.0])
    with pytest.raises(ValueError, match="`order` must be"):
        ours().as_davenport(np.eye(3), "x")
    with pytest.raises(ValueError, match="`group` must be"):
        Rotation.create_group("D0")
    with pytest.raises(TypeError):
        _ = ours() * 2
