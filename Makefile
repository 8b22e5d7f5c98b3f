# make demo   the main job on a shipped person: five drawings, before and after
# make test   every test that this machine can run
# make bench  the native operations beside every peer, about half an hour; FGSBIR_DATA=folder draws ChairV2
# All set up .venv themselves; a second run starts at once.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet
NATIVE := pyproject.toml CMakeLists.txt $(wildcard csrc/* csrc/*/*)

.PHONY: demo test check cpp sanitize races wheel bench clean

demo: $(VENV)/.runtime
	@mkdir -p out
	$(BIN)/python -m fgsbir_edge.adapt --demo --output out/demo_adapter.safetensors --sheet out/demo.png

test: $(VENV)/.development
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

check: $(VENV)/.development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The core without Python: build, C++ tests, install.
cpp: $(VENV)/.development
	$(BIN)/cmake -S . -B build/cpp -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DCMAKE_BUILD_TYPE=Release \
	  -DFGSBIR_BUILD_PYTHON=OFF -DFGSBIR_BUILD_TESTS=ON
	$(BIN)/cmake --build build/cpp
	$(BIN)/ctest --test-dir build/cpp --output-on-failure

# The same tests under AddressSanitizer and UndefinedBehaviorSanitizer.
sanitize: $(VENV)/.development
	$(BIN)/cmake -S . -B build/sanitize -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DCMAKE_BUILD_TYPE=Debug \
	  -DFGSBIR_BUILD_PYTHON=OFF -DFGSBIR_BUILD_TESTS=ON -DFGSBIR_CUDA=OFF -DFGSBIR_SANITIZE=ON
	$(BIN)/cmake --build build/sanitize
	$(BIN)/ctest --test-dir build/sanitize --output-on-failure

# Under ThreadSanitizer: the thread pool, and the CUDA kernels on the emulator, which finds missing barriers in them.
races: $(VENV)/.development
	$(BIN)/cmake -S . -B build/races -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	  -DFGSBIR_BUILD_PYTHON=OFF -DFGSBIR_BUILD_TESTS=ON -DFGSBIR_CUDA=OFF -DFGSBIR_SANITIZE=thread
	$(BIN)/cmake --build build/races
	$(BIN)/ctest --test-dir build/races --output-on-failure

# The wheel, installed alone in an environment of its own, does the main job away from the checkout.
wheel: $(VENV)/.development
	rm -rf dist build/alone
	$(BIN)/python -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir dist .
	$(PYTHON) -m venv build/alone
	build/alone/bin/python -m pip --disable-pip-version-check install --quiet dist/*.whl
	cd build && alone/bin/python -m fgsbir_edge.adapt --demo --json
	cd build && alone/bin/fgsbir-edge doctor

# Peers that cannot be installed are left out and named; pycairo needs libcairo2-dev and pkg-config.
PEERS := opencv-python-headless aggdraw skia-python pycairo
bench: $(VENV)/.development
	@for peer in $(PEERS); do $(PIP) $$peer || echo "$$peer cannot be installed here: left out"; done
	$(BIN)/python -m benchmarks.raster
	$(BIN)/python -m benchmarks.adapt
	$(BIN)/python -m benchmarks.document

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed; make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: $(VENV)/bin/python $(NATIVE)
	$(PIP) -e .
	@touch $@

$(VENV)/.development: $(VENV)/bin/python $(NATIVE)
	$(PIP) -e ".[svg,train,export,test,dev]"
	@touch $@ $(VENV)/.runtime

clean:
	rm -rf $(VENV) build dist out
