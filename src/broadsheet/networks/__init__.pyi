from .astrocyte_language import AstroSNN
from .astrocytes import AMSU, Astrocyte
from .continual import ContinualClassifier
from .dense_memory import DenseHebbian, ExampleSet
from .gain_control import GainNetwork
from .hippocampus import HippocampalCAM
from .initial_weights import (
    block_weights,
    chain_weights,
    dale_weights,
    gaussian_weights,
    low_rank_weights,
    match_norm,
    match_radius,
    ring_weights,
    shuffled_weights,
    smooth_spectrum_weights,
    spectral_radius,
    wired_weights,
)
from .layers import SNN, PlasticLayer, SpikingLayer
from .laziness import Laziness, laziness_report, network_kernel
from .linear_learning import LinearNet, expected_alignment, low_rank_net, train_linear
from .nir import NIRNetwork, from_nir
from .nir_writing import to_nir, write_nir
from .projections import Dense, PoissonBackground, Projection, Uniform
from .rates import RateRNN
from .recurrent import Recurrent
from .reservoir import Reservoir
from .spikes import Spikes, simulate
from .spiking_classifier import SNNClassifier
from .trained_starts import TrainedStarts, train_starts

__all__ = [
    "AMSU",
    "SNN",
    "AstroSNN",
    "Astrocyte",
    "ContinualClassifier",
    "Dense",
    "DenseHebbian",
    "ExampleSet",
    "GainNetwork",
    "HippocampalCAM",
    "Laziness",
    "LinearNet",
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
    "TrainedStarts",
    "Uniform",
    "block_weights",
    "chain_weights",
    "dale_weights",
    "expected_alignment",
    "from_nir",
    "gaussian_weights",
    "laziness_report",
    "low_rank_net",
    "low_rank_weights",
    "match_norm",
    "match_radius",
    "network_kernel",
    "ring_weights",
    "shuffled_weights",
    "simulate",
    "smooth_spectrum_weights",
    "spectral_radius",
    "to_nir",
    "train_linear",
    "train_starts",
    "wired_weights",
    "write_nir",
]
