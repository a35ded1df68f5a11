"""Arithmetic of the ring: exact products, packing on the wire, fixed point, masks."""
