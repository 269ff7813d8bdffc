# docker build .                                    for CPUs
# docker build --build-arg ACCELERATOR=cuda .       for NVIDIA cards
ARG ACCELERATOR=cpu

FROM ubuntu:24.04 AS build-cpu
ENV CMAKE_ARGS=""

FROM nvidia/cuda:12.6.3-devel-ubuntu24.04 AS build-cuda
ENV CMAKE_ARGS="-DGGML_CUDA=on"
# The driver's library comes from the host at run time; a build is content with its stub.
RUN ln -s libcuda.so /usr/local/cuda/lib64/stubs/libcuda.so.1
ENV LIBRARY_PATH=/usr/local/cuda/lib64/stubs LD_LIBRARY_PATH=/usr/local/cuda/lib64:/usr/local/cuda/lib64/stubs

FROM build-${ACCELERATOR} AS builder
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ git make python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/gemma
WORKDIR /build
# llama.cpp first: it takes minutes and changes least.
COPY constraints.txt ./
COPY tools/install_llama.py tools/
COPY tools/llama tools/llama/
RUN /opt/gemma/bin/python tools/install_llama.py --portable
COPY requirements.txt ./
RUN /opt/gemma/bin/python -m pip install --no-cache-dir --disable-pip-version-check -r requirements.txt

FROM ubuntu:24.04 AS run-cpu

FROM nvidia/cuda:12.6.3-runtime-ubuntu24.04 AS run-cuda

FROM run-${ACCELERATOR}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/gemma gemma \
    && install --directory --owner gemma --mode 700 /var/lib/gemma
COPY --from=builder /opt/gemma /opt/gemma
WORKDIR /app
COPY manage.py pyproject.toml ./
COPY gemma_project gemma_project/
COPY inference inference/
COPY chat chat/
COPY compat compat/
ENV PATH=/opt/gemma/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    GEMMA_DATA_DIR=/var/lib/gemma \
    GEMMA_HOST=0.0.0.0
USER gemma
VOLUME /var/lib/gemma
EXPOSE 8001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=6s --start-period=120s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8001/health', timeout=5)"]
CMD ["python", "manage.py", "serve"]
