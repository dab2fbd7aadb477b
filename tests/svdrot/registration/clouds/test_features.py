"""Features that turn with the cloud, and their pairs."""

import inspect
import json
import os
import subprocess
import sys

import pytest
import torch

import svdrot
from svdrot import _kernels
from svdrot._kernels.cpu import clouds
from svdrot._kernels.operations import features as features_reference
from svdrot.registration.clouds import features as features_module
from svdrot.registration.clouds._levels import Level
from svdrot.registration.clouds.features import fpfh, match
from svdrot.registration.clouds.surfaces import voxel_downsample

# Histograms sum to 100 in each of three angles; rounding moves a neighbor across a border now and then, and
# the grid of the surroundings is fixed in space: so many points may differ by more than 1.
DIFFERENT = 0.05


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def bent_sheet(n=3000, seed=0):
    """A sheet with a ridge and a bump, (n, 3), of size 2."""
    u, v = (2 * torch.rand(2, n, generator=seeded(seed), dtype=torch.float64) - 1).unbind()
    return torch.stack((u, v, 0.3 * (3 * u).sin() + 0.2 * (-8 * (u**2 + (v - 0.4) ** 2)).exp() + 0.1 * v), 1)


def test_features_stay_when_the_cloud_is_moved():
    cloud = voxel_downsample(bent_sheet(), 0.08)[0]
    first = fpfh(cloud, 0.08)
    assert first.shape == (len(cloud), 33) and (first >= 0).all() and first.sum() > 0
    for seed in range(3):
        turn = svdrot.random_rotation(generator=seeded(seed), dtype=torch.float64)
        moved = fpfh(cloud @ turn.mT + torch.tensor([5.0, -3, 10], dtype=torch.float64), 0.08)
        different = (moved - first).abs().amax(1) > 1
        assert different.double().mean() < DIFFERENT


def test_features_do_not_depend_on_the_unit():
    cloud = voxel_downsample(bent_sheet(), 0.08)[0]
    torch.testing.assert_close(fpfh(cloud * 1024, 0.08 * 1024), fpfh(cloud, 0.08))


@pytest.mark.parametrize("n", [0, 1, 2, 3, 10])
def test_few_points_have_features_or_none(n):
    found = fpfh(bent_sheet(n), 0.5)
    assert found.shape == (n, 33) and (found.isfinite().all(1) | found.isnan().all(1)).all()
    assert n > 2 or found.isnan().all()


def test_points_in_one_place_and_on_a_line_have_no_features():
    line = torch.linspace(0, 1, 50, dtype=torch.float64)[:, None] * torch.ones(3, dtype=torch.float64)
    for cloud in (line, torch.zeros(50, 3, dtype=torch.float64)):
        assert fpfh(cloud, 0.05).isnan().all()


def test_points_alone_have_no_feature_and_no_pair():
    """Nor do they change those of the others."""
    cloud = voxel_downsample(bent_sheet(), 0.08)[0]
    alone = torch.tensor([[10.0, 0, 0], [0, 10, 0], [0, 10.1, 0]], dtype=torch.float64)
    features = fpfh(torch.cat((alone, cloud)), 0.08)
    assert features[:3].isnan().all() and features[3:].isfinite().all()
    for i, _ in (match(features, features), match(features, features[3:])):
        assert (i >= 3).all() and len(i) >= len(cloud)
    assert len(match(features[:3], features)[0]) == len(match(features[:3], features[:3])[0]) == 0


@pytest.mark.open3d
def test_features_are_those_of_open3d(open3d):
    cells = clouds.fill_cells(bent_sheet(6000).numpy(), 0.06)
    level = Level.of(cells, clouds.coarser(cells, 2))
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(level.cells.points))
    cloud.normals = open3d.utility.Vector3dVector(level.normals)
    around = open3d.geometry.KDTreeSearchParamHybrid(5 * 0.06, 100)
    expected = open3d.pipelines.registration.compute_fpfh_feature(cloud, around).data.T
    # Bins are counted, in steps of 100 / 99 at least: one that differs would show.
    assert abs(level.features - expected).max() < 1e-9


@pytest.mark.open3d
def test_features_by_torch_operations_are_those_of_open3d(open3d):
    cells = clouds.fill_cells(bent_sheet(3000).numpy(), 0.08)
    level = Level.of(cells, clouds.coarser(cells, 2))
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(level.cells.points))
    cloud.normals = open3d.utility.Vector3dVector(level.normals)
    around = open3d.geometry.KDTreeSearchParamHybrid(5 * 0.08, 100)
    expected = open3d.pipelines.registration.compute_fpfh_feature(cloud, around).data.T
    found = features_reference.describe(*described(level, 0.08))[0]
    assert abs(found.numpy() - expected).max() < 1e-9


# On other devices: torch operations, and the GPU kernel in Triton's interpreter where there is no GPU.

