"""Learning rules of synapses: by the timing of spikes, by a third factor, and orthogonal to what is known."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
