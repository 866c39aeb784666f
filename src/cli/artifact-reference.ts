import {isDigest} from '../oci/digest.ts';
import {isRepositoryName, isTag} from '../oci/name.ts';

/** What a command is told to work on. */
export interface ArtifactReference {
  /** As `openTarget` takes it. */
  target: string;
  /** A tag or a digest. */
  reference: string;
}

const SYNTAX = 'write host/name:tag, host/name@digest, oci:path:tag or oci:path@digest';

/**
 * Reads `host/name:tag`, `host/name@digest`, `oci:path:tag` or `oci:path@digest`.
 * @returns the reference, or what is wrong with the text.
 */
export function parseArtifactReference(text: string): ArtifactReference | string {
  const scheme = text.startsWith('oci:') ? 'oci:' : 'docker://';
  const rest = text.startsWith(scheme) ? text.slice(scheme.length) : text;
  const at = rest.lastIndexOf('@');
  const [place, reference] = isDigest(rest.slice(at + 1))
    ? [rest.slice(0, Math.max(at, 0)), rest.slice(at + 1)]
    : splitTag(rest);
  if (place === '' || reference === '') return `"${text}" names no tag and no digest: ${SYNTAX}.`;
  if (scheme === 'oci:') return {target: `oci:${place}`, reference};
  // Of host/name:tag@digest the digest says what is meant.
  const [name] = splitTag(place);
  const repository = name === '' ? place : name;
  const slash = repository.indexOf('/');
  if (!isHost(repository.slice(0, Math.max(slash, 0))) || !isRepositoryName(repository.slice(slash + 1))) {
    return `"${text}" names no repository of a registry: ${SYNTAX}, such as docker.io/library/alpine:3.`;
  }
  return {target: `docker://${repository}`, reference};
}

/** `place:tag` in two; both empty when there is no tag at the end. */
function splitTag(text: string): [string, string] {
  const colon = text.lastIndexOf(':');
  const tag = text.slice(colon + 1);
  return colon > 0 && isTag(tag) ? [text.slice(0, colon), tag] : ['', ''];
}

/** As Docker tells hosts from first path components. */
const isHost = (text: string): boolean => /[.:]/.test(text) || text === 'localhost';
