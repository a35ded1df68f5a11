"""Links as data, and the ways to make one between two processes of one host.

In order of preference: the kernel's own emulation in two namespaces (netem), a user-space wire between two namespaces
(tun.py), a relay between the sockets (relay.py, no privilege). Whatever it was goes into the record, and the parties
measure it before the first inference (probe.py): what was asked for is a wish, what was measured is the fact.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pibench import processes
from pibench.errors import PartyError, UsageError
from pibench.mpc.spec import Engine
from pibench.registry import written_link

WAYS = ("netem", "wire", "paced")  # by preference
HOWS = ("auto", "none", "veth", *WAYS, "network")
TOLERANCE = 0.10  # a probe further off than this invalidates the case
START_S = 20.0
MAX_TRIM_MS = 0.5
PAUSES_S = (0.5, 2.0, 5.0, 10.0)  # before the next attempt: a virtual machine's neighbours come and go
Address = tuple[str, int]


@dataclass(frozen=True, kw_only=True)
class Link:
    """A link as a suite asks for it; None means: whatever there is."""

    name: str
    rtt_ms: float | None = None
    mbit_s: float | None = None
    loss_percent: float = 0.0
    how: str = "auto"

    def __post_init__(self) -> None:
        for label, value, low, high in (
            ("rtt_ms", self.rtt_ms, 0.0, 60_000.0),
            ("mbit_s", self.mbit_s, 0.001, 100_000.0),
            ("loss_percent", self.loss_percent, 0.0, 50.0),
        ):
            if value is not None and not low <= value <= high:
                raise UsageError(f"{label} is {value}, not in {low:g} to {high:g}", where=f"link {self.name}")
        if self.how not in HOWS:
            raise UsageError(f"no way of emulation is named {self.how!r}", remedy=f"choose one of {', '.join(HOWS)}")

    @property
    def emulated(self) -> bool:
        """Whether anything must be done to the traffic."""
        return bool(self.rtt_ms or self.mbit_s or self.loss_percent)


PROFILES = {
    link.name: link
    for link in (
        Link(name="loopback", how="none"),
        Link(name="lan", rtt_ms=0.5, mbit_s=1000.0),
        Link(name="wan", rtt_ms=40.0, mbit_s=100.0),
        Link(name="namespaces", how="veth"),
    )
}


def link_from(spec: str | Mapping[str, Any], where: str = "") -> Link:
    """Return the link that a suite names or describes."""
    if isinstance(spec, str):
        if (written := written_link(spec)) is not None:
            return Link(name=spec.strip().lower().replace(",", "-"), rtt_ms=written[0], mbit_s=written[1])
        if spec not in PROFILES:
            remedy = f"choose one of {', '.join(PROFILES)}, or write round trip and rate as 80ms,50mbit"
            raise UsageError(f"no link is named {spec!r}", where=where, remedy=remedy)
        return PROFILES[spec]
    known = {field.name for field in dataclasses.fields(Link)}
    if unknown := sorted(set(spec) - known):
        raise UsageError(f"a link has no {', '.join(map(str, unknown))}", where=where, remedy=f"it has {sorted(known)}")
    if "name" not in spec:
        raise UsageError("a link needs a name", where=where)
    base = PROFILES.get(spec["name"])
    return Link(**spec) if base is None else dataclasses.replace(base, **spec)


class LinkUp:
    """A link that is up. This one is loopback, as it is; the others change what they must."""

    how = "none"
    interface: str | None = None  # where the kernel counts this link's traffic, inside the party's namespace
    mtu: int | None = None
    any_socket = True  # whether sockets that the harness knows nothing of (gloo's) cross the link too
    dealer_listens = False  # whether a dealer is on a host of its own, which both parties dial

    def __init__(self, link: Link) -> None:
        self.link = link
        self.trim_ms = 0.0

    def prefix(self, role: str) -> list[str]:
        """Return what goes before a party's command to put the party in its place."""
        return []

    def engine(self, role: str) -> Engine | None:
        """Return what runs in a party's stead (a caller of another host, say)."""
        return None

    def host(self, role: str) -> str:
        """Return the address that a party listens on."""
        return "127.0.0.1"

    def connection(self, role: str) -> dict[str, Any]:
        """Return how a role's connections are made and proven (connect.py)."""
        return {"kind": "loopback", "host": self.host(role)}

    def route(self, dialler: str, role: str, address: Address) -> Address:
        """Return where `dialler` finds the `role` that listens at `address`."""
        return address

    def environment(self) -> dict[str, str]:
        """Return what to add to the parties' environment."""
        return {}

    def close(self) -> dict[str, Any]:
        """Take the link down; return what the emulator has to say."""
        return {}

    def to_json(self) -> dict[str, Any]:
        """Return what the record says of the link, before the probe."""
        return {
            **{name: getattr(self.link, name) for name in ("name", "rtt_ms", "mbit_s", "loss_percent")},
            "how": self.how,
            "mtu": self.mtu,
            "trim_ms": round(self.trim_ms, 4),
        }

    def __enter__(self) -> LinkUp:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Emulator(LinkUp):
    """A link that another process makes: told by lines on its standard input, gone with it."""

    module = ""

    def __init__(self, link: Link, **more: Any) -> None:
        super().__init__(link)
        spec = {"rtt_ms": link.rtt_ms, "mbit_s": link.mbit_s, "loss_percent": link.loss_percent, **more}
        self._process = subprocess.Popen(
            processes.command(self.module, json.dumps(spec)), env=processes.variables(),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            self.up = self._first_line()
        except BaseException:
            self.close()
            raise

    def _first_line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            assert self._process.stderr is not None
            last = self._process.stderr.read().strip().splitlines()[-1:] or ["it said nothing"]
            raise PartyError(f"the emulator of link {self.link.name} did not start: {last[0]}")
        said: dict[str, Any] = json.loads(line)
        if "error" in said:
            raise PartyError(f"cannot make link {self.link.name} by {self.how}: {said['error']}")
        return said

    def tell(self, **values: Any) -> None:
        """Send the emulator a line."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(values) + "\n")
            self._process.stdin.flush()

    def close(self) -> dict[str, Any]:
        """End the emulator, kindly first."""
        with suppress(BrokenPipeError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            assert self._process.stdout is not None
            self._process.wait(5.0)
            text = self._process.stdout.read()
        except (subprocess.TimeoutExpired, ValueError):
            self._process.kill()
            text = ""
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        self._process.wait()
        return dict(json.loads(text)) if text.strip() else {}


class WireUp(Emulator):
    """Two namespaces with a user-space wire between them."""

    how, module, interface = "wire", "pibench.links.tun", "tw0"

    def __init__(self, link: Link, **more: Any) -> None:
        super().__init__(link, **more)
        self.mtu = self.up["mtu"]

    def prefix(self, role: str) -> list[str]:
        """Enter the namespace of the role; the dealer sits beside the server."""
        process = f"/proc/{self.up['pid']}"
        user = [f"--user={process}/ns/user", "--preserve-credentials"] if self.up["user"] else []
        return ["nsenter", *user, f"--net={process}/fd/{self.up['spaces'][role == 'client']}", "--"]

    def host(self, role: str) -> str:
        """Return the role's address on the wire."""
        return str(self.up["addresses"][role == "client"])

    def environment(self) -> dict[str, str]:
        """Have gloo use the wire's interface."""
        return {"GLOO_SOCKET_IFNAME": str(self.interface)}


class VethUp(WireUp):
    """Two namespaces with the kernel's own cable between them, at the machine's speed."""

    how, module = "veth", "pibench.links.veth"


class NetemUp(VethUp):
    """The same cable with the kernel's emulation on both ends."""

    how = "netem"

    def __init__(self, link: Link) -> None:
        super().__init__(link, netem=True)


class PacedUp(Emulator):
    """A relay between the parties' sockets."""

    how, module, any_socket = "paced", "pibench.links.relay", False

    def route(self, dialler: str, role: str, address: Address) -> Address:
        """Send the dialler through the relay, except the dealer to the server beside it."""
        if dialler == "dealer" and role == "server":
            return address
        self.tell(role=role, target=list(address))
        return ("127.0.0.1", int(self.up["ports"][role]))


_MAKERS: dict[str, Callable[[Link], LinkUp]] = {
    "none": LinkUp, "network": LinkUp, "veth": VethUp, "netem": NetemUp, "wire": WireUp, "paced": PacedUp,
}  # fmt: skip
_refused: dict[str, str] = {}  # ways that failed on this machine, with the reason


def open_link(link: Link, any_socket: bool = False) -> LinkUp:
    """Bring a link up by the first way that works here; `any_socket`: the protocol brings its own sockets (gloo)."""
    if link.how == "auto" and not link.emulated:
        return LinkUp(link)
    ways = [link.how] if link.how != "auto" else [way for way in WAYS if not (any_socket and way == "paced")]
    reasons = {}
    for way in ways:
        if link.how == "auto" and way in _refused:
            reasons[way] = _refused[way]
            continue
        try:
            return _calibrated(_MAKERS[way](link))
        except (PartyError, OSError) as error:
            reasons[way] = _refused[way] = str(error)
    raise PartyError(
        f"link {link.name} cannot be made here: " + "; ".join(f"{way}: {why}" for way, why in reasons.items()),
        remedy="run as root or allow user namespaces; `how: paced` needs no privilege, but no gloo protocol can use it",
    )


def _calibrated(up: LinkUp) -> LinkUp:
    """Take the emulator's own latency out of the delay, as far as it is there."""
    try:
        _calibrate(up)
    except BaseException:
        up.close()
        raise
    return up


def _calibrate(up: LinkUp) -> None:
    """Measure how late the emulator is, with what is taken out already, and take out the rest."""
    if not isinstance(up, Emulator) or not up.link.rtt_ms:
        return
    late_ms = measure(up)["floor_ms"] - up.link.rtt_ms  # the fastest ping: other work on the machine is not ours
    up.trim_ms = min(max(0.0, up.trim_ms + late_ms), MAX_TRIM_MS, up.link.rtt_ms * 0.9)
    up.tell(delay_s=(up.link.rtt_ms - up.trim_ms) / 2e3)


def measure(up: LinkUp, *, rates: bool = False) -> dict[str, float]:
    """Probe a link with a pair of processes of its own."""
    return pair_of_processes(up, "pibench.links.probe", *(["rates"] if rates else []))


def pair_of_processes(up: LinkUp, module: str, *more: str) -> dict[str, float]:
    """Run a module as server and client on a link, `serve HOST` and `lead HOST PORT`; return what the client prints."""
    command, environment = processes.command(module), {**processes.variables(), **up.environment()}
    server = subprocess.Popen(
        [*up.prefix("server"), *command, "serve", up.host("server"), *more],
        stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        if not port:
            raise PartyError(f"the probe of link {up.link.name} could not start")
        host, port_number = up.route("client", "server", (up.host("server"), int(port)))
        lead = [*up.prefix("client"), *command, "lead", host, str(port_number), *more]
        done = subprocess.run(lead, capture_output=True, text=True, timeout=START_S * 3, env=environment)
        if done.returncode:
            raise PartyError(f"the probe of link {up.link.name} failed: {(done.stderr.splitlines() or ['?'])[-1]}")
        return dict(json.loads(done.stdout))
    except subprocess.TimeoutExpired as error:
        raise PartyError(f"the probe of link {up.link.name} did not end") from error
    finally:
        with suppress(OSError):
            server.kill()
        server.communicate()


def measure_well(up: LinkUp) -> dict[str, float]:
    """Probe a link; where the machine seems to be busy with something else, wait, calibrate and probe again."""
    for pause_s in (*PAUSES_S, None):
        found = measure(up, rates=True)
        if pause_s is None or not probe_problems(up.to_json(), found):
            break
        time.sleep(pause_s)
        _calibrate(up)
    return found


def probe_problems(link: Mapping[str, Any], probe: Mapping[str, float]) -> list[str]:
    """Return where a probe is further from the link than it may be; each is a reason to call the case invalid."""
    wanted = {"rtt_ms": link.get("rtt_ms"), "up_mbit_s": link.get("mbit_s"), "down_mbit_s": link.get("mbit_s")}
    return [
        f"the link's {name} is {probe[name]:.3g} where {want:g} was asked for"
        for name, want in wanted.items()
        if want and abs(probe[name] - want) > TOLERANCE * want
    ]
