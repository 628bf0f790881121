"""Learning by gradient: the one training loop."""

from broadsheet.learn.training import AverageState, Fit, fit, with_average

__all__ = ["AverageState", "Fit", "fit", "with_average"]
