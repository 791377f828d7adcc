# Two targets set everything up on a fresh machine: `make submission` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
DATA ?= data/raw
DEMO := data/interim/demo-small

.PHONY: submission test test-slow notebooks table transfer circle stories app bundle bench lint clean

submission: .venv/done  ## the main job: on data/raw if it holds a competition, else on a simulated one
	@if ls $(DATA)/de_train.* >/dev/null 2>&1; then \
	  $(BIN)/pertcast submission --data $(DATA) --out submissions; \
	else \
	  echo "No competition files in $(DATA): using SIMULATED data (pertcast demo --size small) and --preset fast."; \
	  test -f $(DEMO)/truth.json || $(BIN)/pertcast demo --size small --out $(DEMO); \
	  $(BIN)/pertcast submission --data $(DEMO) --preset fast --out submissions; \
	fi

test: .venv/done  ## all fast tests, the notebooks and the commands of the README
	$(BIN)/python -m pytest -m "not slow" --nbmake --nbmake-timeout=300 tests notebooks

test-slow: .venv/done  ## sweeps of minutes
	$(BIN)/python -m pytest -m slow

notebooks: .venv/done  ## run every notebook top to bottom on the tiny simulated competition
	$(BIN)/python -m pytest --nbmake --nbmake-timeout=300 notebooks

table: .venv/done  ## reprint the README's picture and tables; with MEASURED=DIR, UNSEEN=DIR, ANNOTATED=DIR, CELLS=FILE those of these data too
	$(BIN)/pertcast demo --size small --out $(DEMO)
	$(BIN)/pertcast submission --data $(DEMO) --preset fast --out data/interim/demo.csv --json > data/interim/demo-table.json
	$(BIN)/python -m pertcast.report.readme README.md demo data/interim/demo-table.json
	cp data/interim/demo.png docs/demo_report.png
ifdef MEASURED
	$(BIN)/pertcast submission --data $(MEASURED) --out data/interim/l1000.csv --json > data/interim/l1000-table.json
	$(BIN)/python -m pertcast.report.readme README.md l1000 data/interim/l1000-table.json
	$(BIN)/pertcast submission --data $(MEASURED) --preset survey --out data/interim/survey.csv --json > data/interim/survey-table.json
	$(BIN)/python -m pertcast.report.readme README.md survey data/interim/survey-table.json
	$(BIN)/pertcast submission --data $(MEASURED) --preset published --out data/interim/published.csv --json > data/interim/published-table.json
	$(BIN)/python -m pertcast.report.readme README.md published data/interim/published-table.json
endif
ifdef ANNOTATED
	$(BIN)/pertcast submission --data $(ANNOTATED) --out data/interim/annotated.csv --json > data/interim/annotated-table.json
	$(BIN)/python -m pertcast.report.readme README.md annotated data/interim/annotated-table.json
endif
ifdef UNSEEN
	$(BIN)/pertcast submission --data $(UNSEEN) --out data/interim/unseen.csv --json > data/interim/unseen-table.json
	$(BIN)/python -m pertcast.report.readme README.md unseen data/interim/unseen-table.json
endif

ifdef CELLS
	$(BIN)/pertcast cells benchmark $(CELLS) --holdout-key cell_type --holdout "CD14 Mono" --holdout B \
	  --holdout "CD4 Naive T" --holdout NK --total-key n_counts_full --out data/interim/cells-benchmark \
	  --models default,floors,quantile-map,film-gan,cycle-gan,zinb-vae --seeds 1
	$(BIN)/python -m pertcast.report.readme README.md cells data/interim/cells-benchmark/benchmark.json
	cp data/interim/cells-benchmark/benchmark.png docs/cells_benchmark.png
endif

transfer: .venv/done  ## reprint the README's table of what transfers, from MEASURED=DIR
	$(BIN)/pertcast transfer --data $(or $(MEASURED),$(error Name the data: make transfer MEASURED=DIR)) --json > data/interim/transfer-table.json
	$(BIN)/python -m pertcast.report.readme README.md transfer data/interim/transfer-table.json

circle: .venv/done  ## SIMULATED cells, their table computed again, models of cells beside others in a blend, its score
	test -f $(DEMO)-cells/truth.json || $(BIN)/pertcast demo --size small --cells --out $(DEMO)-cells
	$(BIN)/pertcast de $(DEMO)-cells/cells.h5ad --design demo --out data/interim/cells-de.parquet
	$(BIN)/pertcast submission --data $(DEMO)-cells --preset cells --out data/interim/cells.csv

stories: .venv/done  ## tell the five stories on simulated cells at their published sizes; the README's picture is one of them
	for name in recover mechanism perturb drug knows; do $(BIN)/pertcast story $$name --out data/interim/stories || exit 1; done
	cp data/interim/stories/perturb.png docs/story_perturb.png

app: .venv/done  ## play with a virtual cell, type compounds, compare runs, in a web browser
	$(BIN)/pertcast app

bundle: .venv/done  ## remake the simulated cells, models and scores that the app shows before anyone names a file
	$(BIN)/python -m pertcast.app.bundle

bench: .venv/done  ## speed and memory, as ratios within one run
	@for file in tests/bench/bench_*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

lint: .venv/done
	$(BIN)/ruff check src tests

.venv/done: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

clean:
	rm -rf .venv build dist data/interim/*
