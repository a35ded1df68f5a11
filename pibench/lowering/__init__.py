"""From a torch network to a typed program of few operations."""
