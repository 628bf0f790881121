"""Learning by gradient: the one training loop."""

from broadsheet.learn.training import Fit, fit

__all__ = ["Fit", "fit"]
