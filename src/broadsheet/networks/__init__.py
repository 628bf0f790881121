"""Assemblies of neurons: projections and delays, memories, conversion of trained networks, and standard recurrent networks."""

from broadsheet.networks.continual import ContinualClassifier
from broadsheet.networks.conversion import QuantisedNet, SpikingNet, run_dynamic
from broadsheet.networks.delay_layer import DelayConv, MotionDetector
from broadsheet.networks.early_exit import DynamicConfidence
from broadsheet.networks.hippocampus import HippocampalCAM
from broadsheet.networks.nir import NIRNetwork, from_nir, to_nir, write_nir
from broadsheet.networks.place_modules import PlaceModule
from broadsheet.networks.place_recognition import ModularVPR
from broadsheet.networks.projections import Dense, PoissonBackground, Projection
from broadsheet.networks.recurrent import Recurrent
from broadsheet.networks.reservoir import Reservoir
from broadsheet.networks.spikes import Spikes, simulate
from broadsheet.networks.spiking_classifier import SNN, SNNClassifier, SpikingLayer

__all__ = [
    "SNN",
    "ContinualClassifier",
    "DelayConv",
    "Dense",
    "DynamicConfidence",
    "HippocampalCAM",
    "ModularVPR",
    "MotionDetector",
    "NIRNetwork",
    "PlaceModule",
    "PoissonBackground",
    "Projection",
    "QuantisedNet",
    "Recurrent",
    "Reservoir",
    "SNNClassifier",
    "Spikes",
    "SpikingLayer",
    "SpikingNet",
    "from_nir",
    "run_dynamic",
    "simulate",
    "to_nir",
    "write_nir",
]
