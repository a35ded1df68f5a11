"""Cards: named, counted, refused in words; and what runs on one, where there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import networks_for_tests as networks
import pytest
import torch
from masked_pair import run_masked

from pibench.cli import main
from pibench.errors import EXIT_USAGE, PartyError, UsageError
from pibench.lowering.reference import evaluate
from pibench.mpc import gpu_inventory as devices
from pibench.mpc.backends.check import differing
from pibench.mpc.backends.choice import backend_for
from pibench.mpc.gpu_inventory import Gpu
from pibench.mpc.masked.protocol import MaskedProtocol
from pibench.mpc.spec import BUILT_IN, spec_of
from pibench.run.memory import estimate_card_bytes, refuse_what_no_card_holds

pytestmark = pytest.mark.timeout(120)
H200 = Gpu("NVIDIA H200", "9.0", 150 * 10**9, 140 * 10**9)
SMALL = Gpu("small", "7.5", 8 * 10**9, 6 * 10**9)
no_card = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
card = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no card")
ON_CARDS = ("crypten", "crypten-cached", "masked", "plaintext")


# ---- which protocols, which cards


def test_these_protocols_take_a_card_and_no_others():
    assert sorted(name for name in BUILT_IN if "cuda" in spec_of(name).devices) == list(ON_CARDS)


@no_card
def test_a_card_that_is_not_there_is_refused_in_words():
    for name in ("cuda", "cuda:3"):
        with pytest.raises(UsageError, match=f"no device '{name}': torch finds no card here"):
            backend_for(name)
    assert devices.gpus() == []
    with pytest.raises(UsageError, match="no device 'cuda:1': torch finds no card here"):
        devices.require_all("cuda:1,cuda:0")


def test_of_two_cards_a_third_is_refused():
    devices.require_all("cuda:1,cuda:0", [H200, SMALL])
    devices.require_all("cpu", [])
    with pytest.raises(UsageError, match="no device 'cuda:2': cards here: 2"):
        devices.require_all("cuda,cuda:2", [H200, SMALL])


SUITE = """name: card
networks: [digits-tiny]
protocols: [{protocol}]
devices: [cuda]
sessions: 1
inferences: 1
warmups: 0
accuracy_images: 0
"""


@no_card
@pytest.mark.parametrize("protocol", ["crypten", "masked"])
def test_a_suite_on_a_card_ends_in_words_before_anything_starts(protocol, tmp_path, capsys, monkeypatch):
    suite = tmp_path / "card.yaml"
    suite.write_text(SUITE.format(protocol=protocol))
    assert main(["validate", str(suite)]) == 0
    monkeypatch.setattr("pibench.run.prepare.preparer", lambda *_: lambda *_: pytest.fail("a network was prepared"))
    assert main(["run", str(suite), "--record", str(tmp_path / "record.json")]) == EXIT_USAGE
    said = " ".join("".join(capsys.readouterr()).split())
    assert "no device 'cuda': torch finds no card here" in said
    assert "`pibench doctor`" in said
    assert "-k cpu" not in said
    assert not (tmp_path / "record.json").exists()


@no_card
def test_a_suite_of_which_a_part_needs_a_card_names_the_part_that_needs_none(tmp_path, capsys):
    suite = tmp_path / "card.yaml"
    suite.write_text(SUITE.format(protocol="plaintext").replace("[cuda]", "[cpu, cuda]"))
    assert main(["run", str(suite), "--record", str(tmp_path / "record.json")]) == EXIT_USAGE
    assert "`-k cpu` runs the cases that need none" in " ".join("".join(capsys.readouterr()).split())
    assert main(["run", str(suite), "-k", "cpu", "--record", str(tmp_path / "record.json")]) == 0


def test_a_party_alone_refuses_a_card_that_is_not_there():
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    from pibench.links.meter import Meter
    from pibench.mpc.protocol import Party, protocol_class

    program, _ = networks.program_of("residual")
    for name in ON_CARDS:
        with pytest.raises(UsageError, match="no device 'cuda'"):
            protocol_class(name)(program, Party(0, None, Meter(), device="cuda"))


def test_what_no_card_holds_is_refused_with_its_estimate():
    refuse_what_no_card_holds("cuda", 10**9, 11 * 10**6, 1, [H200])
    refuse_what_no_card_holds("cuda:0,cuda:1", 10**9, 11 * 10**6, 1, [H200, SMALL])
    both = 2 * estimate_card_bytes(10**9, 11 * 10**6)
    assert both > SMALL.free_bytes
    with pytest.raises(PartyError, match=rf"on cuda:1 \(small\) it needs about {both / 1e9:.1f} GB \(1.0 GB of mat"):
        refuse_what_no_card_holds("cuda:1", 10**9, 11 * 10**6, 1, [H200, SMALL])
    with pytest.raises(PartyError, match=r"6\.0 GB are free"):
        refuse_what_no_card_holds("cuda:0,cuda:1", 20 * 10**9, 0, 4, [H200, SMALL])


def test_cards_are_asked_in_a_process_of_its_own(monkeypatch):
    said = json.dumps([vars(H200), vars(SMALL)])
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, said, ""))
    assert devices.gpus() == [H200, SMALL]
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, "Traceback", ""))
    assert devices.gpus() == []


# ---- forks


def test_what_parties_are_forked_from_touches_no_card():
    """A driver does not survive a fork: whatever is loaded beforehand must not even ask how many cards there are."""
    preloads = sorted(
        {name for protocol in BUILT_IN for name in (spec_of(protocol).module, *spec_of(protocol).preload) if name}
    )
    script = (
        "import sys, torch\n"
        "def touched(*_, **__): raise SystemExit('a card was asked for')\n"
        "torch._C._cuda_getDeviceCount = touched\n"
        "torch.cuda.is_available = torch.cuda.device_count = torch.cuda.init = touched\n"
        "from pibench.session import nursery\n"
        f"nursery._load((*nursery.ALWAYS, *{preloads!r}))\n"
        "assert not torch.cuda.is_initialized()\n"
    )
    root = Path(__file__).resolve().parent.parent
    env = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env, timeout=110)
    assert (done.returncode, done.stderr[-500:]) == (0, "")


# ---- on a card


@card
def test_a_card_computes_word_for_word_what_the_processor_does():
    assert differing(backend_for("cuda"), backend_for("cpu")) == []


@card
@pytest.mark.parametrize("where", [("cuda", "cuda"), ("cuda", "cpu"), ("cpu", "cuda")])
@pytest.mark.parametrize("name", networks.everything())
def test_whole_networks_on_a_card(name, where):
    class OnCard(MaskedProtocol):
        def _choose_backend(self):
            return backend_for(where[self.party.rank])

    program, weights = networks.program_of(name)
    images = [torch.randn(2, *networks.SHAPE) for _ in range(2)]
    outcome = run_masked(program, weights, images, OnCard)
    for logits, batch in zip(outcome.logits, images, strict=True):
        assert (logits - evaluate(program, weights, batch, dtype=torch.float64)).abs().max() < 2**-8


@card
@pytest.mark.timeout(600)
@pytest.mark.parametrize("protocol", ON_CARDS)
def test_every_protocol_runs_between_two_processes_on_a_card(protocol, tmp_path):
    suite = tmp_path / "card.yaml"
    suite.write_text(SUITE.format(protocol=protocol))
    assert main(["run", str(suite), "--record", str(tmp_path / "record.json")]) == 0
    (case,) = json.loads((tmp_path / "record.json").read_text())["cases"]
    (session,) = case["sessions"]
    assert session["places"]["server"]["device"].startswith("cuda")
    assert session["places"]["server"]["peak_device_bytes"] > 0
