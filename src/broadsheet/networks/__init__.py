"""Assemblies of neurons and the recurrent networks they are compared with."""

from broadsheet.networks.recurrent import Recurrent

__all__ = ["Recurrent"]
