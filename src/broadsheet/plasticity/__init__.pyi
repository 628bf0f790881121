from .readouts import ErrorModulated, RecursiveLeastSquares
from .stdp import STDP
from .subspace import LateralSubspace, projected_conv, projected_linear, projected_weights
from .tempotron import Tempotron, psp_kernel
from .three_factor import ThreeFactor

__all__ = [
    "STDP",
    "ErrorModulated",
    "LateralSubspace",
    "RecursiveLeastSquares",
    "Tempotron",
    "ThreeFactor",
    "projected_conv",
    "projected_linear",
    "projected_weights",
    "psp_kernel",
]
