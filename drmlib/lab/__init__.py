"""Lab: everything that is about running notebooks and not about backdoors."""
