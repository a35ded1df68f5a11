"""Which backend a case gets: by its device."""

from __future__ import annotations

from functools import cache

from pibench.mpc.backends.backend import Backend


@cache
def backend_for(device: str) -> Backend:
    """Return the backend for a device as a case names it (`cpu`, `cuda`, `cuda:1`), the same one whenever asked.

    Raises UsageError where there is no such device.
    """
    if device == "cpu":
        from pibench.mpc.backends.with_numpy import NumpyBackend

        return NumpyBackend()
    from pibench.mpc.backends.with_torch import TorchBackend, device_for

    return TorchBackend(device_for(device))


def prepare_host() -> None:
    """Get the processor's kernels ready, which every process needs that makes or uses material."""
    backend_for("cpu").prepare()
