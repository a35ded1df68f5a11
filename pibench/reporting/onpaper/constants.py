"""Constants of the systems on paper: each with its unit, source, and the range over which it was measured.

They were measured by others, on their machines, and are never mixed with what this suite measures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

ASPLOS = "Garimella et al., ASPLOS 2023, artifact (simulator/experiments/utils): DELPHI on an AMD EPYC 7502"
ASPLOS_MICRO = "Garimella et al., ASPLOS 2023, artifact (gc_models.py): one thread"


@dataclass(frozen=True)
class Constant:
    """One measured or published number; `low` and `high` are its extremes over the networks where it was seen."""

    value: float
    low: float
    high: float
    unit: str
    what: str
    source: str
    tag: str  # measured by others | fitted here to their measurements | claimed by a paper


def _measured(value: float, low: float, high: float, unit: str, what: str, source: str = ASPLOS) -> Constant:
    return Constant(value, low, high, unit, what, source, "measured by others")


def _fitted(value: float, low: float, high: float, unit: str, what: str) -> Constant:
    return Constant(value, low, high, unit, what, ASPLOS, "fitted here to their measurements")


def _claimed(value: float, low: float, high: float, unit: str, what: str, source: str) -> Constant:
    return Constant(value, low, high, unit, what, source, "claimed by a paper")


_CIRCA = "Circa, NeurIPS 2021: abstract (at most 4.7x storage, 3x run time)"
_DELPHI_QUAD = "DELPHI, USENIX Security 2020, as quoted by later papers"

# Seen on ResNet-18, ResNet-32 and VGG-16, at 32x32 and (ResNets) 64x64 pixels: 285 thousand to 2.2 million ReLUs.
CONSTANTS: dict[str, Constant] = {
    "gc_eval_s": _measured(18.3e-6, 18.2e-6, 20.4e-6, "s/ReLU", "evaluate a garbled ReLU, inside the protocol"),
    "gc_encode_online_s": _measured(3.6e-6, 2.8e-6, 4.1e-6, "s/ReLU", "encode input labels, online"),
    "gc_garble_s": _measured(30.5e-6, 30.4e-6, 31.5e-6, "s/ReLU", "garble a ReLU"),
    "gc_encode_offline_s": _measured(7.6e-6, 7.0e-6, 8.1e-6, "s/ReLU", "encode labels, offline"),
    "gc_circuit_bytes": _measured(17_072, 17_072, 17_072, "B/ReLU", "a garbled circuit on the wire"),
    "ot_setup_bytes": _measured(672, 672, 672, "B/ReLU", "oblivious transfer, receiver to sender"),
    "ot_send_bytes": _measured(1_344, 1_344, 1_344, "B/ReLU", "oblivious transfer, sender to receiver"),
    "label_bytes": _measured(1_184, 1_184, 1_184, "B/ReLU", "input labels, server to client, online"),
    "share_bytes": _measured(9.0, 9.0, 9.02, "B/scalar", "masked input of a linear layer, client to server, online"),
    "evaluator_bytes": _measured(18_248, 18_248, 18_248, "B/ReLU", "what the evaluator stores: circuit and labels"),
    "garbler_bytes": _measured(3_590, 3_590, 3_590, "B/ReLU", "what the garbler stores"),
    "linear_first_s": _fitted(64.7e-3, 60.6e-3, 69.7e-3, "s", "first linear layer online, whatever its size"),
    "linear_layer_s": _fitted(10.4e-3, 6.2e-3, 16.0e-3, "s/layer", "every further linear layer online"),
    "linear_mac_s": _fitted(0.171e-9, 0.10e-9, 0.43e-9, "s/MAC", "multiply-accumulates of linear layers online"),
    "he_mac_s": _measured(0.51e-6, 0.39e-6, 0.73e-6, "s/MAC", "evaluate linear layers under HE, one thread"),
    "he_parallel": _measured(8.0, 7.6, 14.9, "x", "gain of evaluating all layers at once (13 to 31 threads)"),
    "he_keygen_s": _measured(0.34, 0.34, 0.34, "s", "generate HE keys"),
    "he_key_bytes": _measured(33_180_308, 33_180_308, 33_180_308, "B", "HE keys, client to server"),
    "he_ciphertext_bytes": _measured(524_395, 524_393, 524_401, "B", "a ciphertext of 8,192 slots"),
    "he_encrypt_s": _measured(4.4e-3, 4.2e-3, 4.7e-3, "s/ciphertext", "encrypt"),
    "he_decrypt_s": _measured(1.6e-3, 1.6e-3, 3.6e-3, "s/ciphertext", "decrypt"),
    "atom_eval": _measured(5.8, 5.4, 6.3, "x", "evaluating on an Atom Z8350 instead of the EPYC", ASPLOS_MICRO),
    "atom_garble": _measured(5.6, 5.5, 6.6, "x", "garbling on an Atom Z8350 instead of the EPYC", ASPLOS_MICRO),
    "quadratic_bytes": _claimed(6.2, 6.2, 6.2, "B/quadratic", "ReLU's online traffic over 192", _DELPHI_QUAD),
    "quadratic_s": _claimed(2.2e-9, 2.2e-9, 2.2e-9, "s/quadratic", "ReLU's online time over 10,000", _DELPHI_QUAD),
    "circa_time": _claimed(3.0, 1.0, 3.0, "x", "garbled work saved by a stochastic sign", _CIRCA),
    "circa_storage": _claimed(4.7, 1.0, 4.7, "x", "garbled storage saved by a stochastic sign", _CIRCA),
}

Prices = Callable[[str], float]


def point(name: str) -> float:
    """Return a constant's central value."""
    return CONSTANTS[name].value


# A gain (x) is cheap at its upper end; every other constant at its lower one.
_GAINS = frozenset({"he_parallel", "circa_time", "circa_storage"})


def cheap(name: str) -> float:
    """Return the end of a constant's range that makes a system cheaper."""
    constant = CONSTANTS[name]
    return constant.high if name in _GAINS else constant.low


def dear(name: str) -> float:
    """Return the end of a constant's range that makes a system dearer."""
    constant = CONSTANTS[name]
    return constant.low if name in _GAINS else constant.high
