"""Learning rules of synapses: by the timing of spikes, by a third factor, and orthogonal to what is known."""

from broadsheet.plasticity.stdp import STDP
from broadsheet.plasticity.subspace import LateralSubspace, projected_conv, projected_linear

__all__ = ["STDP", "LateralSubspace", "projected_conv", "projected_linear"]
