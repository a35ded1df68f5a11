"""Streams are AES-CTR, agree on both ends of a seed, and never hand out a byte twice."""

from __future__ import annotations

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from pibench.mpc.ring.randomness import Stream, fresh_seed


def test_a_stream_is_the_cipher_in_counter_mode_read_once():
    seed = bytes(range(16))
    stream = Stream(seed)
    read = b"".join([stream.bytes(5).tobytes(), stream.words(3).tobytes(), stream.halves(2).tobytes()])
    whole = Cipher(AES(seed), CTR(bytes(16))).encryptor().update(bytes(len(read)))
    assert read == whole  # consecutive bytes of one keystream: nothing twice, nothing skipped


def test_both_ends_of_a_seed_agree_and_seeds_differ():
    seed = fresh_seed()
    assert (Stream(seed).words(100) == Stream(seed).words(100)).all()
    assert fresh_seed() != seed


def test_blocks_do_not_repeat():
    blocks = Stream(fresh_seed()).bytes(16 * 4096).reshape(-1, 16)
    assert len(np.unique(blocks, axis=0)) == 4096


def test_a_short_seed_is_refused():
    with pytest.raises(ValueError, match="16 bytes"):
        Stream(b"short")
