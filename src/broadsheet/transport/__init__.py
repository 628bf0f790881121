"""Laws carried into one another: Schrödinger bridges between snapshots, multiplicative diffusion of positive data."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
