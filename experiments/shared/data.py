"""Data that experiments read: where it lies, and where it is to be had.

An experiment that reads data has the option --root, the folder of the data. Unless it is given, that is
data/<name> in the current folder, with the names below.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments.shared import run

SOURCES = {
    "meshes": "any meshes *.obj; those of the published results, boat, fish, goathead, penguin, spot and"
    " wingnut, are in https://github.com/odedstein/meshes, folder objects",
    "mocap_ik": "standard.bvh, of https://github.com/papagina/RotationContinuity,"
    " folder Inverse_Kinematics/data, and clips by the links of its README or of datasets/motion.py",
    "object_poses": "gt_lmo-test.csv and megapose_lmo-test.csv, of https://github.com/thodan/bop_toolkit,"
    " folder bop_toolkit_lib/tests/data/results_sub",
    "planes": "the ShapeNet airplanes, of https://github.com/papagina/RotationContinuity, folder"
    " shapenet/data/pc_plane, and give the path of that folder",
    "posegraph": "sphere2500.txt and sphere2500_groundtruth.txt, of https://github.com/borglab/gtsam, folder"
    " examples/Data, and smallGrid3D.g2o, of https://github.com/david-m-rosen/SE-Sync, folder data",
    "registration": "folders lidar_small_gicp, kitchen_3dmatch_0_1 and indoor_geotransformer_demo, each with"
    " source, target and transform, from the demos of https://github.com/koide3/small_gicp,"
    " https://github.com/zgojcic/3DSmoothNet and https://github.com/qinzheng93/GeoTransformer",
    "trajectories": "KITTI_00_*.txt and expected_*_stats.json, of https://github.com/MichaelGrupp/evo, folder"
    " test/data",
}


@contextmanager
def reading(root: Path, name: str) -> Iterator[None]:
    """Turn what is missing or broken in data that the block reads into an error of the user.

    Args:
        root: folder of the data.
        name: key of SOURCES.

    Raises:
        UserError: with what is wrong, the option, and where the data is to be had.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        missing = _first_line(error) if root.is_dir() else f"there is no folder {root}"
        raise run.UserError(
            f"`root` must name the folder of the data; {missing}. Get {SOURCES[name]}."
        ) from error
    except ValueError as error:
        raise run.UserError(f"`root` has data that cannot be read: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")
