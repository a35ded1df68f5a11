"""Two hosts on one machine: the same numbers as without TLS, and nothing for strangers, impostors or greedy callers."""

import dataclasses
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fakes import FakeParties
from safetensors.torch import save_file
from test_link_sessions import counts
from test_run import make_plan, make_run
from test_session import plan, small_program
from test_tls import no_certificate, no_tls, old_tls

from pibench.cli import main
from pibench.errors import PartyError, PibenchError, UsageError
from pibench.hosts import dealing as dealing_module
from pibench.hosts import hosts
from pibench.hosts import lender as lender_module
from pibench.hosts.asked import structure, wanted
from pibench.hosts.conversation import Talk
from pibench.hosts.dealing import DealingHost, structure_of
from pibench.hosts.hosts import (
    LOCAL_OPTIONS,
    NETWORK,
    Elsewhere,
    HostsUp,
    Peer,
    accepted,
    carried,
    deals,
    identity,
    over_network,
    parse_address,
)
from pibench.hosts.lender import Lender
from pibench.hosts.lent import LentNetworks
from pibench.links import frames
from pibench.links.callers import MAX_CALLERS
from pibench.links.link import Link
from pibench.links.tls import Wrapper, generate
from pibench.mpc.spec import found
from pibench.run.fromsuite import plan_of
from pibench.run.settings import OwnModel
from pibench.session.job import Job
from pibench.session.session import run_session

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(found(), "fake", "fake_protocol:SPEC")


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    for name in ("alice", "bob", "carol", "mallory"):
        generate(name, folder)
    return folder


def who(keys, name, *trusted):
    return identity(keys / f"{name}.key", [keys / f"{other}.crt" for other in trusted])


@pytest.fixture
def host(keys, tmp_path, monkeypatch):
    """A host that lends the server of the small program's sessions."""
    session_plan, _ = plan(tmp_path)
    program, _ = small_program()
    monkeypatch.chdir(tmp_path)  # where the lender keeps what it prepares
    ready = SimpleNamespace(
        program=program, ops=program.to_json(), weights_path=Path(session_plan.weights), masks_path=None,
        network=SimpleNamespace(card="small"),
    )  # fmt: skip
    monkeypatch.setattr(Lender, "_prepared", lambda self, asked: ready)
    log = []
    lender = Lender(("127.0.0.1", 0), 0, who(keys, "alice", "bob"), log.append)
    thread = threading.Thread(target=lender.serve)
    thread.start()
    yield SimpleNamespace(lender=lender, log=log, address=lender.address)
    lender.close()
    thread.join(10)
    assert not thread.is_alive()


def remote_plan(host, keys, folder, **changes):
    link = HostsUp(NETWORK, Peer(host.address, who(keys, "bob", "alice")))
    remote = {"card": "name: small", "images": 1, "seed": 0, "merge": True, "program": small_program()[0].sha256}
    nowhere = str(folder / "no-weights-here.safetensors")  # this host has none
    return plan(folder, link=link, probe=True, remote=remote, weights=nowhere, **changes)[0]


def test_two_hosts_count_what_one_counts(host, keys, tmp_path):
    (tmp_path / "client").mkdir()
    alone = run_session(plan(tmp_path)[0])
    result = run_session(remote_plan(host, keys, tmp_path / "client"))
    assert counts(result) == counts(alone)
    assert result.probe is not None
    assert result.probe["up_mbit_s"] > 0 < result.probe["rtt_ms"]
    deadline = time.monotonic() + 10  # this host is done before the other has written it down
    while not host.log[-1].endswith("ended: finished") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert host.log[-1].endswith("ended: finished")
    assert result.peak_rss_bytes.keys() == {"server", "client"}


def call(host, wrap, *messages):
    """Call the host, greet as told, and return its last answer."""
    with socket.create_connection(host.address, timeout=5) as sock:
        talk = Talk(wrap(sock))
        answer = {}
        for message in messages:
            talk.send(message)
            answer = talk.next(5)
        return answer


def hang_up(host, wrap):
    with socket.create_connection(host.address, timeout=5) as sock:
        sock = wrap(sock)
        sock.settimeout(5)
        sock.send(b"\0" * 64)
        if not sock.recv(1):
            raise OSError("hung up")


