"""Backdoor attacks and defences for deep models, regression models as seriously as classifiers.

Import drmlib before torch: it settles how many threads torch uses and how they wait (drmlib.session).
"""

from drmlib import session

__version__ = "0.1.0"

session.settle_threads()
