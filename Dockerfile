# The image of backref. test/packaging.test.ts runs these steps outside a container, so keep them simple.

FROM node:24-slim AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
# Without install scripts, which would only add another Node.
RUN npm ci --ignore-scripts
COPY tsconfig.json tsconfig.build.json ./
COPY build ./build
COPY src ./src
RUN npm run build
RUN npm prune --omit=dev

FROM node:24-slim
LABEL org.opencontainers.image.title="backref" \
  org.opencontainers.image.description="An OCI registry proxy that pulls through any registry, caches what passes and gives every registry a correct Referrers API" \
  org.opencontainers.image.version="0.1.0" \
  org.opencontainers.image.licenses="Apache-2.0"
ENV NODE_ENV=production
# Everything that is stored is in the volume. A configuration may be mounted as /app/config/backref.yaml.
ENV BACKREF_STORAGE_PATH=/data
ENV BACKREF_LOG_FORMAT=json
# Where V8's compiled code is kept, so that the next start takes half of the time; the rest of the file system may be read-only.
ENV XDG_CACHE_HOME=/data/.cache
WORKDIR /app
COPY LICENSE package.json ./
COPY config ./config
COPY --from=build /app/node_modules ./node_modules
COPY --from=build /app/dist ./dist
# The base image's user "node" by number, from which Kubernetes can tell that it is not root.
RUN mkdir /data && chown 1000:1000 /data
USER 1000:1000
VOLUME /data
EXPOSE 5000
# With the flags of the server, whose compiled code it can use only then.
HEALTHCHECK --interval=30s --timeout=5s --start-period=5s CMD ["node", "--max-semi-space-size=4", "dist/cli/main.js", "health"]
# 4 MiB for short-lived objects instead of up to 64, so that the buffers of streamed bodies are freed sooner.
ENTRYPOINT ["node", "--max-semi-space-size=4", "dist/cli/main.js"]
CMD ["serve"]
