"""The circuits of private inference, over values shared by addition: inputs are a (garbler's) and b (evaluator's).

Each output is masked inside: z = y + n with n minus the part that the other side will hold, so that what is decoded
is one party's fresh share. Truncation costs nothing and is exact, since it only leaves wires out.
"""

from __future__ import annotations

from functools import cache

from pibench.mpc.crypto.garbling.circuit import Builder, Circuit, Word


@cache
def relu_circuit(width: int, out_width: int, shift: int, garbler_masks: bool = False, gaps: int = 1) -> Circuit:
    """Return z = (max(x, 0) >> shift) + n modulo 2^out_width, of the signed x = a + b modulo 2^width.

    Whoever masks holds n after its parts. ANDs: width - 1 for the sum, width - 1 - shift for the choice (no more than
    out_width), out_width - 1 for the mask: 3 (k - 1) - shift in one ring of k bits.

    With more `gaps` g, words side by side, x is the last plus the ReLU of the one before, and so on: where they are
    x_1 - x_2, x_2 - x_3, ..., z is max(x_1, ..., x_count) - x_count, masked. Each takes 3 (width - 1) ANDs more; a
    tournament of single ReLUs takes a mask more for each, and a round a level.
    """
    if not 0 <= shift < width - 1:
        raise ValueError(f"{shift} bits of {width} leave nothing but the sign")
    builder, parts, others, n = _inputs(gaps, width, out_width, garbler_masks)
    y: Word = []
    for a, b in zip(parts, others, strict=True):
        x, _ = builder.add(a, b)
        if y:
            x, _ = builder.add(y, x)
        positive, last = builder.invert(x[-1]), a is parts[-1]
        y = [builder.both(wire, positive) for wire in (x[shift:-1][:out_width] if last else x[:-1])]
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
