.DEFAULT_GOAL := help
.PHONY: help demo test check format lock

STAMP := .venv/installed
RUN := .venv/bin

help: ## Show what there is to make
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

$(STAMP): requirements.lock debian-packages.txt pyproject.toml scripts/install
	@scripts/install

demo: $(STAMP) ## Show the whole of it at work on real parts (KEEP=1 keeps logs and the capture)
	@$(RUN)/python -m lab.privilege $(RUN)/python -m demo

test: $(STAMP) ## Run the tests, the ones on real tokens and real tunnels included
	@$(RUN)/python -m lab.privilege $(RUN)/python -m pytest --numprocesses=2 --dist=loadfile

check: $(STAMP) ## Lint, format check, types and import contracts
	@$(RUN)/ruff check .
	@$(RUN)/ruff format --check .
	@$(RUN)/mypy
	@$(RUN)/lint-imports

format: $(STAMP) ## Put the code into the house's form
	@$(RUN)/ruff check --fix .
	@$(RUN)/ruff format .

lock: ## Pin the Python packages anew (needs uv)
	uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --universal \
		--python-version 3.11 --extra develop --upgrade --output-file requirements.lock pyproject.toml
