from .sequences import sequences, with_history
from .sessions import Session, Spikes, Traces, Trials

__all__ = [
    "Session",
    "Spikes",
    "Traces",
    "Trials",
    "sequences",
    "with_history",
]
