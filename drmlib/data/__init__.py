"""Data: images or table rows and their targets, two tensors on one device."""
