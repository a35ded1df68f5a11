"""The helper itself: two processes talk, and a failing one fails the test with its last lines."""

from __future__ import annotations

import pytest
from two_parties import Side, run_two


def talk(side: Side) -> tuple[int, bytes]:
    side.sock.sendall(bytes([side.rank]))
    return side.payload + side.rank, side.sock.recv(1)


def fail(side: Side) -> None:
    if side.rank == 1:
        raise ValueError("no such luck")


@pytest.mark.timeout(60)
def test_two_processes_talk() -> None:
    assert run_two("test_two_parties:talk", 10) == ((10, b"\x01"), (11, b"\x00"))


@pytest.mark.timeout(60)
def test_a_failure_shows_its_last_lines() -> None:
    with pytest.raises(AssertionError, match="no such luck"):
        run_two("test_two_parties:fail")
