"""The pytest plugin, end to end through pytester, with canned runs in the place of party processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pibench.pytest_plugin_support import OnlineClock
from pibench.records.measures import MEASURES
from pibench.registry import MEASURES as NAMES

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.timeout(300)  # several runs of pytest each

HERE = Path(__file__).resolve().parent
SUITE = """\
name: mine
networks: [digits-full, digits-tiny]
protocols: [plaintext, masked]
sessions: 3
inferences: 4
"""
CONFTEST = """
import dataclasses, sys
sys.path.insert(0, {here!r})
from fakes import fake_record
import pibench.run.pytest_cases as measured

def execute(plan, prepare, *, keep, listener=None):
    print("EXECUTED", len(plan.cases), plan.sessions, plan.inferences, plan.warmups, keep)
    networks = [c.network.removeprefix("digits-") for c in plan.cases] if plan.sources else ["tiny"]
    record = fake_record(networks, [c.protocol for c in plan.cases], sessions=plan.sessions,
                         inferences=plan.inferences, warmups=plan.warmups, slowdown={slowdown!r})
    cases = []
    for plan_case in plan.cases:
        network = plan_case.network.removeprefix("digits-") if plan.sources else "tiny"
        case = next(c for c in record.cases if c.id.startswith(f"{{network}}/{{plan_case.protocol}}/"))
        update = {{"id": plan_case.id}}
        if plan_case.id.startswith({broken!r}):
            update |= {{"status": "invalid", "error": "a logit is off by 9.1 (tolerance 0.05)"}}
        cases.append(case.model_copy(update=update))
    if listener is not None:
        listener.started(plan.cases[0], 0, 0, len(plan.cases) * plan.sessions)
    return record.model_copy(update={{"cases": tuple(cases)}})

measured.execute = execute
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A user's project with a suite, runs canned."""
    monkeypatch.setenv("PYTHONPATH", str(HERE.parent))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    canned(pytester)
    (pytester.path / "suites").mkdir()
    (pytester.path / "suites" / "mine.yaml").write_text(SUITE)
    return pytester


def canned(pytester: pytest.Pytester, broken: str = "none", slowdown: dict[str, float] | None = None) -> None:
    pytester.makeconftest(CONFTEST.format(here=str(HERE), broken=broken, slowdown=slowdown or {}))


