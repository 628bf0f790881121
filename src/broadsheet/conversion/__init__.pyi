from .conversion import QuantisedNet, SpikingNet, run_dynamic
from .early_exit import DynamicConfidence

__all__ = [
    "DynamicConfidence",
    "QuantisedNet",
    "SpikingNet",
    "run_dynamic",
]
