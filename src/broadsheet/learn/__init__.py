"""Learning by gradient: the one training loop, and layers of networks."""

from broadsheet.learn.training import AverageState, Fit, fit, with_average

__all__ = ["AverageState", "Fit", "fit", "with_average"]
