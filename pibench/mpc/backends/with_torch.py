"""The backend of a device: torch tensors, wherever torch can put them.

Every operation does word for word what the processor's does (`check.py` compares them, in the tests on torch's own
processor device, and on a card before anything is measured there). torch knows no unsigned words, so halves are int32
and words that are no number int64; what that changes is where bits move right.

Masks come from the same keystream as everywhere, made on the host and copied ahead; never from torch's generator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pibench.lowering.program import Pair, Shape
from pibench.mpc.backends import kernels, torch_words
from pibench.mpc.backends.backend import BITS_MASK, DIGITS, Backend, Digits, Host, Kind, Multiply, rounding_up
from pibench.mpc.backends.torch_products import LimbConv, conv_words
from pibench.mpc.backends.torch_words import as_halves, from_halves, parity, right
from pibench.mpc.gpu_inventory import synchroniser
from pibench.mpc.ring.randomness import Stream, blocks_at

Places = tuple[Tensor, Tensor, bool]  # positions, where there is none, whether all stay in place

_DTYPES = {"int64": torch.int64, "uint64": torch.int64, "uint32": torch.int32}
_SIGNED = {np.dtype(np.uint64): np.int64, np.dtype(np.uint32): np.int32}


class TorchStream:
    """A keystream of the host's, its bytes copied to the device."""

    def __init__(self, backend: TorchBackend, seed: bytes) -> None:
        self._backend, self._stream = backend, Stream(seed)

    def bytes(self, count: int) -> Tensor:
        """Return so many uniform bytes, writable."""
        return self._backend.lift(self._stream.bytes(count))

    def words(self, count: int) -> Tensor:
        """Return so many uniform words."""
        return self._backend.lift(self._stream.words(count))

    def small(self, count: int, mask: int) -> Tensor:
        """Return so many uniform numbers from 0 to `mask`."""
        return self._backend.lift(self._stream.small(count, mask))

    def halves(self, count: int) -> Tensor:
        """Return so many uniform 32-bit words."""
        return self._backend.lift(self._stream.halves(count))


