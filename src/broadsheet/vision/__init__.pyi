from .delay_layer import DelayConv, MotionDetector
from .place_modules import PlaceModule
from .place_recognition import ModularVPR

__all__ = [
    "DelayConv",
    "ModularVPR",
    "MotionDetector",
    "PlaceModule",
]
