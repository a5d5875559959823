# Plain `make` lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.PHONY: help setup demo demo-llm demo-down test check format generate unit fuzz e2e clean

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  \033[36m%-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Install everything into .venv from requirements.lock (hashes checked)

$(STAMP): requirements.lock pyproject.toml scripts/uv.txt
	@scripts/setup.sh $(VENV)
	@touch $@

demo: $(STAMP) ## From examples/minilm/model.yaml to answers on this machine, no cluster needed
	@ENGINEWRIGHT_HOME=$${ENGINEWRIGHT_HOME:-$(CURDIR)/.enginewright} $(VENV)/bin/enginewright demo $(ARGS)

demo-llm: $(STAMP) ## From examples/smollm2/model.yaml to a chat on this machine
	@$(MAKE) --no-print-directory demo ARGS="--model smollm2 $(ARGS)"

demo-down: $(STAMP) ## Stop what `make demo` and `make demo-llm` started
	@ENGINEWRIGHT_HOME=$${ENGINEWRIGHT_HOME:-$(CURDIR)/.enginewright} $(VENV)/bin/enginewright down

test: $(STAMP) ## Everything this machine can run; what it cannot says so
	@scripts/test.sh $(VENV)

unit: $(STAMP) ## Unit tests only
	@$(VENV)/bin/pytest tests/unit -q -n 2

fuzz: $(STAMP) ## The property tests with new random examples, 2,000 each; keep what they find as an @example
	@HYPOTHESIS_PROFILE=fuzz $(PY) -m pytest tests/unit -q -n 2 -m hypothesis $(ARGS)

check: $(STAMP) ## Format, lint, types, import contracts, unit tests
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports
	@$(MAKE) --no-print-directory unit

format: $(STAMP) ## Format and fix what can be fixed
	@$(VENV)/bin/ruff format . && $(VENV)/bin/ruff check --fix .

generate: $(STAMP) ## Write the CRDs, the chart's copy of them and the API reference from the types
	@$(PY) -m enginewright_api.crd crds
	@$(PY) -m enginewright_api.reference docs/api.md
	@$(PY) -m enginewright_api.nvidia_reference docs/nvidia.md
	@$(MAKE) --no-print-directory chart

clean: ## Remove the virtual environment and caches of this checkout
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

include tests/kube/kube.mk
include images/images.mk
