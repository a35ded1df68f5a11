"""Building blocks of an offline phase without a dealer. Semi-honest, unaudited, for measurement."""
