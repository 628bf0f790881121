"""Language models and checkpoints: the only room that imports torch."""
