"""AES instructions of x86 inside numba kernels: AES-NI, and VAES on wider registers, where numba compiles for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pibench.mpc.cpu import has

ROUND_WORDS = 22  # 11 round keys of 128 bits, in 64-bit words
_I64, _I32, _I8 = ir.IntType(64), ir.IntType(32), ir.IntType(8)
_BLOCK = ir.VectorType(_I64, 2)
_RCON = (1, 2, 4, 8, 16, 32, 64, 128, 27, 54)


def register_blocks() -> int:
    """Return how many AES blocks one register of numba's target takes: 4, 2 or 1, and 0 without AES instructions."""
    if not has("aes", "sse2"):
        return 0
    if has("vaes", "avx512f"):
        return 4
    return 2 if has("vaes", "avx2") else 1


def cipher(lanes: int, registers: int, hashed: bool) -> Callable[..., Any]:
    """Return the intrinsic run(dst, di, src, si, keys, ki): lanes * registers blocks from src[si:] to dst[di:].

    Arrays are flat and of 64-bit words, two a block; the round keys are keys[ki : ki + 22]. Plain: AES_K(x). Hashed:
    AES_K(s) ^ s with s = sigma(x), sigma(a, b) = (a ^ b, a). All is read before anything is written.
    """

    @intrinsic
    def run(context: Any, dst: Any, di: Any, src: Any, si: Any, keys: Any, ki: Any) -> Any:
        signature = types.void(dst, types.int64, src, types.int64, keys, types.int64)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            to, at, round_keys = (_pointer(context, builder, signature.args[k], args, k) for k in (0, 2, 4))
            wide = ir.VectorType(_I64, 2 * lanes)
            blocks = [_load(builder, at, 2 * lanes * r, wide) for r in range(registers)]
            if hashed:
                blocks = [sigma_registers(builder, block, lanes) for block in blocks]
            sealed = encrypt_registers(builder, blocks, round_keys, lanes)
            if hashed:
                sealed = [builder.xor(a, b) for a, b in zip(sealed, blocks, strict=True)]
            for r, block in enumerate(sealed):
                builder.store(block, _place(builder, to, 2 * lanes * r, wide), align=8)
            return context.get_dummy_value()

        return signature, generate

    return run


def key_schedule() -> Callable[..., Any]:
    """Return the intrinsic run(key, k, keys, ki): expand the key at key[k : k + 2] into keys[ki : ki + 22]."""

    @intrinsic
    def run(context: Any, key: Any, k: Any, keys: Any, ki: Any) -> Any:
        signature = types.void(key, types.int64, keys, types.int64)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            at, to = (_pointer(context, builder, signature.args[k], args, k) for k in (0, 2))
            assist = _function(builder.module, ir.FunctionType(_BLOCK, [_BLOCK, _I8]), "llvm.x86.aesni.aeskeygenassist")
            held = _load(builder, at, 0, _BLOCK)
            builder.store(held, _place(builder, to, 0, _BLOCK), align=8)
            for r, rcon in enumerate(_RCON, 1):
                helped = builder.call(assist, [held, ir.Constant(_I8, rcon)])
                held = _next_key(builder, held, helped)
                builder.store(held, _place(builder, to, 2 * r, _BLOCK), align=8)
            return context.get_dummy_value()

        return signature, generate

    return run


def _next_key(builder: Any, held: Any, helped: Any) -> Any:
    """FIPS 197, 5.2: every column is the sum of the columns up to it and of the last one, rotated and substituted."""
    four = ir.VectorType(_I32, 4)
    columns, last = builder.bitcast(held, four), builder.bitcast(helped, four)
    zeros = ir.Constant(four, [0] * 4)
    for shift in (1, 2):  # sums of prefixes: by one column, then by two
        moved = ir.Constant(four, [max(0, 4 + i - shift) if i >= shift else 0 for i in range(4)])
        columns = builder.xor(columns, builder.shuffle_vector(zeros, columns, moved))
    spread = builder.shuffle_vector(last, last, ir.Constant(four, [3] * 4))
    return builder.bitcast(builder.xor(columns, spread), _BLOCK)


def encrypt_registers(builder: Any, blocks: list[Any], keys: Any, lanes: int) -> list[Any]:
    """Return AES of every register of `lanes` blocks under the round keys at the pointer `keys`."""
    wide = ir.VectorType(_I64, 2 * lanes)
    suffix = {1: "", 2: ".256", 4: ".512"}[lanes]
    kind = ir.FunctionType(wide, [wide, wide])
    step, last = (
        _function(builder.module, kind, f"llvm.x86.aesni.{name}{suffix}") for name in ("aesenc", "aesenclast")
    )
    spread = ir.Constant(ir.VectorType(_I32, 2 * lanes), [i % 2 for i in range(2 * lanes)])
    for r in range(11):
        key = _load(builder, keys, 2 * r, _BLOCK)
        key = builder.shuffle_vector(key, key, spread)
        if r == 0:
            blocks = [builder.xor(block, key) for block in blocks]
        else:
            blocks = [builder.call(last if r == 10 else step, [block, key]) for block in blocks]
    return blocks


def sigma_registers(builder: Any, block: Any, lanes: int) -> Any:
    """Return sigma of every block: (a, b) becomes (b, a) ^ (a, 0)."""
    count = 2 * lanes
    kind = ir.VectorType(_I32, count)
    swapped = builder.shuffle_vector(block, block, ir.Constant(kind, [i ^ 1 for i in range(count)]))
    mask = ir.Constant(ir.VectorType(_I64, count), [(1 << 64) - 1 if i % 2 == 0 else 0 for i in range(count)])
    return builder.xor(swapped, builder.and_(block, mask))


def _function(module: Any, kind: Any, name: str) -> Any:
    return cgutils.get_or_insert_function(module, kind, name)  # type: ignore[no-untyped-call]


def _pointer(context: Any, builder: Any, kind: Any, args: Any, k: int) -> Any:
    """Address of the element that the index args[k + 1] of the array args[k] names."""
    data = context.make_array(kind)(context, builder, value=args[k]).data
    return builder.gep(data, [args[k + 1]])


def _place(builder: Any, pointer: Any, words: int, kind: Any) -> Any:
    return builder.bitcast(builder.gep(pointer, [ir.Constant(_I64, words)]), kind.as_pointer())


def _load(builder: Any, pointer: Any, words: int, kind: Any) -> Any:
    return builder.load(_place(builder, pointer, words, kind), align=8)