# Counts are the same; what is added up of about 100 of them in another order differs by rounding.
ROUNDING = 33 * 100 * 2**-52 * 100


def described(level, edge, most=99):
    """Points, normals and neighbors of a level as a batch of one."""
    points, normals = (torch.from_numpy(x)[None] for x in (level.cells.points, level.normals))
    return points, normals, *features_reference.around(points, 5 * edge, most)


def a_level(n=900, edge=0.12, seed=0):
    cells = clouds.fill_cells(bent_sheet(n, seed).numpy(), edge)
    return Level.of(cells, clouds.coarser(cells, 2))


def test_torch_operations_find_the_neighbors_and_the_features_of_the_cpu(monkeypatch):
    """In one part, and in many, and where some have more neighbors than are asked for."""
    level = a_level()
    near = clouds.find_around(level.cells, 5.0, 40)
    expected = torch.from_numpy(clouds.describe(level.cells.points, level.normals, near))
    for size in (2**21, 2**12):
        monkeypatch.setattr(features_reference, "PAIRS", size)
        *both, numbers, places, squares = described(level, 0.12, 40)
        assert torch.equal(numbers[0], torch.from_numpy(near.numbers)) and numbers.max() == 40
        for p, count in enumerate(near.numbers):
            assert {*places[0, p, :count].tolist()} == {*near.places[p, :count].tolist()}
        found = features_reference.describe(*both, numbers, places, squares)[0]
        torch.testing.assert_close(found, expected, rtol=0, atol=ROUNDING)


def test_a_batch_is_its_items_and_what_is_not_finite_is_nobodys_neighbor():
    level = a_level(500, 0.2)
    points, normals = (torch.from_numpy(x)[None] for x in (level.cells.points, level.normals))
    bad = points.clone()
    bad[0, 3], bad[0, 7] = torch.nan, torch.inf
    both = torch.cat((points, bad)), torch.cat((normals, normals))
    near = features_reference.around(both[0], 1.0, 30)
    found = features_reference.describe(*both, *near)
    alone = features_reference.describe(points, normals, *(x[:1] for x in near))
    assert torch.equal(found[0], alone[0])
    assert near[0][1, [3, 7]].tolist() == [0, 0]
    for p, count in enumerate(near[0][1]):
        assert not {3, 7} & {*near[1][1, p, :count].tolist()}
    kept = torch.ones(points.shape[1], dtype=torch.bool)
    kept[[3, 7]] = False
    left, turned = points[:, kept], normals[:, kept]
    expected = features_reference.describe(left, turned, *features_reference.around(left, 1.0, 30))
    torch.testing.assert_close(found[1, kept], expected[0], rtol=0, atol=ROUNDING)


def test_points_in_one_place_and_equal_normals_are_defined():
    """Connections of no length, and along the normal, count in the middle."""
    points = torch.tensor([[0.0, 0, 0], [0, 0, 0], [0, 0, 1], [1, 0, 0]], dtype=torch.float64)[None]
    normals = torch.tensor([[0.0, 0, 1]], dtype=torch.float64).expand(1, 4, 3).contiguous()
    near = features_reference.around(points, 2.0, 5)
    found = features_reference.describe(points, normals, *near)[0]
    cpu = clouds.describe(points[0].numpy(), normals[0].numpy(), clouds.Around(*(x[0].numpy() for x in near)))
    torch.testing.assert_close(found, torch.from_numpy(cpu), rtol=0, atol=ROUNDING)
    nothing = torch.zeros(2, 0, 3, dtype=torch.float64)
    near = features_reference.around(nothing, 1.0, 5)
    assert features_reference.describe(nothing, nothing, *near).shape == (2, 0, 33)


@pytest.mark.parametrize("unit", [1.0, 2.0**-30])
def test_the_way_of_other_devices_is_that_of_the_cpu(unit, monkeypatch):
    """Normals, their signs, points without: told to be elsewhere, as far as that can be here."""
    cloud = voxel_downsample(bent_sheet(), 0.08)[0]
    alone = torch.tensor([[10.0, 0, 0], [0, 10, 0], [0, 10.1, 0]], dtype=torch.float64)
    cloud = unit * torch.cat((alone, cloud))
    expected = fpfh(cloud, unit * 0.08)
    monkeypatch.setattr(_kernels, "side", lambda x: "other")
    monkeypatch.setattr(features_module, "PARTS", 2**14)
    found = fpfh(cloud, unit * 0.08)
    assert torch.equal(found.isnan(), expected.isnan()) and found[:3].isnan().all()
    # Normals differ by rounding: a neighbor may fall into the next bin.
    different = (found - expected)[3:].abs().amax(1) > ROUNDING
    assert different.double().mean() < 0.01
    line = torch.linspace(0, 1, 50, dtype=torch.float64)[:, None] * torch.ones(3, dtype=torch.float64)
    for few in (line, cloud[:2], cloud[:0], 1e300 * cloud):
        assert fpfh(few, 0.05).isnan().all() and fpfh(few, 0.05).shape == (len(few), 33)


