# Builds with the classic builder and with BuildKit alike. scripts/image calls it, on any machine.
ARG BUILD_IMAGE=rust:1.95-bookworm
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
ENV CARGO_TERM_COLOR=never
# Dependencies are a layer of their own: it is made again only when the two manifests change. The empty crate is built
# so that they compile, and made older than anything that is copied over it.
COPY Cargo.toml Cargo.lock ./
COPY fixtures/Cargo.toml fixtures/
RUN mkdir -p src \
 && echo 'fn main() {}' >src/main.rs \
 && echo 'fn main() {}' >fixtures/generate.rs \
 && touch src/lib.rs \
 && cargo build --profile dist --locked --bin rekey \
 && rm -rf src target/dist/deps/*rekey* target/dist/.fingerprint/rekey-* target/dist/rekey*
# Secrets cannot leak from a folder that is copied by name: only what the build needs is in the context (.dockerignore).
COPY build.rs ./
COPY migrations migrations
COPY src src
ARG REVISION=
ARG BUILD_DATE=
RUN REKEY_COMMIT=$REVISION REKEY_BUILD_DATE=$BUILD_DATE cargo build --profile dist --locked --bin rekey
# What the runtime image gets, with the folders it goes to.
RUN mkdir -p /out/usr/local/bin /out/usr/local/share/man/man1 \
      /out/usr/local/share/bash-completion/completions /out/usr/local/share/zsh/site-functions \
      /out/usr/local/share/fish/vendor_completions.d \
 && cp target/dist/rekey /out/usr/local/bin/rekey \
 && strip /out/usr/local/bin/rekey \
 && /out/usr/local/bin/rekey man --dir /out/usr/local/share/man/man1 \
 && /out/usr/local/bin/rekey completions bash >/out/usr/local/share/bash-completion/completions/rekey \
 && /out/usr/local/bin/rekey completions zsh >/out/usr/local/share/zsh/site-functions/_rekey \
 && /out/usr/local/bin/rekey completions fish >/out/usr/local/share/fish/vendor_completions.d/rekey.fish

FROM ${RUNTIME_IMAGE}
ARG VERSION=dev
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="rekey" \
      org.opencontainers.image.description="Moves every stored bank credential from one AES-256-GCM key to another, resumably, and proves it" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
COPY --from=build /out /
# Numeric, so that Kubernetes' runAsNonRoot can check it.
USER 65532:65532
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/rekey"]
