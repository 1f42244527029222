# make setup   the environment of the lock, in .venv
# make test    lint, types and all tests but the slow ones
# make test-slow  the slow tests: .ci/run has both
# make bench   measure everything, into a new run file
# make track   the newest week beside the last one, into results/tracking/weeks
# make results the published tables anew from the committed runs, and the site, in site/
# make lock    remake requirements.lock and impls/locks with today's newest releases

PYTHON ?= python3
RUN ?= run-$(shell date +%Y%m%d-%H%M%S).json
VENV := .venv
BIN := $(VENV)/bin

# uv from the path, or one of our own beside the environment: never into anybody's Python.
UV := $(shell command -v uv || echo .uv/bin/uv)

# Without bytecode, each of the many processes of a test run compiles jax anew.
unexport PYTHONDONTWRITEBYTECODE

TESTS := $(BIN)/python -m pytest -n logical --dist loadfile --no-loadscope-reorder

.PHONY: setup test test-quick test-slow lint bench results track lock clean

setup: $(VENV)/.done

$(VENV)/.done: requirements.lock pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --python '>=3.12' $(VENV)
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

.uv/bin/uv:
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --target .uv "uv>=0.8,<1"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/zizmor --offline --quiet .github action.yml comment

# mypy uses one core for a while: tests use the others meanwhile.
test:
	$(MAKE) --no-print-directory --jobs=2 --keep-going lint test-quick

test-quick: setup
	$(TESTS) -m "not slow"

test-slow: setup
	$(TESTS) -m slow

bench: setup
	$(BIN)/python -m pytest bench --benchmark-json=$(RUN)

results: setup
	$(BIN)/python results/publish.py

# `make track TRACK="--weeks 26"`: see results/tracking/track.py
track: setup
	$(BIN)/python results/tracking/track.py $(TRACK)

lock: | $(UV)
	$(UV) pip compile --quiet --universal --generate-hashes --upgrade --python-version 3.12 \
		--no-emit-index-url --custom-compile-command "make lock" --group dev \
		--output-file requirements.lock pyproject.toml
	for lock in impls/locks/*.txt; do \
		$(UV) pip compile --quiet --universal --generate-hashes --upgrade --python-version 3.12 \
			--no-emit-index-url --no-annotate --custom-compile-command "make lock" \
			--constraint requirements.lock --output-file $$lock \
			impls/$$(basename $$lock .txt).py || exit; \
	done
	$(BIN)/python results/beside/plan.py | $(UV) pip compile --quiet --universal --upgrade \
		--python-version 3.12 --no-emit-index-url --custom-compile-command "make lock" \
		--constraint requirements.lock --output-file results/beside/tools.lock -

clean:
	rm -rf $(VENV) .uv .mypy_cache .pytest_cache .ruff_cache
