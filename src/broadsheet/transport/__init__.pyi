from .geometric_brownian import GBM
from .positive_diffusion import PositiveDiffusion

__all__ = [
    "GBM",
    "PositiveDiffusion",
]
