# Any x86-64 (or AArch64) machine, no GPU: the wheel, then the package alone. containers/build.sh gives the arguments.
ARG BASE_IMAGE
FROM ${BASE_IMAGE} AS build
ARG PYTHON
ARG SM
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/*
COPY containers/constraints/python${PYTHON}.txt /opt/constraints.txt
ENV PIP_CONSTRAINT=/opt/constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/build \
 && /opt/build/bin/python -m pip install scikit-build-core pybind11 cmake ninja
WORKDIR /src
COPY pyproject.toml CMakeLists.txt README.md LICENSE ./
COPY cmake cmake
COPY csrc csrc
COPY fgsbir_edge fgsbir_edge
ENV PATH=/opt/build/bin:${PATH} FGSBIR_CUDA=OFF
RUN test -z "${SM}" \
 && python -m pip wheel --no-build-isolation --no-deps --wheel-dir /wheels .

FROM ${BASE_IMAGE} AS runtime
ARG PYTHON
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin fgsbir \
 && install -d -o fgsbir -m 0700 /data /data/galleries /data/choices
COPY containers/constraints/python${PYTHON}.txt /opt/constraints.txt
COPY --from=build /wheels /wheels
ENV PIP_CONSTRAINT=/opt/constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/fgsbir \
 && /opt/fgsbir/bin/python -m pip install /wheels/*.whl svgelements \
 && rm -rf /wheels
ENV PATH=/opt/fgsbir/bin:${PATH} FGSBIR_CHOICES=/data/choices OMP_NUM_THREADS=1
USER 10001
WORKDIR /data/galleries
VOLUME ["/data/galleries", "/data/choices"]
HEALTHCHECK --interval=60s --timeout=30s --start-period=30s \
  CMD ["python", "-c", "from fgsbir_edge import Engine; Engine.open(backend='onnx-cpu', threads=1).close()"]
ENTRYPOINT ["fgsbir-edge"]
CMD ["doctor"]
