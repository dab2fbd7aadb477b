r"""The linear map between 3 x 3 matrices F and traceless symmetric 4 x 4 matrices A that makes
$\operatorname{tr}(F^\top R(q)) = q^\top A q$ for every unit quaternion q (w, x, y, z).

If F has the proper singular values $s_1 \ge s_2 \ge |s_3|$, A has the eigenvalues $s_1 + s_2 + s_3,
s_1 - s_2 - s_3, -s_1 + s_2 - s_3, -s_1 - s_2 + s_3$, the first at the rotation nearest to F.
"""

import torch
from torch import Tensor


def quaternion_form(f: Tensor) -> Tensor:
    """Return A(F), (..., 4, 4), from F (..., 3, 3)."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (row.unbind(-1) for row in f.unbind(-2))
    rows = (
        (xx + yy + zz, zy - yz, xz - zx, yx - xy),
        (zy - yz, xx - yy - zz, xy + yx, xz + zx),
        (xz - zx, xy + yx, yy - xx - zz, yz + zy),
        (yx - xy, xz + zx, yz + zy, zz - xx - yy),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def matrix_of_form(m: Tensor) -> Tensor:
    """Return the adjoint, (..., 3, 3) from (..., 4, 4).

    It takes q q^T to R(q), so E q q^T to E R, and A(F) to 4 F.
    """
    (ww, wx, wy, wz), (_, xx, xy, xz), (_, _, yy, yz), (_, _, _, zz) = (
        row.unbind(-1) for row in m.unbind(-2)
    )
    rows = (
        (ww + xx - yy - zz, 2 * (xy - wz), 2 * (xz + wy)),
        (2 * (xy + wz), ww - xx + yy - zz, 2 * (yz - wx)),
        (2 * (xz - wy), 2 * (yz + wx), ww - xx - yy + zz),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)
