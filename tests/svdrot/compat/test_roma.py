"""Every public name of roma 1.8 through our door: values and gradients beside those of roma itself."""

import inspect
from collections.abc import Callable

import pytest
import roma
import torch
from torch import Tensor

import svdrot
from svdrot.compat import roma as door

NAMES = sorted(
    name
    for name, value in vars(roma).items()
    if not name.startswith("_") and getattr(value, "__module__", "").startswith("roma.")
)
# Values of both are right to rounding; roma's go through float64 closed forms and arc sines.
CLOSE = {"rtol": 1e-9, "atol": 1e-9}
N = 24


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def turns(seed: int) -> Tensor:
    """Rotation vectors of 0.1 to 3 radians."""
    v = normal(N, 3, seed=seed)
    length = torch.linspace(0.1, 3.0, N, dtype=torch.float64)[:, None]
    return v / v.norm(dim=-1, keepdim=True) * length


def on_manifold() -> dict[str, Tensor]:
    """What all arguments are made of, so that gradients are those along rotations."""
    return {
        "v": turns(0),
        "w": turns(1),
        "raw": normal(N, 3, 3, seed=2),
        "x": normal(N, 7, 3, seed=3),
        "y": normal(N, 7, 3, seed=4),
        "weights": normal(N, 7, seed=5).exp(),
        "ten": normal(N, 10, seed=6),
        "steps": torch.linspace(-0.2, 1.2, 5, dtype=torch.float64),
    }


def quat(v: Tensor) -> Tensor:
    return roma.rotvec_to_unitquat(v)


def mat(v: Tensor) -> Tensor:
    return roma.rotvec_to_rotmat(v)


def symmetric(ten: Tensor) -> Tensor:
    full = ten.new_zeros(*ten.shape[:-1], 4, 4)
    row, column = torch.triu_indices(4, 4)
    full[..., row, column] = ten
    full[..., column, row] = ten
    return full


# Arguments of each function, by name; those drawn at random, classes and predicates have tests of their own.
CALLS: dict[str, Callable[..., tuple]] = {
    "euler_to_rotmat": lambda v, **_: ("zyx", v),
    "euler_to_rotvec": lambda v, **_: ("XZX", v),
    "euler_to_unitquat": lambda v, **_: ("YXZ", v),
    "rotmat_to_euler": lambda v, **_: ("xyz", mat(v)),
    "rotvec_to_euler": lambda v, **_: ("ZYZ", v),
    "unitquat_to_euler": lambda v, **_: ("YZX", quat(v), True, True),
    "inv_sinc": lambda v, **_: (v.norm(dim=-1),),
    "sinc": lambda v, **_: (v.norm(dim=-1),),
    "procrustes": lambda raw, **_: (raw, False, 0.0, 1e-9, True),
    "procrustes_naive": lambda raw, **_: (raw, True, True),
    "special_procrustes": lambda raw, **_: (raw, 0.0, 1e-9),
    "special_procrustes_naive": lambda raw, **_: (raw, True),
    "special_procrustes_unitquat": lambda raw, **_: (raw, 1e-9),
    "special_gramschmidt": lambda raw, **_: (raw,),
    "symmatrix_to_projective_point": lambda ten, **_: (symmetric(ten), 1e-9),
    "symmatrixvec_to_unitquat": lambda ten, **_: (ten, 1e-9),
    "quat_wxyz_to_xyzw": lambda v, **_: (quat(v),),
    "quat_xyzw_to_wxyz": lambda v, **_: (quat(v),),
    "rotmat_to_rotvec": lambda v, **_: (mat(v),),
    "rotmat_to_unitquat": lambda v, **_: (mat(v),),
    "rotvec_to_rotmat": lambda v, **_: (v,),
    "rotvec_to_unitquat": lambda v, **_: (v,),
    "unitquat_to_rotmat": lambda v, **_: (quat(v),),
    "unitquat_to_rotvec": lambda v, **_: (-quat(v), False),
    "quat_action": lambda v, x, **_: (2 * quat(v), x[:, 0]),
    "quat_composition": lambda v, w, **_: ((quat(v), quat(w), quat(v)), True),
    "quat_conjugation": lambda v, **_: (quat(v),),
    "quat_inverse": lambda ten, **_: (ten[:, :4],),
    "quat_normalize": lambda ten, **_: (ten[:, :4],),
    "quat_product": lambda ten, **_: (ten[:, :4], ten[:, 4:8]),
    "rotmat_composition": lambda v, raw, **_: ((mat(v), raw, mat(v)), True),
    "rotmat_cosine_angle": lambda v, **_: (mat(v),),
    "rotmat_geodesic_distance": lambda v, w, **_: (mat(v), mat(w)),
    "rotmat_geodesic_distance_naive": lambda v, w, **_: (mat(v), mat(w)),
    "rotmat_inverse": lambda v, **_: (mat(v),),
    "rotmat_slerp": lambda v, w, steps, **_: (mat(v), mat(w), steps),
    "rotvec_composition": lambda v, w, **_: ((v, w),),
    "rotvec_geodesic_distance": lambda v, w, **_: (v, w),
    "rotvec_inverse": lambda v, **_: (v,),
    "rotvec_slerp": lambda v, w, steps, **_: (v, w, steps),
    "unitquat_geodesic_distance": lambda v, w, **_: (quat(v), -quat(w)),
    "unitquat_slerp": lambda v, w, steps, **_: (quat(v), -quat(w), steps.reshape(5, 1), False),
    "unitquat_slerp_fast": lambda v, w, steps, **_: (quat(v), quat(w), steps),
    "rigid_points_registration": lambda x, y, weights, **_: (x, y, weights, True),
    "rigid_points_registration_unitquat": lambda x, y, weights, **_: (x, y, weights),
    "rigid_vectors_registration": lambda x, y, weights, **_: (x, y, weights, True),
    "rigid_vectors_registration_unitquat": lambda x, y, **_: (x, y, None, True),
}
ANY_SIGN = {  # of their quaternions: ours have w >= 0
    "rotmat_to_unitquat",
    "special_procrustes_unitquat",
    "symmatrix_to_projective_point",
    "symmatrixvec_to_unitquat",
    "rigid_points_registration_unitquat",
    "rigid_vectors_registration_unitquat",
}
CLASSES = {name for name in NAMES if inspect.isclass(getattr(roma, name))}
PREDICATES = {"is_orthonormal_matrix", "is_rotation_matrix"}
DRAWS = {"random_rotmat", "random_rotvec", "random_unitquat"}
OTHERS = {"identity_quat"}


