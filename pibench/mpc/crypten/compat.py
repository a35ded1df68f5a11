"""CrypTen 0.4.1 (2022, no longer maintained) on today's torch: everything that it takes, with the reason beside it.

Import CrypTen through `crypten()` only, so that these lines always come first.
"""

from __future__ import annotations

import importlib
import logging
import sys
import warnings
from functools import cache
from types import ModuleType
from typing import Any

from pibench.errors import UsageError
from pibench.mpc.crypten.cuda import make_convolutions_exact


@cache
def crypten() -> Any:
    """Return the crypten package, imported without noise; raises UsageError where it cannot be."""
    _alias_onnx_registration()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SyntaxWarnings of its docstrings, torch's deprecations
        try:
            package = importlib.import_module("crypten")
        except ImportError as error:
            remedy = "pip install 'crypten==0.4.1' beside a torch below 2.14; `pibench doctor` looks at both"
            raise UsageError(f"CrypTen cannot be imported: {error}", remedy=remedy) from error
    # It logs through the root logger at INFO; its warnings stay.
    logging.getLogger().setLevel(max(logging.getLogger().level, logging.WARNING))
    make_convolutions_exact(importlib.import_module("crypten.cuda").CUDALongTensor)
    # Its own counters add sent and received bytes: ours count where the buffer leaves.
    package.cfg.communicator.verbose = False
    return package


def _alias_onnx_registration() -> None:
    """Let CrypTen's ONNX converter find `torch.onnx._internal.registration`, which torch 2.9 moved elsewhere."""
    old = "torch.onnx._internal.registration"
    try:
        importlib.import_module(old)
    except ModuleNotFoundError:
        moved = importlib.import_module("torch.onnx._internal.torchscript_exporter.registration")
        sys.modules[old] = _as_module(moved)


def _as_module(module: ModuleType) -> ModuleType:
    """Hang the module where `from torch.onnx._internal.registration import registry` looks for it."""
    import torch.onnx._internal as parent

    parent.registration = module  # type: ignore[attr-defined]
    return module
