"""Attacks: a trigger (images -> images), or a Poisoned set."""
