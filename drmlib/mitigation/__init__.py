"""Mitigation: a repaired copy of the model, so that before and after can be compared."""
