"""Oblivious transfer: known answers, both roles over a real channel, what a tree betrays, and what goes wrong."""

from __future__ import annotations

import copy
import hashlib
import os
import pickle
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from two_threads import both

from pibench.errors import TransportError
from pibench.mpc.crypto import baseot, ggm, softspoken, transfers
from pibench.mpc.crypto.aes import Words, correlation_hash, round_keys
from pibench.mpc.crypto.softspoken import OtReceiver, OtSender


@pytest.fixture(scope="module")
def pair() -> tuple[OtSender, OtReceiver]:
    made, _ = both(
        lambda channel: softspoken.set_up_sender(channel, b"session", b"test"),
        lambda channel: softspoken.set_up_receiver(channel, b"session", b"test"),
    )
    return made[0], made[1]


def bits_of(words: Words) -> np.ndarray[Any, Any]:
    return np.unpackbits(words.view(np.uint8), bitorder="little").astype(np.uint64)


def random_words(count: int) -> Words:
    return np.frombuffer(os.urandom(8 * count), np.uint64).copy()


# ---------------------------------------------------------------- base transfers


def test_x25519_is_rfc_7748s() -> None:
    """RFC 7748, 5.2, second paragraph of vectors: scalar, point, product."""
    scalar = bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    point = bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    product = "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"
    assert baseot._shared(X25519PrivateKey.from_private_bytes(scalar), point).hex() == product


def test_points_of_the_curve_are_told_from_the_twists() -> None:
    assert baseot.is_on_curve((9).to_bytes(32, "little"))  # the generator
    assert not baseot.is_on_curve((2).to_bytes(32, "little"))
    found = [baseot.is_on_curve(os.urandom(32)) for _ in range(400)]
    assert 120 < sum(found) < 280


def test_both_keys_of_an_offer_look_alike() -> None:
    """Own and other keys are points of the prime-order group: on the curve, and of no small order."""
    choices = [0, 1] * 16
    offer = baseot.BaseReceiver(choices, b"s", b"r").offer
    points = [offer[at : at + 32] for at in range(0, len(offer), 32)]
    assert len(set(points)) == 64
    assert all(baseot.is_on_curve(point) for point in points)
    assert all(int.from_bytes(point, "little") < baseot.PRIME for point in points)  # canonical, the top bit clear
    assert all(_in_prime_subgroup(point) for point in points)


def _in_prime_subgroup(point: bytes) -> bool:
    """Multiply by the group's order, by a ladder of big integers, independent of the library."""
    order = 2**252 + 27742317777372353535851937790883648493
    x1, (x2, z2), (x3, z3), p = (
        int.from_bytes(point, "little"),
        (1, 0),
        (int.from_bytes(point, "little"), 1),
        baseot.PRIME,
    )
    for bit in bin(order)[2:]:
        if bit == "1":
            (x2, z2), (x3, z3) = (x3, z3), (x2, z2)
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        da, cb = d * a % p, c * b % p
        x3, z3 = (da + cb) ** 2 % p, x1 * (da - cb) ** 2 % p
        aa, bb = a * a % p, b * b % p
        x2, z2 = aa * bb % p, (aa - bb) * (aa + 121665 * (aa - bb)) % p
        if bit == "1":
            (x2, z2), (x3, z3) = (x3, z3), (x2, z2)
    return z2 == 0


def test_a_point_with_a_small_factor_would_be_found() -> None:
    """The subgroup's test can fail: half of the points of the curve are outside by a factor of 2, and so on."""
    points = [p for p in (os.urandom(31) + b"\x00" for _ in range(64)) if baseot.is_on_curve(p)]
    assert len(points) > 0
    assert not all(_in_prime_subgroup(point) for point in points)


def test_base_transfers_give_the_chosen_key_alone() -> None:
    choices = [0, 1, 1, 0, 1]
    receiver = baseot.BaseReceiver(choices, b"session", b"role")
    answer, pairs = baseot.answer_base(receiver.offer, 5, b"session", b"role")
    got = receiver.keys(answer)
    assert [pair[choice] for pair, choice in zip(pairs, choices, strict=True)] == got
    assert len({key for pair in pairs for key in pair}) == 10


@pytest.mark.parametrize(("session", "role"), [(b"other", b"role"), (b"session", b"elor"), (b"sessionr", b"ole")])
def test_keys_are_bound_to_session_and_role(session: bytes, role: bytes) -> None:
    receiver = baseot.BaseReceiver([0], b"session", b"role")
    answer, pairs = baseot.answer_base(receiver.offer, 1, session, role)
    assert receiver.keys(answer)[0] not in pairs[0]


def test_keys_are_bound_to_the_transcript() -> None:
    receiver = baseot.BaseReceiver([0, 0], b"s", b"r")
    answer, pairs = baseot.answer_base(receiver.offer[:64] + receiver.offer[64:][::-1], 2, b"s", b"r")
    assert receiver.keys(answer)[0] not in pairs[0]  # its own points are as sent, others are not