def stranger(kind, host, keys):
    """Try to get in; raises whatever the stranger sees."""
    known = Wrapper(who(keys, "bob", "alice"), server=False)
    match kind:
        case "no TLS":
            hang_up(host, no_tls)
        case "TLS 1.2":
            hang_up(host, old_tls(keys))
        case "no certificate":
            hang_up(host, no_certificate(keys))
        case "wrong key":
            hang_up(host, Wrapper(who(keys, "mallory", "alice"), server=False))
        case "another version":
            call(host, known, {**hosts.hello(), "pibench": "0.0.0"}, {"job": {}})
        case "not the protocol":
            hang_up(host, known)
        case "another program":
            raise PartyError(call(host, known, hosts.hello(), {"job": {"remote": {"program": "abc"}}})["refused"])


KINDS = ("no TLS", "TLS 1.2", "no certificate", "wrong key", "another version", "not the protocol")


def test_strangers_of_six_kinds_are_refused_and_logged_while_a_session_runs_on(host, keys, tmp_path):
    (tmp_path / "client").mkdir()
    session_plan = remote_plan(host, keys, tmp_path / "client", inferences=4, options={"delay_s": 0.5})
    results = []
    session = threading.Thread(target=lambda: results.append(run_session(session_plan)))
    session.start()
    while not any("session 1 for" in line for line in host.log):
        time.sleep(0.05)
    for kind in KINDS:
        with pytest.raises((PibenchError, OSError)):
            stranger(kind, host, keys)
    known = Wrapper(who(keys, "bob", "alice"), server=False)
    assert "busy" in call(host, known, hosts.hello(), {"job": {}})["refused"]
    session.join(60)
    refused = [line for line in host.log if line.startswith("refused 127.0.0.1:")]
    assert len(refused) == len(KINDS) + 1
    times = [tally["time_s"] for tally in results[0].online["client"]]
    assert len(times) == 5
    assert max(times) < 1.5


REMOTE = {"card": "name: small", "images": 1, "seed": 0, "merge": True, "program": small_program()[0].sha256}


@pytest.mark.parametrize(
    ("job", "why"),
    [
        ("job", "this is no job"),
        ({"remote": {**REMOTE, "program": "abc"}}, "not what this host makes of the card"),
        ({"remote": {**REMOTE, "model": "a:b"}}, "a card or a module, one of them"),
        ({"remote": {"program": "abc"}}, "the job's network is malformed: images: Field required"),
        ({"remote": {**REMOTE, "images": 10**9}}, "images: Input should be less than or equal to 100000"),
        ({"remote": {**REMOTE, "card": "x" * 70_000}}, "card: String should have at most 65536 characters"),
        ({"batch": 10**9}, "batch: Input should be less than or equal to 4096"),
        ({"batch": 4096, "inferences": 4096}, "this host goes up to 100000"),
        ({"threads": "all"}, "threads: Input should be a valid integer"),
        ({"timeout_s": 1e9}, "timeout_s: Input should be less than or equal to 86400"),
        ({"device": "cuda"}, "fake does not run on cuda"),
        ({"options": {"error": "much"}}, "option error: input should be a valid number"),
        ({"role": "client"}, "a server here, and nothing else"),
        ({"protocol": "../evil"}, "no protocol is named"),
        *(({"options": {name: 1}}, f"the options name {name}, which no other host may set") for name in LOCAL_OPTIONS),
        ({"options": "keep_dir"}, "its options are no mapping"),
        ({"weights": "/etc/passwd"}, "has weights, which no other host may set"),
        ({"module": "os"}, "has module, which no other host may set"),
        ({"batch": 1, "token": None, "role": "server", "inferences": "x", "connection": {}}, "connection"),
    ],
)
def test_a_caller_may_not_ask_for_more_than_a_server(host, keys, tmp_path, job, why):
    if isinstance(job, dict):
        sound = json.loads(job_of(tmp_path).to_json())
        job = {**{name: sound[name] for name in hosts.CARRIED}, **job}
    known = Wrapper(who(keys, "bob", "alice"), server=False)
    assert why in call(host, known, hosts.hello(), {"job": job})["refused"]
    assert why in host.log[-1]


