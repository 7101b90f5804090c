# Every target builds .venv by itself, once.
PYTHON ?= python3
RUN := .venv/bin/python
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo figures calibrate pages claim1 claim2 claim3 across bayes weighing-check families organisms organisms-check analyses docs test test-long quick kills lint bench clean

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 17

setup: $(READY)  ## build .venv with the versions of constraints.txt

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(READY)  ## an additive organism and one that learns nothing, then SmolLM2-135M on four tasks and a null control: 6 minutes
	$(RUN) -m bayes_icl.collect --model organism:coin --n-seqs 32 --out data/curves/controls.nc
	$(RUN) -m bayes_icl.fit --curves data/curves/controls.nc --readout rule --engine fast --no-sensitivity --figures runs/demo/controls
	$(RUN) -m bayes_icl.collect --model organism:constant --n-seqs 32 --out data/curves/controls_constant.nc
	$(RUN) -m bayes_icl.fit --curves data/curves/controls_constant.nc --readout rule --engine fast --no-sensitivity --figures runs/demo/controls_constant
	$(RUN) -m bayes_icl.collect --tasks copy times_ten past_tense category random_labels --n-seqs 32 --out data/curves/demo.nc
	$(RUN) -m bayes_icl.fit --curves data/curves/demo.nc --figures runs/demo/curves --pool
	$(RUN) -m bayes_icl.attribute --curves data/curves/demo.nc --tasks past_tense category --no-ablate --total-steps 0 --figures runs/demo/heads
	$(RUN) -m bayes_icl.report --curves data/curves/demo.nc

figures: $(READY)  ## draw figures/demo anew from data/example.nc, put what was printed into README.md: 2 minutes
	$(RUN) -m bayes_icl.fit --curves data/example.nc --out data/fits/example --figures figures/demo --pool --force
	$(RUN) analyses/fill_readme.py

calibrate: $(READY)  ## simulate known truths, check ranks, coverage and verdicts, at two sizes: about 30 minutes
	$(RUN) -m bayes_icl.calibrate
	$(RUN) -m bayes_icl.calibrate --n-seqs 32 --n-shots 32 --verdict-sims 0 --figures figures/calibration_32x32

pages: $(READY)  ## write docs/verdict.md: the four verdicts on simulated data
	$(RUN) analyses/verdict_page.py

claim1: $(READY)  ## patching, rounds of ablation, backup heads on three tasks; docs/claim1.md: about 25 minutes
	$(RUN) analyses/claim1.py

claim2: $(READY)  ## curves, fits, heads, intervention on three tasks; docs/claim2.md: about 20 minutes
	$(RUN) analyses/claim2.py

claim3: $(READY)  ## the three steps of Skunnavakkam (2024), from the run of claim1; docs/claim3.md: seconds after claim1
	$(RUN) analyses/claim3.py

across: $(READY)  ## all built-in tasks side by side; docs/across_tasks.md: about 20 minutes
	$(RUN) analyses/across_tasks.py

bayes: $(READY)  ## SmolLM2 and organisms on examples that disagree; docs/bayes.md: about 25 minutes
	$(RUN) analyses/bayes.py

weighing-check: $(READY)  ## the second verdict on simulated laws of history: confusion, coverage; data/weighing: about 20 minutes
	$(RUN) analyses/weighing_check.py

families: $(READY)  ## which model families are read: a tiny random model of each; docs/families.md: about 15 minutes
	$(RUN) analyses/families.py

organisms: $(READY)  ## train the small networks whose law is known from their seeds: 790 CPU s, two at a time
	$(RUN) analyses/organisms.py

organisms-check: $(READY)  ## collect, fit, attribute, patch on every organism; figures/organisms/table.csv
	$(RUN) analyses/organisms_check.py

analyses: $(READY)  ## claims 1 to 3 and all tasks side by side, with the minutes each takes; goes on after a stop
	$(RUN) analyses/all.py
	$(RUN) -m bayes_icl.report --curves data/curves/claims.nc

docs: $(READY)  ## the documentation site, docs/_build/html: 40 seconds
	rm -rf docs/_build docs/api
	$(RUN) -m sphinx -E -W --keep-going -q docs docs/_build/html

kills: $(READY)  ## kill every command ten times, let it go on, compare: benchmarks/kills.txt; about 12 minutes
	$(RUN) tests/kills.py

test: $(READY)  ## all tests, those on the real model too: a process a core, 4 at most
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --maxprocesses 4 --dist loadfile

test-long: $(READY)  ## tests of minutes, mostly of NUTS beside the fast engine: benchmarks/long_tests.txt; about 15 minutes
	OMP_NUM_THREADS=1 $(RUN) tests/long.py

quick: $(READY)  ## most tests, while working: without PyMC, the real model and whole commands; less than a minute
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --maxprocesses 4 --dist loadfile -m "not real_model and not sampling and not slow and not long"

lint: $(READY)  ## ruff, mypy, the arrows between packages that must never be, docstrings
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	.venv/bin/lint-imports --no-logo
	$(RUN) -m numpydoc lint $$(git ls-files 'bayes_icl/*.py')

bench: $(READY)  ## what every command and the demo cost, beside the plain way
	$(RUN) benchmarks/demo.py
	$(RUN) benchmarks/collect.py
	$(RUN) benchmarks/fit.py
	$(RUN) benchmarks/attribute.py
	$(RUN) benchmarks/patch.py
	$(RUN) benchmarks/report.py

clean:  ## remove .venv and caches, not data or figures
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
