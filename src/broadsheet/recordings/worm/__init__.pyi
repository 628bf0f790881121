from .atlas import FunctionalAtlas, shares
from .connectomes import Connectome, consensus, jaccard, weight_correlation
from .names import canonical_names, canonicalise

__all__ = [
    "Connectome",
    "FunctionalAtlas",
    "canonical_names",
    "canonicalise",
    "consensus",
    "jaccard",
    "shares",
    "weight_correlation",
]
