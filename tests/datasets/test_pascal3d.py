"""PASCAL3D+ on small files of its layout; viewpoints by where they put the camera."""

import math

import numpy as np
import pytest
import scipy.io
import torch

import svdrot
from datasets import pascal3d

ROUNDING = 1e-14  # of a product of three rotations, in float64


def struct(*rows):
    """A MATLAB structure, or an array of some, with the fields of the first row."""
    array = np.empty((1, len(rows)), dtype=[(name, object) for name in rows[0]])
    for k, row in enumerate(rows):
        for name, value in row.items():
            array[0, k][name] = value
    return array


def view(azimuth=30.0, elevation=10.0, theta=-5.0, distance=4.0, **changed):
    angles = {"azimuth_coarse": 30.0, "azimuth": azimuth, "elevation": elevation, "theta": theta}
    return struct({**angles, "distance": distance, "focal": 1.0, "viewport": 3000.0, **changed})


def thing(category="car", viewpoint=None, **changed):
    return {
        "class": category,
        "truncated": np.uint8(0),
        "occluded": np.uint8(0),
        "difficult": np.uint8(0),
        "bbox": np.array([[10.0, 20.0, 110.5, 80.0]]),
        "viewpoint": view() if viewpoint is None else viewpoint,
        **changed,
    }


def write(path, *things, compress=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    record = struct({"filename": f"{path.stem}.jpg", "objects": struct(*things)})
    scipy.io.savemat(path, {"record": record}, do_compression=compress)
    return path


# Viewpoints.


def angles(count=200, seed=0):
    draw = torch.rand(3, count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return draw[0] * 2 * math.pi, (draw[1] - 0.5) * math.pi, (draw[2] * 2 - 1) * math.pi


def test_the_camera_is_where_azimuth_and_elevation_put_it():
    azimuth, elevation, theta = angles()
    rotation = pascal3d.viewpoint_to_matrix(azimuth, elevation, theta)
    assert svdrot.is_rotation(rotation, tolerance=ROUNDING).all()
    place = torch.stack(
        (
            elevation.cos() * azimuth.sin(),
            -elevation.cos() * azimuth.cos(),
            elevation.sin(),
        ),
        -1,
    )
    # The camera looks along -z, so it is in direction z of the object.
    seen = (rotation @ place[..., None])[..., 0]
    torch.testing.assert_close(seen, torch.tensor([0.0, 0, 1]).double().expand(200, 3), rtol=0, atol=ROUNDING)


def test_what_is_upright_is_upright_in_the_image_but_for_theta():
    azimuth, elevation, theta = angles()
    up = pascal3d.viewpoint_to_matrix(azimuth, elevation, torch.zeros_like(theta))[..., 2]
    expected = torch.stack((torch.zeros_like(azimuth), elevation.cos(), elevation.sin()), -1)
    torch.testing.assert_close(up, expected, rtol=0, atol=ROUNDING)
    turned = pascal3d.viewpoint_to_matrix(azimuth, elevation, theta)[..., 2]
    # Anticlockwise by theta in the image, whose x is right and y up.
    turn = torch.stack((-theta.sin() * elevation.cos(), theta.cos() * elevation.cos(), elevation.sin()), -1)
    torch.testing.assert_close(turned, turn, rtol=0, atol=ROUNDING)


def test_viewpoints_broadcast():
    azimuth, elevation, _ = angles(4)
    rotation = pascal3d.viewpoint_to_matrix(azimuth[:, None], elevation, torch.tensor(0.0).double())
    assert rotation.shape == (4, 4, 3, 3)
    torch.autograd.gradcheck(
        lambda a: pascal3d.viewpoint_to_matrix(a, elevation, azimuth), azimuth.requires_grad_()
    )


# Annotations.


@pytest.mark.parametrize("compress", [True, False])
def test_annotations_are_read(tmp_path, compress):
    file = write(
        tmp_path / "a.mat",
        thing(truncated=np.uint8(1)),
        thing("bus", np.zeros((0, 0))),
        thing("boat", view(0.0, 0.0, 0.0, 0.0), difficult=np.uint8(1)),
        thing("boat", struct({"azimuth_coarse": 40.0, "elevation_coarse": 10.0})),
        compress=compress,
    )
    first, *others = pascal3d.read(file)
    assert first.category == "car" and first.box == (10, 20, 110.5, 80) and first.distance == 4
    assert (first.truncated, first.occluded, first.difficult) == (True, False, False)
    assert first.viewpoint == pytest.approx([math.radians(x) for x in (30, 10, -5)])
    assert [item.category for item in others] == ["bus", "boat", "boat"]
    assert all(item.viewpoint is None and item.distance == 0 for item in others)
    assert others[1].difficult
    assert len(pascal3d.read(write(tmp_path / "one.mat", thing()))) == 1


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"bbox": np.array([[1.0, 2, 3]])}, "four finite numbers as `bbox`"),
        ({"bbox": np.array([[1.0, 2, 3, np.nan]])}, "four finite numbers as `bbox`"),
        ({"class": 3.0}, "a word as `class`"),
        ({"truncated": np.zeros((0, 0))}, r"0 or 1 as `truncated`; got \[\]"),
        ({"occluded": 2.0}, "0 or 1 as `occluded`; got 2"),
        ({"difficult": "no"}, "0 or 1 as `difficult`"),
        ({"viewpoint": view(azimuth=np.inf)}, "a finite number as `azimuth`"),
        ({"viewpoint": view(theta=np.zeros((0, 0)))}, "a finite number as `theta`"),
        ({"viewpoint": view(distance="far")}, "a finite number as `distance`"),
        ({"viewpoint": struct({"distance": 3.0, "azimuth": 1.0})}, "a finite number as `elevation`"),
    ],
)
def test_broken_objects_are_named(tmp_path, changed, message):
    file = write(tmp_path / "a.mat", thing(), thing(**changed))
    with pytest.raises(ValueError, match=rf"a\.mat, object 2: wanted {message}"):
        pascal3d.read(file)


