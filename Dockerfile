# textgan_env in a container, which opens the live page of a small run when nothing else is asked for: docs/container.md.
# The variant is decided by where PyTorch comes from: the usual index has its CUDA build, and --build-arg
# PIP_EXTRA_INDEX_URL=... gives the address of the CPU builds, a fraction of the size, as PyTorch's install page says it.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ARG EXTRAS=demo,music,sb3,tb,wordnet
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_CACHE_DIR=/var/cache/pip PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
RUN python -m venv /opt/textgan
# Everything but the project itself, of which an empty copy is installed: this layer is large, and changes only when the
# requirements do.
COPY setup.cfg pyproject.toml constraints.txt LICENSE ./
RUN --mount=type=cache,target=/var/cache/pip \
    mkdir -p agents $(sed -n 's#^    textgan_env[.]\([a-z]*\)$#textgan_env/\1#p' setup.cfg) \
    && touch README.md agents/__init__.py textgan_env/py.typed \
    && echo '__version__ = "0"' > textgan_env/__init__.py \
    && /opt/textgan/bin/python -m pip install -c constraints.txt ".[${EXTRAS}]" \
    && /opt/textgan/bin/python -m pip uninstall --yes textgan-env \
    && rm -rf build ./*.egg-info
COPY README.md ./
COPY agents agents
COPY textgan_env textgan_env
RUN --mount=type=cache,target=/var/cache/pip \
    /opt/textgan/bin/python -m pip wheel --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim
RUN useradd --create-home --uid 1000 textgan
COPY --from=build /opt/textgan /opt/textgan
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    /opt/textgan/bin/python -m pip install --no-cache-dir --no-deps --no-index /wheels/*.whl
ENV PATH="/opt/textgan/bin:${PATH}" PYTHONUNBUFFERED=1
USER 1000
WORKDIR /home/textgan
# Something to play with at once: maximum likelihood on definitions, minutes on two cores.
RUN textgan train mle --task wordnet-glosses --epochs 10 --temperature 0.6
EXPOSE 7860
# `docker stop` is Ctrl-C, after which files are whole and runs can be gone on with.
STOPSIGNAL SIGINT
ENTRYPOINT ["textgan"]
# Inside a container 127.0.0.1 cannot be reached from outside.
CMD ["play", "--host", "0.0.0.0"]