def job_of(folder):
    program, _ = small_program()
    remote = {"card": "name: small", "images": 1, "seed": 0, "merge": True, "program": program.sha256}
    return Job(
        role="server", protocol="fake", module="fake_protocol", program=program.to_json(), weights="w", masks="m",
        token="t" * 64, remote=remote, options={"error": 0.0},
    )  # fmt: skip


def test_a_job_travels_without_files_addresses_and_code(tmp_path):
    job = job_of(tmp_path)
    values = carried(dataclasses.replace(job, images="i"))
    assert not {"weights", "masks", "images", "module", "connection", "result_fd"} & values.keys()
    assert values["options"] == {"error": 0.0}
    arrived = accepted(values, {"kind": "tls"}, {"weights": "mine", "masks": None})
    assert (arrived.weights, arrived.module, arrived.images) == ("mine", "fake_protocol", None)


@pytest.mark.parametrize("name", LOCAL_OPTIONS)
def test_a_job_with_options_of_one_host_does_not_travel(tmp_path, name):
    with pytest.raises(UsageError, match=f"the options name {name}, which no other host may set"):
        carried(dataclasses.replace(job_of(tmp_path), options={name: "x"}))


def test_everything_is_checked_before_a_network_is_prepared(host, keys, tmp_path, monkeypatch):
    monkeypatch.setattr(Lender, "_prepared", lambda self, asked: pytest.fail("prepared"))
    sound = carried(job_of(tmp_path))
    known = Wrapper(who(keys, "bob", "alice"), server=False)
    for change in ({"role": "dealer"}, {"options": {"no": 1}}, {"inferences": 10**9}, {"protocol": "none"}):
        assert "prepared" not in call(host, known, hosts.hello(), {"job": {**sound, **change}})["refused"]
    assert not any("prepared" in line for line in host.log)


def test_a_session_has_a_deadline_at_the_lender(host, keys, tmp_path):
    host.lender.deadline_s = 1.0
    known = Wrapper(who(keys, "bob", "alice"), server=False)
    sock = socket.create_connection(host.address, timeout=5)
    talk = Talk(known(sock))
    for message in (hosts.hello(), {"job": {**carried(job_of(tmp_path)), "options": {}}}):
        talk.send(message)
        talk.next(20)
    deadline = time.monotonic() + 20  # nobody comes to be its client
    while not any("longer than this host lends" in line for line in host.log) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "longer than this host lends a session" in host.log[-1]
    talk.close()


CARD = Path(__file__).parent.parent / "networks" / "digits-tiny.yaml"


@pytest.mark.parametrize(
    ("cards", "text", "said"),
    [
        ((), None, "it lends none: start it with --cards NAME"),
        (("digits-full",), None, "it lends digits-full"),
        (("digits-t*",), "name: digits-tiny\n", "it lends digits-t"),  # the name is not the card
    ],
)
def test_a_host_lends_the_cards_that_it_names_and_no_others(tmp_path, cards, text, said):
    lent = LentNetworks(cards, tmp_path, print)
    with pytest.raises(UsageError, match="lends no such card") as caught:
        lent.prepared(wanted({**REMOTE, "card": text or CARD.read_text()}))
    assert said in str(caught.value)


def test_a_lent_card_is_prepared_once_and_a_few_are_kept(tmp_path, monkeypatch):
    made = []

    def prepare(card, folder, needs, told):
        made.append(needs.seed)
        (folder / "w").write_text("")
        return SimpleNamespace(weights_path=folder / "w", seed=needs.seed)

    monkeypatch.setattr("pibench.run.prepare.prepare_card", prepare)
    monkeypatch.setattr("pibench.hosts.lent.MOST_PREPARED", 2)
    lent = LentNetworks(("digits-tiny",), tmp_path, print)
    ask = [wanted({**REMOTE, "card": CARD.read_text(), "seed": seed}) for seed in range(3)]
    found = [lent.prepared(ask[seed]).seed for seed in (0, 0, 1, 2, 2, 0)]
    assert (found, made) == ([0, 0, 1, 2, 2, 0], [0, 1, 2, 0])
    assert len(list(tmp_path.iterdir())) == 2


OWN = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10))

def other():
    return nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(192, 10))
