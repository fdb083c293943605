# make demo    real data to recommendations, in an environment of its own
# make test    every test, in an environment of its own
# make help    the rest

PYTHON ?= python3
DEMO   := .venv-demo
VENV   := .venv
BIN    := $(VENV)/bin
PEERS  := .cache/peers
ROW    ?=
KERNELS := $(wildcard src/attrec/native/*.[ch])
TORCH  := $(shell grep '^torch==' constraints.txt)
CPU_INDEX := https://download.pytorch.org/whl/cpu

# Two test processes with one thread each are quicker than one process with two; figures are per thread.
test soak mutants bench-accuracy bench-ablations bench-cold-items bench-cache bench-foldin bench-independent bench-peers bench-replay: export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test soak lint format mutants wheel docs \
        bench-accuracy bench-ablations bench-cold-items bench-cache bench-foldin bench-independent bench-peers \
        bench-replay bench-speed bench-index bench-gpu bench-data clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 18

# Plain pip takes PyTorch with gigabytes of CUDA on Linux; the demo and the tests need none of it.
# Where PyTorch's own index cannot be reached, the ordinary one is asked.
define install_torch
	$(1)/bin/pip install --quiet --retries 0 --timeout 5 --index-url $(CPU_INDEX) $(TORCH) 2>/dev/null \
	  || $(1)/bin/pip install --quiet -c constraints.txt torch
endef

$(DEMO)/.ready: pyproject.toml setup.py constraints.txt $(KERNELS)
	@echo "Installing AttRec into $(DEMO) (once) ..."
	@$(PYTHON) -m venv $(DEMO)
	@$(call install_torch,$(DEMO))
	@$(DEMO)/bin/pip install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.ready: pyproject.toml setup.py constraints.txt $(KERNELS)
	@echo "Installing AttRec and the test tools into $(VENV) (once) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(call install_torch,$(VENV))
	@$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(DEMO)/.ready ## MovieLens 100K to recommendations, figures and pictures
	@$(DEMO)/bin/attrec demo

test: $(VENV)/.ready ## all tests, with coverage
	@$(BIN)/pytest -n 2 -m "not soak" --cov --cov-report=term:skip-covered --cov-fail-under=95

soak: $(VENV)/.ready ## the long checks
	@$(BIN)/pytest -m soak

lint: $(VENV)/.ready ## style, strict types, layers
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(VENV)/.ready ## bring the code into form
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

mutants: $(VENV)/.ready ## break the code on purpose, one line at a time: the tests must see it
	@$(BIN)/python -m tests.mutants.run $(ROW)

wheel: $(VENV)/.ready ## build the wheel and try it in an empty environment
	@bash .ci/wheel

docs: $(VENV)/.ready ## write the generated pages again
	@$(BIN)/python -m docs.generate

bench-accuracy: $(VENV)/.ready ## accuracy rows that are missing, or ROW=name; ROW="--again name" trains again
	@$(BIN)/python -m benchmarks.accuracy.run $(ROW)

bench-independent: $(VENV)/.ready ## the accurate rows' figures again, from files, by plain Python
	@$(BIN)/python -m benchmarks.independent.run $(ROW)

bench-ablations: $(VENV)/.ready ## ablation rows that are missing, or ROW=name again
	@$(BIN)/python -m benchmarks.ablations.run $(ROW)

# Other libraries pin what AttRec does not: each has an environment of its own.
$(PEERS)/%/.ready: benchmarks/peers/requirements-%.txt
	@echo "Installing $* into $(PEERS)/$* (once) ..."
	@$(PYTHON) -m venv $(PEERS)/$*
	@$(call install_torch,$(PEERS)/$*)
	@$(PEERS)/$*/bin/pip install --quiet -r $<
	@touch $@

bench-peers: $(VENV)/.ready $(PEERS)/rectools/.ready $(PEERS)/recbole/.ready ## other libraries: missing rows, or ROW=name; ROW="--again name"
	@$(BIN)/python -m benchmarks.peers.run $(ROW)

bench-replay: $(VENV)/.ready ## a log event by event: what updates and retraining are worth
	@$(BIN)/python -m benchmarks.replay.run $(ROW)

bench-cold-items: $(VENV)/.ready ## items held out of training, with and without their attributes
	@$(BIN)/python -m benchmarks.cold_items.run $(ROW)

bench-cache: $(VENV)/.ready ## answers kept for users: how often they are proved to stand
	@$(BIN)/python -m benchmarks.cache.run $(ROW)

bench-foldin: $(VENV)/.ready ## users and items folded into trained models: missing rows, or ROW=name again
	@nice -n 5 $(BIN)/python -m benchmarks.foldin.run $(ROW)

bench-speed: $(VENV)/.ready ## speed of everything, or of the rows whose names begin with ROW
	@$(BIN)/python -m benchmarks.speed.run $(ROW)

bench-index: $(VENV)/.ready ## nearest keys: exact and FAISS, missing rows, or those whose names begin with ROW
	@$(BIN)/python -m benchmarks.index.run $(ROW)

bench-gpu: $(VENV)/.ready ## step, epoch and ranking on the CUDA device that is there
	@$(BIN)/python -m benchmarks.speed.gpu $(ROW)

bench-data: $(VENV)/.ready ## ten million rows, beside bare DuckDB and pandas
	@$(BIN)/python -m benchmarks.volume.run $(ROW)

clean: ## remove environments and caches
	rm -rf $(VENV) $(DEMO) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* dist demo
