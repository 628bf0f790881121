from .error_modulated import ErrorModulated
from .least_squares import RecursiveLeastSquares
from .rule import LearningRule
from .stdp import STDP
from .subspace import LateralSubspace, projected_conv, projected_linear, projected_weights
from .tempotron import Tempotron, psp_kernel
from .three_factor import ThreeFactor
from .triplet import Triplet

__all__ = [
    "STDP",
    "ErrorModulated",
    "LateralSubspace",
    "LearningRule",
    "RecursiveLeastSquares",
    "Tempotron",
    "ThreeFactor",
    "Triplet",
    "projected_conv",
    "projected_linear",
    "projected_weights",
    "psp_kernel",
]
