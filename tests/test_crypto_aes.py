"""AES in kernels: the standard's answers, OpenSSL's, and the same bits without AES instructions."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from pibench.mpc.crypto import aes, softaes

SIZES = (1, 2, 15, 16, 17, 31, 33, 257)  # about the widths of registers and their bundles


def openssl(key: bytes, blocks: aes.Words) -> aes.Words:
    sealed = Cipher(AES(key), ECB()).encryptor().update(blocks.tobytes())
    return np.frombuffer(sealed, np.uint64).reshape(-1, 2)


def random_blocks(count: int) -> aes.Words:
    return np.frombuffer(os.urandom(16 * count), np.uint64).reshape(-1, 2).copy()


def in_kernel(kernel: object, blocks: aes.Words, keys: aes.Words) -> aes.Words:
    out = np.zeros(blocks.size + 4, np.uint64)
    kernel(out, 2, np.concatenate([np.zeros(2, np.uint64), blocks.reshape(-1)]), 2, len(blocks), keys, 0)  # type: ignore[operator]
    assert not out[:2].any()
    assert not out[-2:].any()  # nothing but the blocks is written
    return out[2:-2].reshape(-1, 2)


def test_fips_197_appendix_c() -> None:
    plain = np.frombuffer(bytes.fromhex("00112233445566778899aabbccddeeff"), np.uint64).reshape(1, 2)
    keys = aes.round_keys(bytes(range(16)))
    sealed = bytes.fromhex("69c4e0d86a7b0430d8cdb78070b4c55a")
    assert aes.encrypt(plain, keys).tobytes() == sealed
    assert in_kernel(aes.encrypt_blocks, plain, keys).tobytes() == sealed


def test_fips_197_appendix_a_key_expansion() -> None:
    keys = aes.round_keys(bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")).tobytes().hex()
    assert keys[32:64] == "a0fafe1788542cb123a339392a6c7605"
    assert keys[-32:] == "d014f9a8c9ee2589e13f0cc8b6630ca6"


@pytest.mark.parametrize("count", SIZES)
def test_blocks_are_openssls(count: int) -> None:
    key, blocks = os.urandom(16), random_blocks(count)
    keys = aes.round_keys(key)
    expected = openssl(key, blocks)
    assert (aes.encrypt(blocks, keys) == expected).all()
    assert (in_kernel(aes.encrypt_blocks, blocks, keys) == expected).all()
    sigma = np.stack([blocks[:, 0] ^ blocks[:, 1], blocks[:, 0]], axis=1)
    hashed = openssl(key, sigma) ^ sigma
    assert (aes.correlation_hash(blocks, keys) == hashed).all()
    assert (in_kernel(aes.hash_blocks, blocks, keys) == hashed).all()


def test_in_place() -> None:
    key, blocks = os.urandom(16), random_blocks(65)
    flat = blocks.reshape(-1).copy()
    aes.hash_blocks(flat, 0, flat, 0, 65, aes.round_keys(key), 0)
    assert (flat.reshape(-1, 2) == aes.correlation_hash(blocks, aes.round_keys(key))).all()


def test_keystream_counts_blocks() -> None:
    key, out = os.urandom(16), np.empty(2 * 40, np.uint64)
    aes.keystream(out, 0, 40, 1000, aes.round_keys(key), 0)
    counter = np.zeros((40, 2), np.uint64)
    counter[:, 0] = np.arange(1000, 1040)
    assert (out.reshape(-1, 2) == openssl(key, counter)).all()


def test_derived_keys_depend_on_salt_and_both_words() -> None:
    made = set()
    for salt in (b"a" * 16, b"b" * 16):
        for high, low in ((0, 0), (0, 1), (1, 0)):
            out = np.empty(22, np.uint64)
            aes.derive_key(aes.round_keys(salt), high, low, out, 0)
            block = np.array([[low, high]], np.uint64)
            assert (out == aes.round_keys(openssl(salt, block).tobytes())).all()
            made.add(out.tobytes())
    assert len(made) == 6


def test_tables_are_openssls() -> None:
    key, blocks = os.urandom(16), random_blocks(9)
    keys = np.empty(22, np.uint64)
    softaes.expand_one(np.frombuffer(key, np.uint64).copy(), 0, keys, 0)
    assert (keys == aes.round_keys(key)).all()
    got = [softaes.encrypt_one(a, b, keys, 0) for a, b in blocks]
    assert (np.array(got, np.uint64) == openssl(key, blocks)).all()


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        aes.round_keys(bytes(15))


@pytest.mark.timeout(240)
def test_a_target_without_aes_instructions_gets_the_same_bits() -> None:
    """LLVM would abort the process, not raise, if an instruction went where the target has none."""
    code = """
import numpy as np
from pibench.mpc.crypto import aes
blocks = np.arange(40, dtype=np.uint64).reshape(-1, 2)
keys = aes.round_keys(bytes(range(16)))
out = np.empty(40, np.uint64)
aes.hash_blocks(out, 0, blocks.reshape(-1), 0, 20, keys, 0)
assert (aes.correlation_hash(blocks, keys).reshape(-1) == out).all()
print(aes.LANES, aes.encrypt(blocks, keys).tobytes().hex() + out.tobytes().hex())
"""
    said = {}
    for name in ("", "generic"):
        environment = {**os.environ, "NUMBA_CPU_NAME": name} if name else dict(os.environ)
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stderr
        said[name] = done.stdout.split()
    assert said["generic"][0] == "0"
    assert said[""][1] == said["generic"][1]
