from .calculator import KohnShamCalculator
from .functionals import Density, Functional, named
from .kohn_sham import Molecule, fock, mean_field
from .neural_functional import NeuralConfig, NeuralFunctional, train_functional
from .self_consistency import GroundState, converge, ground_state, scf

__all__ = [
    "Density",
    "Functional",
    "GroundState",
    "KohnShamCalculator",
    "Molecule",
    "NeuralConfig",
    "NeuralFunctional",
    "converge",
    "fock",
    "ground_state",
    "mean_field",
    "named",
    "scf",
    "train_functional",
]