def test_the_kernel_has_the_features_of_the_reference():
    pytest.importorskip("triton")
    from svdrot._kernels.gpu import features as features_gpu

    own, wanted = (inspect.signature(m.describe).parameters for m in (features_gpu, features_reference))
    assert [*own] == [*wanted]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    level = a_level(60, 0.3)
    points = torch.from_numpy(level.cells.points)[:22]
    points = torch.stack((points, points.flip(0), 0 * points))
    normals = torch.from_numpy(level.normals)[:22]
    normals = torch.stack((normals, normals.flip(0), normals))
    arguments = [points, normals, *features_reference.around(points, 0.7, 9)]
    assert arguments[2].max() == 9 and arguments[2].min() < 9
    found = features_gpu.describe(*(x.to(device) for x in arguments)).cpu()
    expected = features_reference.describe(*arguments)
    torch.testing.assert_close(found, expected, rtol=0, atol=ROUNDING)
    nothing = [x[:, :0].to(device) for x in arguments]
    assert features_gpu.describe(*nothing).shape == (3, 0, 33)


# In a process of its own: Triton compiles or interprets, and decides on import.
COMPILE = """
import json, math, struct, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from svdrot._kernels.gpu import features

found = []
for kernel, constants in ((features._pairs, {"NEAR": 128}), (features._blended, {})):
    for capability in (80, 90):
        signature = dict.fromkeys(kernel.arg_names, "*fp64")
        signature |= dict.fromkeys({"numbers", "places"}, "*i64") | dict.fromkeys({"n", "most"}, "i32")
        signature |= dict.fromkeys(constants, "constexpr")
        places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
        compiled = triton.compile(
            ASTSource(kernel, signature=signature, constexprs=places),
            target=GPUTarget("cuda", capability, 32),
            options={"enable_fp_fusion": False, "num_warps": 2 if constants else 1},
        )
        code = compiled.asm["ptx"]
        borders = [f(k * math.pi / 11) for f in (math.cos, math.sin) for k in (1, 3, 5, 7, 9)]
        digits = [struct.pack(">d", border).hex().upper()[1:] for border in borders]  # but for the sign
        whole = not constants or all(code.count(border) for border in digits)
        found.append(["fma.rn.f64" in code, whole])
print(json.dumps(found))
"""


def test_the_kernels_compile_and_fuse_nothing():
    """And the borders of sectors are float64, not rounded on the way."""
    pytest.importorskip("triton")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[False, True]] * 4


def test_the_gpu_has_the_features_of_the_cpu(gpu):
    cloud = voxel_downsample(bent_sheet(20_000), 0.03)[0]
    found = fpfh(cloud.to(gpu), 0.03)
    assert found.device.type == "cuda"
    different = (found.cpu() - fpfh(cloud, 0.03)).abs().amax(1) > ROUNDING
    assert different.double().mean() < 0.01
    level = a_level()
    arguments = described(level, 0.12)
    there = _kernels.select_features(arguments[0].to(gpu)).describe(*(x.to(gpu) for x in arguments))
    torch.testing.assert_close(there[0].cpu(), torch.from_numpy(level.features), rtol=0, atol=ROUNDING)


def test_select():
    assert _kernels.select_features(torch.zeros(1, 4, 3, device="meta")) is features_reference


def test_pairs_are_nearest_from_either_side():
    x = torch.randn(200, 33, generator=seeded(), dtype=torch.float64)
    y = torch.randn(150, 33, generator=seeded(1), dtype=torch.float64)
    distances = torch.cdist(x, y)
    expected = torch.zeros(200, 150, dtype=torch.bool)
    expected[torch.arange(200), distances.argmin(1)] = True
    expected[distances.argmin(0), torch.arange(150)] = True
    i, j = match(x, y)
    assert torch.equal(torch.stack((i, j), 1), expected.nonzero())
    back_j, back_i = match(y, x)
    assert set(zip(i.tolist(), j.tolist(), strict=True)) == set(
        zip(back_i.tolist(), back_j.tolist(), strict=True)
    )


def test_no_features_have_no_pairs():
    for n, m in ((0, 5), (5, 0), (0, 0)):
        i, j = match(torch.zeros(n, 33), torch.zeros(m, 33))
        assert len(i) == len(j) == 0


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="`points` must have shape"):
        fpfh(torch.zeros(5, 2), 0.1)
    with pytest.raises(ValueError, match="`voxel` must be"):
        fpfh(torch.zeros(5, 3), 0.0)
    with pytest.raises(TypeError, match="`points` must be floating point"):
        fpfh(torch.zeros(5, 3, dtype=torch.long), 0.1)
