# The image of Lakehouse where there is a network and Docker, Podman or BuildKit; `make image` gives the same without both.
#   docker build --tag lakehouse:0.1.0 .

FROM rust:1.95 AS build
RUN apt-get update && apt-get install --yes --no-install-recommends npm && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# Before the sources, so that a changed source fetches nothing anew.
COPY workers/query/libduckdb.sh workers/query/
ENV DUCKDB_LIB_DIR=/opt/libduckdb
RUN workers/query/libduckdb.sh "$DUCKDB_LIB_DIR"
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/target \
    CARGO_TARGET_DIR=/target cargo build --release --locked --package lakehouse --package lakehouse-operator \
    && mkdir /binaries && cp /target/release/lakehouse /target/release/lakehouse-operator /binaries/
# The same folder that `make image` makes.
RUN image/root.sh /binaries /image

FROM scratch
LABEL org.opencontainers.image.title=lakehouse \
      org.opencontainers.image.version=0.1.0 \
      org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.description="The operator and the workers of Lakehouse"
COPY --from=build /image /
ENV PATH=/ \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
WORKDIR /
USER 65532:65532
CMD ["/lakehouse"]
