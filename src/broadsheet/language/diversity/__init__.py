"""Diversity of generations by meaning, and its fusion with quality (DARLING, arXiv 2509.02534).

`partitions`, `ngrams`, `scores` and `rewards` import no torch; `classifier` does.
"""
