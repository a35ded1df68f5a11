"""The one exception family: every error says what, where and what to do, and knows its exit status."""

from __future__ import annotations

# Exit statuses of the `pibench` command, in line with pytest's.
EXIT_OK = 0
EXIT_REGRESSION = 1
EXIT_FAILED = 2
EXIT_INTERNAL = 3
EXIT_USAGE = 4
EXIT_NOTHING_SELECTED = 5


class PibenchError(Exception):
    """An error that a user can act on; shown as one message, never as a traceback."""

    exit_status = EXIT_INTERNAL

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(self.render())

    def render(self) -> str:
        """Return the message as the screen shows it: `where: what`, then the remedy on its own line."""
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}\n  -> {self.remedy}" if self.remedy else head


class UsageError(PibenchError):
    """A wrong option, suite, card or file: the user's input is at fault."""

    exit_status = EXIT_USAGE


class NothingSelected(PibenchError):
    """A selection that leaves no case to run."""

    exit_status = EXIT_NOTHING_SELECTED


class DataError(UsageError):
    """A data set or checkpoint that is missing, truncated or of another shape."""


class UnsupportedLayer(UsageError):
    """A module or operation that the lowering does not know; `refused` are all that stand in the network's way."""

    refused: tuple[str, ...] = ()


class PartyError(PibenchError):
    """A party process or its peer failed, stalled or vanished."""

    exit_status = EXIT_FAILED


class StoreError(PibenchError):
    """A record that cannot be written (full disk, missing permission); what was measured before is kept."""

    exit_status = EXIT_FAILED


class TransportError(PartyError):
    """The wire between two parties broke, stalled or carried something malformed."""


class MalformedError(TransportError):
    """A message that arrived whole and is none that a peer of this version sends: damaged, forged, or of another."""


class MaterialError(PartyError):
    """Correlated randomness is missing, spent, or made for another program."""
