"""Which instructions compiled kernels may use: those of the target that numba compiles for.

LLVM ends the process when a kernel names an instruction that its target has not. So what counts is what numba is
configured for (NUMBA_CPU_NAME, NUMBA_CPU_FEATURES), not what this processor could do.
"""

from __future__ import annotations

from functools import cache

from numba.core.registry import cpu_target


def has(*features: str) -> bool:
    """Whether kernels may use all of these x86 features, named as LLVM names them (`avx512ifma`, `vaes`)."""
    return all(f"+{feature}" in _features() for feature in features)


@cache
def _features() -> frozenset[str]:
    triple, _, features = cpu_target.target_context.codegen().magic_tuple()
    return frozenset(features.split(",")) if triple.startswith("x86_64") else frozenset()
