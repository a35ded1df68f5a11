"""Which parameters a linear layer runs under: chosen by its ring's bits and public limits, refused where none is safe.

Degree 8192, plaintext modulus t = 2^bits, q a product of 5 to 7 primes of 27 bits, secrets uniform in {-1, 0, 1}.

**Security of the encryption.** At least 128 bits (classical) where log2 q is at most 218: the *Homomorphic Encryption
Standard* (Albrecht et al., 2018, version 1.1), uniform ternary secret, n = 8192. The newer *Security Guidelines for
Implementing Homomorphic Encryption* (Bossuat et al., IACR Communications in Cryptology 1(4), 2025, table 5.2) have 214
for it, which is what is held here; both for errors of deviation 3.2 and 3.19, and ours is 3.24. The largest q is 189.

**Hiding the weights.** The client, who decrypts, also learns the noise of what it decrypts: W * (e + d) with its own
errors e and roundings d, and the server's fresh encryption of zero. The server adds a flood, uniform in
[-2^f, 2^f), at the full modulus; shifting a uniform number by v changes its distribution by |v| / 2^(f+1), statistical
distance, and a whole inference's coefficients add up (`hiding_bits`). |v| is bounded by a *public* limit on the sum of
absolute weights that one output reads: no average, no assumption on weights. After M inferences on one model, log2 M
bits less.

**Decryption.** It fails where flood, noise and the roundings of the answer reach half a step, q / 2^(bits+1). Flood and
noise are bounded; the rounding of c1 meets a ternary secret and is bounded by Hoeffding's inequality (`margin`).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from pibench.errors import UsageError
from pibench.mpc.crypto.rlwe.primes import DEGREE, Ring, ring
from pibench.mpc.crypto.rlwe.primes import primes as first_primes
from pibench.mpc.crypto.rlwe.sampling import ERROR_BOUND

STANDARD_LOG_Q = 214  # most at n = 8192 for 128 bits with ternary secrets, the stricter of both tables
SECURITY_BITS = 128  # of the encryption, where log2 q is no larger
FEWEST_PRIMES, MOST_PRIMES = 5, 7
HIDING_BITS = 40  # statistical, over all coefficients of one inference
FAILURE_BITS = 40  # of decryption, over all coefficients of one inference
LIMITS = (22, 24, 26)  # classes of weights: log2 of what the absolute weights that one output reads come to at most
FLOOD_CAP = 126  # a flood is drawn as two words


@dataclass(frozen=True)
class Parameters:
    """Parameters of one layer: ring Z_2^bits of its words, primes, flood, and what its answers keep of q."""

    bits: int
    primes: int
    flood: int  # uniform in [-2^flood, 2^flood)
    degree: int = DEGREE

    @property
    def ring(self) -> Ring:
        """The ciphertexts' ring."""
        return ring(self.primes, self.degree)

    @property
    def q(self) -> int:
        """The modulus."""
        return math.prod(first_primes(self.primes))

    @property
    def mask_bytes(self) -> int:
        """Bytes of a coefficient of c1 in an answer: 11 bits below the plaintext's, whose rounding meets a secret."""
        return -(-(self.bits + 11) // 8)

    @property
    def body_bytes(self) -> int:
        """Bytes of a coefficient of c0 in an answer: 4 bits below the plaintext's."""
        return -(-(self.bits + 4) // 8)

    @property
    def log_q(self) -> float:
        """Bits of the modulus."""
        return math.log2(self.q)

    def shift_bound(self, weight_sum: int) -> int:
        """Return the most by which noise moves a coefficient: the client's, times weights, and a zero's."""
        mine = weight_sum * (ERROR_BOUND + 1)  # its error and its rounding
        zero = 2 * self.degree * ERROR_BOUND + ERROR_BOUND  # u e + e1 s + e0
        return mine + zero

    def hiding_bits(self, weight_sum: int, coefficients: int) -> float:
        """Return -log2 of the distance between `coefficients` floods and as many that noise has moved."""
        return self.flood + 1 - math.log2(self.shift_bound(weight_sum)) - math.log2(coefficients)

    def margin(self, weight_sum: int, failure_bits: float) -> float:
        """Return the share of half a step that is left at worst; a failure in one coefficient below 2^-failure_bits."""
        step: int = self.q >> self.bits
        noise = ((1 << self.flood) + self.shift_bound(weight_sum)) / step
        # sum of n independent s_i r_i, |s_i r_i| <= half a unit: above x with 2 exp(-2 x^2 / n)
        tail = math.sqrt(self.degree * (failure_bits + 1) * math.log(2) / 2)
        mask = (tail + 1) * 2.0 ** (self.bits - 8 * self.mask_bytes)
        body = 2.0 ** (self.bits - 8 * self.body_bytes)
        return 1.0 - 2.0 * (noise + mask + body)

    def is_safe(self, weight_sum: int, coefficients: int) -> bool:
        """Return whether all three claims hold for weights and an inference of this size."""
        return (
            self.log_q <= STANDARD_LOG_Q
            and self.hiding_bits(weight_sum, coefficients) >= HIDING_BITS
            and self.margin(weight_sum, FAILURE_BITS + math.log2(coefficients)) > 0
        )


@functools.cache
def choose(bits: int, weight_sum: int, coefficients: int) -> Parameters:
    """Return the smallest safe parameters for words of `bits` and outputs that read absolute weights of that sum.

    Raises UsageError where none is safe.
    """
    if not 1 <= bits <= 64:
        raise UsageError(f"a ring of {bits} bits is none that the encryption knows", remedy="use 1 to 64")
    for primes in range(FEWEST_PRIMES, MOST_PRIMES + 1):
        flood = min(FLOOD_CAP, round(math.log2(math.prod(first_primes(primes)))) - bits - 2)
        made = Parameters(bits, primes, flood)
        if made.is_safe(weight_sum, coefficients):
            return made
    raise UsageError(
        f"no parameters hide {HIDING_BITS} bits over {coefficients} coefficients in a ring of {bits} bits where an "
        f"output reads absolute weights of 2^{math.log2(max(weight_sum, 1)):.1f} in sum",
        remedy="lower range_bits, fraction_bits or the limit on the weights, or use provider: dealer",
    )