@pytest.mark.parametrize("compress", [True, False])
def test_files_cut_anywhere_are_named(tmp_path, compress):
    file = write(tmp_path / "a.mat", thing(), compress=compress)
    whole = file.read_bytes()
    for kept in range(0, len(whole) - 1, 7):
        file.write_bytes(whole[:kept])
        with pytest.raises(ValueError, match=r"a\.mat"):
            pascal3d.read(file)


# For each kind of exception that scipy raises a byte that makes it do so.
@pytest.mark.parametrize("at, byte", [(127, 0), (144, 0), (160, 0), (176, 0), (188, 0), (200, 255), (466, 0)])
def test_files_with_a_changed_byte_are_named(tmp_path, at, byte):
    file = write(tmp_path / "a.mat", thing(), compress=False)
    content = bytearray(file.read_bytes())
    content[at] = byte
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.mat cannot be read"):
        pascal3d.read(file)


def test_other_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.mat"):
        pascal3d.read(tmp_path / "none.mat")
    scipy.io.savemat(tmp_path / "other.mat", {"anything": 1})
    (tmp_path / "text.mat").write_text(
        "no MATLAB file, but long enough to be taken for one at the first look" * 3
    )
    scipy.io.savemat(tmp_path / "flat.mat", {"record": 1.0})
    for name in ("other", "text", "flat"):
        with pytest.raises(ValueError, match=rf"{name}\.mat cannot be read as `record\.objects`"):
            pascal3d.read(tmp_path / f"{name}.mat")


# The release.


@pytest.fixture
def release(tmp_path):
    """Cars and buses: an image with both, some in each list, one of each flag, one without a viewpoint."""
    annotations = tmp_path / "Annotations"
    write(annotations / "car_imagenet" / "n1.mat", thing(viewpoint=view(azimuth=10.0)))
    write(annotations / "car_imagenet" / "n2.mat", thing(viewpoint=view(azimuth=20.0)), thing("bus"))
    write(
        annotations / "bus_imagenet" / "n3.mat",
        thing("bus", view(azimuth=30.0)),
        thing("bus", view(distance=0.0)),
    )
    write(annotations / "car_pascal" / "2008_1.mat", thing(viewpoint=view(azimuth=40.0)))
    write(annotations / "car_pascal" / "2008_2.mat", thing(viewpoint=view(azimuth=50.0)))
    flags = ("truncated", "occluded", "difficult")
    hidden = [thing("bus", view(azimuth=60.0 + k), **{name: 1.0}) for k, name in enumerate(flags)]
    write(annotations / "bus_pascal" / "2008_2.mat", *hidden, thing("bus", view(azimuth=70.0)))
    lists = {
        "Image_sets/car_imagenet_train.txt": "n1\n",
        "Image_sets/car_imagenet_val.txt": "n2\n",
        "Image_sets/bus_imagenet_train.txt": "n3\n",
        "Image_sets/bus_imagenet_val.txt": "",
        "PASCAL/VOCdevkit/VOC2012/ImageSets/Main/train.txt": "2008_1\n2008_9\n",
        "PASCAL/VOCdevkit/VOC2012/ImageSets/Main/val.txt": "2008_2\n2008_9\n",
    }
    for name, text in lists.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def azimuths(objects):
    return [round(math.degrees(item.viewpoint[0])) for item in objects.objects]


def test_lists_part_what_is_to_train_and_to_test(release):
    chosen = {"categories": ("car", "bus")}
    training = pascal3d.load(release, **chosen)
    assert azimuths(training) == [10, 20, 40, 30] and training.labels.tolist() == [0, 0, 0, 1]
    assert [image.relative_to(release / "Images").as_posix() for image in training.images] == [
        "car_imagenet/n1.JPEG",
        "car_imagenet/n2.JPEG",
        "car_pascal/2008_1.jpg",
        "bus_imagenet/n3.JPEG",
    ]
    test = pascal3d.load(release, test=True, **chosen)
    assert azimuths(test) == [50, 70] and len(test) == 2
    for k, flag in enumerate(("truncated", "occluded", "difficult")):
        assert azimuths(pascal3d.load(release, test=True, **chosen, **{flag: True})) == [50, 60 + k, 70]
    assert azimuths(pascal3d.load(release, test=True, categories=("bus",))) == [70]


def test_rotations_are_those_of_the_viewpoints(release):
    objects = pascal3d.load(release, categories=("car",))
    expected = pascal3d.viewpoint_to_matrix(
        *torch.tensor([item.viewpoint for item in objects.objects], dtype=torch.float64).T
    )
    assert torch.equal(objects.rotations, expected) and objects.rotations.dtype == torch.float64


def test_missing_parts_are_named_with_their_source(release):
    with pytest.raises(
        FileNotFoundError, match=r"(?s)aeroplane_imagenet_train\.txt.*PASCAL3D\+_release1\.1\.zip"
    ):
        pascal3d.load(release)
    with pytest.raises(ValueError, match="lists no object of boat"):
        pascal3d.load(release, test=True, categories=("boat",))
    (release / "Annotations" / "car_imagenet" / "n2.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"n2\.mat, which a list names"):
        pascal3d.load(release, categories=("car",))
