from .affinity import differential_affinity, edge_series, fold, windowed_correlation
from .alignment import Aligned, BlockedSplit, aligned, blocked_split
from .ball_scenes import colliding_balls, noisy_observer
from .ball_tracking import extrapolated, kalman_filter
from .behaviour import behavioural_consistency, contact_readout, halves_of, residual_errors
from .block_models import WeightedSBM, description_length
from .communities import louvain, spectral_communities
from .concrete import concrete_log_density, concrete_sample
from .dynamic_connectome import DynamicConnectome
from .frame_encoders import FrameEncoder
from .frontal_files import read_frontal
from .latent_prediction import LatentPredictor
from .mental_pong import MentalPong, PongTrials, bouncing_balls
from .neuroformer.estimator import Neuroformer
from .neuroformer.tokens import SpikeTokenizer
from .nwb import open_session, write_nwb
from .predictivity import Predictivity, decode_state, inter_animal_consistency, neural_predictivity
from .sequences import sequences, with_history
from .sessions import Session, Spikes, Traces, Trials
from .simulated_frontal import FrontalUnits, Tracker, simulate_frontal
from .switching_glm import HMMGLM
from .switching_metrics import aligned_states, bits_per_spike
from .switching_tasks import RuleTask, Switching, rule_task
from .tensor_factors import NTF, rank_scan, start_similarity
from .world_models import VideoPredictor

__all__ = [
    "HMMGLM",
    "NTF",
    "Aligned",
    "BlockedSplit",
    "DynamicConnectome",
    "FrameEncoder",
    "FrontalUnits",
    "LatentPredictor",
    "MentalPong",
    "Neuroformer",
    "PongTrials",
    "Predictivity",
    "RuleTask",
    "Session",
    "SpikeTokenizer",
    "Spikes",
    "Switching",
    "Traces",
    "Tracker",
    "Trials",
    "VideoPredictor",
    "WeightedSBM",
    "aligned",
    "aligned_states",
    "behavioural_consistency",
    "bits_per_spike",
    "blocked_split",
    "bouncing_balls",
    "colliding_balls",
    "concrete_log_density",
    "concrete_sample",
    "contact_readout",
    "decode_state",
    "description_length",
    "differential_affinity",
    "edge_series",
    "extrapolated",
    "fold",
    "halves_of",
    "inter_animal_consistency",
    "kalman_filter",
    "louvain",
    "neural_predictivity",
    "noisy_observer",
    "open_session",
    "rank_scan",
    "read_frontal",
    "residual_errors",
    "rule_task",
    "sequences",
    "simulate_frontal",
    "spectral_communities",
    "start_similarity",
    "windowed_correlation",
    "with_history",
    "write_nwb",
]
