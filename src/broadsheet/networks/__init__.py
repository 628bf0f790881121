"""Assemblies of neurons: projections and delays, memories, conversion of trained networks, and standard recurrent networks."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