@pytest.mark.parametrize("point", [0, 1, 325606250916557431795983626356110631294008115727848805560023387167927233504])
def test_points_of_low_order_are_refused(point: int) -> None:
    low = point.to_bytes(32, "little")
    with pytest.raises(TransportError, match="low order"):
        baseot.answer_base((9).to_bytes(32, "little") + low, 1, b"s", b"r")
    with pytest.raises(TransportError, match="low order"):
        baseot.BaseReceiver([0], b"s", b"r").keys(low)


def test_other_lengths_are_refused() -> None:
    with pytest.raises(TransportError, match="bytes"):
        baseot.answer_base(bytes(63), 1, b"s", b"r")
    with pytest.raises(TransportError, match="bytes"):
        baseot.BaseReceiver([0], b"s", b"r").keys(bytes(31))
    with pytest.raises(TransportError, match="bytes"):
        ggm.puncture([3], [bytes(16)] * 4, bytes(127))


# ---------------------------------------------------------------- trees


def planted(seed: bytes, tree: int, level: int, place: int) -> tuple[bytes, bytes]:
    """The hole of a trial: AES under public keys without feed-forward, which runs backward."""
    left, right = (Cipher(AES(bytes([k] * 16)), ECB()).encryptor().update(seed) for k in (1, 2))
    return left, right


def invert(sibling: bytes, side: int) -> bytes:
    """The attack: from the hole's sibling back to their parent, and forward to the hole."""
    parent = Cipher(AES(bytes([1 + side] * 16)), ECB()).decryptor().update(sibling)
    return Cipher(AES(bytes([2 - side] * 16)), ECB()).encryptor().update(parent)


def trees(step: ggm.Step, holes: list[int]) -> tuple[list[list[bytes]], list[ggm.Tree]]:
    keys = [(os.urandom(16), os.urandom(16)) for _ in range(4 * len(holes))]
    leaves, said = ggm.grow(keys, step)
    chosen = [pair[choice] for pair, choice in zip(keys, ggm.path_choices(holes), strict=True)]
    return leaves, ggm.puncture(holes, chosen, said, step)


@pytest.mark.parametrize("step", [ggm.children, planted])
def test_every_leaf_but_the_hole(step: ggm.Step) -> None:
    holes = list(range(16))
    leaves, got = trees(step, holes)
    for hole, whole, part in zip(holes, leaves, got, strict=True):
        assert part[hole] is None
        assert [seed for k, seed in enumerate(part) if k != hole] == [seed for k, seed in enumerate(whole) if k != hole]


def recovered(step: ggm.Step) -> int:
    """How many holes the attack finds: one tree each."""
    holes = [int(x) for x in np.frombuffer(os.urandom(32), np.uint8) % 16]
    leaves, got = trees(step, holes)
    found = 0
    for hole, whole, part in zip(holes, leaves, got, strict=True):
        sibling = part[hole ^ 1]
        assert sibling is not None
        found += invert(sibling, (hole ^ 1) & 1) == whole[hole]
    return found


def test_the_hole_stays_hidden_from_the_attack_on_invertible_steps() -> None:
    assert recovered(planted) == 32  # the attack works where there is something to find
    assert recovered(ggm.children) == 0


def test_steps_depend_on_tree_level_and_place() -> None:
    seed = os.urandom(16)
    made = {ggm.children(seed, *position) for position in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))}
    assert len({child for pair in made for child in pair}) == 8


# ---------------------------------------------------------------- extension


@pytest.mark.parametrize("words", [1, 2, 3, 8, 9, 255, 256, 257, 600])
def test_rows_differ_by_delta_where_the_choice_is_one(pair: tuple[OtSender, OtReceiver], words: int) -> None:
    sender, receiver = pair
    choices = random_words(words)
    before = receiver.position
    t, message = receiver.extend(choices)
    q = sender.extend(message)
    assert message.nbytes == softspoken.message_bytes(64 * words)
    assert sender.position == receiver.position == before + 64 * words
    assert (q ^ t == bits_of(choices)[:, None] * sender.delta).all()
    assert sender.delta[0] & np.uint64(1)


def test_rows_never_repeat_and_are_balanced(pair: tuple[OtSender, OtReceiver]) -> None:
    sender, receiver = pair
    seen = set()
    total = np.zeros(128)
    for _ in range(2):
        t, message = receiver.extend(np.zeros(64, np.uint64))
        sender.extend(message)
        seen |= {row.tobytes() for row in t}
        total += np.unpackbits(t.view(np.uint8), axis=1, bitorder="little").sum(0)
    assert len(seen) == 8192
    assert (abs(total - 4096) < 6 * 45.3).all()  # six standard deviations of 8192 coins


def test_messages_hide_the_choices(pair: tuple[OtSender, OtReceiver]) -> None:
    """All zeros and all ones give messages of the same distribution: every byte value is about as frequent."""
    sender, receiver = pair
    for choice in (np.uint64(0), ~np.uint64(0)):
        _, message = receiver.extend(np.full(512, choice))
        sender.extend(message)
        counts = np.bincount(message.view(np.uint8), minlength=256)
        expected = message.nbytes / 256
        assert ((counts - expected) ** 2 / expected).sum() < 400  # chi squared, 255 degrees: mean 255, sd 23


