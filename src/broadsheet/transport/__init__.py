"""Laws carried into one another: multiplicative diffusion of positive data, and bridges between snapshots."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
