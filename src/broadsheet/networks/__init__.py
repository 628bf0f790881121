"""Assemblies of neurons: projections and delays, balanced networks, memories, a reservoir, NIR, and recurrent networks."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
