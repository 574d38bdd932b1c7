# Two commands: `make demo` shows what onnxviz does, `make test` checks it. Both make what they need and may be repeated.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Processes that the tests are spread over.
WORKERS ?= 2
DEMO := out/demo
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
TRAIN := lenet5_torch digits_cnn_keras vit_digits_torch signal_cnn_lstm_torch picture_question_torch

# The scripts of a virtual environment name its folder: in a checkout that was moved or copied ours is made anew.
# Only stamps are removed here; an environment that somebody else made has none and is used as it is.
MOVED = test -f $(VENV)/.folder && test "$$(cat $(VENV)/.folder)" != "$(CURDIR)"
$(shell $(MOVED) && rm -f $(VENV)/.installed $(VENV)/.tested)

.PHONY: demo test lint bench models gallery clean check-python

demo: $(VENV)/.installed
	@mkdir -p $(DEMO)
	@$(BIN)/onnxviz report models/lenet5.onnx --input models/samples/digit_3.png -o $(DEMO)/report.html
	@$(BIN)/onnxviz graph models/lenet5.onnx -o $(DEMO)/architecture.svg
	@$(BIN)/onnxviz features models/lenet5.onnx --input models/samples/digit_3.png -o $(DEMO)/feature_maps.png
	@$(BIN)/onnxviz weights models/lenet5.onnx -o $(DEMO)/weights.png
	@echo
	@echo "The demo is in $(CURDIR)/$(DEMO): a LeNet-5, trained on handwritten digits, looks at a 3."
	@echo "Open $(CURDIR)/$(DEMO)/report.html in a browser."

# The processes of the tests share the cores; threads of PyTorch's and numpy's own would only wait for one another.
test: $(VENV)/.tested
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

lint: $(VENV)/.tested
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@rm -rf build/stage && mkdir -p build/stage && cp -r onnxviz build/stage/ && cp -r converters build/stage/onnxviz/converters
	@cd build/stage && PATH="$(CURDIR)/$(BIN):$$PATH" mypy --config-file ../../pyproject.toml -p onnxviz
	@cd build/stage && PATH="$(CURDIR)/$(BIN):$$PATH" lint-imports --config ../../pyproject.toml --no-cache

bench: $(VENV)/.tested
	@$(BIN)/python benchmarks/startup.py

models: $(VENV)/.tested
	@for script in $(TRAIN) make_manifest; do $(BIN)/python models/$$script.py || exit 1; done

gallery: $(VENV)/.tested
	@$(BIN)/python docs/make_gallery.py

clean:
	rm -rf $(VENV) build out

# Nothing to ask of the system's Python where the virtual environment is there already.
check-python:
	@$(BIN)/python -c '' 2>/dev/null && exit 0; \
	if ! command -v "$(PYTHON)" >/dev/null 2>&1; then \
	  echo "onnxviz needs Python 3.11 or newer, and there is no '$(PYTHON)': install it, or name one: make PYTHON=/path/to/python3"; exit 1; fi; \
	if ! "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  echo "onnxviz needs Python 3.11 or newer, and '$(PYTHON)' is $$("$(PYTHON)" --version 2>&1): name another: make PYTHON=python3.11"; exit 1; fi; \
	if ! "$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo "'$(PYTHON)' lacks the venv module: install it (Debian, Ubuntu: apt install python3-venv)"; exit 1; fi

$(VENV)/.installed: pyproject.toml | check-python
	@if $(MOVED); then rm -rf $(VENV); fi
	@$(BIN)/python -c '' 2>/dev/null || { "$(PYTHON)" -m venv $(VENV) && echo "$(CURDIR)" > $(VENV)/.folder; }
	@echo "Installing onnxviz into $(VENV) (the first time takes a minute)…"
	@$(PIP) --editable .
	@touch $@

$(VENV)/.tested: requirements-dev.txt $(VENV)/.installed
	@echo "Installing what the tests need (the first time takes a few minutes)…"
	@$(PIP) --requirement requirements-dev.txt
	@touch $@
