# make tour   every system on the bundled data, one report: tour/index.html
# make quick  the same report from less data, in about a minute: tour/quick/index.html
# make fast [BASE=main]   what a change concerns, in about a minute: nearest pages and tests first
# make test   everything that must be green before a commit
# make slow   the tests that take minutes: kills at random points, jobs bigger than memory, all readers damaged
# make bench  speed and memory beside the peers, and the page that shows them
# make lab    JupyterLab on the notebooks
# make notebooks [NB=nbs/srcnn/00_series.ipynb]   run notebooks and keep their outputs
# make release VERSION=0.2.0   the version in every place that names it, the changelog, the export, checked
# make hooks  nbdev's git hooks: notebooks are cleaned on save, merges stay readable
#
# Each step leaves a stamp in .venv/, so what has not changed is not done again. `make -B test` does it all the same.

PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONWARNINGS ?= ignore
export OMP_NUM_THREADS ?= 2

NOTEBOOKS := $(shell find nbs -name '*.ipynb' -not -path '*/.ipynb_checkpoints/*')
MODULES := $(shell find anomaly_nb -name '*.py')
SAMPLES := $(shell find anomaly_nb/samples -type f)
PACKAGING := settings.ini setup.py constraints.txt

.PHONY: tour quick fast test release slow bench lab notebooks hooks clean

tour: tour/index.html
	@echo "The report is in tour/index.html"

quick: .venv/installed
	anomaly_nb_tour --quick --out tour/quick

fast: .venv/installed-dev
	python .ci/in_sync.py
	python .ci/affected.py --run $(if $(BASE),--base $(BASE))

test: .venv/exported .venv/linted .venv/typed .venv/lessons .venv/tested .venv/pages
	@echo "All green."

tour/index.html: .venv/installed $(MODULES) $(SAMPLES)
	anomaly_nb_tour --out tour

.venv/bin/python:
	$(PYTHON) -m venv .venv

# README.md only has to exist for the installation: no prerequisite.
.venv/installed: $(PACKAGING) | .venv/bin/python
	python -m pip install --quiet --constraint constraints.txt --editable '.[all]'
	touch $@

.venv/installed-dev: .venv/installed
	python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

.venv/lowest: $(PACKAGING) constraints-lowest.txt | .venv/bin/python
	$(PYTHON) -m venv .venv/lowest-versions
	.venv/lowest-versions/bin/python -m pip install --quiet --constraint constraints-lowest.txt '.[spectra]' pyarrow pytest hypothesis
	touch $@

.venv/exported: .venv/installed-dev $(NOTEBOOKS) $(MODULES) _quarto.yml .ci/in_sync.py
	python .ci/in_sync.py
	touch $@

.venv/linted: .venv/installed-dev $(NOTEBOOKS) $(MODULES) .ci/ruff.toml tests/*.py benchmarks/*.py .ci/*.py
	ruff check --config .ci/ruff.toml nbs tests benchmarks .ci setup.py
	ruff check --config .ci/ruff.toml --select F401,F811,F841 anomaly_nb
	touch $@

.venv/typed: .venv/installed-dev $(MODULES) .ci/mypy.ini
	mypy --config-file .ci/mypy.ini -p anomaly_nb
	touch $@

.venv/lessons: .venv/installed-dev $(NOTEBOOKS) $(MODULES) $(SAMPLES)
	OMP_NUM_THREADS=1 nbdev_test --n_workers 2 --timing
	touch $@

.venv/tested: .venv/installed-dev $(MODULES) $(SAMPLES) tests/*.py tests/pytest.ini
	OMP_NUM_THREADS=1 pytest -q -n 2 --dist loadfile tests
	touch $@

.venv/pages: .venv/installed-dev $(NOTEBOOKS) $(MODULES) _quarto.yml README.md .ci/pages.py
	python .ci/pages.py --check
	touch $@

slow: .venv/installed-dev .venv/lowest
	pytest -q -m slow tests

bench: .venv/installed-dev
	python benchmarks/run.py
	python .ci/run_notebooks.py --path nbs/guide/benchmarks.ipynb

lab: .venv/installed-dev
	jupyter lab nbs

notebooks: .venv/installed-dev
	nbdev_export
	python .ci/run_notebooks.py $(if $(NB),--path $(NB)) $(if $(FLAGS),--flags "$(FLAGS)")
	python .ci/pages.py --readme

release: .venv/installed-dev
	python .ci/release.py $(VERSION)

hooks: .venv/installed-dev
	nbdev_install_hooks

clean:
	rm -rf .venv build dist tour _docs _proc *.egg-info
