"""Garbled circuits over many inputs at once. Semi-honest, unaudited, for measurement."""
