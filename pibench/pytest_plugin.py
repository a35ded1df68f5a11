"""The pytest plugin: suites collected as tests, online latency as the parties measured it through pytest-benchmark.

With `--benchmark` every case of a suite is measured and reported; without it each runs once, as a correctness test.
Nothing heavy is imported before a case runs, and a project that merely has pibench installed sees one option more.
"""

from __future__ import annotations

import argparse
import contextlib
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pibench.pytest_plugin_support import PrivateInference
    from pibench.records.record import Case
    from pibench.run.pytest_cases import Measured

SUFFIXES = {".yaml", ".yml"}
MAX_SUITE_BYTES = 1 << 20
BENCHMARK, TIMEOUT = ("benchmark", "pytest_benchmark.plugin"), ("timeout", "pytest_timeout")  # as installed, or by -p
MARK = (
    "pibench(suite, network, protocol, link, device, batch): a case of a pibench suite; "
    "select with -m \"pibench(protocol='masked')\""
)
FLAG: dict[str, Any] = {
    "action": "store_true", "default": False, "dest": "pibench_benchmark",
    "help": "measure the cases of pibench suites (--benchmark and --pibench are the same)",
}  # fmt: skip
CASES = pytest.StashKey[list["Case"]]()
CLOCK = pytest.StashKey[Any]()  # OnlineClock


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what a run of a suite can be told; `--benchmark` follows when it is known to be free."""
    group = parser.getgroup("pibench", "private-inference benchmarks")
    group.addoption("--pibench", **FLAG)
    group.addoption("--pibench-sessions", type=int, metavar="N", help="sessions a case, instead of the suite's")
    group.addoption("--pibench-inferences", type=int, metavar="N", help="inferences a session, instead of the suite's")


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(parser: pytest.Parser) -> Iterator[None]:
    """Add `--benchmark` unless the project's own conftest has taken the name: then `--pibench` says the same."""
    yield
    with contextlib.suppress(ValueError, argparse.ArgumentError):
        parser.getgroup("pibench").addoption("--benchmark", **FLAG)


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark."""
    config.addinivalue_line("markers", MARK)
    config.stash[CASES] = []


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> SuiteFile | None:
    """Collect suites: all that are met with `--benchmark`, only those named on the command line without it."""
    if file_path.suffix not in SUFFIXES:
        return None
    named = _named(parent.config)
    flag = measuring(parent.config)
    if (flag and file_path in named) or ((flag or _is_near(file_path, named)) and _looks_like_suite(file_path)):
        suite: SuiteFile = SuiteFile.from_parent(parent, path=file_path)
        return suite
    return None


def pytest_itemcollected(item: pytest.Item) -> None:
    """Give a test of one's own the online clock, so that pytest-benchmark reads it."""
    names = getattr(item, "fixturenames", [])
    if "private_inference" not in names or not measuring(item.config) or not _has(item.config, BENCHMARK):
        return
    if "benchmark" not in names:
        names.append("benchmark")
    _use_online_clock(item)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Show what pytest-benchmark has no columns for, under its table, also when it raises over a regression."""
    try:
        yield
    finally:
        if cases := terminalreporter.config.stash.get(CASES, []):
            from pibench.pytest_plugin_support import table

            terminalreporter.section("pibench: what the parties sent, and whether the answers were right", sep="-")
            for line in table(cases):
                terminalreporter.write_line(line)


class SuiteFile(pytest.Module):
    """A suite as a module of tests."""

    _measured: Measured | None = None

    def collect(self) -> Iterator[pytest.Item]:
        """Yield each case as a test."""
        from pibench.errors import PibenchError
        from pibench.suite import load_suite

        try:
            cases = load_suite(self.path).cases()
        except PibenchError as error:
            raise self.CollectError(str(error)) from None
        for case in cases:
            item: CaseItem = CaseItem.from_parent(self, name=case.id, callobj=self._test(case.id))
            facts = {"network": case.network, "protocol": case.protocol, "link": case.link.name}
            item.add_marker(pytest.mark.pibench(suite=self.path.stem, device=case.device, batch=case.batch, **facts))
            if _has(self.config, TIMEOUT):
                item.add_marker(pytest.mark.timeout(0))  # the first case runs all; sessions have deadlines of their own
            if "benchmark" in item.fixturenames:
                _use_online_clock(
                    item, group=f"{case.protocol} over {case.link.name} on {case.device}, batch {case.batch}"
                )
            yield item

    def outcome(self, request: pytest.FixtureRequest, *, once: bool) -> Case:
        """Return the outcome of the case that `request` belongs to."""
        from pibench.pytest_plugin_support import Lines
        from pibench.run.pytest_cases import Measured

        if self._measured is None:
            option = self.config.option
            wishes = {"sessions": option.pibench_sessions, "inferences": option.pibench_inferences}
            self._measured = Measured(self.path, wishes, once=once, listener=Lines(self.config))
        together = [item.name for item in request.session.items if item.parent is self and not _skipped(item)]
        distributed = hasattr(self.config, "workerinput")  # each worker runs what it was given
        return self._measured.case(request.node.name, [] if distributed else together)

    def _getobj(self) -> types.ModuleType:
        return types.ModuleType(self.path.stem)

    def _test(self, case_id: str) -> Callable[..., None]:
        """Return the test function of a case; it asks for pytest-benchmark's fixture only when measuring."""

        def measured(request: pytest.FixtureRequest, benchmark: Any) -> None:
            case = self.outcome(request, once=benchmark.disabled)
            if case.status != "done":
                _leave_out(benchmark)
            _checked(case)
            if not benchmark.disabled:
                _report(request, benchmark, case)

        def once(request: pytest.FixtureRequest) -> None:
            _checked(self.outcome(request, once=not measuring(request.config)))

        with_clock = measuring(self.config) and _has(self.config, BENCHMARK)
        return measured if with_clock else once