"""


@pytest.mark.parametrize(
    ("lent", "asked", "said"),
    [
        ("net", "net", ""),
        ("net", "other", "lends no such module (it lends mine)"),
        ("other", "net", "not what this host makes of the module"),
    ],
)
def test_ones_own_module_runs_between_two_hosts_that_have_it(keys, tmp_path, monkeypatch, capsys, lent, asked, said):
    (tmp_path / "hostsown.py").write_text(OWN)
    (tmp_path / "small.yaml").write_text(
        "name: small\nnetworks: [digits-tiny]\nprotocols: [plaintext]\nsessions: 1\ninferences: 1\nwarmups: 0\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    log = []
    model = OwnModel(f"hostsown:{lent}", (1, 8, 8), label="mine")
    lender = Lender(("127.0.0.1", 0), 0, who(keys, "alice", "bob"), log.append, models=(model,))
    thread = threading.Thread(target=lender.serve)
    thread.start()
    name = "mine" if asked == "net" else "another"
    command = ["--model", f"hostsown:{asked}", "--label", name, "--input", "1,8,8", "--record", "it.json", "-q"]
    peer = ["--peer", "{}:{}".format(*lender.address), "--key", f"{keys}/bob.key", "--trust", f"{keys}/alice.crt"]
    try:
        assert main(["run", "small.yaml", *peer, *command]) == (2 if said else 0)
    finally:
        lender.close()
        thread.join(10)
    case = json.loads((tmp_path / "it.json").read_text())["cases"][0]
    assert case["status"] == ("failed" if said else "done")
    assert said in str(case["error"])
    assert (said or "session 1 for") in " ".join(log)
    assert case["network"]["card"] == name


def test_a_network_that_takes_too_long_is_not_waited_for(tmp_path, monkeypatch):
    gate = threading.Event()
    monkeypatch.setattr("pibench.run.prepare.prepare_card", lambda *_: gate.wait(20))
    monkeypatch.setattr("pibench.hosts.lent.PREPARE_S", 0.2)
    lent = LentNetworks(("digits-tiny",), tmp_path, print)
    ask = wanted({**REMOTE, "card": CARD.read_text()})
    for said in ("was not ready after 0 s", "still preparing another network"):
        with pytest.raises(UsageError, match=said):
            lent.prepared(ask)
    gate.set()
    lent._at_work.join(10)


def test_a_caller_has_ten_seconds_in_all_not_for_every_word(host, keys, monkeypatch):
    monkeypatch.setattr(lender_module, "HANDSHAKE_S", 2.0)
    known = Wrapper(who(keys, "bob", "alice"), server=False)
    with socket.create_connection(host.address, timeout=5) as sock:
        talk = Talk(known(sock))
        time.sleep(1.5)
        talk.send(hosts.hello())
        talk.next(5)
        with pytest.raises(PartyError, match="closed the connection"):
            talk.next(1.5)
    assert "said nothing" in host.log[-1]


def test_silent_strangers_do_not_keep_a_trusted_caller_out(host, keys):
    known = Wrapper(who(keys, "bob", "alice"), server=False)
    silent = [socket.create_connection(host.address, timeout=5) for _ in range(MAX_CALLERS + 6)]
    start = time.monotonic()
    assert "this is no job" in call(host, known, hosts.hello(), {"job": "job"})["refused"]
    assert time.monotonic() - start < 5.0
    assert sum("too many callers" in line for line in host.log) == 7
    for sock in silent:
        sock.close()


def test_a_caller_who_vanishes_leaves_nothing_running(host, keys, tmp_path):
    (tmp_path / "client").mkdir()
    known = Wrapper(who(keys, "bob", "alice"), server=False)
    sock = socket.create_connection(host.address, timeout=5)
    talk = Talk(known(sock))
    talk.send(hosts.hello())
    talk.next(5)
    talk.send({"job": {**carried(job_of(tmp_path)), "options": {}}})
    while talk.next(20).get("event") != "listening":
        pass
    talk.close()
    deadline = time.monotonic() + 10
    while not any("broken off" in line for line in host.log) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "session 1 broken off (the other host closed the connection): still in" in host.log[-1]
    run_session(remote_plan(host, keys, tmp_path / "client"))  # and the host is free again


def test_a_killed_server_over_there_is_named_here(host, keys, tmp_path):
    (tmp_path / "client").mkdir()
    fault = {"role": "server", "phase": "online", "how": "kill"}
    with pytest.raises(PartyError, match="server: killed by SIGKILL in online 0"):
        run_session(remote_plan(host, keys, tmp_path / "client", options={"misbehave": fault}))


def test_nobody_at_home_is_said(keys, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        address = unused.getsockname()
    host = SimpleNamespace(address=address)
    with pytest.raises(PartyError, match=r"nobody answers at 127\.0\.0\.1"):
        run_session(remote_plan(host, keys, tmp_path))


def test_a_protocol_with_its_own_wire_stays_on_one_host(keys):
    with pytest.raises(PartyError, match="no TLS protects"):
        HostsUp(Link(name="n", how="network"), Peer(("h", 1), who(keys, "bob", "alice")), any_socket=True)


@pytest.mark.parametrize("text", ["host", "host:", ":7700", "host:0", "host:70000", "host:x"])
def test_an_address_needs_host_and_port(text):
    with pytest.raises(UsageError, match="is no address"):
        parse_address(text)
    assert parse_address("[::1]:7700") == ("::1", 7700)


def test_a_conversation_is_bounded(keys):
    left, right = socket.socketpair()
    one, other = Talk(left), Talk(right)
    one.send({"n": 1})
    one.send({"n": 2})
    one.close()
    assert other.messages() == [{"n": 1}, {"n": 2}]
    with pytest.raises(PartyError, match="closed the connection"):
        other.messages()
    left, right = socket.socketpair()
    left.sendall(frames.LENGTH.pack(frames.LARGE_BYTES + 1))
    with pytest.raises(PartyError, match="this is no peer"):
        Talk(right).messages()


def test_the_command_line_makes_keys_and_says_what_is_missing(tmp_path):
    def pibench(*words):
        code = "import sys; from pibench.cli import main; sys.exit(main())"
        return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path)

    made = pibench("party", "keygen", "carol")
    assert made.returncode == 0
    shown = pibench("party", "fingerprint", "carol.crt")
    assert shown.stdout.strip() in made.stdout
    assert pibench("party", "keygen", "carol").returncode == 4
    assert pibench("party", "keygen", "../carol").returncode == 4
    alone = pibench("party", "--listen", "127.0.0.1:7700", "--key", "carol.key")
    assert alone.returncode == 4
    assert "no peer is trusted" in alone.stderr
    assert "--key NAME.key --trust PEER.crt" in pibench("run", "quick", "--peer", "h:1").stderr


def test_a_long_message_over_a_slow_link_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer's patience is for a standstill, not for the whole message."""
    monkeypatch.setattr("pibench.hosts.conversation.SEND_S", 0.4)
    here, there = socket.socketpair()
    text, read = "x" * (4 << 20), bytearray()

    def slowly() -> None:
        while len(read) < len(text):
            read.extend(there.recv(1 << 16))
            time.sleep(0.02)

    reader = threading.Thread(target=slowly, daemon=True)
    with here, there:
        reader.start()
        Talk(here).send({"text": text})
        reader.join(20)
    assert len(read) >= len(text)


