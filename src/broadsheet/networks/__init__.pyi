from .continual import ContinualClassifier
from .conversion import QuantisedNet, SpikingNet, run_dynamic
from .delay_layer import DelayConv, MotionDetector
from .early_exit import DynamicConfidence
from .hippocampus import HippocampalCAM
from .nir import NIRNetwork, from_nir, to_nir, write_nir
from .place_modules import PlaceModule
from .place_recognition import ModularVPR
from .projections import Dense, PoissonBackground, Projection
from .recurrent import Recurrent
from .reservoir import Reservoir
from .spikes import Spikes, simulate
from .spiking_classifier import SNN, SNNClassifier, SpikingLayer

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
