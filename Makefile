# make demo: set up .venv, train a small Mask DINO on generated images, evaluate it, draw its predictions.
# make demo-prompts: set up .venv, train a small model of words and clicks on generated scenes, evaluate it on
# combinations of words that training never showed, draw what it finds: 16 minutes of processor time.
# make web: after make demo, write its page for the browser to output/web. It needs onnxruntime-web of npm: 33 MB are
# downloaded once, or give the package that you have, ONNXRUNTIME_WEB=onnxruntime-web-1.30.0.tgz.
# make test: set up .venv with the test extra, run the linter and all tests, of which one checks types (mypy).
# make gpu: set up .venv with the test extra; on a machine with a GPU, run the tests that need one, and write gpu.md, a page
# of its speed. Each takes 10 minutes at most.
# Choose the interpreter with PYTHON=python3.12, the environment's folder with VENV=somewhere.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

ONNXRUNTIME_WEB ?=
# Python compiles the modules that it imports; most of the 16,000 that come with PyTorch are never imported.
PIP_OPTIONS ?= --no-compile

.PHONY: demo demo-prompts gpu test web

demo: $(VENV)/installed
	$(BIN)/python tools/train_net.py --config-file projects/maskdino/configs/maskdino_shapes.py --overwrite

demo-prompts: $(VENV)/installed
	$(BIN)/python tools/train_net.py --config-file projects/promptable/configs/promptable_shapes.py --overwrite
	$(BIN)/python -m detrex eval projects/promptable/configs/promptable_shapes_held_out.py \
		--weights output/promptable_shapes
	$(BIN)/python -m projects.promptable.picture output/promptable_shapes output/promptable_shapes/prompts.png

web: $(VENV)/installed-export
	$(BIN)/python -m detrex export output/maskdino_shapes --to web output/web \
		$(if $(ONNXRUNTIME_WEB),--onnxruntime-web $(ONNXRUNTIME_WEB),--download)

# Three workers for two cores: some tests wait for other processes.
test: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations=30

gpu: $(VENV)/installed-test
	$(BIN)/python -m pytest -n 0 -m gpu
	$(BIN)/python tools/benchmark.py gpu-report --page gpu.md

$(VENV)/installed: EXTRA =
$(VENV)/installed-export: EXTRA = [export]
$(VENV)/installed-test: EXTRA = [test]
$(VENV)/installed $(VENV)/installed-export $(VENV)/installed-test: setup.py pyproject.toml ops/build.py $(wildcard ops/*_cpu.cpp)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_OPTIONS) -e '.$(EXTRA)'
	touch $(VENV)/installed $@
