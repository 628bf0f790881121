"""Systems that step in time: the protocol, rollout, composition, delays and stochastic steps."""

from broadsheet.dynamics.batch import Batch, batch
from broadsheet.dynamics.compose import Feedback, Parallel, Series, Substep, feedback, parallel, series, substep
from broadsheet.dynamics.delay import Delay, RingBuffer, SynapticDelays
from broadsheet.dynamics.interactions import Diagram, Interaction, respond, wire
from broadsheet.dynamics.interfaces import Lens
from broadsheet.dynamics.kernels import one_kernel
from broadsheet.dynamics.langevin import OverdampedLangevin, geometric_brownian_step, overdamped_step
from broadsheet.dynamics.learners import learner, supervised
from broadsheet.dynamics.rollout import rollout, rollout_until
from broadsheet.dynamics.system import System, fixed, is_moore, trainable

__all__ = [
    "Batch",
    "Delay",
    "Diagram",
    "Feedback",
    "Interaction",
    "Lens",
    "OverdampedLangevin",
    "Parallel",
    "RingBuffer",
    "Series",
    "Substep",
    "SynapticDelays",
    "System",
    "batch",
    "feedback",
    "fixed",
    "geometric_brownian_step",
    "is_moore",
    "learner",
    "one_kernel",
    "overdamped_step",
    "parallel",
    "respond",
    "rollout",
    "rollout_until",
    "series",
    "substep",
    "supervised",
    "trainable",
    "wire",
]
