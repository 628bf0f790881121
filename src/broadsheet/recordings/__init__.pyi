from .nwb import open_session, write_nwb
from .sequences import sequences, with_history
from .sessions import Session, Spikes, Traces, Trials

__all__ = [
    "Session",
    "Spikes",
    "Traces",
    "Trials",
    "open_session",
    "sequences",
    "with_history",
    "write_nwb",
]
