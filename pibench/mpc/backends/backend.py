"""What a backend is: the one place that says how secret words are held and worked on.

Protocols hold arrays that they do not look into. Whatever the backend, arrays of words know `+ - * << >> & ^`, unary
minus, `reshape`, `shape`, `min`, `max`, slices and their assignment, all modulo 2^64 and `>>` with the sign. All else
that is done with secret values is an operation of the backend, named for what it does to them.

Messages are host memory, whatever the backend: `buffer` makes room for one, the wire operations read and write them.
A backend's own memory is another place only where it says so (`host` and `lift` copy there and back).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

    from pibench.lowering.program import Pair, Shape

# Arrays of the backend: numpy's here, torch's there. What the elements are is all that a reader needs.
Ints: TypeAlias = Any  # words of the ring, signed
Words: TypeAlias = Any  # 64 bits that are no number: tables, one-hot words
Halves: TypeAlias = Any  # modulo 2^32
Bytes: TypeAlias = Any  # small numbers, bits
Places: TypeAlias = Any  # what `places` made of public positions
Host: TypeAlias = Any  # an array in host memory, numpy's

Kind = Literal["int64", "uint64", "uint32"]  # Ints, Words, Halves
Digits = tuple[int, ...]  # bits of the digits of a comparison, lowest first
Multiply = Callable[[Ints, Ints], Ints]  # (input, what is added) -> product plus that
DIGITS = 4  # of a comparison
BITS_MASK = 63  # the six bits of a comparison that are combined: lt0, lt1, lt2, eq1, eq2, eq3 from the lowest


class Stream(Protocol):
    """A keystream read in order, as arrays of the backend; the same seed gives the same everywhere."""

    def bytes(self, count: int) -> Bytes:
        """Return so many uniform bytes, writable."""

    def words(self, count: int) -> Ints:
        """Return so many uniform words."""

    def small(self, count: int, mask: int) -> Bytes:
        """Return so many uniform numbers from 0 to `mask` (a power of two less one)."""

    def halves(self, count: int) -> Halves:
        """Return so many uniform 32-bit words."""


class Backend(ABC):
    """How the words of one party are held. Every result is a new array unless it is said to be a view."""

    name: ClassVar[str]

    @property
    @abstractmethod
    def device(self) -> str:
        """Where arrays are."""

    @abstractmethod
    def prepare(self) -> None:
        """Get all operations ready (compiled, checked): seconds the first time on a machine, a moment afterwards."""

    @property
    def synchronise(self) -> Callable[[], None] | None:
        """What waits until all work that was ordered is done, for the meter; None where nothing is ever pending."""
        return None

    # ---- places

    @abstractmethod
    def buffer(self, size: int) -> Host:
        """Return room for a message of so many bytes."""

    @abstractmethod
    def lift(self, array: Host) -> Any:
        """Return an array in host memory as one of the backend's (the same, where that is the same place)."""

    @abstractmethod
    def host(self, array: Any) -> Host:
        """Return an array of the backend in host memory (the same, where that is the same place)."""

    @abstractmethod
    def stack(self, parts: list[Any]) -> Any:
        """Return arrays of one shape as one, along a new first axis."""

    @abstractmethod
    def flat(self, x: Any) -> Any:
        """Return x as one contiguous row; a view where it is contiguous."""

    @abstractmethod
    def view(self, data: Bytes, kind: Kind) -> Any:
        """Return bytes as elements of another kind: a view."""

    @abstractmethod
    def raw(self, x: Any) -> Bytes:
        """Return a flat array as its bytes: a view."""

    @abstractmethod
    def words(self, x: Bytes | Halves) -> Ints:
        """Return bytes or halves as words, none of them negative."""

    @abstractmethod
    def stream(self, seed: bytes) -> Stream:
        """Return the keystream of a seed: AES-128 in counter mode, whichever backend reads it."""

    # ---- messages, fixed point

    @abstractmethod
    def pack(self, x: Ints, width: int) -> Host:
        """Return the low `width` bytes of every element of a flat array; may be a view of it."""

    @abstractmethod
    def unpack(self, data: Host, width: int) -> Ints:
        """Return what was packed, flat, sign-extended; may be a view of it."""

    @abstractmethod
    def pack_halves(self, x: Halves, width: int) -> Host:
        """Return the low `width` bytes, 4 at most, of every element."""

    @abstractmethod
    def unpack_halves(self, data: Host, width: int) -> Halves:
        """Return what was packed, modulo 2^(8 width)."""

    @abstractmethod
    def pack_bits(self, bits: Bytes) -> Host:
        """Return bits, eight a byte, the first one highest."""

    @abstractmethod
    def unpack_bits(self, data: Host, count: int) -> Bytes:
        """Return so many packed bits, a byte each."""

    @abstractmethod
    def encode(self, values: Tensor, fraction_bits: int) -> Ints:
        """Return real values (float32, host) as words, rounded to nearest; shaped alike."""

    @abstractmethod
    def decode(self, x: Ints, fraction_bits: int) -> Tensor:
        """Return words as real values (float32, host)."""

    # ---- products (exact)

    @abstractmethod
    def conv(
        self, weight: Tensor, input_shape: Shape, *, batch: int, bits: int, stride: Pair, padding: Pair,
        dilation: Pair, groups: int,
    ) -> Multiply:  # fmt: skip
        """Prepare a convolution by fixed small weights (int64, host) for words that are valid modulo 2^bits."""

    @abstractmethod
    def matrix(self, weight: Tensor, *, batch: int, bits: int) -> Multiply:
        """Prepare a product by a fixed matrix (int64, host), likewise: (N, inputs) to (N, outputs)."""

    @abstractmethod
    def conv_words(self, x: Ints, weight: Ints, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Ints:
        """Convolve full words by full words, modulo 2^64."""

    # ---- moves

    @abstractmethod
    def pool_sum(self, x: Ints, kernel: Pair, stride: Pair, padding: Pair) -> Ints:
        """Add up the windows of (N, C, H, W)."""

    @abstractmethod
    def places(self, index: Host) -> Places:
        """Prepare public positions for `gather`; -1 stands for none."""

    def gather(self, parts: list[Ints], places: Places, fill: int) -> Ints:
        """Return (N, places) elements of the flattened, joined parts; `fill` where there is none. May be a view."""
        index, missing, is_identity = places
        rows = [part.reshape(len(part), math.prod(part.shape[1:])) for part in parts]
        joined = rows[0] if len(rows) == 1 else self._join(rows)
        if is_identity and joined.shape[1] == len(index):
            return joined
        taken = joined[:, index]
        if len(missing):
            taken[:, missing] = fill
        return taken

    @abstractmethod
    def _join(self, rows: list[Ints]) -> Ints:
        """Return flat parts (N, scalars) side by side."""

    @abstractmethod
    def choose(self, bits: Bytes, one: Halves, zero: Halves) -> Halves:
        """Return elements of `one` where a bit is set, else of `zero`."""

    # ---- steps of the conversations; flat arrays of one size

    @abstractmethod
    def open_masked(self, x: Ints, mask: Ints, low: int) -> Ints:
        """Return (x + mask) >> low."""

    @abstractmethod
    def opened_mask(self, mask: Ints, bits: int, low: int) -> Ints:
        """Return what lies from bit `low` to bit `bits` of a mask, as a number that is not negative where bits < 64."""

    @abstractmethod
    def read_digits(self, c: Ints, table: Words, mask: Bytes, digits: Digits) -> Bytes:
        """Read this party's table shares (planes, n) at the public c: six bits under the mask, and lt3 as bit 6."""

    @abstractmethod
    def answer(self, bits: Bytes, theirs: Bytes, table: Words) -> Bytes:
        """Client: from all six masked bits to its share of the masked sign; both go into one byte."""

    @abstractmethod
    def decide(self, bits: Bytes, reply: Bytes, table: Words, c: Ints, sign_bit: int) -> Bytes:
        """Server: the masked sign, public from here on."""

    @abstractmethod
    def entry_pads(self, key: Bytes, bits: Bytes, theirs: Bytes) -> tuple[Ints, Ints]:
        """Client: both pads of each element's entry, which the opened six bits name: `blocks_at` of 64 i + entry."""

    @abstractmethod
    def offer_signs(self, bits: Bytes, reply: Bytes, c: Ints, sign_bit: int) -> Bytes:
        """Client: the masked sign for which its offer at place 0 is; `bits` are the server's, `reply` its own."""

    @abstractmethod
    def take_offer(
        self, bits: Bytes, reply: Bytes, table: Words, flip: Bytes, pads: Bytes, width: int,
        offers: tuple[Ints, Ints], y: Ints,
    ) -> Ints:  # fmt: skip
        """Server: return y with the one of two offers that its pad opens; may change y in place."""

    @abstractmethod
    def select(
        self, c: Ints, sign: Bytes, s: Ints, rp: Ints, srp: Ints, rt: Halves, srt: Halves,
        sign_bit: int, raised: int, own: int,
    ) -> Ints:  # fmt: skip
        """Return this party's share of y = t b 2^raised (`kernels.select` says of what)."""

    @abstractmethod
    def square(
        self, c: Ints, rp: Ints, sq: Ints, rt: Halves, rprt: Halves, sign_bit: int, raised: int, own: int
    ) -> Ints:  # fmt: skip
        """Return this party's shares of t^2 and t 2^raised, alternating: (2 n,)."""

    @abstractmethod
    def cut_part(self, x: Ints, shift: int, bits: int, offset: int) -> tuple[Ints, Bytes]:
        """Return one party's part of a truncation, and its top bits."""

    @abstractmethod
    def wrap_offers(self, top: Bytes, d: Bytes, x: Halves, p0: Halves, p1: Halves) -> Halves:
        """Client: both possible products of the top bits minus x, each under a pad: (2 n,)."""

    @abstractmethod
    def wrap_take(self, top: Bytes, offers: Halves, pad: Halves, weight: int, y: Ints) -> Ints:
        """Server: return y with the offer that its top bit opens, times 2^weight; may change y in place."""

    @abstractmethod
    def drop_and_mask(self, x: Ints, shift: int, mask: Ints) -> Ints:
        """Server: return x / 2^shift, rounded up (see `rounding_up`), + mask."""

    # ---- dealing: shares of zero become shares of what is dealt, in place

    @abstractmethod
    def deal_digits(self, r: Ints, digits: Digits, share: Words) -> None:
        """Put the one-hot words of r's digits onto a share (planes, n) by XOR."""

    @abstractmethod
    def deal_choice(self, r: Ints, mask: Bytes, s: Bytes, sign_bit: int, share: Words) -> None:
        """Put the one-time table of the combination, permuted by the mask, onto a share by XOR."""

    @abstractmethod
    def deal_pads(self, key: Bytes, table: Words, flip: Bytes, width: int, pads: Bytes) -> None:
        """Fill (64 width n) bytes with the pads that the server's table opens, one of two for each entry."""

    @abstractmethod
    def other_share(self, total: Ints, share: Ints | Halves) -> None:
        """Turn one share by addition of a total into the other one."""


def rounding_up(shift: int) -> int:
    """Return what the server adds to its part of x before both parties cut theirs by `shift` bits.

    The server's part is rounded up then, the client's k down, and the sum is x / 2^shift rounded down, or up where
    k mod 2^shift < x mod 2^shift: right on average, exact where x is a multiple of 2^shift.
    """
    return (1 << shift) - 1


def ring_mask(bits: int) -> int:
    """Return the mask that cuts a word to a ring of `bits`."""
    return (1 << bits) - 1 if bits < 64 else -1
