"""The circuits of private inference, over values shared by addition: inputs are a (garbler's) and b (evaluator's).

Each output is masked inside: z = y + n with n minus the part that the other side will hold, so that what is decoded
is one party's fresh share. Truncation costs nothing and is exact, since it only leaves wires out.
"""

from __future__ import annotations

from functools import cache

from pibench.mpc.crypto.garbling.circuit import Builder, Circuit, Word


@cache
def relu_circuit(width: int, out_width: int, shift: int, garbler_masks: bool = False) -> Circuit:
    """Return z = (max(x, 0) >> shift) + n modulo 2^out_width, of the signed x = a + b modulo 2^width.

    Whoever masks holds n after its part of x. ANDs: width - 1 for the sum, width - 1 - shift for the choice (no more
    than out_width), out_width - 1 for the mask: 3 (k - 1) - shift in one ring of k bits.
    """
    if not 0 <= shift < width - 1:
        raise ValueError(f"{shift} bits of {width} leave nothing but the sign")
    builder, (a,), (b,), n = _inputs(1, width, out_width, garbler_masks)
    x, _ = builder.add(a, b)
    positive = builder.invert(x[-1])
    y = [builder.both(wire, positive) for wire in x[shift:-1][:out_width]]
    z, _ = builder.add(y, n)
    return builder.build(z)


@cache
def sign_circuit(width: int, wraps: bool) -> Circuit:
    """Return [x >= 0] of the signed x = a + b modulo 2^width, and if wanted that and the sum's carry out.

    Outputs are shared by XOR as they are: the evaluator has the colour of its label, the garbler that of the label of
    zero. ANDs: width - 1, or width + 1 with the carry. The carry tells a + b as whole numbers where x >= 0, so that a
    product with the sign may stand in any ring.
    """
    builder = Builder(width, width)
    x, carry = builder.add(builder.inputs(0, width), builder.inputs(width, width), carries_out=wraps)
    positive = builder.invert(x[-1])
    return builder.build([positive, builder.both(positive, carry)] if wraps else [positive])


@cache
def maximum_circuit(width: int, out_width: int, shift: int, count: int, garbler_masks: bool = False) -> Circuit:
    """Return z = (max(x_1, ..., x_count) >> shift) + n modulo 2^out_width; differences stay below 2^(width - 1).

    ANDs: count (width - 1) for the sums, (count - 1) (2 width - 1) for comparisons and choices, out_width - 1 for the
    mask. A tournament of ReLUs takes fewer, and a round a level: this one takes one round.
    """
    builder, parts, others, n = _inputs(count, width, out_width, garbler_masks)
    best, *rest = [builder.add(a, b)[0] for a, b in zip(parts, others, strict=True)]
    for x in rest:
        best = builder.choose(builder.less(best, x), best, x)
    kept = best[shift:]
    wide = kept + [kept[-1]] * (out_width - len(kept))
    z, _ = builder.add(wide[:out_width], n)
    return builder.build(z)


def _inputs(
    count: int, width: int, out_width: int, garbler_masks: bool
) -> tuple[Builder, list[Word], list[Word], Word]:
    mine = count * width + (out_width if garbler_masks else 0)
    theirs = count * width + (0 if garbler_masks else out_width)
    builder = Builder(mine, theirs)
    a = [builder.inputs(i * width, width) for i in range(count)]
    b = [builder.inputs(mine + i * width, width) for i in range(count)]
    n = builder.inputs(count * width if garbler_masks else mine + count * width, out_width)
    return builder, a, b, n
