"""Reading and writing pose graphs: conventions, round trips, and what a damaged file is told."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

import svdrot
from svdrot.io.pose_graphs import SKIPPED, PoseGraph, read_pose_graph, write_pose_graph
from svdrot.registration import Transform

REAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "posegraph"
on_disk = pytest.mark.skipif(
    not (REAL / "sphere2500.txt").exists(), reason=f"the pose graphs are not at {REAL}"
)

UPPER = " ".join(str(k) for k in range(21))
VERTICES = "VERTEX_SE3:QUAT 5 1 2 3 0 0 0 1\nVERTEX_SE3:QUAT 3 0 0 0 0 0 0.6 0.8\n"
EDGE = f"EDGE_SE3:QUAT 5 3 1 2 3 0.6 0 0 0.8 {UPPER}\n"


def read(tmp_path, text, name="graph.g2o"):
    file = tmp_path / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_pose_graph(file)


def poses(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rotation = svdrot.random_rotation(count, dtype=torch.float64, generator=generator)
    translation = torch.randn(count, 3, dtype=torch.float64, generator=generator)
    return Transform(rotation, translation, torch.ones(count, dtype=torch.float64))


def example(with_poses=True):
    information = torch.randn(4, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return PoseGraph(
        torch.tensor([7, 2, 90]),
        poses(3) if with_poses else None,
        torch.tensor([[0, 1], [1, 2], [2, 0], [0, 1]]),
        poses(4, 2),
        information @ information.mT,
    )


def assert_same(a, b):
    assert torch.equal(a.ids[a.edges], b.ids[b.edges])
    assert set(a.ids.tolist()) == set(b.ids.tolist())
    for one, other in ((a.relative, b.relative), (a.poses, b.poses)):
        if one is None or other is None:
            assert one is other
        else:
            assert torch.equal(one.translation, other.translation)
            torch.testing.assert_close(one.rotation, other.rotation, rtol=0, atol=2e-15)
    assert torch.equal(torch.triu(a.information), torch.triu(b.information))


@pytest.mark.parametrize("with_poses", [True, False])
@pytest.mark.parametrize("name", ["graph.g2o", "graph.g2o.gz"])
def test_what_is_written_is_read(tmp_path, name, with_poses):
    graph = example(with_poses)
    write_pose_graph(tmp_path / name, graph)
    assert_same(read_pose_graph(tmp_path / name), graph)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_quaternions_are_x_y_z_w_in_the_file(tmp_path):
    graph = read(tmp_path, VERTICES + EDGE)
    turn_x = svdrot.quaternion_to_matrix(torch.tensor([[0.8, 0.6, 0, 0]], dtype=torch.float64))
    turn_z = svdrot.quaternion_to_matrix(torch.tensor([0.8, 0, 0, 0.6], dtype=torch.float64))
    torch.testing.assert_close(graph.relative.rotation, turn_x)
    assert graph.poses is not None
    torch.testing.assert_close(graph.poses.rotation[1], turn_z)
    assert graph.ids.tolist() == [5, 3] and graph.edges.tolist() == [[0, 1]]
    assert graph.information[0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert graph.information[0, :, 5].tolist() == [5, 10, 14, 17, 19, 20]
    assert torch.equal(graph.information, graph.information.mT)


def test_line_ends_comments_blanks_and_known_other_records(tmp_path):
    others = "".join(f"{name} 1 2 3\n" for name in sorted(SKIPPED))
    text = "\n# a comment\n" + VERTICES + "   \n" + others + EDGE.replace("\n", "   # the edge\n")
    graph = read(tmp_path, text)
    assert_same(graph, read(tmp_path, VERTICES + EDGE))
    assert graph.skipped == dict.fromkeys(SKIPPED, 1)
    assert_same(read(tmp_path, b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()), graph)
    assert_same(read(tmp_path, gzip.compress(text.rstrip().encode()), "packed.gz"), graph)


def test_the_plane_lies_in_space(tmp_path):
    text = "VERTEX_SE2 0 1 2 0.5\nVERTEX_SE2 1 0 0 0\nEDGE_SE2 0 1 3 4 -0.25 1 2 3 4 5 6\n"
    graph = read(tmp_path, text)
    assert graph.poses is not None
    turn = svdrot.axis_angle_to_matrix(torch.tensor([[0, 0, 0.5], [0, 0, -0.25]], dtype=torch.float64))
    torch.testing.assert_close(graph.poses.rotation[0], turn[0])
    torch.testing.assert_close(graph.relative.rotation[0], turn[1])
    assert graph.relative.translation.tolist() == [[3, 4, 0]]
    wanted = torch.zeros(6, 6, dtype=torch.float64)
    wanted[[0, 0, 0, 1, 1, 5, 1, 5, 5], [0, 1, 5, 1, 5, 5, 0, 0, 1]] = torch.tensor(
        [1.0, 2, 3, 4, 5, 6, 2, 3, 5], dtype=torch.float64
    )
    assert torch.equal(graph.information[0], wanted)


def test_records_of_two_kinds_keep_the_order_of_the_file(tmp_path):
    edges = f"EDGE3 0 1 1 0 0 0 0 0 {UPPER}\n{EDGE.replace('5 3', '1 2')}EDGE3 2 0 9 0 0 0 0 0 {UPPER}\n"
    graph = read(tmp_path, edges)
    assert graph.edges.tolist() == [[0, 1], [1, 2], [2, 0]] and graph.poses is None
    assert graph.relative.translation[:, 0].tolist() == [1, 1, 9]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (EDGE.replace("0.6", "0.6x"), "all finite"),
        (EDGE.replace("0.6", "nan"), "all finite"),
        (EDGE.replace("0.6", "1e999"), "all finite"),
        (EDGE.replace(" 20", " 2_0"), "all finite"),
        (EDGE[: len(EDGE) // 2], "wanted"),
        (EDGE.strip() + " 7", "wanted"),
        (EDGE.replace("5 3", "5.0 3"), "wanted"),
        (EDGE.replace("5 3", f"{10**30} 3"), "wanted"),
        (EDGE.replace("0.6", "0.0").replace("0.8", "0"), "length 0"),
        (EDGE.replace("0.6", "0.7"), "length 1.06"),
        (EDGE.replace("5 3", "5 4"), "no vertex 4"),
        (EDGE.replace("5 3", "5 5"), "to itself"),
        ("VERTEX_SE3:QUAT 5 0 0 0 0 0 0 1", "second vertex 5"),
        (EDGE.replace("EDGE_SE3", "EDGE_SE4"), "no record"),
        ("\0" * 300, "no record"),
    ],
)
def test_damage_is_named_by_file_and_line(tmp_path, line, said):
    with pytest.raises(ValueError, match=said) as error:
        read(tmp_path, VERTICES + line.rstrip("\n") + "\n" + EDGE)
    assert "graph.g2o, line 3" in str(error.value) and len(str(error.value)) < 600


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        (b"", "graph.g2o", "holds no vertex"),
        (b"# nothing\nFIX 0\n", "graph.g2o", "holds no vertex"),
        (VERTICES.encode() + b"\x89PNG\xff\n", "graph.g2o", "line 3: not text"),
        (EDGE.encode(), "graph.gz", "unpacked"),
        (gzip.compress(EDGE.encode(), mtime=0)[:-20], "graph.gz", "unpacked"),
    ],
)
def test_what_is_no_graph_is_named(tmp_path, content, name, said):
    with pytest.raises(ValueError, match=said) as error:
        read(tmp_path, content, name)
    assert name in str(error.value)


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_pose_graph(tmp_path / "nowhere.g2o")


def test_writing_refuses_what_cannot_be_read_and_leaves_the_old_file(tmp_path):
    file = tmp_path / "graph.g2o"
    write_pose_graph(file, example())
    before = file.read_bytes()
    good, one = example(), torch.ones(4, dtype=torch.float64)
    broken = Transform(good.relative.rotation * torch.nan, good.relative.translation, one)
    scaled = Transform(good.relative.rotation, good.relative.translation, 2 * one)
    for relative in (broken, scaled):
        with pytest.raises(ValueError, match="`graph`"):
            write_pose_graph(file, PoseGraph(good.ids, None, good.edges, relative, good.information))
    with pytest.raises(ValueError, match="neither pose nor edge"):
        write_pose_graph(file, PoseGraph(torch.arange(9), None, good.edges, good.relative, good.information))
    assert file.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def cycle_angles(graph):
    """Angles by which loops of consecutive edges and one other do not close, in degrees."""
    pairs = graph.edges.tolist()
    chain = [torch.eye(3, dtype=torch.float64)]
    steps = {pair[0]: k for k, pair in enumerate(pairs) if pair[1] == pair[0] + 1}
    for i in range(len(graph.ids) - 1):
        chain.append(chain[-1] @ graph.relative.rotation[steps[i]])
    chain = torch.stack(chain)
    i, j = graph.edges.unbind(1)
    return torch.rad2deg(svdrot.geodesic_distance(chain[i] @ graph.relative.rotation, chain[j]))


@on_disk
def test_loops_without_noise_close():
    truth = read_pose_graph(REAL / "sphere2500_groundtruth.txt")
    assert cycle_angles(truth).max() < 2.5e-4  # what the six digits of the file leave; in the other order 0.7


@on_disk
def test_the_published_graphs(tmp_path):
    sphere, grid = (read_pose_graph(REAL / name) for name in ("sphere2500.txt", "smallGrid3D.g2o"))
    assert (len(sphere.ids), len(sphere.edges), sphere.poses) == (2500, 4949, None)
    assert sphere.information[0].diagonal().tolist() == [10, 10, 10, 100, 100, 25]
    assert (len(grid.ids), len(grid.edges)) == (125, 297) and grid.poses is not None
    # The vertices of the grid are its odometry, chained, to the seven digits of the file.
    i, j = grid.edges.unbind(1)
    left = svdrot.geodesic_distance(grid.poses.rotation[i] @ grid.relative.rotation, grid.poses.rotation[j])
    assert left[j == i + 1].max() < 1e-6 < 0.1 < left[j != i + 1].median()
    for graph in (sphere, grid):
        write_pose_graph(tmp_path / "copy.g2o", graph)
        assert_same(read_pose_graph(tmp_path / "copy.g2o"), graph)


def test_a_large_file_is_read_line_by_line_once(tmp_path):
    """20,000 edges; about 0.3 s on one core, and nothing in it grows faster than the file."""
    lines = [EDGE.replace("5 3", f"{k} {k + 1}") for k in range(20_000)]
    graph = read(tmp_path, "".join(lines))
    assert np.array_equal(graph.edges.numpy(), np.stack((np.arange(20_000), np.arange(1, 20_001)), 1))
