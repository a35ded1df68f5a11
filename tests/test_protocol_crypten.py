"""Stock CrypTen over two real processes: right logits, the declared bytes and rounds of every operation, batches."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from networks_for_tests import everything, program_of
from two_parties import Side, run_two
from two_threads import channel_pair

from pibench.errors import MaterialError, TransportError, UsageError
from pibench.links.meter import Meter
from pibench.links.transport import Channel
from pibench.lowering.program import Op, Program
from pibench.lowering.reference import evaluate
from pibench.mpc.crypten.cost import max_pool
from pibench.mpc.protocol import CLIENT, SERVER, Cost, Party, Protocol, cost_function, protocol_class

TOLERANCE = 3e-3
PRELOAD = ("pibench.mpc.crypten.communicator", "pibench.mpc.crypten.kernels")


def images_of(name: str, batch: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, *program_of(name)[0].input_shape, generator=generator)


def party(side: Side) -> list[dict[str, Any]]:
    """Run every case of the payload, one after the other in this process: (protocol, network, batch, wire)."""
    return [_case(side, *case) for case in side.payload]


def _case(side: Side, protocol: str, name: str, batch: int, wire: str) -> dict[str, Any]:
    meter = Meter()
    program, weights = program_of(name)
    channel = Channel(side.sock.dup(), meter, timeout_s=30)
    options = {"wire": wire, "rendezvous": side.rendezvous}
    runner = protocol_class(protocol)(program, Party(side.rank, channel, meter, batch=batch, options=options))
    with meter.phase() as setup:
        runner.setup(weights if side.rank == SERVER else None)
    with meter.phase() as offline:
        runner.offline(2)
    logits = []
    for _ in range(2):
        with meter.phase() as online:
            logits.append(runner.online(images_of(name, batch) if side.rank == CLIENT else None))
    spent = False
    if protocol == "crypten-cached":
        try:
            runner.online(images_of(name, batch) if side.rank == CLIENT else None)
        except MaterialError:
            spent = True
    runner.close()
    channel.barrier()  # the next case meets at the same port
    phases = {"setup": setup.to_json(), "offline": offline.to_json(), "online": online.to_json()}
    return {"logits": logits, "spent": spent, **phases}


CASES = [
    *[("crypten", name, 1, "gloo") for name in everything()],
    *[("crypten-cached", name, 1, "channel") for name in everything()],
    ("crypten-cached", "residual", 2, "gloo"),
    ("crypten-cached", "masked", 2, "gloo"),
    ("crypten", "residual", 2, "channel"),
    ("crypten", "residual", 16, "gloo"),
    ("crypten", "max pool", 16, "channel"),
    ("crypten-cached", "poly", 16, "channel"),
]
NAMES = ["/".join(map(str, case)) for case in CASES]


Results = tuple[list[dict[str, Any]], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def results() -> Results:
    """Run all cases in one pair of processes: importing torch and CrypTen is what takes time."""
    return run_two("test_protocol_crypten:party", CASES, timeout_s=280, preload=PRELOAD)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", range(len(CASES)), ids=NAMES)
def test_logits_agree_and_only_the_client_learns_them(results: Results, number: int) -> None:
    server, client = (side[number] for side in results)
    _, name, batch, _ = CASES[number]
    expected = evaluate(*program_of(name), images_of(name, batch))
    assert server["logits"] == [None, None]
    for logits in client["logits"]:
        torch.testing.assert_close(logits, expected, atol=TOLERANCE, rtol=1e-3)


def declared(program: Program, ops: list[Op], batch: int) -> Cost:
    cost = cost_function("crypten")
    return sum((cost(program, op, batch, {}) for op in ops), Cost())


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", range(len(CASES)), ids=NAMES)
def test_bytes_and_rounds_are_as_declared_for_every_operation(results: Results, number: int) -> None:
    server, client = (side[number]["online"] for side in results)
    _, name, batch, _ = CASES[number]
    program, _ = program_of(name)
    total = declared(program, list(program), batch)
    assert (server["sent_bytes"], client["sent_bytes"]) == (total.server_bytes, total.client_bytes)
    assert (client["received_bytes"], server["received_bytes"]) == (total.server_bytes, total.client_bytes)
    assert server["rounds"] == client["rounds"] == total.rounds
    output = program.output.name  # its opening is booked under "output"
    for part in client["parts"]:
        key = (part["kind"], part["stage"], part["site"])
        here = [op for op in program if (op.kind, op.stage, op.site or op.name) == key]
        cost = declared(program, here, batch)
        rounds = part["rounds"] + any(op.name == output for op in here)
        assert (part["sent_bytes"], rounds) == (cost.client_bytes, cost.rounds) or part["site"] == "output"


@pytest.mark.timeout(300)
def test_the_meter_sees_truncation_and_waiting(results: Results) -> None:
    online = results[CLIENT][0]["online"]
    kinds = {part["kind"] for part in online["parts"]}
    assert kinds >= {"linear", "relu", "truncation", "other"}
    assert 0 < online["wait_s"] < online["time_s"]
    assert sum(part["time_s"] for part in online["parts"]) == pytest.approx(online["time_s"])


@pytest.mark.timeout(300)
def test_cached_tuples_are_spent_and_said_to_be(results: Results) -> None:
    for number, (protocol, *_) in enumerate(CASES):
        assert [side[number]["spent"] for side in results] == [protocol == "crypten-cached"] * 2


@pytest.mark.timeout(300)
def test_offline_and_sharing_move_nothing_but_seeds(results: Results) -> None:
    server, client = (side[0] for side in results)
    assert server["setup"]["sent_bytes"] == 16  # its seed for the pair, and the common one
    assert client["setup"]["sent_bytes"] == 8
    assert server["offline"]["sent_bytes"] == client["offline"]["sent_bytes"] == 0


def test_a_relu_costs_232_bytes_and_9_rounds() -> None:
    program, _ = program_of("masked")
    relu = next(op for op in program if op.kind == "relu")
    cost = cost_function("crypten")(program, relu, 3, {})
    assert (cost.rounds, cost.server_bytes) == (9, 232 * 3 * program.relu_count)
    assert program.relu_count < 144


def test_a_larger_window_costs_more() -> None:
    assert max_pool(10, 4)[1] < max_pool(10, 9)[1]


def set_up(side: Side) -> tuple[Protocol, Channel]:
    """Return one party of a small network over gloo, after its setup, and its channel to the other one."""
    meter = Meter()
    program, weights = program_of("residual")
    channel = Channel(side.sock, meter, timeout_s=20)
    party = Party(side.rank, channel, meter, options={"rendezvous": side.rendezvous})
    runner = protocol_class("crypten")(program, party)
    runner.setup(weights if side.rank == SERVER else None)
    return runner, channel


def one_leaves(side: Side) -> str:
    """Set up; rank 1 then leaves without a word, and rank 0 asks for an inference."""
    runner, _ = set_up(side)
    if side.rank == CLIENT:
        return "left"
    try:
        runner.online(None)
    except TransportError as error:
        runner.close()
        return str(error)
    return "no error"


@pytest.mark.timeout(300)
def test_a_peer_that_leaves_is_an_error_and_no_hang() -> None:
    assert (
        "the gloo connection broke"
        in run_two("test_protocol_crypten:one_leaves", timeout_s=280, preload=PRELOAD)[SERVER]
    )


def addresses(side: Side) -> list[str]:
    """Set up over gloo; return the addresses at which this process listens then."""
    runner, channel = set_up(side)
    mine = {os.readlink(link.path) for link in os.scandir("/proc/self/fd") if os.path.exists(link.path)}
    rows = [row.split() for name in ("tcp", "tcp6") for row in Path(f"/proc/self/net/{name}").read_text().splitlines()]
    found = [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in mine]  # 0A: it listens
    channel.barrier()
    runner.close()
    return found


@pytest.mark.timeout(300)
def test_gloo_listens_on_the_links_address_alone() -> None:
    server, client = run_two("test_protocol_crypten:addresses", timeout_s=280, preload=PRELOAD)
    assert len(server) == 2  # the store, and gloo's own
    assert len(client) == 1
    assert {address.rpartition(":")[0] for address in (*server, *client)} == {"0100007F"}  # 127.0.0.1


def alone(side: Side) -> str:
    """Rank 0 waits for a peer that never comes."""
    if side.rank == CLIENT:
        return ""
    program, weights = program_of("residual")
    channel = Channel(side.sock, Meter(), timeout_s=2)
    runner = protocol_class("crypten")(
        program, Party(SERVER, channel, Meter(), options={"rendezvous": side.rendezvous})
    )
    try:
        runner.setup(weights)
    except TransportError as error:
        return str(error)
    return "no error"


@pytest.mark.timeout(300)
def test_a_peer_that_never_comes_is_an_error_after_the_timeout() -> None:
    assert (
        "no gloo process group at 127.0.0.1:"
        in run_two("test_protocol_crypten:alone", timeout_s=280, preload=PRELOAD)[SERVER]
    )


def test_wrong_options_are_refused() -> None:
    program, _ = program_of("residual")
    meters = (Meter(), Meter())
    channel, other = channel_pair(meters)
    with pytest.raises(UsageError, match="no wire 'pigeon'"):
        protocol_class("crypten")(program, Party(0, channel, meters[0], options={"wire": "pigeon"}))
    with pytest.raises(UsageError, match="rendezvous"):
        protocol_class("crypten")(program, Party(0, channel, meters[0])).setup({})
    channel.close()
    other.close()
