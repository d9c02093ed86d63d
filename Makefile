.DEFAULT_GOAL := help
.PHONY: help demo test matrix soak systemd fuzz bench bench-quick baseline measured bench-timing bench-ending bench-removal bench-stores bench-many \
	check format help-text diagrams lock

STAMP := .venv/installed
DRAWING := .venv/installed-bench
RUN := .venv/bin
# The tests start thousands of short commands: each module is compiled once, not each time.
export PYTHONDONTWRITEBYTECODE =

help: ## Show what there is to make
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

$(STAMP): requirements.lock requirements-build.lock debian-packages.txt debian-unpacked.txt pyproject.toml \
		lab/guest_registers.c scripts/install
	@scripts/install

$(DRAWING): requirements-bench.lock $(STAMP)
	@$(RUN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.lock
	@touch $@

demo: $(STAMP) ## Show the whole of it at work on real parts (KEEP=1 keeps logs and the capture)
	@$(RUN)/python -m lab.privilege $(RUN)/python -m demo

# Files run in their order, for those that take long come first in it.
test: $(STAMP) ## Run the tests, the ones on real tokens and real tunnels included
	@scripts/run-tests --numprocesses=6 --dist=loadfile --no-loadscope-reorder

matrix: $(STAMP) ## Try all modules and write what they do into docs/TOKENS.md
	@CARNET_WRITE_MATRIX=1 $(RUN)/python -m lab.privilege $(RUN)/python -m pytest tests/modules

soak: $(STAMP) ## Run in full what `make test` shortens, in another order every time (half an hour)
	@CARNET_SOAK=1 scripts/run-tests --hypothesis-profile=soak --timeout=7200 \
		tests/fleet tests/exchange tests/host/test_batches.py tests/host/test_plans.py \
		tests/host/test_wrapped_cost.py tests/token/test_stress.py \
		tests/guest/test_strongswan_in_kernel.py

systemd: $(STAMP) ## Run the agents as services of a real systemd, in a guest kernel
	@scripts/run-tests tests/guest/systemd_units.py tests/guest/systemd_lock.py

SECONDS ?= 600

fuzz: $(STAMP) ## Fuzz every decoder, SECONDS=600 in all; corpora and findings are in .fuzz/
	@$(RUN)/python -m tests.fuzz.campaign $(SECONDS)

TABLES ?=

bench: $(DRAWING) ## Measure against the floors; the report is in bench/results (TABLES="host connect")
	@$(RUN)/python -m lab.privilege $(RUN)/python -m bench $(TABLES:%=--table %)

bench-quick: $(DRAWING) ## A little of the same, in minutes
	@$(RUN)/python -m lab.privilege $(RUN)/python -m bench --quick $(TABLES:%=--table %)

baseline: $(STAMP) ## Have runs compared with the report in bench/results as it is now
	@$(RUN)/python -m bench.regression

measured: $(STAMP) ## Put the figures of bench/results into docs/MEASURED.md
	@$(RUN)/python -m bench.page

bench-timing: $(STAMP) ## Measure what refusals tell by their time
	@$(RUN)/python -m bench.timing

bench-ending: TABLES = ending
bench-ending: bench ## Measure how soon a tunnel is down that is revoked

bench-removal: $(STAMP) ## Measure how soon a pulled token is noticed
	@$(RUN)/python -m lab.privilege $(RUN)/python -m bench.removal

bench-stores: $(STAMP) ## Measure a request with 50 pairs and with 100,000, in key store `wrapped`
	@$(RUN)/python -m bench.key_stores

bench-many: TABLES = many
bench-many: bench ## Measure Target with 1,000 sessions, 200 of them live

check: $(STAMP) ## Lint, format check, types, import contracts, and that the diagrams are fresh
	@$(RUN)/ruff check .
	@$(RUN)/ruff format --check .
	@$(RUN)/mypy
	@$(RUN)/lint-imports
	@$(RUN)/python -m tools.diagrams --check

format: $(STAMP) ## Put the code into the house's form
	@$(RUN)/ruff check --fix .
	@$(RUN)/ruff format .

help-text: $(STAMP) ## Write what `carnet --help` tells down anew
	@$(RUN)/python -m tools.help_text

diagrams: $(STAMP) ## Draw the state machines of docs/diagrams.md anew
	@$(RUN)/python -m tools.diagrams

lock: ## Pin the Python packages anew (needs uv)
	printf 'pip>=25.1\nsetuptools>=80\n' | uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header \
		--universal --python-version 3.11 --upgrade --output-file requirements-build.lock -
	uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --universal \
		--python-version 3.11 --extra develop --upgrade --output-file requirements.lock pyproject.toml
	uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --universal \
		--python-version 3.11 --extra bench --constraint requirements.lock --upgrade \
		--output-file requirements-bench.lock pyproject.toml
