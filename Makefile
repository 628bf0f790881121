# make run      the main job on the shipped facts, or on a saved page: make run PAGE=file; on a terminal as a site that fills;
#               the first time it installs what all papers need, and says how large that is
# make test     style, types, import contracts, licences, tests
# make verify   check every claim again and write the ledger, docs/verdicts
# make docs     the documentation, in site/
# make bench    every comparison of speed, or one: make bench ONLY=cuba; on a GPU: make bench DEVICE=gpu
# make soak     fifty random kills of all kinds of processes, some minutes
# make index    what is generated and committed: the index of papers, the table of rooms
# make lock     the packages of constraints.txt by the hashes of their files, in locks/; needs uv
# make setup    the environment only
.PHONY: run test lint verify soak setup index lock docs bench

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORE := $(VENV)/.core-installed
FULL := $(VENV)/.all-installed
PAGE ?=
ONLY ?=
DEVICE ?= cpu

run: $(CORE)
	@if [ -t 1 ]; then $(BIN)/broadsheet serve --run $(if $(PAGE),--page $(PAGE)); else $(BIN)/broadsheet build $(PAGE); fi

test: lint
	$(BIN)/pytest -n 2 --dist worksteal

lint: $(FULL)
	$(BIN)/ruff check src tests bench docs tools
	$(BIN)/ruff format --check --quiet src tests bench docs tools
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache > $(VENV)/imports.log || (cat $(VENV)/imports.log; exit 1)
	$(BIN)/pip-licenses --partial-match --fail-on "GPL;Affero;UNKNOWN;Proprietary" \
		--ignore-packages ase axe-playwright-python broadsheet pgserver psycopg psycopg-binary quantities tblite > $(VENV)/licences.log

verify: $(FULL)
	$(BIN)/broadsheet verify --all --ledger docs/verdicts

docs: $(FULL)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(CORE)
	$(BIN)/python bench/harness.py $(ONLY) --device $(DEVICE)

soak: $(FULL)
	$(BIN)/python tests/soak/kills.py 50

lock:
	$(PYTHON) tools/lock.py

index: $(FULL)
	$(BIN)/python -m broadsheet.lab.registry
	$(BIN)/python docs/architecture.py

setup: $(FULL)

$(CORE): pyproject.toml constraints.txt $(wildcard locks/*.txt)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python tools/install.py papers,web
	@touch $(CORE)

$(FULL): $(CORE)
	@$(BIN)/python tools/install.py all
	@touch $(FULL)
