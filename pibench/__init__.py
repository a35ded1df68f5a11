"""pibench: what does a ReLU budget buy in private inference?"""

__version__ = "0.1.0"