class TorchBackend(Backend):
    """See Backend, which says what every operation does."""

    name: ClassVar[str] = "torch"

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._is_host = self._device.type == "cpu"
        self._permuted = self.lift(kernels.combination())

    @property
    def device(self) -> str:
        """The device with its number, as tensors say it."""
        return str(torch.empty(0, device=self._device).device)

    def prepare(self) -> None:
        """Compare every operation with the processor's: what this device computes is exact, or it is not used."""
        from pibench.mpc.backends.check import compare_with_host

        if not self._is_host:
            compare_with_host(self)

    @property
    def synchronise(self) -> Callable[[], None] | None:
        """Wait for the card."""
        return synchroniser(str(self._device))

    # ---- places

    def buffer(self, size: int) -> Host:
        """Return pinned memory, which torch keeps for the next message: copies from it need no detour."""
        return torch.empty(size, dtype=torch.uint8, pin_memory=not self._is_host).numpy()

    def lift(self, array: Host) -> Tensor:
        signed = _SIGNED.get(array.dtype)
        return torch.from_numpy(array if signed is None else array.view(signed)).to(self._device)

    def host(self, array: Tensor) -> Host:
        if not self._is_host:
            pinned = torch.empty(array.shape, dtype=array.dtype, pin_memory=True)
            array = pinned.copy_(array)
        return array.numpy().view(np.uint32) if array.dtype == torch.int32 else array.numpy()

    def stack(self, parts: list[Tensor]) -> Tensor:
        return torch.stack(parts)

    def flat(self, x: Tensor) -> Tensor:
        return x.reshape(-1).contiguous()

    def view(self, data: Tensor, kind: Kind) -> Tensor:
        return data.view(_DTYPES[kind])

    def raw(self, x: Tensor) -> Tensor:
        return x.view(torch.uint8)

    def words(self, x: Tensor) -> Tensor:
        return from_halves(x) if x.dtype == torch.int32 else x.to(torch.int64)

    def stream(self, seed: bytes) -> TorchStream:
        return TorchStream(self, seed)

    # ---- messages, fixed point

    def pack(self, x: Tensor, width: int) -> Host:
        return self.host(torch_words.planes(x, width))

    def unpack(self, data: Host, width: int) -> Tensor:
        return torch_words.from_planes(self.lift(data), width)

    def pack_halves(self, x: Tensor, width: int) -> Host:
        return self.host(torch_words.planes(x, width))

    def unpack_halves(self, data: Host, width: int) -> Tensor:
        made = torch_words.from_planes(self.lift(data), width)
        return as_halves(made & 0xFFFF if width == 2 else made)

    def pack_bits(self, bits: Tensor) -> Host:
        return self.host(torch_words.pack_bits(bits))

    def unpack_bits(self, data: Host, count: int) -> Tensor:
        return torch_words.unpack_bits(self.lift(data), count)

    def encode(self, values: Tensor, fraction_bits: int) -> Tensor:
        return (values.to(self._device).to(torch.float64) * float(1 << fraction_bits)).round().to(torch.int64)

    def decode(self, x: Tensor, fraction_bits: int) -> Tensor:
        return (x.to(torch.float64) / 2.0**fraction_bits).float().to("cpu")

    # ---- products

    def conv(
        self, weight: Tensor, input_shape: Shape, *, batch: int, bits: int, stride: Pair, padding: Pair,
        dilation: Pair, groups: int,
    ) -> Multiply:  # fmt: skip
        return LimbConv(
            weight, input_shape, batch=batch, bits=bits, stride=stride, padding=padding, dilation=dilation,
            groups=groups, device=self._device,
        )  # fmt: skip

    def matrix(self, weight: Tensor, *, batch: int, bits: int) -> Multiply:
        inputs = weight.shape[1]
        product = LimbConv(
            weight.reshape(*weight.shape, 1, 1), (inputs, 1, 1), batch=batch, bits=bits, device=self._device
        )

        def multiply(x: Tensor, add: Tensor) -> Tensor:
            made = product(x.reshape(len(x), inputs, 1, 1), add.reshape(len(x), -1, 1, 1))
            return made.reshape(len(x), -1)

        return multiply

    def conv_words(self, x: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Tensor:
        return conv_words(x, weight, stride, padding, dilation, groups)

    # ---- moves

    def pool_sum(self, x: Tensor, kernel: Pair, stride: Pair, padding: Pair) -> Tensor:
        (ph, pw), (sh, sw), (kh, kw) = padding, stride, kernel
        padded = F.pad(x, (pw, pw, ph, ph)) if ph or pw else x
        return padded.unfold(2, kh, sh).unfold(3, kw, sw).sum((-1, -2))

    def places(self, index: Host) -> Places:
        missing = np.flatnonzero(index < 0)
        return self.lift(index), self.lift(missing), bool((index == np.arange(len(index))).all())

    def _join(self, rows: list[Tensor]) -> Tensor:
        return torch.cat(rows, dim=1)

    def choose(self, bits: Tensor, one: Tensor, zero: Tensor) -> Tensor:
        return torch.where(bits.bool(), one, zero)

    # ---- steps of the conversations

    def open_masked(self, x: Tensor, mask: Tensor, low: int) -> Tensor:
        return (x + mask) >> low

    def opened_mask(self, mask: Tensor, bits: int, low: int) -> Tensor:
        return right(mask if bits == 64 else mask & ((1 << bits) - 1), low)

    def read_digits(self, c: Tensor, table: Tensor, mask: Tensor, digits: Digits) -> Tensor:
        read, low, plane = mask.to(torch.int64), 0, 0
        for j in range(DIGITS):
            per, digit = 1 << (digits[j] - 6), (c >> low) & ((1 << digits[j]) - 1)
            own, slot = table[plane : plane + per], digit >> 6
            here = right(own.gather(0, slot[None])[0], digit & 63)
            above = right(here, 1)
            for k in range(1, per):
                above = above ^ torch.where(slot < k, own[k], 0)
            read = read ^ (parity(above) << (j if j < 3 else 6))
            if j:
                read = read ^ ((here & 1) << (2 + j))
            low += digits[j]
            plane += per
        return read.to(torch.uint8)

    def answer(self, bits: Tensor, theirs: Tensor, table: Tensor) -> Tensor:
        sign = (table >> ((bits ^ theirs) & BITS_MASK).to(torch.int64)) & 1
        return (bits & BITS_MASK) | (((bits >> 6) ^ sign.to(torch.uint8)) << 6)

    def decide(self, bits: Tensor, reply: Tensor, table: Tensor, c: Tensor, sign_bit: int) -> Tensor:
        sign = (table >> ((bits ^ reply) & BITS_MASK).to(torch.int64)) & 1
        return (sign ^ (bits >> 6) ^ (reply >> 6) ^ ((c >> sign_bit) & 1)).to(torch.uint8) & 1

    def entry_pads(self, key: Tensor, bits: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
        entries = self.host((bits ^ theirs) & BITS_MASK).astype(np.int64)
        blocks = blocks_at(self.host(key).tobytes(), np.arange(0, 64 * len(bits), 64) + entries).view(np.int64)
        first, second = self.lift(np.ascontiguousarray(blocks.T))
        return first, second

    def offer_signs(self, bits: Tensor, reply: Tensor, c: Tensor, sign_bit: int) -> Tensor:
        return ((bits >> 6) ^ (reply >> 6) ^ ((c >> sign_bit) & 1).to(torch.uint8)) & 1

    def take_offer(
        self, bits: Tensor, reply: Tensor, table: Tensor, flip: Tensor, pads: Tensor, width: int,
        offers: tuple[Tensor, Tensor], y: Tensor,
    ) -> Tensor:  # fmt: skip
        entry = ((bits ^ reply) & BITS_MASK).to(torch.int64)
        place = ((table >> entry) ^ flip) & 1
        held = pads.reshape(len(bits), -1, width)[torch.arange(len(bits), device=bits.device), entry].to(torch.int64)
        pad = (held << torch.arange(0, 8 * width, 8, device=bits.device)).sum(1)
        return y + torch.where(place.bool(), offers[1], offers[0]) - pad

    def select(
        self, c: Tensor, sign: Tensor, s: Tensor, rp: Tensor, srp: Tensor, rt: Tensor, srt: Tensor,
        sign_bit: int, raised: int, own: int,
    ) -> Tensor:  # fmt: skip
        tau = c - (1 << sign_bit)
        wrap = (1 - ((c >> (sign_bit + 1)) & 1)) << (sign_bit + 2)
        t = own * tau + rp + wrap * from_halves(rt)
        ts = tau * s + srp + wrap * from_halves(srt)
        return torch.where(sign.bool(), t - ts, ts) << raised

    def square(
        self, c: Tensor, rp: Tensor, sq: Tensor, rt: Tensor, rprt: Tensor, sign_bit: int, raised: int, own: int
    ) -> Tensor:
        tau, top = c - (1 << sign_bit), from_halves(rt)
        wrap = (1 - ((c >> (sign_bit + 1)) & 1)) << (sign_bit + 2)
        rho = rp + wrap * top
        rest = sq + 2 * wrap * from_halves(rprt) + wrap * wrap * top
        return torch.stack([own * tau * tau + 2 * tau * rho + rest, (own * tau + rho) << raised], 1).reshape(-1)

    def cut_part(self, x: Tensor, shift: int, bits: int, offset: int) -> tuple[Tensor, Tensor]:
        whole = x + offset
        top = (whole >> (bits - 1)) & 1
        cut = (whole & ((1 << (bits - 1)) - 1)) >> shift
        return cut - (top << (bits - 1 - shift)) - (offset >> shift), top.to(torch.uint8)

    def wrap_offers(self, top: Tensor, d: Tensor, x: Tensor, p0: Tensor, p1: Tensor) -> Tensor:
        swap = d.bool()
        first, second = torch.where(swap, p1, p0), torch.where(swap, p0, p1)
        return torch.cat([first - x, top.to(torch.int32) - x + second])

    def wrap_take(self, top: Tensor, offers: Tensor, pad: Tensor, weight: int, y: Tensor) -> Tensor:
        n = len(top)
        return y + (from_halves(torch.where(top.bool(), offers[n:], offers[:n]) - pad) << weight)

    def drop_and_mask(self, x: Tensor, shift: int, mask: Tensor) -> Tensor:
        return ((x + rounding_up(shift)) >> shift) + mask

    # ---- dealing

    def deal_digits(self, r: Tensor, digits: Digits, share: Tensor) -> None:
        low, plane = 0, 0
        for bits in digits:
            digit = right(r, low) & ((1 << bits) - 1)
            for k in range(per := 1 << (bits - 6)):
                share[plane + k] ^= torch.where(digit >> 6 == k, torch.ones_like(digit) << (digit & 63), 0)
            low, plane = low + bits, plane + per

    def deal_choice(self, r: Tensor, mask: Tensor, s: Tensor, sign_bit: int, share: Tensor) -> None:
        flip = ((r >> sign_bit) & 1) ^ s
        share ^= self._permuted[mask.to(torch.int64)] ^ -flip

    def deal_pads(self, key: Tensor, table: Tensor, flip: Tensor, width: int, pads: Tensor) -> None:
        n = len(table)
        each = self.lift(blocks_at(self.host(key).tobytes(), np.arange(64 * n)).view(np.int64)).reshape(n, 64, 2)
        place = ((table[:, None] >> torch.arange(64, device=table.device)) ^ flip[:, None]) & 1
        chosen = each.gather(2, place[:, :, None]).reshape(-1)
        pads.copy_(chosen.view(torch.uint8).reshape(-1, 8)[:, :width].reshape(-1))

    def other_share(self, total: Tensor, share: Tensor) -> None:
        torch.sub(total.to(share.dtype), share, out=share)