class CaseItem(pytest.Function):
    """One case of a suite."""

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Point at the suite, not at the plugin."""
        return self.path, 0, self.name


@pytest.fixture
def private_inference(request: pytest.FixtureRequest) -> Callable[..., PrivateInference]:
    """Run one's own torch module privately: `private_inference(module, images, protocol="masked", link="lan")`.

    Images are (n, C, H, W), used in turn; `labels` give an accuracy. Fails the test when the answers are not the
    module's. With `--benchmark` its online latency is shown, saved and compared by pytest-benchmark.
    """
    calls = 0

    def run(module: Any, images: Any, labels: Any = None, *, name: str = "", **settings: Any) -> PrivateInference:
        from pibench.pytest_plugin_support import PrivateInference
        from pibench.run.pytest_cases import ONCE, measure_module

        nonlocal calls
        calls += 1
        benchmark = request.getfixturevalue("benchmark") if CLOCK in request.node.stash else None
        measured = measuring(request.config) and not (benchmark is not None and benchmark.disabled)
        wishes = settings if measured else settings | ONCE
        called = name or f"{request.node.name}{f'-{calls}' if calls > 1 else ''}"
        record = measure_module(module, images, labels, name=called, keep=measured, **wishes)
        case = _checked(record.cases[0])
        if benchmark is not None and calls == 1:  # pytest-benchmark takes one measurement a test
            if measured:
                _report(request, benchmark, case)
            else:
                benchmark.pedantic(lambda: None)
        elif measured:
            request.config.stash[CASES].append(case)
        return PrivateInference(case, record)

    return run


def measuring(config: pytest.Config) -> bool:
    """Whether `--benchmark` was given."""
    return bool(config.option.pibench_benchmark)


def _has(config: pytest.Config, names: Sequence[str]) -> bool:
    return any(config.pluginmanager.hasplugin(name) for name in names)


def _use_online_clock(item: pytest.Item, **options: Any) -> None:
    """Make pytest-benchmark read the online clock of this test (its public door: the mark's `timer`)."""
    from pibench.pytest_plugin_support import OnlineClock

    clock = item.stash[CLOCK] = OnlineClock()
    given = item.get_closest_marker("benchmark")
    item.add_marker(
        pytest.mark.benchmark(**{**options, **(given.kwargs if given else {}), "timer": clock}), append=False
    )


def _report(request: pytest.FixtureRequest, benchmark: Any, case: Case) -> None:
    """Play the measured inferences to pytest-benchmark, one a round."""
    from pibench.reporting.paper.export import extra_info, latencies

    request.config.stash[CASES].append(case)
    benchmark.extra_info.update(extra_info(case))
    samples = latencies(case)
    replay = request.node.stash[CLOCK].replay(samples)
    benchmark.pedantic(replay, rounds=len(samples))


def _leave_out(benchmark: Any) -> None:
    """Tell pytest-benchmark that there is no result, the way it is told of any failed benchmark."""

    def fail() -> None:
        raise ArithmeticError

    with contextlib.suppress(ArithmeticError):
        benchmark.pedantic(fail)


def _checked(case: Case) -> Case:
    """Fail or skip the test unless the case ran and its answers were right."""
    if case.status == "skipped":
        pytest.skip(case.error or "cannot run here")
    if case.status != "done":
        pytest.fail(f"{case.id} is {case.status}: {case.error or 'it did not come to its end'}", pytrace=False)
    return case


def _named(config: pytest.Config) -> set[Path]:
    """Return the files and folders that stand on the command line."""
    start = config.invocation_params.dir
    words = [str(word).split("::")[0] for word in config.invocation_params.args]
    return {(start / word).resolve() for word in words if word and not word.startswith("-")}


def _is_near(path: Path, named: set[Path]) -> bool:
    """Whether a file, or the folder that it lies in, was named on the command line."""
    return path in named or path.parent in named


def _looks_like_suite(path: Path) -> bool:
    """Whether a file has a suite's keys at its top level: other people's YAML is none of our business."""
    try:
        if path.stat().st_size > MAX_SUITE_BYTES:
            return False
        lines: Sequence[str] = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return False
    keys = {line.split(":", 1)[0] for line in lines if ":" in line}
    return {"name", "networks", "protocols"} <= keys


def _skipped(item: pytest.Item) -> bool:
    return item.get_closest_marker("skip") is not None
