#!/usr/bin/env bash
# The package with an AArch64 Python under qemu: Debian's Python for arm64 and the index's wheels for AArch64, unpacked into
# build/aarch64-python, the core cross-compiled into it, and the tests of what runs on a Jetson's processor. Needs no root and
# changes nothing outside build/. Skipped by name where a tool, the packages or the wheels are not to be had.
#
#   tests/aarch64/python.sh VENV [test files]      VENV: the development environment, for cmake, ninja, pybind11 and pip
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=$(cd "$1" && pwd)
shift
skip() {
  echo "aarch64-python: skipped, $*"
  exit 0
}
for tool in aarch64-linux-gnu-g++ qemu-aarch64-static apt-get dpkg; do
  command -v "$tool" >/dev/null || skip "$tool is not installed"
done
work=$PWD/build/aarch64-python
root=$work/root site=$work/site
mkdir -p "$work"/apt/{lists,cache/archives}/partial "$work/start"
: >"$work/apt/status" # nothing is installed in there: apt-get takes everything that Python needs

if [ ! -e "$work/.root" ]; then
  apt=(-qq -oAPT::Architecture=arm64 -oAPT::Architectures=arm64 -oDir::State::Lists="$work/apt/lists" -oDebug::NoLocking=1
    -oDir::Cache="$work/apt/cache" -oDir::State::status="$work/apt/status" -oAPT::Sandbox::User=)
  apt-get "${apt[@]}" update || skip "no package lists for arm64"
  python=$(apt-cache "${apt[@]}" depends python3 | sed -n 's/.*Depends: \(python3\.[0-9]*\)$/\1/p' | head -1)
  [ -n "$python" ] || skip "no Python for arm64 in the package lists"
  apt-get "${apt[@]}" -y --no-install-recommends --download-only install "$python" "lib$python-dev" libstdc++6 libgomp1 >/dev/null ||
    skip "the packages of $python for arm64 cannot be fetched"
  for package in "$work"/apt/cache/archives/*.deb; do dpkg -x "$package" "$root"; done
  touch "$work/.root"
fi
python=$(basename "$(ls -d "$root"/usr/lib/python3.*/ | head -1)") # python3.11
version=${python#python}
[ "$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" = "$version" ] ||
  skip "the development environment is not of Python $version, which Debian has for arm64"

# ONNX Runtime asks these files what the processor is, and fails on those of this machine: a core of an Orin instead.
mkdir -p "$root/proc"
for core in $(seq 0 $(($(nproc --all) - 1))); do
  printf 'processor\t: %d\nFeatures\t: fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp\n' "$core"
  printf 'CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd42\nCPU revision\t: 1\n\n'
done >"$root/proc/cpuinfo"

if [ ! -e "$work/.site" ]; then
  platforms=()
  for glibc in 28 27 26 17; do platforms+=(--platform "manylinux_2_${glibc}_aarch64"); done
  "$venv/bin/python" -m pip --disable-pip-version-check install --quiet --target "$site" --only-binary=:all: --implementation cp \
    --python-version "$version" --abi "cp${version/./}" --abi abi3 --abi none "${platforms[@]}" --platform manylinux2014_aarch64 \
    numpy onnxruntime pillow safetensors tqdm onnx pytest hypothesis scipy faiss-cpu svgelements ||
    skip "not all wheels for AArch64 are to be had"
  "$venv/bin/python" -m pip --disable-pip-version-check install --quiet --target "$work/tools" pybind11
  touch "$work/.site"
fi

"$venv/bin/cmake" -S . -B "$work/native" -G Ninja -DCMAKE_MAKE_PROGRAM="$venv/bin/ninja" -DCMAKE_BUILD_TYPE=Release \
  -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
  -DCMAKE_CXX_FLAGS="-isystem $root/usr/include" -DFGSBIR_BUILD_PYTHON=ON -DFGSBIR_CUDA=OFF \
  -Dpybind11_DIR="$(PYTHONPATH="$work/tools" "$venv/bin/python" -m pybind11 --cmakedir)" -DPYBIND11_USE_CROSSCOMPILING=ON \
  -DPython_INCLUDE_DIR="$root/usr/include/$python" -DPython_LIBRARY="$root/usr/lib/aarch64-linux-gnu/lib$python.so" \
  -DPYTHON_MODULE_EXTENSION=".cpython-${version/./}-aarch64-linux-gnu.so" >"$work/cmake.log" || { cat "$work/cmake.log"; exit 1; }
"$venv/bin/cmake" --build "$work/native" --target _native

# A copy of the package, so that the checkout's own extension is not in the way; Python starts itself through qemu too.
rm -rf "$work/checkout"
mkdir "$work/checkout"
cp -r fgsbir_edge tests pyproject.toml "$work/checkout"
rm -f "$work"/checkout/fgsbir_edge/_native*.so
cp "$work/native"/_native*-aarch64-linux-gnu.so "$work/checkout/fgsbir_edge/"
printf '#!/bin/sh\nexec qemu-aarch64-static -L "%s" "%s" "$@"\n' "$root" "$root/usr/bin/$python" >"$work/python"
chmod +x "$work/python"
printf 'import os\nimport sys\n\nsys.executable = os.environ["FGSBIR_PYTHON"]\n' >"$work/start/sitecustomize.py"
export FGSBIR_PYTHON=$work/python PYTHONPATH=$work/checkout:$site:$work/start OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
if [ $# = 0 ]; then
  set -- tests/test_{raster,raster_forms,adapt,adapt_native,adapt_table,head,sketch,photo,encoder,encoder_device,engine,search}.py
fi
cd "$work/checkout"
"$work/python" -c 'import platform, fgsbir_edge._native as n; print("aarch64-python:", platform.machine(), n.build_info())'
"$work/python" -m pytest -q -p no:cacheprovider -p tests.aarch64.patience "$@"
echo "aarch64-python: passed"
