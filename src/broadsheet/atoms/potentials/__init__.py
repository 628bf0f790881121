"""Potentials that are trained, saved and loaded by name: one a file, which bears its name."""
