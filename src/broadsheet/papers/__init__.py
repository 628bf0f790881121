"""One file a paper: facts, presets, variants, claims, experiments and figures, built from the rooms."""
