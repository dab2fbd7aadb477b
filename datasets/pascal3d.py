r"""PASCAL3D+: photographs of objects of twelve kinds, with the direction from which each is seen.

    PASCAL3D+_release1.1/
        Annotations/aeroplane_imagenet/n02690373_16.mat         also aeroplane_pascal/2008_000033.mat
        Images/aeroplane_imagenet/n02690373_16.JPEG             also aeroplane_pascal/2008_000033.jpg
        Image_sets/aeroplane_imagenet_train.txt, ..._val.txt    names, one a line
        PASCAL/VOCdevkit/VOC2012/ImageSets/Main/train.txt, val.txt

An annotation lists the objects of one image: where they are in it, whether they are truncated, occluded or
difficult, and the viewpoint: azimuth, elevation and in-plane rotation theta, degrees in the file.

Pictures of ImageNet, and those of PASCAL's `train`, are there to train, those of PASCAL's `val` to test, as
in Liao et al., "Spherical Regression", CVPR 2019. What is truncated or occluded is left out by Levinson 2020.

The release was not at hand: the loader was tested on small files of this layout only.
"""

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from svdrot.io import text
from svdrot.representations import euler_to_matrix

CATEGORIES = tuple(
    "aeroplane bicycle boat bottle bus car chair diningtable motorbike sofa train tvmonitor".split()
)

SOURCE = """
Download PASCAL3D+_release1.1.zip, by https://cvgl.stanford.edu/projects/pascal3d.html or from
ftp://cs.stanford.edu/cs/cvgl/PASCAL3D+_release1.1.zip, and unpack it: the folder to name is
PASCAL3D+_release1.1. Its authors give no checksum; the MD5 sum 28c2d7dac539cf5f2592cbc06299f895 is that which
https://github.com/wkentaro/pascal3d expects of its copy."""


def viewpoint_to_matrix(azimuth: Tensor, elevation: Tensor, theta: Tensor) -> Tensor:
    r"""Rotations from the frame of an object to that of a camera: $R_z(\theta) R_x(e - \pi/2) R_z(-a)$.

    The camera has x to the right, y up and z towards itself. The object stands upright on z; azimuth 0 sees
    it from -y, its front, and azimuth pi/2 from x. From above, elevation is pi/2. Theta turns the picture
    anticlockwise.

    Args:
        azimuth: radians, any shape.
        elevation: radians, likewise; shapes broadcast.
        theta: radians, likewise.

    Returns:
        Rotations, shape (..., 3, 3).

    Source:
        Xiang et al., "Beyond PASCAL", WACV 2014, and the projection in the toolkit of the release.
    """
    angles = torch.stack(torch.broadcast_tensors(theta, elevation - math.pi / 2, -azimuth), -1)
    return euler_to_matrix(angles, "ZXZ")


@dataclass(frozen=True)
class Object:
    """One object of an image.

    Attributes:
        category: one of `CATEGORIES`, or another.
        box: left, top, right and bottom in the image, pixels.
        truncated: whether it goes beyond the image.
        occluded: whether something is in front of it.
        difficult: whether it is hard to recognize.
        viewpoint: azimuth, elevation and theta, radians; None if there is none, or only a coarse one.
        distance: of the camera, in the unit of the CAD model; 0 without a viewpoint.
    """

    category: str
    box: tuple[float, float, float, float]
    truncated: bool
    occluded: bool
    difficult: bool
    viewpoint: tuple[float, float, float] | None
    distance: float


