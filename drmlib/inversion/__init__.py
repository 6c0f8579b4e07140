"""Inversion: a trigger recovered from a model, with the figure that says whether the model is backdoored."""
