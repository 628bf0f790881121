"""Learning rules of synapses: by the timing of spikes, by a third factor, and orthogonal to what is known."""

from broadsheet.plasticity.readouts import ErrorModulated, RecursiveLeastSquares
from broadsheet.plasticity.stdp import STDP
from broadsheet.plasticity.subspace import LateralSubspace, projected_conv, projected_linear
from broadsheet.plasticity.tempotron import Tempotron, psp_kernel
from broadsheet.plasticity.three_factor import ThreeFactor

__all__ = [
    "STDP",
    "ErrorModulated",
    "LateralSubspace",
    "RecursiveLeastSquares",
    "Tempotron",
    "ThreeFactor",
    "projected_conv",
    "projected_linear",
    "psp_kernel",
]
