from .calculator import KohnShamCalculator
from .functional_training import fit_weights, train_functional
from .functionals import Density, Functional, named
from .harris import harris_energy
from .kohn_sham import Molecule, fock, mean_field
from .neural_functional import NeuralConfig, NeuralFunctional
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
    "fit_weights",
    "fock",
    "ground_state",
    "harris_energy",
    "mean_field",
    "named",
    "scf",
    "train_functional",
]
