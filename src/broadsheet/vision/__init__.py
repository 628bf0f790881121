"""Images and what moves in them: labelled images, movies of events, layers of delays, and the recognition of places."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
