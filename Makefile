# Two commands matter: `make run` and `make test`. Both do all their own set-up.
# Needs Python >= 3.12, git and make; everything else comes from PyPI by name (no Docker, no database).

SHELL := /bin/sh
.DEFAULT_GOAL := help
MEMBERS := platform-model kernel svc-projector svc-web-bff contracts svc-tenant svc-counter svc-workflow svc-scheduler svc-outbox-relay

TOPOLOGY ?= single
PORT ?= 8080
DATA ?= .flotilla/$(TOPOLOGY)

# uv: the one on the machine, or one that we install for ourselves.
TOOLS := $(CURDIR)/.tools
UV := $(shell command -v uv 2>/dev/null || echo $(TOOLS)/bin/uv)
VENV := .venv
READY := $(VENV)/.ready
RUN := $(VENV)/bin

export UV_PYTHON_PREFERENCE ?= system
# An environment that is active in the caller's shell is not ours.
unexport VIRTUAL_ENV

.PHONY: help run verify test check format generate status doctor clean setup test-members test-fleet

help:  ## Show this.
	@awk 'BEGIN {FS = ":.*##"} /^[a-z-]+:.*##/ {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  Variables for run: PORT=8080 DATA=.flotilla/<topology> TOPOLOGY=single|single-postgres|vps"

run: $(READY)  ## Serve the fleet on http://127.0.0.1:8080 until Ctrl-C.
	@exec $(RUN)/flotilla up --topology "$(TOPOLOGY)" --port "$(PORT)" --data "$(DATA)"

status: $(READY)  ## Show logs and projections of the running fleet.
	@exec $(RUN)/flotilla status --data "$(DATA)"

doctor: $(READY)  ## Check this machine.
	@exec $(RUN)/flotilla doctor

verify: $(READY)  ## Everything: all gates of agent/manifests/gate-matrix.yml; what is green is not run again.
	@exec $(RUN)/flotilla gate --all

test: $(READY)  ## Run all tests: members in isolation, simulated worlds, the fleet.
	@exec $(RUN)/flotilla gate --all --stage test --fresh

test-members: $(READY)  ## Test every member in an environment that has its declared dependencies only.
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target $(MEMBERS:%=test-member-%)

test-member-%: $(READY)
	@package=$$(sed -n 's/^name = "\(.*\)"/\1/p' $*/pyproject.toml | head -n 1); \
	echo "== $* ($$package)"; \
	$(UV) run --locked --isolated --package $$package pytest -q $*/tests

test-worlds: $(READY)  ## Run 2,000 simulated worlds, and those in which a safeguard is missing.
	@$(RUN)/python -m pytest -q simulation/tests

test-fleet: $(READY)  ## Test the fleet from outside, on every topology, and drill its restore.
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target test-fleet-outside test-fleet-restore

test-fleet-outside: $(READY)
	@$(RUN)/python -m pytest tests --ignore tests/test_restore.py

test-fleet-restore: $(READY)
	@$(RUN)/python -m pytest tests/test_restore.py

check: $(READY)  ## Format, lint, strict types, import contracts, generated files fresh and compatible.
	@exec $(RUN)/flotilla gate --all --stage check --fresh

format: $(READY)  ## Format and mend what can be mended.
	@$(RUN)/ruff format .
	@$(RUN)/ruff check --fix .

generate: $(READY)  ## Write the generated contract files and schemas of the model again.
	@$(RUN)/python -m flotilla_contracts.generate
	@$(RUN)/python -m svc_web_bff.openapi
	@$(RUN)/flotilla model schema --write
	@$(RUN)/flotilla model generate --write

SEEDS ?= 10000
.PHONY: simulate test-worlds

simulate: $(READY)  ## Simulate whole worlds from seeds: SEEDS=10000; any broken promise fails.
	@exec $(RUN)/python -m simulation --seeds "$(SEEDS)"

SECONDS ?= 5
.PHONY: bench bench-compare bench-ready

bench: bench-ready  ## Measure beside references and peers: ONLY=commands|relay|projector|workflow SECONDS=5.
	@exec $(RUN)/python -m bench $(if $(ONLY),--only "$(ONLY)") --seconds "$(SECONDS)"

