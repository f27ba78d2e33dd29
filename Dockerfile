# Build: docker build -t wholebody .
# Run:   docker run --rm --read-only --tmpfs /tmp -v "$PWD":/data --user "$(id -u):$(id -g)" \
#            wholebody predict photo.jpg --out results
# Debian packages and pip alone. The image is for the CPU: PyTorch's CPU build, 1.5 GB in all.
FROM debian:trixie-slim AS build
RUN apt-get update && apt-get install --yes --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/wholebody
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE /build/
WORKDIR /build
RUN /opt/wholebody/bin/pip install --no-cache-dir --constraint constraints.txt --index-url "$TORCH_INDEX" torch
COPY src /build/src
RUN /opt/wholebody/bin/pip install --no-cache-dir --constraint constraints.txt .
# Compile once here what every first run would wait for: a picture goes through it all.
COPY demo/astronaut.jpg /build/
RUN /opt/wholebody/bin/wholebody predict astronaut.jpg --out /tmp/warm --save overlay && rm -rf /tmp/warm

FROM debian:trixie-slim
RUN apt-get update && apt-get install --yes --no-install-recommends python3 && rm -rf /var/lib/apt/lists/* \
    && useradd --no-create-home --uid 10001 wholebody && mkdir /data && chown wholebody /data
COPY --from=build /opt/wholebody /opt/wholebody
USER wholebody
WORKDIR /data
ENV PATH=/opt/wholebody/bin:$PATH PYTHONDONTWRITEBYTECODE=1
ENTRYPOINT ["wholebody"]
CMD ["--help"]
