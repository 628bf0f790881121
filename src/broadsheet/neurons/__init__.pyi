from .branched import BranchedNeuron, Recording, record
from .dendrite import DendriticNeuron
from .elm import ELMCell, count_params, load_official, to_official
from .event_data import Events, read_events
from .flux_rates import RateNetwork
from .integrate_and_fire import LIF, AdaptiveThreshold, ConductanceLIF, CurrentLIF, Izhikevich
from .integrators import Integrator, LeakyIntegrator
from .intrinsics import Intrinsic
from .josephson import Circuit, Josephson
from .lif import LIFLayer
from .meta_neuron import LevyBaxter, MetaNeuron, QuantalRelease
from .spike_trains import SpikeTrains
from .surrogate import ELMNeuron
from .traces import synaptic_traces

__all__ = [
    "LIF",
    "AdaptiveThreshold",
    "BranchedNeuron",
    "Circuit",
    "ConductanceLIF",
    "CurrentLIF",
    "DendriticNeuron",
    "ELMCell",
    "ELMNeuron",
    "Events",
    "Integrator",
    "Intrinsic",
    "Izhikevich",
    "Josephson",
    "LIFLayer",
    "LeakyIntegrator",
    "LevyBaxter",
    "MetaNeuron",
    "QuantalRelease",
    "RateNetwork",
    "Recording",
    "SpikeTrains",
    "count_params",
    "load_official",
    "read_events",
    "record",
    "synaptic_traces",
    "to_official",
]
