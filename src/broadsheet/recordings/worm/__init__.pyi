from .atlas import FunctionalAtlas, Shares, planted_atlas, shares, write_atlas
from .connectomes import Connectome, Consensus, Edges, consensus, jaccard, weight_correlation
from .forecasts import GRUForecaster, RidgeVAR, leave_one_out, persistence_errors, split
from .pipeline import Raw, Recording, coverage, homogenise
from .lab_files import fill_gaps, read_recordings
from .names import canonical_names, canonicalise, neuron_class, neuron_type
from .packages import cect_names
from .simulated import LABS, Lab, Stimulus, WormNetwork, activity, record, simulate
from .tables import iter_parquet, load_parquet, read_folder, summary, write_folder, write_parquet

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
    "WormNetwork",
    "activity",
    "canonical_names",
    "canonicalise",
    "cect_names",
    "consensus",
    "coverage",
    "fill_gaps",
    "homogenise",
    "iter_parquet",
    "jaccard",
    "leave_one_out",
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
    "summary",
    "weight_correlation",
    "write_atlas",
    "write_folder",
    "write_parquet",
]