def test_every_name_is_here_and_has_a_test():
    assert not [name for name in NAMES if not hasattr(door, name)]
    assert {*CALLS} | CLASSES | PREDICATES | DRAWS | OTHERS == {*NAMES}
    for name in {*NAMES} - CLASSES:
        theirs, ours = (inspect.signature(getattr(module, name)).parameters for module in (roma, door))
        assert [*theirs] == [*ours], name
        assert [p.default for p in theirs.values()] == [p.default for p in ours.values()], name


def parts(value) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


def same_sign(ours: Tensor, theirs: Tensor) -> Tensor:
    return ours * (ours * theirs).detach().sum(-1, keepdim=True).sign()


def computed(module, name: str, like: tuple[Tensor, ...] | None = None):
    leaves = {key: value.requires_grad_() for key, value in on_manifold().items()}
    found = parts(getattr(module, name)(*CALLS[name](**leaves)))
    if like is not None and name in ANY_SIGN:
        found = (same_sign(found[0], like[0]), *found[1:])
    loss = sum((part * normal(*part.shape, seed=9)).sum() for part in found)
    gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return found, gradients


@pytest.mark.filterwarnings("ignore:unitquat_slerp_fast is deprecated")
@pytest.mark.parametrize("name", CALLS)
def test_values_and_gradients_are_those_of_roma(name):
    theirs, their_gradients = computed(roma, name)
    ours, gradients = computed(door, name, theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, **CLOSE)
    for a, b in zip(gradients, their_gradients, strict=True):
        if b is None:
            assert a is None or not a.any()
        else:
            # Damping of 1e-9 over gaps of 0.01 and more, and the arc sine near pi, where roma loses half.
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


# Where rotations have no, or two, numbers, both must be the same rotation.
SINGULAR = {
    "zero": torch.zeros(1, 3, dtype=torch.float64),
    "tiny": 1e-12 * turns(7),
    "half turns about axes": torch.pi * torch.eye(3, dtype=torch.float64),
    "half turns": torch.pi * torch.nn.functional.normalize(turns(8), dim=-1),
    "nearly half turns": (torch.pi - 1e-7) * torch.nn.functional.normalize(turns(8), dim=-1),
}
TO_MATRIX = {
    "rotmat_to_rotvec": lambda v, m: roma.rotvec_to_rotmat(m.rotmat_to_rotvec(mat(v))),
    "rotmat_to_unitquat": lambda v, m: roma.unitquat_to_rotmat(m.rotmat_to_unitquat(mat(v))),
    "unitquat_to_rotvec": lambda v, m: roma.rotvec_to_rotmat(m.unitquat_to_rotvec(quat(v))),
    "rotvec_to_unitquat": lambda v, m: roma.unitquat_to_rotmat(m.rotvec_to_unitquat(v)),
    "rotvec_to_rotmat": lambda v, m: m.rotvec_to_rotmat(v),
    "unitquat_to_rotmat": lambda v, m: m.unitquat_to_rotmat(quat(v)),
    "special_procrustes": lambda v, m: m.special_procrustes(2 * mat(v)),
    "rotmat_to_euler": lambda v, m: roma.euler_to_rotmat("xyz", m.rotmat_to_euler("xyz", mat(v))),
    "rotvec_to_euler": lambda v, m: roma.euler_to_rotmat("ZXZ", m.rotvec_to_euler("ZXZ", v)),
    "unitquat_to_euler": lambda v, m: roma.euler_to_rotmat("XYZ", m.unitquat_to_euler("XYZ", quat(v))),
}


