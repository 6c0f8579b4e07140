"""Backdoor attacks and defences for deep models, regression models as seriously as classifiers."""

__version__ = "0.1.0"
