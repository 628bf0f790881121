"""Neuroformer, arXiv 2311.00136: a transformer that writes the spikes of a population one by one."""
