from .bridges import GaussianBridge, IPFPBridge, schrodinger_bridge
from .geometric_brownian import GBM
from .positive_diffusion import PositiveDiffusion
from .reference_processes import ReferenceSDE
from .reference_refinement import SBIRR
from .two_samples import wasserstein1

__all__ = [
    "GBM",
    "SBIRR",
    "GaussianBridge",
    "IPFPBridge",
    "PositiveDiffusion",
    "ReferenceSDE",
    "schrodinger_bridge",
    "wasserstein1",
]