def test_setup_over_a_channel_costs_what_is_declared() -> None:
    (sender, receiver), meters = both(
        lambda channel: softspoken.set_up_sender(channel, b"a", b"b"),
        lambda channel: softspoken.set_up_receiver(channel, b"a", b"b"),
    )
    assert (sender.salt == receiver.salt).all()
    parts = [meter._phase.parts[("other", "", "")] for meter in meters]
    assert [part.sent_bytes for part in parts] == [8192, 4128]
    assert [part.rounds for part in parts] == [2, 2]


def test_transfers_are_neither_copied_nor_stored(pair: tuple[OtSender, OtReceiver]) -> None:
    """A second holder of the same state would make every row a second time."""
    for half in pair:
        for act in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="neither copied nor stored"):
                act(half)


def test_a_message_of_broken_groups_is_refused(pair: tuple[OtSender, OtReceiver]) -> None:
    before = pair[0].position
    with pytest.raises(ValueError, match="whole groups"):
        pair[0].extend(np.zeros(33, np.uint64))
    assert pair[0].position == before


def test_a_session_of_another_name_gives_other_rows() -> None:
    (sender, receiver), _ = both(
        lambda channel: softspoken.set_up_sender(channel, b"a", b"b"),
        lambda channel: softspoken.set_up_receiver(channel, b"a", b"c"),
    )
    t, message = receiver.extend(np.zeros(8, np.uint64))
    assert (sender.extend(message) != t).any()


def test_a_peer_that_stops_is_a_message() -> None:
    results, _ = both(lambda channel: softspoken.set_up_sender(channel, b"a", b"b"), lambda channel: None)
    assert isinstance(results[0], TransportError)


# ---------------------------------------------------------------- what rows become


def test_pads_are_hashes_under_keys_by_place(pair: tuple[OtSender, OtReceiver]) -> None:
    sender, receiver = pair
    start = receiver.position
    choices = random_words(40)
    t, message = receiver.extend(choices)
    q = sender.extend(message)
    pad0, pad1 = transfers.sender_pads(q, start, sender.delta, sender.salt)
    pad = transfers.receiver_pads(t, start, receiver.salt)
    assert (pad == np.where(bits_of(choices)[:, None] == 1, pad1, pad0)).all()
    assert (pad0 != pad1).any(axis=1).all()
    for k in (0, 1, 2559):  # against the hash of one row, its key made by the standard library's way
        block = np.array([[(start + k) // 1024, 1 << 56]], np.uint64)
        salt = sender.salt[:2].tobytes()
        key = Cipher(AES(salt), ECB()).encryptor().update(block.tobytes())
        assert (pad0[k] == correlation_hash(q[k : k + 1], round_keys(key))[0]).all()


def test_pads_do_not_depend_on_how_pieces_are_cut(pair: tuple[OtSender, OtReceiver]) -> None:
    sender, receiver = pair
    start = receiver.position
    t, message = receiver.extend(random_words(50))
    sender.extend(message)
    whole = transfers.receiver_pads(t, start, receiver.salt)
    cut = [transfers.receiver_pads(t[a : a + 700], start + a, receiver.salt) for a in range(0, len(t), 700)]
    assert (whole == np.concatenate(cut)).all()
    other = transfers.receiver_pads(t, start, receiver.salt, transfers.PAD_KEYS_MORE)
    assert (whole != other).any(axis=1).all()


def test_correlated_transfers_are_products_modulo_a_word(pair: tuple[OtSender, OtReceiver]) -> None:
    sender, receiver = pair
    start, choices, difference = receiver.position, random_words(4), random_words(256)
    difference[:4] = [0, 1, 2**64 - 1, 2**63]
    t, message = receiver.extend(choices)
    pad0, pad1 = transfers.sender_pads(sender.extend(message), start, sender.delta, sender.salt)
    mine, said = transfers.send_correlated(pad0[:, 0], pad1[:, 0], difference)
    bits = bits_of(choices)
    yours = transfers.take_correlated(transfers.receiver_pads(t, start, receiver.salt)[:, 0], said, bits)
    assert (mine + yours == bits * difference).all()


def test_millions_stream_in_bounded_memory(pair: tuple[OtSender, OtReceiver]) -> None:
    """Pieces of any size: state is the keys and two counters, whatever has gone through."""
    sender, receiver = pair
    digests = [hashlib.sha256(), hashlib.sha256()]
    for _ in range(16):
        choices = random_words(1024)
        t, message = receiver.extend(choices)
        q = sender.extend(message)
        digests[0].update((t ^ bits_of(choices)[:, None] * sender.delta).tobytes())
        digests[1].update(q.tobytes())
    assert digests[0].digest() == digests[1].digest()
