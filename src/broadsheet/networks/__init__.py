"""Assemblies of neurons and the recurrent networks they are compared with."""

from broadsheet.networks.projections import Dense, PoissonBackground, Projection
from broadsheet.networks.recurrent import Recurrent
from broadsheet.networks.spikes import Spikes, simulate

__all__ = ["Dense", "PoissonBackground", "Projection", "Recurrent", "Spikes", "simulate"]