@pytest.mark.parametrize("case", SINGULAR)
@pytest.mark.parametrize("name", TO_MATRIX)
def test_rotations_of_the_singular_set_are_those_of_roma(name, case):
    v = SINGULAR[case]
    # roma takes angles within 1e-7 of gimbal lock for locked.
    close = 3e-7 if "euler" in name else 1e-9
    torch.testing.assert_close(TO_MATRIX[name](v, door), TO_MATRIX[name](v, roma), rtol=0, atol=close)


def test_every_convention_of_euler_angles():
    v = turns(3)
    for convention in (*svdrot.representations.SEQUENCES, "x", "Z", "xy", "ZX"):
        angles = v[:, : len(convention)]
        for degrees in (False, True):
            theirs = roma.euler_to_unitquat(convention, angles, degrees)
            torch.testing.assert_close(door.euler_to_unitquat(convention, angles, degrees), theirs, **CLOSE)
        listed = door.euler_to_rotmat(convention, [*angles[0].tolist()], dtype=torch.float64)
        torch.testing.assert_close(listed, roma.euler_to_rotmat(convention, angles[0]), **CLOSE)
        if len(convention) == 3:
            theirs = roma.rotmat_to_euler(convention, mat(v))
            torch.testing.assert_close(door.rotmat_to_euler(convention, mat(v)), theirs, **CLOSE)
    with pytest.raises(ValueError, match=r"`convention` must be axes .*got \"xYz\""):
        door.euler_to_rotmat("xYz", v)


def test_shapes_and_halves():
    q = quat(turns(0)).reshape(2, 3, 4, 4)
    steps = torch.rand(5, 6, dtype=torch.float64)
    torch.testing.assert_close(
        door.unitquat_slerp(q, q.flip(0), steps), roma.unitquat_slerp(q, q.flip(0), steps), **CLOSE
    )
    for n in (2, 4):
        m = normal(5, n, n, seed=n)
        torch.testing.assert_close(door.special_procrustes(m), roma.special_procrustes(m), **CLOSE)
    assert door.special_procrustes(torch.eye(3, dtype=torch.bfloat16)).dtype == torch.bfloat16
    x, y = normal(6, 9, 2, seed=0), normal(6, 9, 2, seed=1)
    for a, b in zip(
        door.rigid_points_registration(x, y, compute_scaling=True),
        roma.rigid_points_registration(x, y, compute_scaling=True),
        strict=True,
    ):
        torch.testing.assert_close(a, b, **CLOSE)


@pytest.mark.parametrize("name", sorted(PREDICATES))
def test_predicates(name):
    good = mat(turns(0))
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))
    for matrix in (good, good * 1.1, torch.cat((good, mirror[None])), mirror):
        assert bool(getattr(door, name)(matrix)) == bool(getattr(roma, name)(matrix))


@pytest.mark.parametrize("name", sorted(DRAWS))
@pytest.mark.parametrize("size", [(), 5, (2, 3)])
def test_draws_are_rotations_of_the_same_shape_and_repeat(name, size):
    def drawn(module):
        return getattr(module, name)(size, torch.float64, generator=torch.Generator().manual_seed(0))

    assert drawn(door).shape == drawn(roma).shape and torch.equal(drawn(door), drawn(door))
    read = {"random_rotmat": lambda r: r, "random_rotvec": mat, "random_unitquat": roma.unitquat_to_rotmat}
    assert svdrot.is_rotation(read[name](drawn(door)), tolerance=1e-14).all()


def test_identities():
    for size in ((), 3, (2, 1)):
        assert torch.equal(door.identity_quat(size, torch.float64), roma.identity_quat(size, torch.float64))


