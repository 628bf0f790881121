"""Stages of training, one a file that bears its name; see `broadsheet.language.registry`."""
