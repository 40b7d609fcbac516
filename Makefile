# make demo: play the shipped clip with the shipped bundle.  make test: all tests.  make check: format, lint, types, contracts.
PYTHON ?= python3
VENV := .venv
DEMO_VENV := .venv-demo
BIN := $(VENV)/bin
TRAIN_DATA ?= imagenet20-64.zip
OUT ?= runs

.PHONY: demo test test-slow check bench soak train-default train-baselines bundle clean

# Only what the device side needs: no torch.
$(DEMO_VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(DEMO_VENV)
	$(DEMO_VENV)/bin/pip install --quiet --disable-pip-version-check -e '.[camera]'
	touch $@

# Everything. torch first and pinned: a looser request brings a CUDA build of several GB.
$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: $(DEMO_VENV)/.ready
	mkdir -p out
	$(DEMO_VENV)/bin/python -m apps.camera --source demo --scenario apps/demo/scenario.toml --show auto \
		--save out/demo.mp4 --telemetry out/telemetry.jsonl

test: $(VENV)/.ready
	$(BIN)/python -m pytest -m "not slow"

# What make test leaves out because it takes many minutes.
test-slow: $(VENV)/.ready
	$(BIN)/python -m pytest -m slow --timeout 1800

check: $(VENV)/.ready
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/check

# Benchmarks on this machine; nothing else should run meanwhile. Results go to benchmarks/results.
bench: $(VENV)/.ready
	$(BIN)/python -m benchmarks.switch_latency
	$(BIN)/python -m benchmarks.pipeline_overhead
	$(BIN)/python -m benchmarks.import_time
	$(BIN)/python -m benchmarks.resident_memory
	$(BIN)/python -m benchmarks.sensor_cost

soak: $(VENV)/.ready
	$(BIN)/python -m benchmarks.soak --minutes 10

# Train the shipped model again, and the baselines of docs/training.md. Resumes where it stopped.
train-default: $(VENV)/.ready
	$(BIN)/python -m zoo train --recipe zoo/recipes/mutualnet-20.toml --data $(TRAIN_DATA) --out $(OUT)/mutualnet-20

train-baselines: $(VENV)/.ready
	for name in usnet-20 single-0.25-20 single-0.5-20 single-0.75-20 single-1.0-20; do \
		$(BIN)/python -m zoo train --recipe zoo/recipes/$$name.toml --data $(TRAIN_DATA) --out $(OUT)/$$name || exit 1; \
	done

bundle: $(VENV)/.ready
	$(BIN)/python -m converters build --checkpoint $(OUT)/mutualnet-20/model.pt --data $(TRAIN_DATA) \
		--out apps/demo/everyday-20.bundle --force

clean:
	rm -rf $(VENV) $(DEMO_VENV) out build dist *.egg-info