def test_between_hosts_nobody_deals_unless_asked() -> None:
    plan = plan_of("quick", expression="digits-tiny")
    assert {case.options.get("provider") for case in plan.cases} == {None}
    by_protocol = {case.protocol: case.options for case in over_network(plan).cases}
    assert by_protocol["masked"] == {"provider": "two-party"}
    assert by_protocol["crypten-cached"] == {}
    asked = [
        dataclasses.replace(case, options={"provider": "dealer"}) for case in plan.cases if case.protocol == "masked"
    ]
    (case,) = over_network(dataclasses.replace(plan, cases=tuple(asked))).cases
    assert case.options == {"provider": "dealer"}


@pytest.fixture
def dealing(keys, tmp_path):
    """A third host, which deals, and is dialled by the parties of the other two."""
    log = []
    lender = DealingHost(("127.0.0.1", 0), 0, who(keys, "carol", "alice", "bob"), log.append)
    thread = threading.Thread(target=lender.serve)
    thread.start()
    yield SimpleNamespace(lender=lender, log=log, address=lender.address)
    lender.close()
    thread.join(10)
    assert not thread.is_alive()


PATIENCE = {"timeout_s": 100.0, "deadline_s": 150.0}  # kernels may have to be compiled first


def masked_plan(host, dealing, keys, folder, dealer_key="carol", **changes):
    dealer = Elsewhere(dealing.address, who(keys, "bob", dealer_key))
    link = HostsUp(NETWORK, Peer(host.address, who(keys, "bob", "alice"), dealer))
    remote = {"card": "name: small", "images": 1, "seed": 0, "merge": True, "program": small_program()[0].sha256}
    made, expected = plan(
        folder, link=link, remote=remote, protocol="masked", options={"provider": "dealer"}, **PATIENCE,
        **{"weights": str(folder / "none.safetensors"), **changes},
    )  # fmt: skip
    return made, expected


