# Each line of a target is one Python command, which CONTRIBUTING.md shows for machines without make.
PYTHON ?= python3
PY = .venv/bin/python
# Only files whose hashes are in a lock. uv is quicker than pip. Where it reaches no index (a mirror that only pip is told
# of), pip does.
PIP = $(PY) -m pip install -q --disable-pip-version-check --require-hashes
UV = sed -n '/^uv==/,/\# via/p' requirements-dev.lock | $(PIP) -r /dev/stdin && $(PY) -m uv
INSTALL = $(UV) pip install -q --require-hashes --python $(PY) -r $(1) || $(PIP) -r $(1)
# Packages are compiled when they are first imported, most of them never, and stay so whatever the shell says.
export PYTHONDONTWRITEBYTECODE =
N ?= 2500

.PHONY: run browser test coverage lint data render train evaluate leave-out export bench screenshots tiny sweep lock sbom

# Limits the memory of glibc, as in the Dockerfile.
run: export MALLOC_ARENA_MAX = 2
run: export MALLOC_TRIM_THRESHOLD_ = 131072
run: .venv/.run
	$(PY) -m streamlit run app.py

# What browsers run the model with, served by the app itself; without it they fetch the same from a public CDN. Needs npm.
browser:
	cd assets/browser && sh runtime.sh

test: .venv/.test
	$(PY) -m pytest

# Apart from `test`: where lines are counted, tests of pages take twice as long and trainings three times (Python 3.11).
coverage: .venv/.test
	$(PY) -m pytest --cov

lint: .venv/.test
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m pyrefly check

data: .venv/.test
	$(PY) -m training data

# To learn from, and to measure with.
render: .venv/.test
	$(PY) -m training.render --count $(N) --seed 4 --people --varied
	$(PY) -m training.render --count $(N) --seed 6 --people --signs
	$(PY) -m training.render --count 500 --out data/render/val --seed 2
	$(PY) -m training.render --count 500 --out data/render/tones --seed 2 --tones
	$(PY) -m training.render --count 250 --out data/render/calibration --seed 3

train: .venv/.test
	$(PY) -m training mine
	$(PY) -m training detector fit --config training/configs/detector.yaml
	$(PY) -m training fit --config training/configs/classifier.yaml
	$(PY) -m training prune
	$(PY) -m training calibrate

evaluate: .venv/.test
	$(PY) -m training evaluate
	$(PY) -m training report

leave-out: .venv/.test
	$(PY) -m training leave-out

export: .venv/.test
	$(PY) -m training export --cascade runs/cascade.yaml

# The whole way from pictures to a measured model, with the 300 bundled ones.
tiny: export PATH := $(CURDIR)/.venv/bin:$(PATH)
tiny: .venv/.test
	$(PY) -m dvc repro evaluate@tiny

sweep: .venv/.test
	$(PY) -m training sweep

bench: .venv/.test
	$(PY) -m benchmarks

screenshots: .venv/.test
	$(PY) docs/screenshots.py

# Each requirements file with all that it needs, at the versions that the tests run with, for every system and Python.
lock: .venv/.test
	$(PY) -m uv pip compile -q --python-version 3.11 requirements-dev.txt -o requirements-dev.lock
	$(PY) -m uv pip compile -q --python-version 3.11 requirements.txt -c requirements-dev.lock -o requirements.lock
	$(PY) -m uv pip compile -q --python-version 3.11 requirements-store.txt -c requirements-dev.lock -o requirements-store.lock
	$(PY) -m uv pip compile -q --python-version 3.11 requirements-train.txt -c requirements-dev.lock -o requirements-train.lock

sbom: .venv/.test
	$(PY) -m benchmarks.sbom

# Stamps: a second make installs nothing unless a lock changed since.
$(PY):
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Handful needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv

.venv/.run: requirements.lock | $(PY)
	$(call INSTALL,requirements.lock)
	touch $@

.venv/.test: requirements.lock requirements-dev.lock | $(PY)
	$(call INSTALL,requirements-dev.lock)
	$(PY) benchmarks/chromium.py
	touch .venv/.run $@
