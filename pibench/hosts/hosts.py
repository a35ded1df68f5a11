"""Two hosts: the server's party runs where `pibench party --listen` waits, the rest where `pibench run --peer` is.

The harness starts remote.py in the server's stead, which carries control, results and output over mutual TLS; the
parties' own connections are TLS as well. The card's text travels, and the public structure of the program; weights stay
on the one host and images on the other. A dealer, where a suite asks for one, runs on a third host, which both parties
dial (dealing.py). Where no third host is named it runs beside the client, whose host can then compute the weights: run
and record say so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pibench import __version__, processes
from pibench.errors import PartyError, UsageError
from pibench.hosts.asked import check_numbers
from pibench.links.link import Address, Link, LinkUp
from pibench.links.tls import Identity
from pibench.mpc.spec import Engine, found, spec_of
from pibench.session.handshake import WIRE_VERSION
from pibench.session.job import Job

if TYPE_CHECKING:
    from pibench.run.settings import CasePlan, RunPlan

# what a job says to the other host; the rest are files, addresses and secrets of this one
CARRIED = (
    "role", "protocol", "options", "batch", "threads", "device", "warmups", "inferences", "offline_chunk",
    "dealer", "dealer_listens", "beside", "timeout_s", "token", "probe", "remote",
)  # fmt: skip
# these name code, addresses and files of the host that sets them, or show it what the other one computes
LOCAL_OPTIONS = ("dealer_module", "rendezvous", "keep_dir", "deal_ahead", "check_ranges", "circuits_dir")
NETWORK = Link(name="network", how="network")


def parse_address(text: str) -> Address:
    """Read HOST:PORT."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"{text!r} is no address", remedy="write HOST:PORT, such as 192.0.2.7:7700")
    return host.strip("[]"), int(port)


def identity(key: Path, trusted: list[Path]) -> Identity:
    """Return who this host is: a key beside its certificate, as `pibench party keygen` leaves them."""
    return Identity(key, key.with_suffix(".crt"), tuple(trusted))


@dataclass(frozen=True)
class Elsewhere:
    """A dealer's host, as a party knows it: it is dialled, and pinned by a key of its own."""

    address: Address
    identity: Identity  # this host's own, with the dealer's certificate as the only peer


@dataclass(frozen=True)
class Peer:
    """The other host, and the dealer's where there is one."""

    address: Address
    identity: Identity
    dealer: Elsewhere | None = None

    def open(self, link: Link, any_socket: bool) -> LinkUp:
        """Return the network to it as a link."""
        return HostsUp(link, self, any_socket)


def over_network(plan: RunPlan) -> RunPlan:
    """Return a plan whose cases all run over the network between the two hosts, each once, with its options there."""
    asked = {"name": NETWORK.name, "how": NETWORK.how}
    cases = [
        dataclasses.replace(case, link=asked, options={**spec_of(case.protocol).between_hosts, **case.options})
        for case in plan.cases
    ]
    return dataclasses.replace(plan, cases=tuple({case.id: case for case in cases}.values()))


def deals(case: CasePlan) -> bool:
    """Whether somebody deals in a case."""
    return spec_of(case.protocol).arrangement(case.options).dealer is not None


class HostsUp(LinkUp):
    """The network between two hosts, as it is."""

    how = "network"
    any_socket = False

    def __init__(self, link: Link, peer: Peer, any_socket: bool = False) -> None:
        super().__init__(link)
        if any_socket:
            raise PartyError(
                "this protocol brings its own wire (gloo), which no TLS protects",
                remedy="between hosts run protocols over pibench's own transport",
            )
        self._peer, self._dealer = peer, peer.dealer
        self.dealer_listens = peer.dealer is not None

    def engine(self, role: str) -> Engine | None:
        """Have the server run by the other host, a dealer by its own: what stands here in their stead calls there."""
        if role == "client" or (role == "dealer" and self._dealer is None):
            return None
        return Engine(command=tuple(processes.command("pibench.hosts.remote")), environment=processes.variables())

    def connection(self, role: str) -> dict[str, Any]:
        """Have everybody speak TLS; the client knows its own host's dealer by its own certificate."""
        mine, address, more = self._peer.identity, self._peer.address, dict[str, Any]()
        if self._dealer is not None:
            more = {"dealer_identity": self._dealer.identity.to_json()}
            if role == "dealer":
                mine, address = self._dealer.identity, self._dealer.address
        elif role != "server":
            mine = dataclasses.replace(mine, peers=(*mine.peers, mine.certificate))
        return {"kind": "tls", "host": "127.0.0.1", "peer": list(address), "identity": mine.to_json(), **more}

    def route(self, dialler: str, role: str, address: Address) -> Address:
        """Find who is on another host there, at the port that it announced."""
        if role == "server":
            return self._peer.address[0], address[1]
        return (self._dealer.address[0], address[1]) if role == "dealer" and self._dealer is not None else address


def carried(job: Job) -> dict[str, Any]:
    """Return what the other host is told of a job; raises UsageError for one that it would refuse."""
    _check_options(job.options, spec_of(job.protocol).local if job.protocol in found() else ())
    return {name: getattr(job, name) for name in CARRIED}


def hello() -> dict[str, Any]:
    """Return how both hosts greet."""
    return {"wire": WIRE_VERSION, "pibench": __version__}


def greeted(theirs: dict[str, Any]) -> None:
    """Check the other host's greeting."""
    if "refused" in theirs:
        raise PartyError(f"the other host refuses: {theirs['refused']}")
    mine = hello()
    for name, value in mine.items():
        if theirs.get(name) != value:
            raise PartyError(
                f"the other host runs {name} {str(theirs.get(name))[:40]!r}, this one {value!r}",
                remedy="install the same version on both hosts",
            )


def accepted(
    values: dict[str, Any], connection: dict[str, Any], files: dict[str, str | None], role: str = "server"
) -> Job:
    """Return the job that another host asked for, with this host's own files, addresses and code; no program yet."""
    if unknown := sorted(set(values) - set(CARRIED)):
        raise UsageError(f"the job has {', '.join(map(str, unknown))}, which no other host may set")
    if values.get("role") != role:
        raise UsageError(f"another host may have a {role} here, and nothing else")
    if values.get("protocol") not in found():
        raise UsageError(f"no protocol is named {str(values.get('protocol'))[:40]!r} here")
    if not isinstance(options := values.get("options", {}), dict):
        raise UsageError("the job is malformed: its options are no mapping")
    spec = spec_of(values["protocol"])
    _check_options(options, spec.local)
    check_numbers(values)
    spec.check(options, values.get("device", "cpu"), "network")
    module = spec.module if role == "server" else spec.arrangement(options).dealer
    if module is None or (role == "dealer" and not values.get("dealer_listens")):
        raise UsageError("nobody deals in such a session", remedy="a suite asks for it: options: {provider: dealer}")
    try:
        return Job(**values, program=[], module=module, connection=connection, **files)  # type: ignore[arg-type]
    except TypeError as error:
        raise UsageError(f"the job is malformed: {error}") from error


def _check_options(options: dict[str, Any], of_protocol: Iterable[str]) -> None:
    """Refuse what is a host's own business."""
    if local := sorted(set(options) & {*LOCAL_OPTIONS, *of_protocol}):
        raise UsageError(
            f"the options name {', '.join(local)}, which no other host may set",
            remedy="leave them out of what runs between two hosts",
        )
