"""Colloids under feedback, tracked particles, cells that pull on what they lie on, and charmonium on the nucleon."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
