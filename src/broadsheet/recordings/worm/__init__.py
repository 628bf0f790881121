"""The worm's recordings in one format, and its wiring over the same list of neurons; after arXiv 2411.12091."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