def transform(module, name: str):
    """One of each class, of the same numbers."""
    linear = {"Linear": "raw", "Affine": "raw"}.get(name)
    m = on_manifold()
    part = m["raw"] if linear else quat(m["v"]) if "Quat" in name else mat(m["v"])
    moved = name in ("Affine", "Isometry", "Rigid", "RigidUnitQuat")
    return getattr(module, name)(part, m["x"][:, 0]) if moved else getattr(module, name)(part)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_classes(name):
    theirs, ours = transform(roma, name), transform(door, name)
    methods = {n for n in dir(theirs) if not n.startswith("_")}
    assert methods <= {n for n in dir(ours) if not n.startswith("_")}
    v = on_manifold()["x"][:, 1]
    pairs = [
        (ours.apply(v), theirs.apply(v)),
        (ours.linear_apply(v), theirs.linear_apply(v)),
        ((ours @ ours).apply(v), (theirs @ theirs).apply(v)),
        (ours.inverse().apply(v), theirs.inverse().apply(v)),
        (ours.normalize().apply(v), theirs.normalize().apply(v)),
        (ours[3:5].linear, theirs[3:5].linear),
        (ours.clone().linear, theirs.clone().linear),
    ]
    if hasattr(theirs, "translation"):
        assert len(ours) == len(theirs) and ours.batch_shape == theirs.batch_shape
        pairs += [
            (ours.to_homogeneous(), theirs.to_homogeneous()),
            (
                type(ours).from_homogeneous(theirs.to_homogeneous()).apply(v),
                type(theirs).from_homogeneous(theirs.to_homogeneous()).apply(v),
            ),
            (ours[:1].squeeze(0).translation, theirs[:1].squeeze(0).translation),
            *zip(ours.as_tuple(), theirs.as_tuple(), strict=True),
        ]
    if hasattr(theirs, "identity"):
        kind = {"dtype": torch.float64, "batch_shape": (2,)}
        pairs.append((type(ours).identity(3, **kind).linear, type(theirs).identity(3, **kind).linear))
        pairs.append((type(ours).identity_like(ours).apply(v), v))
    for change in ("to_rigidunitquat", "to_rigid"):
        if hasattr(theirs, change):
            pairs.append((getattr(ours, change)().apply(v), getattr(theirs, change)().apply(v)))
    for a, b in pairs:
        torch.testing.assert_close(a, b, **CLOSE)
    assert repr(ours) == repr(theirs)


# What is different on purpose, each seen to be so in roma 1.8.


def test_lengths_of_quaternions_are_not_read():
    q = 2 * quat(turns(0))
    torch.testing.assert_close(door.unitquat_to_rotmat(q), mat(turns(0)), **CLOSE)
    torch.testing.assert_close(roma.unitquat_to_rotmat(q), 4 * mat(turns(0)), **CLOSE)
    zero = torch.zeros(4, dtype=torch.float64)
    assert torch.equal(door.quat_normalize(zero), door.identity_quat(dtype=torch.float64))
    assert roma.quat_normalize(zero).isnan().all()
    assert not door.quat_inverse(zero).any() and roma.quat_inverse(zero).isnan().any()


@pytest.mark.parametrize("diagonal", [[1.0, 1.0, 1.0], [1.0, -1.0, -1.0]], ids=["0", "pi"])
def test_gradients_of_distances_are_finite(diagonal):
    one, exact = torch.eye(3, dtype=torch.float64), torch.tensor(diagonal, dtype=torch.float64).diag()

    def gradient(module):
        r = exact.clone().requires_grad_()
        module.rotmat_geodesic_distance(one, r).backward()
        return r.grad

    assert not gradient(door).any()
    assert torch.equal(exact, one) or not gradient(roma).isfinite().all()


def test_a_nan_stays_in_its_row():
    m = normal(4, 3, 3, seed=0)
    m[1] = torch.nan
    found = door.special_procrustes(m)
    assert found[1].isnan().all() and found[[0, 2, 3]].isfinite().all()


def test_collinear_columns_give_rotations():
    flat = torch.ones(3, 2, dtype=torch.float64)
    assert svdrot.is_rotation(door.special_gramschmidt(flat))
    assert not svdrot.is_rotation(roma.special_gramschmidt(flat).nan_to_num())


def test_weights_of_sum_zero_give_the_identity():
    x, zero = normal(7, 3, seed=0), torch.zeros(7, dtype=torch.float64)
    assert torch.equal(door.rigid_points_registration(x, x, zero)[0], torch.eye(3, dtype=torch.float64))
    assert roma.rigid_points_registration(x, x, zero)[1].isnan().all()


def test_what_cannot_be_is_named():
    with pytest.raises(ValueError, match=r"`regularization` must be 0; got 0.1. Add"):
        door.special_procrustes(torch.eye(3), 0.1)
    with pytest.raises(ValueError, match="`sequence` must have two elements or more; got 1"):
        door.quat_composition([torch.ones(4)])
    with pytest.raises(ValueError, match=r"`quat` must have shape \(\.\.\., 4\); got \(3,\)"):
        door.unitquat_to_rotmat(torch.ones(3))
