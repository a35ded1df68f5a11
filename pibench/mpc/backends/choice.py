"""Which backend a case gets: by its device."""

from __future__ import annotations

from functools import cache
from threading import Lock

from pibench.mpc.backends.backend import Backend
from pibench.mpc.gpu_inventory import require

_making = Lock()


def backend_for(device: str) -> Backend:
    """Return the backend for a device as a case names it (`cpu`, `cuda`, `cuda:1`), the same one whoever asks.

    Raises UsageError where there is no such device.
    """
    with _making:  # parties may be threads, and two that ask at once must not get two
        return _made(device)


@cache
def _made(device: str) -> Backend:
    if device == "cpu":
        from pibench.mpc.backends.with_numpy import NumpyBackend

        return NumpyBackend()
    from pibench.mpc.backends.with_torch import TorchBackend

    return TorchBackend(require(device))


def prepare_host() -> None:
    """Get the processor's kernels ready, which every process needs that makes or uses material."""
    backend_for("cpu").prepare()
