"""Single cells, their dendrites and synapses, and what they are fitted to."""

from broadsheet.neurons.branched import BranchedNeuron, Recording, record
from broadsheet.neurons.dendrite import DendriticNeuron
from broadsheet.neurons.elm import ELMCell, count_params, load_official, to_official
from broadsheet.neurons.event_data import Events, read_events
from broadsheet.neurons.flux_rates import RateNetwork
from broadsheet.neurons.integrate_and_fire import LIF, AdaptiveThreshold, ConductanceLIF, CurrentLIF, Izhikevich
from broadsheet.neurons.intrinsics import Intrinsic
from broadsheet.neurons.josephson import Circuit, Josephson
from broadsheet.neurons.lif import LIFLayer
from broadsheet.neurons.meta_neuron import LevyBaxter, MetaNeuron, QuantalRelease
from broadsheet.neurons.spike_trains import SpikeTrains
from broadsheet.neurons.surrogate import ELMNeuron
from broadsheet.neurons.traces import synaptic_traces

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
    "Intrinsic",
    "Izhikevich",
    "Josephson",
    "LIFLayer",
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
