"""Systems that step in time: the protocol, rollout, composition, delays and stochastic steps."""

from broadsheet.dynamics.compose import Feedback, Parallel, Series, Substep, feedback, parallel, series, substep
from broadsheet.dynamics.delay import Delay, RingBuffer, SynapticDelays
from broadsheet.dynamics.langevin import OverdampedLangevin, geometric_brownian_step, overdamped_step
from broadsheet.dynamics.rollout import rollout, rollout_until
from broadsheet.dynamics.system import System, fixed, is_moore, trainable

__all__ = [
    "Delay",
    "Feedback",
    "OverdampedLangevin",
    "Parallel",
    "RingBuffer",
    "Series",
    "Substep",
    "SynapticDelays",
    "System",
    "feedback",
    "fixed",
    "geometric_brownian_step",
    "is_moore",
    "overdamped_step",
    "parallel",
    "rollout",
    "rollout_until",
    "series",
    "substep",
    "trainable",
]
