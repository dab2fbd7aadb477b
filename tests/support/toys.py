"""One of each kind that CONTRIBUTING.md tells how to add, by public hooks alone, as a plugin of pytest.

`test_contributing.py` runs the laws of the library with it: what is here they meet without being told.
"""

import json

import svdrot
from svdrot.engine import formula
from svdrot.io import FORMATS, Format
from svdrot.registration import KERNELS, RobustKernel


@formula({"cayley": (3,)}, (3, 3))
def cayley_to_matrix(cayley):
    """Rodrigues' formula with the tangent of half the angle; the unit of length keeps squares in range."""
    x, y, z = cayley
    size = svdrot.engine.sqrt(1 + x * x + y * y + z * z)
    w, x, y, z = 1 / size, x / size, y / size, z / size
    return (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )


@formula({"matrix": (3, 3)}, (3,))
def matrix_to_cayley(m):
    """Infinite at half turns."""
    k = 1 + m[0, 0] + m[1, 1] + m[2, 2]
    return (m[2, 1] - m[1, 2]) / k, (m[0, 2] - m[2, 0]) / k, (m[1, 0] - m[0, 1]) / k


svdrot.nn.add_representation("cayley", cayley_to_matrix, matrix_to_cayley)

KERNELS["cauchy"] = RobustKernel(lambda q: 1 / (1 + q), lambda q: q.log1p(), tuning=2.3849)


def read_toy(path, data):
    import numpy as np

    try:
        rows = json.loads(data)["toy"]
        points = np.array(rows, dtype=np.float64).reshape(-1, 3)
        if len(points) != len(rows):
            raise ValueError("rows of other lengths")
        return points
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no toy: {error!r}") from error


FORMATS[".toy"] = Format(read_toy, lambda path, points: path.write_text(json.dumps({"toy": points.tolist()})))
