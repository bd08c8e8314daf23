"""corobench: the referee for image classifiers that must be compact and robust at once."""

__version__ = "0.1.0"
