# Two commands do everything on a fresh machine: `make reproduce` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
WORKERS ?= 2
BIN := .venv/bin
INSTALLED := .venv/.installed
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM = false

.PHONY: setup reproduce test lint mini notebooks backbones lock
.DELETE_ON_ERROR:

reproduce: setup  ## the quick profile from nothing: trains, draws, fills data/runs/quick
	$(BIN)/fedmuscle reproduce --profile quick --force --workers $(WORKERS)

test: setup lint  ## every test, then the committed notebooks under nbval
	$(BIN)/python -m pytest tests
	$(BIN)/python -m pytest --nbval --nbval-current-env --nbval-cell-timeout=600 -W default notebooks

lint: setup
	$(BIN)/ruff check .

mini: setup  ## the numbers of the committed notebooks: computes what data/results lacks
	$(BIN)/fedmuscle reproduce --profile mini --workers $(WORKERS)

notebooks: setup  ## execute the committed notebooks from their .py sources, in place (profile mini)
	$(BIN)/jupytext --to ipynb --update notebooks/*.py
	$(BIN)/jupyter-execute --inplace notebooks/*.ipynb
	$(BIN)/nbstripout --keep-output --keep-count --extra-keys \
	    "cell.metadata.execution cell.metadata.papermill metadata.papermill metadata.language_info" notebooks/*.ipynb

backbones: setup  ## make data/backbones again (an hour and more)
	$(BIN)/python -m fedmuscle_core.pretraining.images
	$(BIN)/python -m fedmuscle_core.pretraining.texts

setup: $(INSTALLED)
	@$(BIN)/python -m fedmuscle_core.commands.doctor

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	    { echo "Python 3.11 is needed: install it, or name it with make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

lock:  ## resolve pyproject.toml anew into requirements.lock and environment.yml (needs uv)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --no-header --no-annotate \
	    | grep -v "python_full_version .*3\.12" > .requirements.lock
	{ sed '/- pip:/q' environment.yml; sed "s/.*/      - \"&\"/" .requirements.lock; echo '      - "-e ."'; } > .environment.yml
	mv .requirements.lock requirements.lock
	mv .environment.yml environment.yml
