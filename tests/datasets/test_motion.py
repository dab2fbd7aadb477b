"""BVH files against their own channels, forward kinematics by its laws, clips in their three forms."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import svdrot
from datasets import bvh, motion

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "mocap_ik"
needs_clips = pytest.mark.skipif(not (REAL / motion.PACKED).exists(), reason=f"the clips are not at {REAL}")

# Positions are sums of at most a dozen products of numbers below 1000, in float64.
ROUNDING = 1e-11

# Every liberty that the format is taken with: tabs, two spaces, small letters, names of two words, braces in
# one line, a branch that ends without a site, joints of six, three, two, one and no channels in any order.
ODD = """hierarchy
root\tmain  hip {
 OFFSET 1 2 3
 CHANNELS 6 Yrotation Xposition Zposition Xrotation Yposition Zrotation
 JOINT  left leg
 {
  OFFSET 0 -4.5e0 .5
  CHANNELS 2 Xrotation zrotation
  End  Site { OFFSET 0 -3 0 } }
 JOINT right_leg { OFFSET 1 0 0
  CHANNELS 5 Zposition Yrotation Xposition Zrotation Xrotation
  JOINT foot { OFFSET 0 0 2
   CHANNELS 1 Yrotation
  }
  JOINT wheel { OFFSET 0 7 0
   CHANNELS 0
   End Site { OFFSET 5 0 0 }
  }
 }
}
MOTION
Frames:2
Frame Time: 0.0083333
10 20 30 40 50 60 -70 80 0.5 15 25 35 45 55
-110 2 3 4 5 6 7 8 9 10 11 12 13 14
"""


def write(folder, text, name="clip.bvh"):
    file = folder / name
    file.write_text(text)
    return file


def walked(skeleton, frame):
    """Positions of the nodes, by walking from each node to the first: the description of the format."""
    frame = iter(frame)
    places = []
    turns = []
    for k, offset in enumerate(skeleton.offsets.numpy()):
        place, turn = offset.copy(), Rotation.identity()
        for name in skeleton.channels[skeleton.joints.index(k)] if k in skeleton.joints else ():
            value, axis = next(frame), "XYZ".index(name[0])
            if name.endswith("rotation"):
                turn = turn * Rotation.from_euler(name[0].lower(), value, degrees=True)
            else:
                place[axis] = value + (offset[axis] if k == 0 else 0)
        places.append(place)
        turns.append(turn)
    positions = []
    for k in range(len(places)):
        position, node = np.zeros(3), k
        while node >= 0:
            parent = skeleton.parents[node]
            position = places[node] + (turns[node].apply(position) if node != k else 0)
            node = parent
        positions.append(position)
    return np.array(positions)


# Files.


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_files_are_read(tmp_path, newline):
    file = tmp_path / "odd.bvh"
    file.write_text(ODD, newline=newline)
    skeleton, frames, seconds = bvh.read(file)
    assert skeleton.names == (
        "main  hip",
        "left leg",
        "left leg_end",
        "right_leg",
        "foot",
        "wheel",
        "wheel_end",
    )
    assert skeleton.parents == (-1, 0, 1, 0, 3, 3, 5) and skeleton.joints == (0, 1, 3, 4, 5)
    assert [len(channels) for channels in skeleton.channels] == [6, 2, 5, 1, 0]
    assert skeleton.channels[1] == ("Xrotation", "Zrotation")
    assert skeleton.offsets.tolist()[1] == [0, -4.5, 0.5] and seconds == 0.0083333
    assert frames.shape == (2, 14) and frames.dtype == torch.float64 and frames[1, 0] == -110


def test_positions_are_those_of_the_channels(tmp_path):
    skeleton, frames, _ = bvh.read(write(tmp_path, ODD))
    frames = torch.cat((frames, 200 * torch.randn(20, 14, generator=torch.Generator().manual_seed(0))))
    positions = bvh.forward_kinematics(skeleton, *bvh.local_pose(skeleton, frames))
    for frame, position in zip(frames.numpy(), positions.numpy(), strict=True):
        np.testing.assert_allclose(position, walked(skeleton, frame), atol=ROUNDING)


def test_a_cut_file_is_named_at_every_line(tmp_path):
    lines = ODD.splitlines()
    for count in range(len(lines)):
        with pytest.raises(ValueError, match=rf"clip\.bvh, line {count}: .*wanted"):
            bvh.read(write(tmp_path, "\n".join(lines[:count])))


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("hierarchy", "HIERARCHIES", "line 1: wanted `HIERARCHY`"),
        ("root\tmain  hip {", "JOINT hip {", "line 2: wanted `ROOT`"),
        ("root\tmain  hip {", "ROOT {", "line 2: wanted `ROOT` and a name"),
        (" OFFSET 1 2 3", " OFFSET 1 2", "line 3: wanted `OFFSET` and three finite numbers; got '1 2'"),
        (" OFFSET 1 2 3", " OFFSET 1 nan 3", "line 3: wanted `OFFSET` and three finite"),
        (" OFFSET 1 2 3", " POSITION 1 2 3", "line 3: wanted `OFFSET`"),
        ("CHANNELS 2", "CHANNELS 3", "line 8: wanted `CHANNELS`, how many"),
        ("zrotation", "Xrotation", "line 8: .*different"),
        ("zrotation", "Wrotation", "line 8: .*Zrotation; got .*Wrotation"),
        ("End  Site {", "End  Site { JOINT toe {", "line 9: wanted `OFFSET`"),
        ("0 -3 0 }", "0 -3 0\nJOINT toe { OFFSET 0 0 0 \n CHANNELS 0\n} }", "line 10: .*end site"),
        ("JOINT foot {", "ROOT foot {", "line 12: wanted one `ROOT`"),
        ("\nMOTION", "\n}\nMOTION", "line 21: wanted `MOTION`"),
        ("\nMOTION", "\nJOINT second {\nMOTION", "line 21: wanted one `ROOT`"),
        ("}\nMOTION", "MOTION", "line 20: wanted `}` of 'main  hip'"),
        ("JOINT foot {", "JOINED foot {", "line 12: wanted `JOINT`, `End Site`"),
        ("Frames:2", "Frames:3", "line 25: wanted the 3 frames .* has 2"),
        ("Frames:2", "Frames:1", "line 25: wanted the 1 frames .* has 2"),
        ("Frames:2", "Frames: 1.5", "line 22: wanted `Frames:` and a whole number"),
        ("Frames:2", "Frames: -2", "line 22: wanted `Frames:`"),
        ("0.0083333", "often", "line 23: wanted `Frame Time:`"),
        ("13 14\n", "13\n", "line 25: wanted 14 finite numbers"),
        ("13 14\n", "13 inf\n", "line 25: wanted 14 finite numbers"),
    ],
)
def test_broken_files_are_named(tmp_path, old, new, message):
    assert ODD.count(old) >= 1
    with pytest.raises(ValueError, match=rf"clip\.bvh, {message}"):
        bvh.read(write(tmp_path, ODD.replace(old, new, 1)))


def test_a_skeleton_may_come_without_frames(tmp_path):
    text = ODD[: ODD.index("Frames:")] + "Frames: 0\nFrame Time: 0\n"
    skeleton, frames, seconds = bvh.read(write(tmp_path, text))
    assert frames.shape == (0, 14) and seconds == 0
    assert bvh.forward_kinematics(skeleton, *bvh.local_pose(skeleton, frames)).shape == (0, 7, 3)


def test_what_is_no_file_or_no_text(tmp_path):
    with pytest.raises(FileNotFoundError):
        bvh.read(tmp_path / "none.bvh")
    (tmp_path / "binary.bvh").write_bytes(b"HIERARCHY\n\xff\xfe")
    with pytest.raises(ValueError, match=r"binary\.bvh .*byte 10"):
        bvh.read(tmp_path / "binary.bvh")


# Forward kinematics.


@pytest.fixture
def skeleton(tmp_path):
    return bvh.read(write(tmp_path, ODD))[0]


def rotations(*shape, seed=0, dtype=torch.float64):
    return svdrot.random_rotation(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def test_a_turn_of_the_first_joint_turns_the_whole(skeleton):
    r, g = rotations(4, 5), rotations(4, seed=1)
    turned = torch.cat((g[:, None] @ r[:, :1], r[:, 1:]), 1)
    one, other = (bvh.forward_kinematics(skeleton, x) for x in (r, turned))
    center = one[:, :1]
    torch.testing.assert_close(other - center, (one - center) @ g.mT, rtol=0, atol=ROUNDING)


def test_bones_keep_their_lengths(skeleton):
    positions = bvh.forward_kinematics(skeleton, rotations(2, 3, 5))
    assert positions.shape == (2, 3, 7, 3)
    bones = positions[..., 1:, :] - positions[..., list(skeleton.parents[1:]), :]
    lengths = torch.linalg.vector_norm(skeleton.offsets[1:], dim=-1)
    torch.testing.assert_close(
        torch.linalg.vector_norm(bones, dim=-1), lengths.expand(2, 3, 6), rtol=0, atol=ROUNDING
    )


def test_unturned_joints_leave_the_sums_of_offsets(skeleton):
    positions = bvh.forward_kinematics(skeleton, torch.eye(3).expand(5, 3, 3))
    expected = [[1, 2, 3], [1, -2.5, 3.5], [1, -5.5, 3.5], [2, 2, 3], [2, 2, 5], [2, 9, 3], [7, 9, 3]]
    assert positions.dtype == torch.float32
    torch.testing.assert_close(positions, torch.tensor(expected), rtol=0, atol=0)


def test_gradients(skeleton):
    r = torch.randn(2, 5, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    offsets = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.autograd.gradcheck(
        lambda r, o: bvh.forward_kinematics(skeleton, r, o), (r.requires_grad_(), offsets.requires_grad_())
    )
    frames = torch.randn(2, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    torch.autograd.gradcheck(lambda f: bvh.local_pose(skeleton, f), frames.requires_grad_())


def test_a_broken_joint_moves_its_descendants_alone(skeleton):
    r = rotations(3, 5)
    r[1, 2, 0, 1] = torch.nan  # of "right_leg"
    finite = bvh.forward_kinematics(skeleton, r).isfinite().all(-1)
    assert finite.tolist() == [[True] * 7, [True] * 4 + [False] * 3, [True] * 7]
    frames = torch.ones(2, 14)
    frames[0, 6] = torch.inf  # of "left leg"
    turns, places = bvh.local_pose(skeleton, frames)
    assert turns.isfinite().all((-2, -1)).tolist() == [[True, False, True, True, True], [True] * 5]
    assert places.isfinite().all()


def test_batches_broadcast_and_may_be_empty(skeleton):
    r, offsets = rotations(4, 1, 5), torch.randn(3, 7, 3, dtype=torch.float64)
    both = bvh.forward_kinematics(skeleton, r, offsets)
    assert both.shape == (4, 3, 7, 3)
    torch.testing.assert_close(both[2, 1], bvh.forward_kinematics(skeleton, r[2, 0], offsets[1]))
    assert bvh.forward_kinematics(skeleton, r[:0]).shape == (0, 1, 7, 3)
    assert bvh.forward_kinematics(skeleton, r.half()).dtype == torch.float32


def test_wrong_shapes_are_named(skeleton):
    with pytest.raises(ValueError, match=r"`rotations` .*5, 3, 3"):
        bvh.forward_kinematics(skeleton, torch.zeros(4, 3, 3))
    with pytest.raises(ValueError, match=r"`offsets` .*7, 3"):
        bvh.forward_kinematics(skeleton, torch.zeros(5, 3, 3), torch.zeros(5, 3))
    with pytest.raises(ValueError, match=r"`frames` .*14"):
        bvh.local_pose(skeleton, torch.zeros(13))
    with pytest.raises(TypeError, match="`frames`"):
        bvh.local_pose(skeleton, torch.zeros(14, dtype=torch.int64))


# Clips.

SMALL = """HIERARCHY
ROOT hip
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation
  JOINT chest
  {
    OFFSET 0 20 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    End Site
    {
      OFFSET 0 10 0
    }
  }
}
MOTION
Frames: {count}
Frame Time: {seconds}
"""


def small(channels, seconds=1 / 120):
    head = SMALL.replace("{count}", str(len(channels))).replace("{seconds}", str(seconds))
    return head + "".join(" ".join(map(repr, row)) + "\n" for row in channels.tolist())


def published(channels):
    """As the program that made the published arrays writes them, here by scipy: x y z w turned to w x y z."""
    place, root, chest = np.split(channels, [3, 6], axis=1)
    turns = [
        Rotation.from_euler("ZYX", root, degrees=True).as_quat(scalar_first=True),
        Rotation.from_euler("ZXY", chest, degrees=True).as_quat(scalar_first=True),
        np.tile([1, 0, 0, 0], (len(channels), 1)),
    ]
    return np.concatenate([place, *turns], 1)


@pytest.fixture
def three_forms(tmp_path):
    """Fourteen clips of one kind and one of another as BVH at 120 Hz, packed, and as published."""
    rng = np.random.default_rng(0)
    names = [*(f"walk/{k:02d}" for k in range(26)), "jump/01"]
    clips = {name: rng.uniform(-180, 180, (int(rng.integers(7, 12)), 9)).astype(np.float32) for name in names}
    for form in ("text", "packed", "published"):
        (tmp_path / form).mkdir()
        write(tmp_path / form, small(np.zeros((1, 9))), motion.SKELETON)
    for name, channels in clips.items():
        (tmp_path / "text" / name).parent.mkdir(exist_ok=True)
        write(tmp_path / "text", small(channels), f"{name}.bvh")
        folder = motion.PUBLISHED[int(name[-2:]) % 5 == 4]
        file = tmp_path / "published" / folder / f"{name}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, published(channels[::2]))
    packed = {name.replace("/", "_"): channels[::2] for name, channels in clips.items()}
    np.savez_compressed(tmp_path / "packed" / motion.PACKED, **packed)
    return {form: motion.load(tmp_path / form) for form in ("text", "packed", "published")}, clips


def test_three_forms_hold_the_same_clips(three_forms):
    forms, channels = three_forms
    for form, clips in forms.items():
        assert len(clips) == 27, form
        for name, clip in zip(clips.names, clips, strict=True):
            name = "/".join(name.split("/")[-2:])
            assert clip.dtype == torch.float32 and len(clip) == len(channels[name][::2]) - 1
            frames = channels[name][2::2].astype(np.float64)
            expected = [
                Rotation.from_euler(order, frames[:, part], degrees=True).as_matrix()
                for order, part in (("ZYX", slice(3, 6)), ("ZXY", slice(6, 9)))
            ]
            np.testing.assert_allclose(clip, np.stack(expected, 1), atol=3e-7)  # rounding to float32, once
        assert clips[3] is clips[3]


def test_whole_clips_of_each_kind_are_held_out(three_forms):
    forms, _ = three_forms
    parts = {}
    for form, clips in forms.items():
        training, held = motion.split(clips)
        assert sorted([*training, *held]) == list(range(27))
        parts[form] = {clips.names[k] for k in held}
    assert parts["text"] == parts["packed"]
    assert [name[:4] for name in parts["text"]] == ["walk"] * 2  # one in twelve of 26, and none of one
    assert parts["published"] == {f"quat_data_test/walk/{k:02d}" for k in (4, 9, 14, 19, 24)}


def test_other_rates_come_to_sixty(tmp_path):
    write(tmp_path, small(np.zeros((1, 9))), motion.SKELETON)
    for name, seconds in {"slow": 1 / 30, "same": 1 / 60, "fast": 1 / 240}.items():
        write(tmp_path, small(np.zeros((13, 9)), seconds), f"{name}.bvh")
    clips = motion.load(tmp_path)
    assert {name: len(clip) for name, clip in zip(clips.names, clips, strict=True)} == {
        "fast": 3,
        "same": 12,
        "slow": 12,
    }
    assert len(motion.split(clips)[1]) == 1


def test_broken_clips_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"standard\.bvh.*\n.*papagina/RotationContinuity"):
        motion.load(tmp_path)
    write(tmp_path, small(np.zeros((1, 9))), motion.SKELETON)
    with pytest.raises(FileNotFoundError, match=r"no clips in .*quat_data_train.*every2nd\.npz.*\.bvh"):
        motion.load(tmp_path)
    write(tmp_path, ODD, "other.bvh")
    with pytest.raises(ValueError, match=r"other\.bvh must have the joints"):
        motion.load(tmp_path)[0]
    write(tmp_path, small(np.zeros((3, 9)), 0), "other.bvh")
    with pytest.raises(ValueError, match=r"other\.bvh: `Frame Time:` must be positive"):
        motion.load(tmp_path)[0]
    np.savez(tmp_path / motion.PACKED, a_1=np.zeros((3, 8)), a_2=np.full((3, 9), np.nan))
    for k, message in enumerate((r"\(frames, 9\); got shape \(3, 8\)", "27 of them not finite")):
        with pytest.raises(ValueError, match=rf"every2nd\.npz.*{message}"):
            motion.load(tmp_path)[k]
    whole = (tmp_path / motion.PACKED).read_bytes()
    for broken in (b"", whole[:-9], whole[:90]):
        (tmp_path / motion.PACKED).write_bytes(broken)
        with pytest.raises(ValueError, match=r"every2nd\.npz cannot be read"):
            motion.load(tmp_path)
    with (tmp_path / motion.PACKED).open("wb") as file:
        np.save(file, np.zeros((3, 8)))
    with pytest.raises(ValueError, match=r"every2nd\.npz is one array, not an npz of clips"):
        motion.load(tmp_path)
    (tmp_path / motion.PUBLISHED[0]).mkdir()
    np.save(tmp_path / motion.PUBLISHED[0] / "cut.npy", np.zeros((3, 10)))
    with pytest.raises(ValueError, match=r"cut\.npy.*\(frames, 15\)"):
        motion.load(tmp_path)[0]
    np.save(tmp_path / motion.PUBLISHED[0] / "cut.npy", np.array([["x"] * 15]))
    with pytest.raises(ValueError, match=r"cut\.npy: wanted numbers"):
        motion.load(tmp_path)[0]
    (tmp_path / motion.PUBLISHED[0] / "cut.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(ValueError, match=r"cut\.npy cannot be read"):
        motion.load(tmp_path)[0]


@needs_clips
def test_the_skeleton_of_the_published_experiment():
    skeleton, frames, _ = bvh.read(REAL / motion.SKELETON)
    assert (len(skeleton.names), len(skeleton.joints), frames.shape) == (57, 43, (3, 132))
    # The nodes to which Zhou 2019 gives ten times the weight.
    assert [skeleton.names[k] for k in (0, 1, 47, 52)] == ["hip", "abdomen", "rButtock", "lButtock"]
    positions = bvh.forward_kinematics(skeleton, *bvh.local_pose(skeleton, frames))
    for frame, position in zip(frames.numpy(), positions.numpy(), strict=True):
        np.testing.assert_allclose(position, walked(skeleton, frame), rtol=0, atol=ROUNDING)


@needs_clips
def test_the_packed_clips():
    clips = motion.load(REAL)
    training, held = motion.split(clips)
    assert len(clips) == 11 and {clips.names[k].split("/")[0] for k in held} == {"martial", "salsa"}
    everyone = torch.cat(list(clips))
    assert everyone.shape == (10_944 - 11, 43, 3, 3) and set(training).isdisjoint(held)
    angle = torch.rad2deg(svdrot.geodesic_distance(everyone[::8], torch.eye(3)))
    assert (angle[:, 0] > 90).float().mean().item() == pytest.approx(0.23, abs=0.01)
    quantiles = np.quantile(angle[:, 1:].numpy(), [0.5, 0.9, 0.99])
    np.testing.assert_allclose(quantiles, [3.1, 66, 107], atol=1)
