"""Homomorphic encryption for linear layers: ring-LWE with coefficient packing; see `bfv.py` for what it hides and why.

From the ground up: `primes` and `ntt` (rings and transforms), `arithmetic` and `residues` (kernels), `sampling`
(randomness), `params` (sizes, and what they are safe for), `layer`, `axis` and `packing` (where a convolution's numbers
lie), `bfv` (keys, ciphertexts, answers), `product` (weights), `wire` (bytes), `linear` (the two parties).
Semi-honest, unaudited, for measurement.
"""
