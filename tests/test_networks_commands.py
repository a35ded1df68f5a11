"""`pibench ls`, `show` and `validate` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pibench.cli import main
from pibench.errors import EXIT_NOTHING_SELECTED, EXIT_OK, EXIT_USAGE


def test_ls_lists_suites_networks_and_records(capsys: pytest.CaptureFixture[str], in_tmp: Path) -> None:
    (in_tmp / ".pibench/runs").mkdir(parents=True)
    (in_tmp / ".pibench/runs/20260101T000000Z-quick.json").write_text("{}")
    assert main(["ls"]) == EXIT_OK
    out = capsys.readouterr().out
    assert "20260101T000000Z-quick" in out
    assert any(row.split()[:3] == ["drd-c100-12k", "cifar100", "12,288"] for row in out.splitlines())


def test_ls_takes_a_kind_and_a_pattern(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "networks", "drd-c100-*", "--json"]) == EXIT_OK
    rows = json.loads(capsys.readouterr().out)["networks"]
    assert [row["relus"] for row in rows] == sorted((row["relus"] for row in rows), reverse=True)
    assert len(rows) == 10
    assert main(["list", "networks", "no-such-network"]) == EXIT_NOTHING_SELECTED


def test_a_users_own_folder_comes_first(capsys: pytest.CaptureFixture[str], in_tmp: Path) -> None:
    (in_tmp / "networks").mkdir()
    (in_tmp / "networks/digits-full.yaml").write_text("name: digits-full\ntitle: mine\nrelu_count: 7\n")
    main(["ls", "networks", "digits-full", "--json"])
    assert json.loads(capsys.readouterr().out)["networks"][0]["title"] == "mine"


def test_show_tells_counts_and_published_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "drd-c100-12k", "--sites"]) == EXIT_OK
    out = capsys.readouterr().out
    for part in ("12,288", "34.85M", "4 ReLU rounds", "64.97 %", "layer2.0.relu1"):
        assert part in out


def test_show_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "digits-full", "--json"]) == EXIT_OK
    data = json.loads(capsys.readouterr().out)
    assert data["census"]["relu_count"] == data["card"]["relu_count"] == 4608
    assert data["census"]["relus_by_stage"] == {"stem": 1024, "S1": 2048, "S2": 1024, "S3": 512, "head": 0}


def test_show_refuses_a_card_that_states_another_count(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pibench.networks.card import load_card

    text = load_card("digits-tiny").path.read_text().replace("relu_count: 96", "relu_count: 97")
    (in_tmp / "digits-tiny.yaml").write_text(text)
    assert main(["show", "digits-tiny.yaml"]) == EXIT_USAGE
    assert "the card says 97 ReLUs, its network has 96" in capsys.readouterr().err


def test_validate_reports_every_file_and_its_lines(capsys: pytest.CaptureFixture[str], in_tmp: Path) -> None:
    (in_tmp / "a.yaml").write_text("name: a\nnetworks: []\nprotocols: [plaintxt]\n")
    (in_tmp / "b.yaml").write_text("name: b\nnetwork: {family: resnet}\n")
    (in_tmp / "c.yaml").write_text("- 1\n")
    assert main(["validate", "a.yaml", "b.yaml", "c.yaml", "quick", "digits-full"]) == EXIT_USAGE
    captured = capsys.readouterr()
    assert "2 of 5 files are fine" in captured.out
    for part in ("a.yaml:2:", "a.yaml:3:", "b.yaml:2:", "c.yaml:1: neither a suite nor a card"):
        assert part in captured.err


def test_validate_checks_everything_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "--json"]) == EXIT_OK
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == {}
    assert found["checked"] > 100
