"""The doctor sees what is wrong, names a remedy, and its exit status says whether a run can work."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pibench import doctor
from pibench.cli import main
from pibench.doctor import Finding


def test_every_complaint_has_a_remedy_and_every_line_a_finding() -> None:
    for finding in doctor.examine(links=False):
        assert finding.what
        assert finding.remedy or finding.status == "ok", finding


def test_a_busy_machine_gets_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (64.0 * (os.cpu_count() or 1), 0.0, 0.0))
    (load,) = doctor._load()
    assert load.status == "warn"
    monkeypatch.setattr(os, "getloadavg", lambda: (0.01, 0.0, 0.0))
    (load,) = doctor._load()
    assert load.status == "ok"


@pytest.mark.parametrize(
    ("version", "status"),
    [("2.13.0+cpu", "ok"), ("2.6.1", "ok"), ("2.14.0", "warn"), ("2.5.1", "warn"), (None, "fail")],
)
def test_torch_is_judged_by_its_version(monkeypatch: pytest.MonkeyPatch, version: str | None, status: str) -> None:
    monkeypatch.setattr(doctor, "_version", lambda package: version)
    (found,) = doctor._torch()
    assert found.status == status


@pytest.mark.parametrize(("text", "cores"), [("max 100000\n", None), ("150000 100000\n", 1.5), ("junk", None)])
def test_the_quota_of_a_control_group(tmp_path: Path, text: str, cores: float | None) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert doctor.cgroup_cores(tmp_path / "cpu.max") == cores
    assert doctor.cgroup_cores(tmp_path / "absent") is None


def test_an_emulation_that_fails_is_a_warning_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    from pibench.errors import PartyError
    from pibench.links import link

    def refuse(wanted: link.Link) -> link.LinkUp:
        if wanted.how != "netem":
            return link.LinkUp(wanted)
        raise PartyError("link doctor cannot be made here: netem: cannot make link doctor by netem: no such qdisc")

    monkeypatch.setattr(link, "open_link", refuse)
    found = {finding.name: finding for finding in doctor._links()}
    assert found["link by netem"].status == "warn"
    assert found["link by netem"].what == "no such qdisc"
    assert found["link by paced"].status == "ok"


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("warn", 0), ("fail", 2)])
def test_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], status: str, code: int
) -> None:
    finding = Finding("disk", status, "full", "free some space")  # type: ignore[arg-type]
    monkeypatch.setattr(doctor, "examine", lambda links: [finding])
    assert main(["doctor"]) == code
    assert "free some space" in capsys.readouterr().out
    assert main(["doctor", "--json"]) == code
    assert json.loads(capsys.readouterr().out)[0]["status"] == status


def test_the_clock_ticks() -> None:
    assert 0 < doctor.clock_resolution_s(20) < 1e-3