@pytest.mark.timeout(300)
def test_a_dealer_on_a_third_host_is_dialled_by_both_others(host, dealing, keys, tmp_path):
    (tmp_path / "client").mkdir()
    host.lender.dealer = Elsewhere(("127.0.0.1", 0), who(keys, "alice", "carol"))
    alone = run_session(plan(tmp_path, protocol="masked", options={"provider": "dealer"}, **PATIENCE)[0])
    made, expected = masked_plan(host, dealing, keys, tmp_path / "client")
    result = run_session(made)
    assert counts(result) == counts(alone)
    assert (torch.tensor(result.logits).flatten(0, 1) - expected).abs().max() < 2**-8
    assert result.offline["dealer"][0]["sent_bytes"] == alone.offline["dealer"][0]["sent_bytes"] > 0
    assert any("session 1 for" in line and "dealing, masked" in line for line in dealing.log)


def test_a_host_that_names_no_dealer_takes_none(host, dealing, keys, tmp_path):
    (tmp_path / "client").mkdir()
    with pytest.raises(PartyError, match="this host knows no dealer"):
        run_session(masked_plan(host, dealing, keys, tmp_path / "client")[0])


def test_nobody_else_can_stand_in_for_the_dealer(host, dealing, keys, tmp_path):
    """The server's host pins the dealer's key: whoever it trusts as a caller is not thereby a dealer."""
    (tmp_path / "client").mkdir()
    host.lender.dealer = Elsewhere(("127.0.0.1", 0), who(keys, "alice", "bob"))
    with pytest.raises(PartyError, match=r"server: .*(certificate|handshake)"):
        run_session(masked_plan(host, dealing, keys, tmp_path / "client")[0])


def test_a_dealing_host_has_a_dealer_and_nothing_else(dealing, host, keys, tmp_path):
    made = remote_plan(dealing, keys, tmp_path)
    made = dataclasses.replace(made, link=HostsUp(NETWORK, Peer(dealing.address, who(keys, "bob", "carol"))))
    with pytest.raises(PartyError, match="another host may have a dealer here, and nothing else"):
        run_session(made)


def test_masks_travel_to_a_dealer_as_bits(tmp_path):
    masks = {"m": torch.rand(1, 3, 5) < 0.5, "n": torch.ones(7, dtype=torch.bool)}
    save_file(masks, tmp_path / "masks.safetensors")
    path = str(tmp_path / "masks.safetensors")
    job = Job(role="dealer", protocol="masked", module="m", program=[{}], masks=path, token="t")
    told = structure(json.loads(json.dumps(structure_of(job))))
    for name, mask in masks.items():
        assert (dealing_module._unpacked(told.masks[name]) == mask.numpy()).all()
    short = {"shape": [9, 9], "bits": told.masks["n"].bits}
    with pytest.raises(UsageError, match="another size than its shape says"):
        dealing_module._unpacked(structure({"program": [{}], "masks": {"n": short}}).masks["n"])


def test_a_case_says_where_its_dealer_is(tmp_path, monkeypatch):
    made = make_plan(("masked",))
    asked = [dataclasses.replace(case, options={"provider": "dealer"}) for case in made.cases]
    made = over_network(dataclasses.replace(made, cases=tuple(asked)))
    (case,) = made.cases
    assert deals(case)
    run = make_run(made, tmp_path / "record.json", FakeParties(), monkeypatch)
    assert run._trust(case).short == "client's host"
    assert "can compute the server's weights" in run._trust(case).line
    run.dealer_elsewhere = True
    assert run._trust(case).line.startswith("a dealer who colludes with neither")