bench-compare: bench-ready  ## Measure the ratios again; fail when one fell by more than 25 %.
	@exec $(RUN)/python -m bench --compare --seconds 2

bench-ready: $(READY)
	@$(RUN)/python -c "import dbos, eventsourcing, matplotlib, psycopg" 2>/dev/null \
		|| $(UV) sync --locked --all-packages --group bench --inexact --quiet

.PHONY: test-docker conformance

test-docker: $(READY)  ## Test the fleet in containers, real images; finds an engine, or starts one (root on Debian).
	@$(RUN)/python -m pytest tests_docker --timeout 400

conformance: bench-ready  ## Measure every topology side by side; write docs/conformance.md and README's table.
	@PYTHONPATH=tests:tests_docker exec $(RUN)/python -m conformance --seconds "$(SECONDS)"

ROUNDS ?= 30
.PHONY: chaos
# ONLY is also bench's, with another default.
chaos: $(READY)  ## Break real servers and processes, check every promise: ONLY=fleet|store|workflow ROUNDS=30 SEED=n.
	@exec $(RUN)/python -m chaos $(if $(ONLY),--only "$(ONLY)") --rounds "$(ROUNDS)" $(if $(SEED),--seed "$(SEED)")

.PHONY: engine engine-stop base-images images images-verify up-compose down-compose
engine: $(READY)  ## Find a Docker engine, or start one (root on Debian); print its DOCKER_HOST.
	@$(RUN)/python -m images engine

engine-stop: $(READY)  ## Stop the engine that make engine started; images stay.
	@$(RUN)/python -m images engine-stop

base-images: $(READY)  ## Pull the base images, or make stand-ins where no registry answers.
	@$(RUN)/python -m images base

images: $(READY)  ## Build one image a deployable, and its SBOM in dist/sbom: ONLY=counter.
	@$(RUN)/python -m images build $(if $(ONLY),--only "$(ONLY)")

images-verify: $(READY)  ## Build the images twice, without a cache: they must be the same.
	@$(RUN)/python -m images build --verify $(if $(ONLY),--only "$(ONLY)")

up-compose: images  ## Run the fleet in containers on http://127.0.0.1:8080; return when it is healthy.
	@$(RUN)/python -m images up

down-compose: $(READY)  ## Stop it; remove its containers, networks and data.
	@$(RUN)/python -m images down

setup: $(READY)  ## Only set up.

clean:  ## Remove environments and caches; data stays.
	rm -rf $(VENV) $(TOOLS) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(TOOLS)/bin/uv:
	@echo "Installing uv into .tools (once)"
	@python3 -m venv $(TOOLS)
	@$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check uv

# The interpreter: .python-version's if the machine has it, else any that is new enough.
$(READY): uv.lock pyproject.toml $(MEMBERS:=/pyproject.toml) | $(UV)
	@$(UV) python find --no-python-downloads 3.13 >/dev/null 2>&1 \
		&& $(UV) sync --locked --all-packages --quiet \
		|| $(UV) sync --locked --all-packages --quiet --python '>=3.12'
	@touch $@

.PHONY: check-kustomize
check-kustomize: ## is what the tests render what Kustomize renders? needs kubectl
	set -e; for overlay in deploy/k3s/overlays/*; do kubectl kustomize $$overlay \
	  | .venv/bin/python -m flotilla_platform.testing.kustomizing $$overlay; done

.PHONY: verify-new
verify-new: $(READY)  ## Make a service in a temporary copy of HEAD; all of its checks and tests must be green there.
	@set -e; copy=$$(mktemp -d); trap 'rm -rf "$$copy"' EXIT; git clone --quiet . "$$copy/fleet"; cd "$$copy/fleet"; \
	export PATH="$(dir $(UV)):$$PATH"; uv sync --locked --all-packages --quiet; \
	.venv/bin/flotilla new service --answers platform-model/tests/answers/invoice.yaml; git add --all; \
	.venv/bin/python -m pytest -q svc-invoice/tests; \
	.venv/bin/flotilla gate --all --stage check --fresh
