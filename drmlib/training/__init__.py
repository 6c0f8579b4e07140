"""Training: the given model, trained in place; returns a History."""
