"""Points, transforms, trajectories, pose graphs and pose tables in files that other programs read and write.

What is broken, cut or not finite is an error that names the file and the line, never a silent loss. Files are
written whole or not at all.
"""

from .bop import BopPoses as BopPoses
from .bop import read_bop as read_bop
from .bop import single_instances as single_instances
from .points import FORMATS as FORMATS
from .points import Format as Format
from .points import read_points as read_points
from .points import write_points as write_points
from .pose_graphs import PoseGraph as PoseGraph
from .pose_graphs import read_pose_graph as read_pose_graph
from .pose_graphs import write_pose_graph as write_pose_graph
from .trajectories import read_kitti as read_kitti
from .trajectories import read_tum as read_tum
from .trajectories import write_kitti as write_kitti
from .trajectories import write_tum as write_tum
from .transforms import read_transform as read_transform
from .transforms import write_transform as write_transform

__all__ = [
    "FORMATS",
    "BopPoses",
    "Format",
    "PoseGraph",
    "read_bop",
    "read_kitti",
    "read_points",
    "read_pose_graph",
    "read_transform",
    "read_tum",
    "single_instances",
    "write_kitti",
    "write_points",
    "write_pose_graph",
    "write_transform",
    "write_tum",
]
