"""What runs papers: the contract of a paper's file, jobs, executors, the store, verdicts and the ledger."""

from broadsheet.lab.claims import NONE_YET, Check, Claim, at_least, at_most, equals
from broadsheet.lab.paper import Experiment, Log, Paper, Report, Runs

__all__ = ["NONE_YET", "Check", "Claim", "Experiment", "Log", "Paper", "Report", "Runs", "at_least", "at_most", "equals"]
