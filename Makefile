# One file for the two commands of the README and the checks of a contributor.
#   make run     environment, install, and the quick suite
#   make test    environment, install, and the tests
# UV=1 uses uv instead of pip; PYTHON=python3.12 chooses the interpreter.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.pibench-installed

.PHONY: install run test check bench clean
.DELETE_ON_ERROR:

install: $(STAMP)

$(STAMP): pyproject.toml
ifdef UV
	test -x $(BIN)/python || uv venv --python $(PYTHON) $(VENV)
	uv pip install --python $(BIN)/python -e '.[dev]'
else
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
endif
	@touch $(STAMP)

run: $(STAMP)
	$(BIN)/pibench run suites/quick.yaml

test: $(STAMP)
	$(BIN)/python -m pytest

check: $(STAMP)
	$(BIN)/ruff check pibench tests
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/pibench run suites/protocols.yaml

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
