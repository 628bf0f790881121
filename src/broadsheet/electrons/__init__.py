"""Density functionals and what is solved with them: Kohn-Sham energies, self-consistency, and functionals that learn."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
