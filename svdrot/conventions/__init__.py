"""The conventions of other libraries, their numbers for a rotation and ours; and which one arrays differ by.

Ours: matrices for column vectors, quaternions w x y z, radians, 6D the first two columns, one tensor each.

| | quaternion | Euler angles | else |
|---|---|---|---|
| scipy | x y z w | as ours | |
| roma | x y z w | as ours | 6D: the columns of (..., 3, 2); 9D is (..., 3, 3), 10D in the order x y z w |
| pytorch3d | w x y z | intrinsic only | 6D: the first two rows |
| pytorch3d.Transform3d | | | matrices for row vectors |
| kornia | w x y z | roll, pitch, yaw: "euler_xyz" | |
| kornia.quaternion_log | | | half the rotation vector |
| pypose | x y z w | roll, pitch, yaw: "euler_xyz" | |
| open3d | w x y z | intrinsic, three different axes | |
| ros | x y z w | roll, pitch, yaw: "euler_xyz" | |
| colmap | w x y z | | its files; rotations from the world to the camera |
| pycolmap | x y z w | | |
| opencv | w x y z | | rotations of extrinsics are from the world to the camera |
| opengl | | | matrices column by column, as an array reads them |
| blender | w x y z | extrinsic, stored as those about x, y, z | |
| unity | x y z w | z, x, y about fixed axes, stored as x, y, z, in degrees | its axes are left-handed |
| mujoco | w x y z | as ours, named in the other case, in degrees | matrices are nine numbers, row by row |
| smpl | | | rotation vectors, for each joint from it to its parent |
| bop | | | matrices are nine numbers, row by row, from the model to the camera |

Tested against scipy 1.17, roma 1.8.0, kornia 0.9.0, Open3D 0.20 and the outputs of pytorch3d 0.7.9, and where
they are installed pypose, OpenCV, pycolmap and MuJoCo; the others by their documentation, `SOURCES`.
"""

from ._rows import CONVENTIONS as CONVENTIONS
from ._rows import SOURCES as SOURCES
from .detection import Convention as Convention
from .detection import Detection as Detection
from .detection import detect as detect
from .frames import AXES as AXES
from .frames import change_of_axes as change_of_axes
from .libraries import from_convention as from_convention
from .libraries import from_scipy as from_scipy
from .libraries import to_convention as to_convention
from .libraries import to_scipy as to_scipy
