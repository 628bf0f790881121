"""Learning by gradient: the one training loop, layers of networks, and sparse training."""

from broadsheet.learn.pruning import GMP, SET, GraNet, RigL, Sparsifier, StaticSparse, sparse, sparsity
from broadsheet.learn.training import AverageState, Fit, fit, with_average

__all__ = [
    "GMP",
    "SET",
    "AverageState",
    "Fit",
    "GraNet",
    "RigL",
    "Sparsifier",
    "StaticSparse",
    "fit",
    "sparse",
    "sparsity",
    "with_average",
]
