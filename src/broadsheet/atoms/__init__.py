"""Structures, potentials, dynamics, sampling, and the information in sets of structures."""

from broadsheet.atoms.atom_transformer import AtomTransformer, TransformerConfig
from broadsheet.atoms.calculator import EnsembleCalculator, OutsideDomainError, PotentialCalculator
from broadsheet.atoms.checkpoints import from_fairchem, load_potential, save_potential, to_fairchem
from broadsheet.atoms.compression import Selection, compress, select
from broadsheet.atoms.environments import (
    EnvironmentSet,
    bandwidth,
    describe,
    describe_all,
    diversity,
    entropy,
    novelty,
    overlap,
)
from broadsheet.atoms.escaip import EScAIP, EScAIPConfig, LegendreAttention, bond_orientational_order, log_envelope, soft_rank
from broadsheet.atoms.files import iterate_structures, read_structures, write_lmdb, write_structures
from broadsheet.atoms.labels import frames, label, molecules
from broadsheet.atoms.latent_equivariance import LatentEquivariance, latent_equivariance, latent_report, rotation_loss
from broadsheet.atoms.message_passing import MessageConfig, PaiNN, SchNet
from broadsheet.atoms.motion import simulate, thermal_velocities
from broadsheet.atoms.neighbours import Neighbours, displacements, neighbour_list
from broadsheet.atoms.observables import angular_distribution, energy_drift, radial_distribution
from broadsheet.atoms.pair import LennardJones, Morse, PairNet, PairPotential, Repulsion
from broadsheet.atoms.posterior import (
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
from broadsheet.atoms.potential import (
    Potential,
    ScaledPotential,
    SumPotential,
    element_references,
    energy_forces_stress,
    predict,
    scaled,
)
from broadsheet.atoms.relaxation import Relaxed, relax
from broadsheet.atoms.relaxation_benchmark import frame_errors, relaxation_report
from broadsheet.atoms.rotations import RotationAverage, equivariance_report, random_rotations
from broadsheet.atoms.structures import AtomsBatch, batch_atoms
from broadsheet.atoms.training import Errors, LabelledSet, Trained, Training, evaluate, train
from broadsheet.atoms.trajectories import TrajectorySet, embed_smiles, make_trajectories, read_pubchemqcr

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
    "LabelledSet",
    "LatentEquivariance",
    "LegendreAttention",
    "LennardJones",
    "MessageConfig",
    "Morse",
    "Neighbours",
    "OutsideDomainError",
    "PaiNN",
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
    "write_lmdb",
    "write_structures",
]
