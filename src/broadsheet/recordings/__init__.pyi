from .alignment import Aligned, BlockedSplit, aligned, blocked_split
from .nwb import open_session, write_nwb
from .sequences import sequences, with_history
from .sessions import Session, Spikes, Traces, Trials

__all__ = [
    "Aligned",
    "BlockedSplit",
    "Session",
    "Spikes",
    "Traces",
    "Trials",
    "aligned",
    "blocked_split",
    "open_session",
    "sequences",
    "with_history",
    "write_nwb",
]
