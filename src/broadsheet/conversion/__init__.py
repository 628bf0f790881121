"""Trained networks as spiking ones: their model files, their conversion, and when a converted network may stop."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
