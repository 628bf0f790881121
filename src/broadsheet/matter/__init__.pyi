from .charmonium import CharmoniumCQM, CharmoniumState, QuarkModel
from .cross_section_files import CrossSections, read_cross_sections
from .cybloids import (
    WCA,
    Bias,
    CybloidSim,
    GaussianRing,
    Harmonic,
    Pair,
    Ring,
    SampleAndHold,
    gaussian_ring,
    harmonic,
    pair,
    ring,
    sample_and_hold,
)
from .elastic_sheet import ElasticSheet
from .lippmann_schwinger import LippmannSchwinger, variable_phase, variable_scattering_length
from .photoproduction import Photoproduction
from .photoproduction_fit import PhotoproductionFit
from .pomeron import Pomeron
from .quark_nucleon import FoldedPotential, QuarkNucleonPotential
from .sheet_inversion import recover_tensions
from .sparse_greens import SparseGreens
from .synthetic_cells import Cells, SyntheticCells
from .tracks import read_tracks
from .traction_baselines import CentralForce, WienerForce
from .traction_errors import ForceMetrics, force_metrics
from .traction_estimators import GFNN, PBNN, UNetForce, load_forces, save_forces
from .traction_files import read_frames

__all__ = [
    "GFNN",
    "PBNN",
    "WCA",
    "Bias",
    "Cells",
    "CentralForce",
    "CharmoniumCQM",
    "CharmoniumState",
    "CrossSections",
    "CybloidSim",
    "ElasticSheet",
    "FoldedPotential",
    "ForceMetrics",
    "GaussianRing",
    "Harmonic",
    "LippmannSchwinger",
    "Pair",
    "Photoproduction",
    "PhotoproductionFit",
    "Pomeron",
    "QuarkModel",
    "QuarkNucleonPotential",
    "Ring",
    "SampleAndHold",
    "SparseGreens",
    "SyntheticCells",
    "UNetForce",
    "WienerForce",
    "force_metrics",
    "gaussian_ring",
    "harmonic",
    "load_forces",
    "pair",
    "read_cross_sections",
    "read_frames",
    "read_tracks",
    "recover_tensions",
    "ring",
    "sample_and_hold",
    "save_forces",
    "variable_phase",
    "variable_scattering_length",
]
