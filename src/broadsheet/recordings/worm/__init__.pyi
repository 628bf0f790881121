from .atlas import FunctionalAtlas, Shares, planted_atlas, shares, write_atlas
from .connectomes import Connectome, Consensus, Edges, consensus, jaccard, weight_correlation
from .forecasts import GRUForecaster, RidgeVAR, across_worms, persistence_errors, split
from .lab_files import fill_gaps, read_recordings
from .names import canonical_names, canonicalise, neuron_class, neuron_type
from .packages import cect_names
from .pipeline import Raw, Recording, coverage, homogenise, interpolate
from .simulated import LABS, Lab, Stimulus, WormNetwork, activity, record, simulate
from .tables import Summary, iter_parquet, load_parquet, read_folder, write_folder, write_parquet

__all__ = [
    "LABS",
    "Connectome",
    "Consensus",
    "Edges",
    "FunctionalAtlas",
    "GRUForecaster",
    "Lab",
    "Raw",
    "Recording",
    "RidgeVAR",
    "Shares",
    "Stimulus",
    "Summary",
    "WormNetwork",
    "across_worms",
    "activity",
    "canonical_names",
    "canonicalise",
    "cect_names",
    "consensus",
    "coverage",
    "fill_gaps",
    "homogenise",
    "interpolate",
    "iter_parquet",
    "jaccard",
    "load_parquet",
    "neuron_class",
    "neuron_type",
    "persistence_errors",
    "planted_atlas",
    "read_folder",
    "read_recordings",
    "record",
    "shares",
    "simulate",
    "split",
    "weight_correlation",
    "write_atlas",
    "write_folder",
    "write_parquet",
]
