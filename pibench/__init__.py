"""Measure what a ReLU budget buys in private inference."""

__version__ = "0.1.0"