def pytest_in(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run pytest with the two plugins in question and no others, which only cost time here."""
    plugins = () if "no:benchmark" in arguments else ("-p", "pytest_benchmark.plugin")
    here = f"--rootdir={project.path}"  # whatever lies in a folder above
    return project.runpytest_subprocess(
        here, "-p", "no:cacheprovider", *plugins, "-p", "pibench.pytest_plugin", *arguments
    )


def test_cases_are_measured_together_and_shown_by_pytest_benchmark_and_by_us(project: pytest.Pytester) -> None:
    result = pytest_in(project, "--benchmark", "suites/mine.yaml", "--benchmark-json=out.json", "-s")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*EXECUTED 4 3 4 1 True*"])  # once, all cases, as the suite says
    assert result.stdout.str().count("EXECUTED") == 1
    result.stdout.fnmatch_lines(["*benchmark 'masked over loopback on cpu, batch 1': 2 tests*"])
    result.stdout.fnmatch_lines(["*pibench: what the parties sent*", "case*rounds*ReLUs*"])
    result.stdout.re_match_lines([r"digits-full/masked/loopback/cpu/b1 .*\b29 .*18,432"])
    data = json.loads((project.path / "out.json").read_text())
    entry = next(e for e in data["benchmarks"] if e["name"] == "digits-full/masked/loopback/cpu/b1")
    assert entry["fullname"] == "suites/mine.yaml::digits-full/masked/loopback/cpu/b1"
    assert entry["options"]["timer"] == "online_clock"
    assert entry["stats"]["rounds"] == 12  # three sessions of four, the warm-ups left out
    assert entry["stats"]["median"] == pytest.approx(0.026, rel=0.1)
    assert entry["extra_info"]["rounds"] == 29
    assert entry["extra_info"]["relu_count"] == 18_432
    assert entry["extra_info"]["link"]["name"] == "loopback"
    assert entry["extra_info"]["plain_accuracy"] == pytest.approx(356 / 360)


def test_without_the_flag_cases_run_once_as_correctness_tests(project: pytest.Pytester) -> None:
    result = pytest_in(project, "suites", "-s")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*EXECUTED 4 1 1 0 False*"])
    result.stdout.no_fnmatch_line("*OPS: Operations Per Second*")
    assert not (project.path / ".pibench").exists()


def test_wrong_answers_fail_without_a_traceback(project: pytest.Pytester) -> None:
    canned(project, broken="digits-full/masked")
    result = pytest_in(project, "--benchmark", "suites")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["*digits-full/masked/loopback/cpu/b1 is invalid: a logit is off by 9.1*"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_selection_by_expression_mark_and_id(project: pytest.Pytester) -> None:
    listed = pytest_in(project, "--benchmark", "suites", "--collect-only", "-q", "-k", "masked and tiny")
    listed.stdout.fnmatch_lines(["suites/mine.yaml::digits-tiny/masked/loopback/cpu/b1", "*1/4 tests collected*"])
    marked = pytest_in(project, "--benchmark", "suites", "-s", "--strict-markers", "-m", "pibench(protocol='masked')")
    marked.assert_outcomes(passed=2, deselected=2)
    marked.stdout.fnmatch_lines(["*EXECUTED 2 *"])  # what was deselected is not run
    one = pytest_in(project, "suites/mine.yaml::digits-tiny/masked/loopback/cpu/b1")
    one.assert_outcomes(passed=1)


def test_options_of_pytest_benchmark_keep_their_meaning(project: pytest.Pytester) -> None:
    pytest_in(project, "suites", "--benchmark", "--benchmark-disable").assert_outcomes(passed=4)
    pytest_in(project, "suites", "--benchmark", "--benchmark-skip").assert_outcomes(skipped=4)
    pytest_in(project, "suites", "--benchmark", "--benchmark-only").assert_outcomes(passed=4)
    result = pytest_in(project, "suites", "--benchmark", "--benchmark-columns=median,rounds", "--pibench-sessions=2")
    result.stdout.re_match_lines([r"Name \(time in .*\) +Median +Rounds", r"digits-tiny/masked.* 8$"])


def test_compare_fail_does_what_its_manual_says(project: pytest.Pytester) -> None:
    pytest_in(project, "--benchmark", "suites", "--benchmark-autosave").assert_outcomes(passed=4)
    again = pytest_in(project, "--benchmark", "suites", "--benchmark-compare", "--benchmark-compare-fail=median:10%")
    assert again.ret == 0
    canned(project, slowdown={"full/masked": 1.2})
    slower = pytest_in(project, "--benchmark", "suites", "--benchmark-compare", "--benchmark-compare-fail=median:10%")
    assert slower.ret == 1
    slower.stdout.fnmatch_lines(["*pibench: what the parties sent*"])
    assert "PercentageRegressionCheck" in slower.stdout.str() + slower.stderr.str()


def test_pytest_benchmark_compare_loads_the_json(project: pytest.Pytester) -> None:
    pytest_in(project, "--benchmark", "suites", "--benchmark-json=out.json")
    compare = "from pytest_benchmark.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", compare, "compare", "out.json"], capture_output=True, text=True, cwd=project.path
    )
    assert done.returncode == 0, done.stderr
    assert "digits-full/masked/loopback/cpu/b1" in done.stdout


def test_a_broken_suite_is_one_message_with_its_line(project: pytest.Pytester) -> None:
    (project.path / "suites" / "mine.yaml").write_text(SUITE.replace("masked", "maskd"))
    result = pytest_in(project, "--benchmark", "suites/mine.yaml")
    assert result.ret == 2
    result.stdout.fnmatch_lines(["*mine.yaml:3: *maskd*did you mean 'masked'*"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_ones_own_network_in_three_lines(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_mine="""
        def test_mine(private_inference):
            result = private_inference("a module", "images", protocol="masked", sessions=4)
            assert 0 < result.online_s.low < result.online_s.high and result.measure("rounds") == 8
        """
    )
    result = pytest_in(project, "--benchmark", "test_mine.py", "-s", "--benchmark-json=out.json")
    result.stdout.fnmatch_lines(["*EXECUTED 1 4 5 1 True*"])
    [entry] = json.loads((project.path / "out.json").read_text())["benchmarks"]
    assert (entry["name"], entry["stats"]["rounds"], entry["extra_info"]["rounds"]) == ("test_mine", 20, 8)
    plain = pytest_in(project, "test_mine.py", "-s", "-W", "error")
    plain.assert_outcomes(failed=1)  # one inference has no interval, as the user's assertion says
    plain.stdout.fnmatch_lines(["*EXECUTED 1 1 1 0 False*"])


def test_a_project_that_merely_has_pibench_installed_is_not_disturbed(pytester: pytest.Pytester) -> None:
    (pytester.path / "suites").mkdir()
    (pytester.path / "suites" / "mine.yaml").write_text(SUITE)
    (pytester.path / "tests").mkdir()
    (pytester.path / "tests" / "docker.yaml").write_text("name: x\nservices: []\n")
    (pytester.path / "tests" / "test_theirs.py").write_text(
        """
import sys

def test_theirs(benchmark):
    benchmark(sum, [1, 2])

def test_nothing_was_imported():
    assert not {"torch", "scipy", "numpy", "pydantic", "pibench.run"} & sys.modules.keys()
"""
    )
    for arguments in ((), ("tests/", "--strict-markers", "-W", "error")):
        result = pytester.runpytest_subprocess(*arguments)  # plugins as installed
        result.assert_outcomes(passed=2)
        result.stdout.fnmatch_lines(["*test_theirs*", "*OPS: Operations Per Second*"])  # their benchmark still runs
        result.stdout.no_fnmatch_line("*pibench:*")


def test_it_works_without_pytest_benchmark(project: pytest.Pytester) -> None:
    pytest_in(project, "--benchmark", "suites", "-p", "no:benchmark").assert_outcomes(passed=4)


def test_the_online_clock_stands_still_between_samples() -> None:
    clock = OnlineClock()
    step = clock.replay([1.5, 0.5])
    start = clock()
    step()
    assert (clock() - start, clock.__name__) == (1.5, "online_clock")
    step()
    step()  # profilers call once more
    assert clock() == 2.5


def test_the_registry_names_every_measure() -> None:
    assert tuple(MEASURES) == NAMES


def test_a_project_with_a_benchmark_option_of_its_own_lives_and_measures_with_ours(project: pytest.Pytester) -> None:
    conftest = project.path / "conftest.py"
    own = "\ndef pytest_addoption(parser):\n    parser.addoption('--benchmark', default='fast')\n"
    conftest.write_text(conftest.read_text("utf-8") + own, encoding="utf-8")
    project.makepyfile("def test_theirs(request):\n    assert request.config.getoption('--benchmark') == 'slow'\n")
    words = ["-p", "pibench.pytest_plugin", "--benchmark", "slow"]
    project.runpytest_subprocess(*words).assert_outcomes(passed=1)
    result = project.runpytest_subprocess(*words, "--pibench", "-s", "suites/mine.yaml")
    result.stdout.fnmatch_lines(["*EXECUTED 4 3 4*"])


def test_two_measurements_in_one_test_and_a_short_repr(project: pytest.Pytester) -> None:
    project.makepyfile(
        "import torch\n"
        "def test_mine(private_inference):\n"
        "    module, images = torch.nn.Linear(4, 2), torch.zeros(3, 4)\n"
        "    one, two = (private_inference(module, images, protocol=p) for p in ('masked', 'plaintext'))\n"
        "    print('REPR', one)\n"
        "    assert len(repr(two)) < 140\n"
    )
    name = "test_two_measurements_in_one_test_and_a_short_repr.py"
    result = project.runpytest_subprocess("-p", "pibench.pytest_plugin", "-s", "--benchmark", name)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["test_mine/masked/*", "test_mine-2/plaintext/*"])
    result.stdout.fnmatch_lines_random(["*REPR <PrivateInference test_mine/masked/* online, * rounds, 100 %*>"])
