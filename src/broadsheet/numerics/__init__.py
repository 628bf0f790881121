"""Numerical pieces that two rooms or more need."""

from broadsheet.numerics.geometry import direction, norm, pair_displacements

__all__ = ["direction", "norm", "pair_displacements"]
