"""Packing keeps the low bytes of every element, and unpacking gives them back with their sign."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pibench.mpc.ring.packing import pack, unpack


@pytest.mark.parametrize("width", range(1, 9))
@settings(max_examples=20, deadline=None)
@given(data=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=9))
def test_round_trip_is_the_value_modulo_the_ring(width, data):
    values = np.array(data, np.int64)
    packed = pack(values, width)
    assert packed.size == width * len(data)
    keep = 64 - 8 * width
    assert (unpack(packed.copy(), width) == (values << keep) >> keep).all()
