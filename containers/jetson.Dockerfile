# JetPack 6 (Orin) and JetPack 7 (Thor): the wheel with kernels for one GPU, then the package alone. containers/build.sh gives the
# arguments, from images.env. The same image serves to build and to run: TensorRT's Python module is part of it.
ARG BASE_IMAGE
FROM ${BASE_IMAGE} AS build
ARG PYTHON
ARG SM
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ "python${PYTHON}-dev" "python${PYTHON}-venv" \
 && rm -rf /var/lib/apt/lists/*
COPY containers/constraints/python${PYTHON}.txt /opt/constraints.txt
# some base images constrain pip themselves; these are the versions that belong together here
ENV PIP_CONSTRAINT=/opt/constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN "python${PYTHON}" -m venv /opt/build \
 && /opt/build/bin/python -m pip install scikit-build-core pybind11 cmake ninja
WORKDIR /src
COPY pyproject.toml CMakeLists.txt README.md LICENSE ./
COPY cmake cmake
COPY csrc csrc
COPY fgsbir_edge fgsbir_edge
# no GPU is seen while an image is built, so device code must be asked for
ENV PATH=/opt/build/bin:/usr/local/cuda/bin:${PATH} FGSBIR_CUDA=ON CUDAARCHS=${SM}
RUN python -m pip wheel --no-build-isolation --no-deps --wheel-dir /wheels .

FROM ${BASE_IMAGE} AS runtime
ARG PYTHON
RUN apt-get update \
 && apt-get install -y --no-install-recommends "python${PYTHON}-venv" \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --create-home --shell /usr/sbin/nologin fgsbir \
 && install -d -o fgsbir -m 0700 /data /data/galleries /data/engines /data/choices
COPY containers/constraints/python${PYTHON}.txt /opt/constraints.txt
COPY --from=build /wheels /wheels
ENV PIP_CONSTRAINT=/opt/constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# TensorRT is found, not imported: its libraries want the device's own, which are not there yet
RUN "python${PYTHON}" -m venv --system-site-packages /opt/fgsbir \
 && /opt/fgsbir/bin/python -m pip install /wheels/*.whl svgelements \
 && /opt/fgsbir/bin/python -c "from importlib.util import find_spec; assert find_spec('tensorrt'), 'no TensorRT for this Python'" \
 && /opt/fgsbir/bin/python -c "from fgsbir_edge._native import build_info; assert build_info()['cuda'], build_info()" \
 && rm -rf /wheels
ENV PATH=/opt/fgsbir/bin:${PATH} FGSBIR_ENGINES=/data/engines FGSBIR_CHOICES=/data/choices OMP_NUM_THREADS=1
USER 10001
WORKDIR /data/galleries
VOLUME ["/data/galleries", "/data/engines", "/data/choices"]
HEALTHCHECK --interval=60s --timeout=30s --start-period=120s \
  CMD ["python", "-c", "from fgsbir_edge import Engine; Engine.open(backend='onnx-cpu', threads=1).close()"]
ENTRYPOINT ["fgsbir-edge"]
CMD ["doctor"]
