from .calculator import EnsembleCalculator, OutsideDomainError, PotentialCalculator
from .checkpoints import load_potential, save_potential
from .compression import Selection, compress, select
from .constraints import freedom, velocities_of
from .environments import (
    EnvironmentSet,
    bandwidth,
    describe,
    describe_all,
    diversity,
    entropy,
    novelty,
    overlap,
)
from .fairchem import from_fairchem, to_fairchem
from .files import iterate_structures, read_structures, write_lmdb, write_structures
from .label_names import LabelNames
from .labels import frames, label, molecules
from .latent_equivariance import LatentEquivariance, latent_equivariance, latent_report, rotation_loss
from .message_passing import MessageConfig
from .motion import simulate, thermal_velocities
from .neighbours import Neighbours, displacements, neighbour_list
from .observables import angular_distribution, energy_drift, radial_distribution
from .pair import LennardJones, Morse, PairPotential, Repulsion
from .posterior import (
    DeepEnsemble,
    ForceMatchingPosterior,
    Sample,
    calibration_factor,
    coverage,
    propagate,
    psgld,
    sample_chains,
    step_schedule,
)
from .potential import (
    Potential,
    ScaledPotential,
    SumPotential,
    element_references,
    energy_forces_stress,
    predict,
    scaled,
)
from .potentials.escaip import (
    EScAIP,
    EScAIPConfig,
    LegendreAttention,
    bond_orientational_order,
    log_envelope,
    soft_rank,
)
from .potentials.painn import PaiNN
from .potentials.pairnet import PairConfig, PairNet
from .potentials.schnet import SchNet
from .potentials.transip import AtomTransformer, TransformerConfig
from .registry import build
from .relaxation import Relaxed, relax
from .relaxation_benchmark import frame_errors, relaxation_report
from .rotations import RotationAverage, equivariance_report, random_rotations
from .structures import AtomsBatch, batch_atoms
from .training import Errors, LabelledSet, Trained, Training, evaluate, train
from .trajectories import TrajectorySet, embed_smiles, make_trajectories, read_pubchemqcr

__all__ = [
    "AtomTransformer",
    "AtomsBatch",
    "DeepEnsemble",
    "EScAIP",
    "EScAIPConfig",
    "EnsembleCalculator",
    "EnvironmentSet",
    "Errors",
    "ForceMatchingPosterior",
    "LabelNames",
    "LabelledSet",
    "LatentEquivariance",
    "LegendreAttention",
    "LennardJones",
    "MessageConfig",
    "Morse",
    "Neighbours",
    "OutsideDomainError",
    "PaiNN",
    "PairConfig",
    "PairNet",
    "PairPotential",
    "Potential",
    "PotentialCalculator",
    "Relaxed",
    "Repulsion",
    "RotationAverage",
    "Sample",
    "ScaledPotential",
    "SchNet",
    "Selection",
    "SumPotential",
    "Trained",
    "Training",
    "TrajectorySet",
    "TransformerConfig",
    "angular_distribution",
    "bandwidth",
    "batch_atoms",
    "bond_orientational_order",
    "build",
    "calibration_factor",
    "compress",
    "coverage",
    "describe",
    "describe_all",
    "displacements",
    "diversity",
    "element_references",
    "embed_smiles",
    "energy_drift",
    "energy_forces_stress",
    "entropy",
    "equivariance_report",
    "evaluate",
    "frame_errors",
    "frames",
    "freedom",
    "from_fairchem",
    "iterate_structures",
    "label",
    "latent_equivariance",
    "latent_report",
    "load_potential",
    "log_envelope",
    "make_trajectories",
    "molecules",
    "neighbour_list",
    "novelty",
    "overlap",
    "predict",
    "propagate",
    "psgld",
    "radial_distribution",
    "random_rotations",
    "read_pubchemqcr",
    "read_structures",
    "relax",
    "relaxation_report",
    "rotation_loss",
    "sample_chains",
    "save_potential",
    "scaled",
    "select",
    "simulate",
    "soft_rank",
    "step_schedule",
    "thermal_velocities",
    "to_fairchem",
    "train",
    "velocities_of",
    "write_lmdb",
    "write_structures",
]