def read(path: Path) -> list[Object]:
    """The objects of one annotation, in the order of the file.

    Of files that are damaged within, scipy's reader may end the process (2 % of changed bytes did): compare
    the checksum of the download.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: with the file, and the number of the object from 1, if it is no such annotation, a number
            is not finite, or if it is cut.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        record: Any = loadmat(path, squeeze_me=True, struct_as_record=False)["record"]
        objects = np.atleast_1d(record.objects)
    # What scipy raises of files that are cut or changed: found by doing both at every byte.
    except (
        MatReadError,
        AttributeError,
        EOFError,
        IndexError,
        KeyError,
        NotImplementedError,
        OSError,
        TypeError,
        UnboundLocalError,
        ValueError,
        ZeroDivisionError,
        zlib.error,
    ) as error:
        raise ValueError(f"{path} cannot be read as `record.objects` of a MATLAB file: {error!r}.") from error
    return [_object(f"{path}, object {number}", item) for number, item in enumerate(objects, 1)]


def _object(where: str, item: Any) -> Object:
    def field(owner: Any, name: str, count: int, wanted: str) -> list[float]:
        value = np.atleast_1d(np.array(getattr(owner, name, None)))
        if value.shape != (count,) or value.dtype.kind not in "biuf" or not np.isfinite(value).all():
            raise ValueError(f"{where}: wanted {wanted} `{name}`; got {value.tolist()}.")
        return [float(number) for number in value]

    def flag(name: str) -> bool:
        (value,) = field(item, name, 1, "0 or 1 as")
        if value not in (0, 1):
            raise ValueError(f"{where}: wanted 0 or 1 as `{name}`; got {value:g}.")
        return bool(value)

    category = getattr(item, "class", None)
    if not isinstance(category, str):
        raise ValueError(f"{where}: wanted a word as `class`; got {category!r}.")
    left, top, right, bottom = field(item, "bbox", 4, "four finite numbers as")
    view, distance, viewpoint = getattr(item, "viewpoint", None), 0.0, None
    if hasattr(view, "distance"):
        (distance,) = field(view, "distance", 1, "a finite number as")
    if distance:  # it is 0 where a viewpoint has but been put into a bin, and the three angles are too
        degrees = [
            field(view, name, 1, "a finite number as")[0] for name in ("azimuth", "elevation", "theta")
        ]
        azimuth, elevation, theta = map(math.radians, degrees)
        viewpoint = (azimuth, elevation, theta)
    flags = flag("truncated"), flag("occluded"), flag("difficult")
    return Object(category, (left, top, right, bottom), *flags, viewpoint, distance)


@dataclass(frozen=True)
class Objects:
    """Objects with their rotations, category after category.

    Attributes:
        images: of each object, the image that it is in.
        objects: what is said of them.
        categories: names; `labels` are places among them.
        rotations: from the frame of the object to the camera's, shape (len, 3, 3), float64.
        labels: shape (len,), int64.
    """

    images: tuple[Path, ...]
    objects: tuple[Object, ...]
    categories: tuple[str, ...]
    rotations: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.objects)


def load(
    root: Path,
    *,
    test: bool = False,
    categories: tuple[str, ...] = CATEGORIES,
    truncated: bool = False,
    occluded: bool = False,
    difficult: bool = False,
) -> Objects:
    """The objects to train with, or to test with, that have a viewpoint.

    Args:
        root: the unpacked `PASCAL3D+_release1.1`.
        test: those of PASCAL's `val` instead.
        categories: which, in the order of the labels.
        truncated: whether such objects are kept; likewise the other two.

    Raises:
        FileNotFoundError: if a list is not there, or the annotation of an image of ImageNet in a list; says
            where the release comes from.
        ValueError: with the file, if an annotation is broken, or there is no object in all.
    """
    root = Path(root)
    found = [
        (image, item)
        for category in categories
        for image, annotation in _listed(root, category, test)
        for item in read(annotation)
        if item.category == category
        and item.viewpoint is not None
        and (truncated or not item.truncated)
        and (occluded or not item.occluded)
        and (difficult or not item.difficult)
    ]
    if not found:
        raise ValueError(f"{root.resolve()} lists no object of {', '.join(categories)} that is to be kept.")
    images, objects = zip(*found, strict=True)
    angles = torch.tensor([item.viewpoint for item in objects], dtype=torch.float64)
    labels = torch.tensor([categories.index(item.category) for item in objects])
    return Objects(images, objects, tuple(categories), viewpoint_to_matrix(*angles.unbind(1)), labels)


def _listed(root: Path, category: str, test: bool) -> Iterator[tuple[Path, Path]]:
    """Images and their annotations; PASCAL's lists have the images of all categories."""
    if not test:
        for part in ("train", "val"):
            for name in _names(root, f"Image_sets/{category}_imagenet_{part}.txt"):
                annotation = root / "Annotations" / f"{category}_imagenet" / f"{name}.mat"
                if not annotation.is_file():
                    raise FileNotFoundError(f"no {annotation.resolve()}, which a list names.{SOURCE}")
                yield root / "Images" / f"{category}_imagenet" / f"{name}.JPEG", annotation
    lists = "PASCAL/VOCdevkit/VOC2012/ImageSets/Main"
    for name in _names(root, f"{lists}/{'val' if test else 'train'}.txt"):
        annotation = root / "Annotations" / f"{category}_pascal" / f"{name}.mat"
        if annotation.is_file():
            yield root / "Images" / f"{category}_pascal" / f"{name}.jpg", annotation


def _names(root: Path, path: str) -> list[str]:
    if not (root / path).is_file():
        raise FileNotFoundError(f"no {(root / path).resolve()}.{SOURCE}")
    return [line.split()[0] for _, line in text.lines(root / path)]
