"""Damaged inputs of every format: taken or refused with a message, and nothing else. `ci/fuzz.py` tries many more."""

import random
import tempfile
from pathlib import Path

import fuzzing
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES = 60
QUICK = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@pytest.mark.parametrize("name", fuzzing.READERS)
def test_there_are_good_inputs_to_damage(name, tmp_path):
    known = fuzzing.seeds(name)
    assert known
    assert any(fuzzing.try_one(name, data, tmp_path) == "taken" for data in known)


@pytest.mark.parametrize(
    ("name", "path"),
    [(path.parent.name, path) for path in sorted(fuzzing.CORPUS.glob("*/*"))],
    ids=lambda x: str(x)[-40:],
)
def test_the_corpus_is_taken_or_refused(name, path, tmp_path):
    fuzzing.try_one(name, path.read_bytes(), tmp_path)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", fuzzing.READERS)
def test_damaged_inputs_are_taken_or_refused(name):
    with tempfile.TemporaryDirectory() as folder:

        @QUICK
        @given(seed=st.integers(0, 2**64 - 1))
        def damaged(seed):
            fuzzing.try_one(name, fuzzing.one_input(name, random.Random(seed)), Path(folder))

        @QUICK
        @given(data=st.binary(max_size=200))
        def noise(data):
            fuzzing.try_one(name, data, Path(folder))

        damaged()
        noise()


def test_a_reader_that_fails_otherwise_is_a_find(monkeypatch, tmp_path):
    def broken(data, folder):
        raise KeyError("oops")

    monkeypatch.setitem(fuzzing.READERS, "card", broken)
    with pytest.raises(fuzzing.Find, match="card: KeyError"):
        fuzzing.try_one("card", b"", tmp_path)
