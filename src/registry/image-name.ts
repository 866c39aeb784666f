import {OciError} from '../oci/errors.ts';
import {parseReference, type Reference} from '../oci/name.ts';
import {type Route, routeOf} from './namespace.ts';
import type {Registries} from './registries.ts';

/** An image that somebody named. */
export interface NamedImage {
  readonly route: Route;
  readonly reference: Reference;
}

const DEFAULT_TAG = 'latest';

/**
 * Reads an image's name as clients write it: `alpine`, `alpine:3`, `ghcr.io/org/app:1`,
 * `docker.io/library/alpine@sha256:…`. Of a name with a tag and a digest the digest counts, as for every client. A name
 * without a registry belongs to the default one, and a name that begins with a host of ours to that host's registry.
 * @throws OciError NAME_UNKNOWN for a registry that is not configured; NAME_INVALID, MANIFEST_INVALID or DIGEST_INVALID
 */
export function imageNamed(registries: Registries, text: string): NamedImage {
  const [tagged = '', digest, ...rest] = text.split('@');
  if (tagged === '' || rest.length > 0) {
    throw new OciError('NAME_INVALID', {message: `"${text.slice(0, 80)}" is not the name of an image`});
  }
  // A colon before the last slash belongs to a host's port.
  const colon = tagged.indexOf(':', tagged.lastIndexOf('/') + 1);
  const name = colon === -1 ? tagged : tagged.slice(0, colon);
  const reference = digest ?? (colon === -1 ? DEFAULT_TAG : tagged.slice(colon + 1));
  return {route: routeNamed(registries, name), reference: parseReference(reference)};
}

function routeNamed(registries: Registries, name: string): Route {
  const slash = name.indexOf('/');
  const first = name.slice(0, Math.max(0, slash));
  const isOurs = first !== '' && !registries.named(first) && registries.hosted(first) !== undefined;
  return isOurs
    ? routeOf(registries, {name: name.slice(slash + 1), ns: undefined, host: first})
    : routeOf(registries, {name, ns: undefined, host: undefined});
}
