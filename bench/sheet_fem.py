"""The elastic sheet by scikit-fem (BSD-3-Clause): what the comparison and the references of tests are made with."""

import numpy as np
import skfem
from scipy.sparse.linalg import splu
from skfem.helpers import ddot, div, dot, sym_grad


def corners(mask):
    """Nodes (2, nodes), elements (4, pixels) counter-clockwise, and where each node lies on the lattice of corners."""
    rows, columns = np.nonzero(mask)
    width = mask.shape[1] + 1
    number = np.stack([rows * width + columns, rows * width + columns + 1, (rows + 1) * width + columns + 1,
                       (rows + 1) * width + columns])  # fmt: skip
    nodes, elements = np.unique(number, return_inverse=True)
    return nodes, elements.reshape(4, -1)


@skfem.BilinearForm
def stiffness(u, v, w):
    return w.alpha * div(u) * div(v) + ddot(sym_grad(u), sym_grad(v)) + w.Y * dot(u, v)


@skfem.LinearForm
def load(v, w):
    e = sym_grad(v)
    return -(w.xx * e[0, 0] + w.yy * e[1, 1] + 2 * w.xy * e[0, 1])


class Sheet:
    """A mask made ready once; `displacement` assembles and solves."""

    def __init__(self, mask, h):
        self.mask, width = mask, mask.shape[1] + 1
        self.nodes, elements = corners(mask)
        points = h * np.stack([self.nodes % width, self.nodes // width]).astype(float)
        self.basis = skfem.Basis(skfem.MeshQuad(points, elements), skfem.ElementVector(skfem.ElementQuad1()), intorder=2)

    def _assembled(self, Y, alpha, active):
        points = self.basis.X.shape[1]

        def at(values):
            return np.repeat(values[self.mask][:, None], points, axis=1)

        K = stiffness.assemble(self.basis, alpha=alpha, Y=at(Y))
        return K, load.assemble(self.basis, xx=at(active[0]), yy=at(active[1]), xy=at(active[2]))

    def _means(self, u):
        """Of unknowns over pixels, (2, height, width)."""
        lattice = np.zeros((2, self.mask.shape[0] + 1, self.mask.shape[1] + 1))
        place = self.nodes // lattice.shape[2], self.nodes % lattice.shape[2]
        for k in range(2):
            lattice[k][place] = u[self.basis.nodal_dofs[k]]
        return self.mask * (lattice[:, :-1, :-1] + lattice[:, 1:, :-1] + lattice[:, :-1, 1:] + lattice[:, 1:, 1:]) / 4

    def displacement(self, Y, alpha, active):
        """Means over pixels, (2, height, width)."""
        return self._means(skfem.solve(*self._assembled(Y, alpha, active)))

    def gradient(self, Y, alpha, active):
        """Of the sum of squared tractions in the stiffness of each pixel."""
        K, f = self._assembled(Y, alpha, active)
        factor = splu(K.tocsc())
        u = factor.solve(f)
        mean = self._means(u)
        pixels = (2 * Y**2 * mean)[:, self.mask]
        g = np.zeros(len(u))
        for k in range(2):
            for corner in self.basis.mesh.t:
                np.add.at(g, self.basis.nodal_dofs[k][corner], pixels[k] / 4)
        adjoint = factor.solve(g)
        w, v = (np.asarray(self.basis.interpolate(each)) for each in (adjoint, u))
        slope = 2 * Y * (mean**2).sum(axis=0)
        slope[self.mask] -= ((w * v).sum(axis=0) * self.basis.dx).sum(axis=1)
        return slope
