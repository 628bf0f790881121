"""Numerical pieces that two rooms or more need."""

from broadsheet.numerics.geometry import direction, norm, pair_displacements
from broadsheet.numerics.random import generator
from broadsheet.numerics.seeds import seed_of

__all__ = ["direction", "generator", "norm", "pair_displacements", "seed_of"]
