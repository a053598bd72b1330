# Every target sets up what it needs in .venv: nothing has to be installed by hand.

PYTHON ?= python3
VENV ?= .venv
WORKDIR ?= build
# Test processes side by side.
WORKERS ?= auto

BIN := $(VENV)/bin
TEST_EXTRAS := test,demo,serving,evaluation,face
SOURCES := autosplit configs experiments tests

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo demo-face paper test test-heavy benchmark peers workloads zoo lint stubs lock clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo-installed ## Plan, split and run an example; write a report to build/demo.
	$(BIN)/python -m experiments.main --config=configs/demo.py --workdir=$(WORKDIR)/demo
	@report="$(abspath $(WORKDIR)/demo/report.html)"; \
	echo "Report: $$report"; \
	if [ -t 1 ]; then \
	  if [ "$$(uname)" = Darwin ]; then open "$$report"; \
	  elif [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ] && command -v xdg-open > /dev/null; then \
	    xdg-open "$$report" > /dev/null 2>&1 || true; \
	  fi; \
	fi

demo-face: $(VENV)/.face-installed ## Show a split person detector beside cloud-only in the browser.
	$(BIN)/python -m experiments.face_demo --config=configs/face_demo.py --workdir=$(WORKDIR)/face_demo

paper: $(VENV)/.demo-installed ## Run the paper's experiments; write tables and plots to build/paper.
	$(BIN)/python -m experiments.paper --config=configs/paper/all.py --workdir=$(WORKDIR)/paper

test: lint ## Lint, check types, run the tests that are not heavy.
	$(BIN)/python -m pytest -m "not heavy" -n $(WORKERS)

test-heavy: $(VENV)/.test-installed ## Run the heavy tests.
	$(BIN)/python -m pytest -m heavy -n $(WORKERS) --durations=10

benchmark: $(VENV)/.test-installed ## Measure the claims that the README makes.
	$(BIN)/python -m experiments.benchmark --workdir=$(WORKDIR)/benchmark
	$(BIN)/python -m experiments.solver_cost --workdir=$(WORKDIR)/solver_cost
	$(BIN)/python -m experiments.codec_speed --workdir=$(WORKDIR)/codec_speed
	$(BIN)/python -m experiments.serve_load --workdir=$(WORKDIR)/serve_load
	$(BIN)/python -m experiments.scalesim_speed --workdir=$(WORKDIR)/scalesim

peers: $(VENV)/.peers-installed ## Measure speed beside PyTorch, ONNX Runtime and OpenVINO.
	$(BIN)/python -m experiments.speed --workdir=$(WORKDIR)/speed
	$(BIN)/python -m experiments.search_speed --workdir=$(WORKDIR)/search_speed

workloads: $(VENV)/.test-installed ## Plan, time and evaluate every network of the zoo.
	$(BIN)/python -m experiments.workload --config=configs/workloads/all.py --workdir=$(WORKDIR)/workloads

zoo: $(VENV)/.test-installed ## Hold networks with published weights against their own frameworks.
	$(BIN)/python -m experiments.zoo --workdir=$(WORKDIR)/zoo

lint: $(VENV)/.test-installed ## Run ruff and mypy.
	$(BIN)/python -m ruff check $(SOURCES)
	$(BIN)/python -m mypy

stubs: $(VENV)/.test-installed ## Generate the gRPC stubs from the .proto files.
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. \
	  autosplit/serving/*.proto

# setuptools is a dependency from Python 3.12 on. On a machine whose torch comes with CUDA, freeze
# lists CUDA's packages, which others do not need: they are left out.
lock: $(VENV)/.created ## Solve all extras anew into requirements.txt.
	rm -rf $(WORKDIR)/lock
	$(BIN)/python -m venv $(WORKDIR)/lock
	$(WORKDIR)/lock/bin/python -m pip install --quiet --upgrade setuptools -e '.[$(TEST_EXTRAS)]'
	sed -n '/^#/p' requirements.txt > $(WORKDIR)/requirements.txt
	$(WORKDIR)/lock/bin/python -m pip freeze --all --exclude pip --exclude-editable \
	  | sed 's/+cpu$$//' | grep -viE '^(cuda|nvidia|triton)' >> $(WORKDIR)/requirements.txt
	mv $(WORKDIR)/requirements.txt requirements.txt

clean: ## Remove .venv and everything that was built.
	rm -rf $(VENV) $(WORKDIR) *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache

$(VENV)/.created:
	@command -v $(PYTHON) > /dev/null || { \
	  echo "error: no $(PYTHON) found; install Python 3.11 or later, or say which one:" \
	    "make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $(PYTHON) is $$($(PYTHON) --version 2>&1); autosplit needs Python 3.11 or" \
	    "later: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo-installed: $(VENV)/.created pyproject.toml requirements.txt
	$(BIN)/python -m pip install --quiet -c requirements.txt -e '.[demo]'
	@touch $@

$(VENV)/.face-installed: $(VENV)/.created pyproject.toml requirements.txt
	$(BIN)/python -m pip install --quiet -c requirements.txt -e '.[face]'
	@touch $@

$(VENV)/.test-installed: $(VENV)/.created pyproject.toml requirements.txt
	$(BIN)/python -m pip install --quiet -c requirements.txt -e '.[$(TEST_EXTRAS)]'
	@touch $@

$(VENV)/.peers-installed: $(VENV)/.created pyproject.toml requirements.txt
	$(BIN)/python -m pip install --quiet -c requirements.txt -e '.[peers]'
	@touch $@
