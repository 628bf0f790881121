from .alignment import Aligned, BlockedSplit, aligned, blocked_split
from .ball_scenes import colliding_balls, noisy_observer
from .ball_tracking import extrapolated, kalman_filter
from .behaviour import behavioural_consistency, contact_readout, halves_of, residual_errors
from .frame_encoders import FrameEncoder
from .frontal_files import read_frontal
from .latent_prediction import LatentPredictor
from .mental_pong import MentalPong, PongTrials, bouncing_balls
from .nwb import open_session, write_nwb
from .predictivity import Predictivity, inter_animal_consistency, neural_predictivity
from .sequences import sequences, with_history
from .sessions import Session, Spikes, Traces, Trials
from .simulated_frontal import FrontalUnits, Tracker, simulate_frontal
from .world_models import VideoPredictor

__all__ = [
    "Aligned",
    "BlockedSplit",
    "FrameEncoder",
    "FrontalUnits",
    "LatentPredictor",
    "MentalPong",
    "PongTrials",
    "Predictivity",
    "Session",
    "Spikes",
    "Traces",
    "Tracker",
    "Trials",
    "VideoPredictor",
    "aligned",
    "behavioural_consistency",
    "blocked_split",
    "bouncing_balls",
    "colliding_balls",
    "contact_readout",
    "extrapolated",
    "halves_of",
    "inter_animal_consistency",
    "kalman_filter",
    "neural_predictivity",
    "noisy_observer",
    "open_session",
    "read_frontal",
    "residual_errors",
    "sequences",
    "simulate_frontal",
    "with_history",
    "write_nwb",
]
