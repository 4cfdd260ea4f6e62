# Each target sets up what it needs in .venv, from Python 3.11+, pip and make alone.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
MO     := $(patsubst %.po,%.mo,$(wildcard src/fullconv/core/locale/*/LC_MESSAGES/fullconv.po))

.PHONY: install translations demo test test-fast explore lint format docs bench clean

install: translations   ## the command line, in .venv

translations: $(READY) $(MO)  ## the message catalogs

demo: translations      ## train and evaluate on synthetic street scenes
	$(BIN)/fullconv demo --out demo

test: translations      ## every test, with one process per core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

test-fast: translations ## the tests that take less than five seconds each
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile -m "not slow"

explore: translations      ## the properties again, on examples that no run has seen
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile -m hypothesis --hypothesis-profile explore

lint: translations      ## style, format, types, the order of imports, words, translations
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_words.py
	$(BIN)/python tools/check_translations.py

format: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(READY)          ## the documentation as a site: build/site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

bench: $(READY)         ## what benchmarks/README.md describes; needs FULLCONV_SHARED
	for name in offsets speed memory peers data bootstrap classifiers tiles many serve plot; do $(BIN)/python benchmarks/$$name.py || exit 1; done

%.mo: %.po | $(READY)
	$(BIN)/python setup.py --quiet build_py --build-lib build/lib

$(READY): pyproject.toml setup.py constraints.txt $(wildcard src/fullconv/network/kernels/compiled/*)
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Fullconv needs Python 3.11 or newer; try: make PYTHON=python3.12')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev --editable .
	touch $(READY)

clean:
	rm -rf $(VENV) demo build dist src/*.egg-info
