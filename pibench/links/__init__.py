"""Wires between two parties, and what is done to them: transport, meter, emulated links, probes."""
