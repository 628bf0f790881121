"""Colloids under feedback, and what is measured on tracked particles."""

from broadsheet.matter.cybloids import (
    WCA,
    Bias,
    CybloidSim,
    GaussianRing,
    Harmonic,
    Pair,
    Ring,
    SampleAndHold,
    gaussian_ring,
    harmonic,
    pair,
    ring,
    sample_and_hold,
)
from broadsheet.matter.tracks import read_tracks

__all__ = [
    "WCA",
    "Bias",
    "CybloidSim",
    "GaussianRing",
    "Harmonic",
    "Pair",
    "Ring",
    "SampleAndHold",
    "gaussian_ring",
    "harmonic",
    "pair",
    "read_tracks",
    "ring",
    "sample_and_hold",
]
