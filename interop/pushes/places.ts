import {join} from 'node:path';
import {SOURCES, serveRegistries} from '../../rig/backref.ts';
import {createGate, type Gate} from '../../rig/gate.ts';
import {buildImage, type Image, pushImage} from '../../rig/image.ts';
import type {Scope} from '../../rig/scope.ts';
import type {UpstreamName} from '../../rig/upstreams.ts';

/** A mode of backref, with or without an upstream. */
export interface PlaceKind {
  name: string;
  push: 'through' | 'local';
  upstream: UpstreamName | undefined;
}

/** In front of a registry without the Referrers API, whose fallback tags are maintained. */
export const THROUGH_TO_TAGS: PlaceKind = {
  name: 'through, in front of docker-registry',
  push: 'through',
  upstream: 'docker-registry',
};

/** In the order of running and showing; olareg has the Referrers API. */
export const PLACES: readonly PlaceKind[] = [
  THROUGH_TO_TAGS,
  {name: 'through, in front of olareg', push: 'through', upstream: 'olareg'},
  {name: 'local, hosted', push: 'local', upstream: undefined},
  {name: 'local, over docker-registry', push: 'local', upstream: 'docker-registry'},
];

/** The content of a repository before the push. */
const BASE = buildImage('source/base', '1', 'oci');

/** The registry behind a backref. */
export interface RegistryBehind {
  name: UpstreamName;
  /** Its own, not that of the gate before it. */
  url: string;
  /** backref's requests pass through this gate. */
  gate: Gate;
}

/** A running backref and its upstream. */
export interface Ground {
  url: string;
  /** `host:port` */
  host: string;
  /** The image in the repository before the push: in the upstream, or, without one, in backref. */
  image: Image;
  /** undefined for a hosted registry */
  behind: RegistryBehind | undefined;
}

export interface GroundOptions {
  /** The repository to push into. */
  repository: string;
  overlay: 'deny' | 'allow';
  /** Of the upstream, `http://host:port`. */
  upstreamUrl(name: UpstreamName): string;
  /** The lifetime of lists of referrers, as in the configuration; its default when missing. */
  referrersTtl?: string;
}

/** Starts a backref of this kind, with an image in the repository. @throws Error when it does not get ready */
export async function startGround(
  scope: Scope,
  {push, upstream}: PlaceKind,
  {repository, overlay, upstreamUrl, referrersTtl}: GroundOptions,
): Promise<Ground> {
  const image = {...BASE, repository};
  const behind = upstream && (await openBehind(scope, upstream, upstreamUrl(upstream)));
  if (behind) await pushImage(behind.url, image);
  const {url, host} = await serveRegistries(scope, {
    main: SOURCES,
    folder: join(scope.folder, 'backref'),
    registries: {
      'registry.example': {
        default: true,
        push,
        ...(behind ? {upstream: {url: behind.gate.url, insecure: true}} : {}),
        ...(behind && push === 'local' ? {overlay: {tags: overlay}} : {}),
        ...(referrersTtl ? {referrers: {ttl: referrersTtl}} : {}),
      },
    },
  });
  if (!behind) await pushImage(url, image);
  return {url, host, image, behind};
}

async function openBehind(scope: Scope, name: UpstreamName, url: string): Promise<RegistryBehind> {
  const gate = await createGate(url);
  scope.defer(gate.stop);
  return {name, url, gate};
}
