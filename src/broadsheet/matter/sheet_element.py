"""One square pixel of an elastic sheet as a bilinear finite element: its integrals."""

from __future__ import annotations

import numpy as np


def _element() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of one square pixel of side 1 with corners (0,0), (1,0), (0,1), (1,1) in (x, y), x and y of each corner in turn: the
    integrals of e:e and div div (8 x 8), of u v (8 x 8), and of the strains xx, yy, 2 xy (3 x 8). 2 x 2 Gauss points."""
    shear, bulk, mass, strain = np.zeros((8, 8)), np.zeros((8, 8)), np.zeros((8, 8)), np.zeros((3, 8))
    points = 0.5 + np.array([-0.5, 0.5]) / np.sqrt(3)
    for x in points:
        for y in points:
            shape = np.array([(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y])
            dx, dy = np.array([y - 1, 1 - y, -y, y]), np.array([x - 1, -x, 1 - x, x])
            b = np.zeros((3, 8))
            b[0, 0::2], b[1, 1::2], b[2, 0::2], b[2, 1::2] = dx, dy, dy, dx
            trace = b[0] + b[1]
            shear += b.T @ np.diag([1, 1, 0.5]) @ b / 4
            bulk += np.outer(trace, trace) / 4
            mass += np.kron(np.outer(shape, shape), np.eye(2)) / 4
            strain += b / 4
    return shear, bulk, mass, strain


SHEAR, BULK, MASS, STRAIN = _element()
