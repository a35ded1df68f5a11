"""AES-128 for kernels and arrays, and the hash that breaks correlations between blocks with a common offset.

Security: AES-128 as a pseudorandom permutation for keystreams under secret keys; as an ideal cipher under public keys
for the hash H(x) = AES_K(sigma(x)) ^ sigma(x), sigma(a, b) = (a ^ b, a), which is circular correlation robust (Guo,
Katz, Wang and Yu, *Efficient and Secure Multiparty Computation from Fixed-Key Block Ciphers*, IEEE S&P 2020, section
7). Uses of one key share its bound, so keys change often (Guo, Katz, Wang, Weng and Yu, CRYPTO 2020): `derive_key`
makes them from a public salt and a position that is used once. Semi-honest, unaudited, for measurement.

A block is two 64-bit words, the first eight bytes first (little-endian); round keys are 22 words. On a CPU with AES
instructions a block takes about a nanosecond; without, kernels get the same bits from tables (`softaes.py`).
"""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from numba import njit
from numpy.typing import NDArray

from pibench.mpc.crypto import softaes
from pibench.mpc.crypto.instructions import ROUND_WORDS, cipher, key_schedule, register_blocks

Words = NDArray[np.uint64]
LANES = register_blocks()  # blocks a register; 0: no AES instructions
KEY_BYTES = 16

if LANES:
    _MANY = LANES * 8 if LANES < 4 else LANES * 4
    _encrypt_many, _encrypt_1 = cipher(LANES, _MANY // LANES, False), cipher(1, 1, False)
    _hash_many, _hash_1 = cipher(LANES, _MANY // LANES, True), cipher(1, 1, True)
    _expand = key_schedule()

    @njit(cache=True, nogil=True)
    def encrypt_blocks(dst: Words, di: int, src: Words, si: int, count: int, keys: Words, ki: int) -> None:
        """Kernel: dst[di:] = AES_K of `count` blocks at src[si:], K's round keys at keys[ki:]; in place is fine."""
        done = 0
        while done + _MANY <= count:
            _encrypt_many(dst, di + 2 * done, src, si + 2 * done, keys, ki)
            done += _MANY
        while done < count:
            _encrypt_1(dst, di + 2 * done, src, si + 2 * done, keys, ki)
            done += 1

    @njit(cache=True, nogil=True)
    def hash_blocks(dst: Words, di: int, src: Words, si: int, count: int, keys: Words, ki: int) -> None:
        """Kernel: dst[di:] = AES_K(s) ^ s with s = sigma(x), of `count` blocks x at src[si:]; in place is fine."""
        done = 0
        while done + _MANY <= count:
            _hash_many(dst, di + 2 * done, src, si + 2 * done, keys, ki)
            done += _MANY
        while done < count:
            _hash_1(dst, di + 2 * done, src, si + 2 * done, keys, ki)
            done += 1

    @njit(cache=True, nogil=True)
    def expand_key(key: Words, k: int, keys: Words, ki: int) -> None:
        """Kernel: round keys of the key at key[k : k + 2] into keys[ki : ki + 22]."""
        _expand(key, k, keys, ki)

else:

    @njit(cache=True, nogil=True)
    def encrypt_blocks(dst: Words, di: int, src: Words, si: int, count: int, keys: Words, ki: int) -> None:
        """Kernel: dst[di:] = AES_K of `count` blocks at src[si:], K's round keys at keys[ki:]; in place is fine."""
        for i in range(0, 2 * count, 2):
            dst[di + i], dst[di + i + 1] = softaes.encrypt_one(src[si + i], src[si + i + 1], keys, ki)

    @njit(cache=True, nogil=True)
    def hash_blocks(dst: Words, di: int, src: Words, si: int, count: int, keys: Words, ki: int) -> None:
        """Kernel: dst[di:] = AES_K(s) ^ s with s = sigma(x), of `count` blocks x at src[si:]; in place is fine."""
        for i in range(0, 2 * count, 2):
            a, b = src[si + i] ^ src[si + i + 1], src[si + i]
            x, y = softaes.encrypt_one(a, b, keys, ki)
            dst[di + i], dst[di + i + 1] = x ^ a, y ^ b

    @njit(cache=True, nogil=True)
    def expand_key(key: Words, k: int, keys: Words, ki: int) -> None:
        """Kernel: round keys of the key at key[k : k + 2] into keys[ki : ki + 22]."""
        softaes.expand_one(key, k, keys, ki)


@njit(cache=True, nogil=True)
def derive_key(salt: Words, high: int, low: int, keys: Words, ki: int) -> None:
    """Kernel: round keys at keys[ki:] of the public key AES_salt(high, low); `salt` is 22 round keys.

    The caller sees to it that a pair (high, low) serves one purpose at one position, in the life of a salt.
    """
    key = np.empty(2, np.uint64)
    key[0], key[1] = np.uint64(low), np.uint64(high)
    encrypt_blocks(key, 0, key, 0, 1, salt, 0)
    expand_key(key, 0, keys, ki)


@njit(cache=True, nogil=True)
def keystream(dst: Words, di: int, count: int, start: int, keys: Words, ki: int) -> None:
    """Kernel: `count` blocks of AES in counter mode from counter `start` (a word; the other word is zero)."""
    for i in range(count):
        dst[di + 2 * i], dst[di + 2 * i + 1] = np.uint64(start + i), np.uint64(0)
    encrypt_blocks(dst, di, dst, di, count, keys, ki)


def round_keys(key: bytes) -> Words:
    """Return the 22 words of round keys of a 16-byte key."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
    made = np.empty(ROUND_WORDS, np.uint64)
    expand_key(np.frombuffer(key, np.uint64).copy(), 0, made, 0)
    return made


def encrypt(blocks: Words, keys: Words) -> Words:
    """Return AES of blocks (n, 2) under round keys (22,)."""
    made = np.ascontiguousarray(blocks).reshape(-1)
    if not LANES:
        key = keys[:2].tobytes()
        sealed = Cipher(AES(key), ECB()).encryptor().update(made.tobytes())
        return np.frombuffer(sealed, np.uint64).reshape(-1, 2).copy()
    out = np.empty_like(made)
    encrypt_blocks(out, 0, made, 0, made.size // 2, keys, 0)
    return out.reshape(-1, 2)


def correlation_hash(blocks: Words, keys: Words) -> Words:
    """Return H of blocks (n, 2) under round keys (22,) of a public key."""
    turned = np.stack([blocks[:, 0] ^ blocks[:, 1], blocks[:, 0]], axis=1)
    made: Words = encrypt(turned, keys) ^ turned
    return made
