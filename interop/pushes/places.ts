import {join} from 'node:path';
import {SOURCES, serveRegistries} from '../../rig/backref.ts';
import {createGate, type Gate} from '../../rig/gate.ts';
import {buildImage, type Image, pushImage} from '../../rig/image.ts';
import type {Scope} from '../../rig/scope.ts';
import type {UpstreamName} from '../../rig/upstreams.ts';

/** A mode of backref in front of an upstream, or of none. */
export interface PlaceKind {
  name: string;
  push: 'through' | 'local';
  upstream: UpstreamName | undefined;
}

/** In front of a registry without the Referrers API, whose fallback tags are kept up. */
export const THROUGH_TO_TAGS: PlaceKind = {
  name: 'through, before docker-registry',
  push: 'through',
  upstream: 'docker-registry',
};

/** In the order in which they are tried and shown; olareg has the Referrers API. */
export const PLACES: readonly PlaceKind[] = [
  THROUGH_TO_TAGS,
  {name: 'through, before olareg', push: 'through', upstream: 'olareg'},
  {name: 'local, hosted', push: 'local', upstream: undefined},
  {name: 'local, over docker-registry', push: 'local', upstream: 'docker-registry'},
];

/** What a repository has before anything is pushed into it. */
const BASE = buildImage('source/base', '1', 'oci');

/** The registry behind a backref. */
export interface Behind {
  name: UpstreamName;
  /** Its own, not that of the gate before it. */
  url: string;
  /** What backref asks it passes here. */
  gate: Gate;
}

/** A running backref, and what stands behind it. */
export interface Ground {
  url: string;
  /** `host:port` */
  host: string;
  /** In the repository that is pushed into: behind backref, or, where that is nothing, pushed into it. */
  image: Image;
  /** undefined for a hosted registry */
  behind: Behind | undefined;
}

export interface GroundOptions {
  /** To push into. */
  repository: string;
  overlay: 'deny' | 'allow';
  /** Of the upstream, `http://host:port`. */
  upstreamUrl(name: UpstreamName): string;
  /** Of lists of referrers, as the configuration writes it; its default when not given. */
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

async function openBehind(scope: Scope, name: UpstreamName, url: string): Promise<Behind> {
  const gate = await createGate(url);
  scope.defer(gate.stop);
  return {name, url, gate};
}
