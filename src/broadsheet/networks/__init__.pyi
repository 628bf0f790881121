from .continual import ContinualClassifier
from .hippocampus import HippocampalCAM
from .layers import SNN, PlasticLayer, SpikingLayer
from .nir import NIRNetwork, from_nir
from .nir_writing import to_nir, write_nir
from .projections import Dense, PoissonBackground, Projection, Uniform
from .rates import RateRNN
from .recurrent import Recurrent
from .reservoir import Reservoir
from .spikes import Spikes, simulate
from .spiking_classifier import SNNClassifier

__all__ = [
    "SNN",
    "ContinualClassifier",
    "Dense",
    "HippocampalCAM",
    "NIRNetwork",
    "PlasticLayer",
    "PoissonBackground",
    "Projection",
    "RateRNN",
    "Recurrent",
    "Reservoir",
    "SNNClassifier",
    "Spikes",
    "SpikingLayer",
    "Uniform",
    "from_nir",
    "simulate",
    "to_nir",
    "write_nir",
]
