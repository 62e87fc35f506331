# The executor's image: one program, what it calls, and no shell. scripts/image
# makes the same image without Docker.
#
# Both Debian stages must be of one release: the program uses the C library of the
# first, and the image carries that of the second.

FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked

FROM debian:bookworm-slim AS root
# In a layer of its own, which a new program leaves as it is.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates git \
    && rm -rf /var/lib/apt/lists/*
COPY scripts/rootfs scripts/copy-programs /scripts/
COPY --from=build /src/target/release/executor /executor
RUN /scripts/rootfs /rootfs /executor

FROM scratch
COPY --from=root /rootfs/ /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# Named by number, so that Kubernetes sees that it is not root.
USER 65532:65532
WORKDIR /
ENTRYPOINT ["/usr/local/bin/executor"]
