import {createDigester, type Digest, isDigest} from '../../oci/digest.ts';
import {OCI_INDEX} from '../../oci/media-type.ts';
import {parseName, parseTag, type RepositoryName, type Tag} from '../../oci/name.ts';
import type {BackupContents, BackupManifest} from '../backup-folder.ts';

/*
 * The index.json of a backup: an image index with one descriptor for each tag, and for each manifest without a tag.
 * Image tools find a tag under `registry/name:tag`. What they do not know is in the property `backref`; its digest is that
 * of all lines, so that damage to any of them is noticed.
 */
const REF_NAME = 'org.opencontainers.image.ref.name';
const REGISTRY = 'io.backref.registry';
const REPOSITORY = 'io.backref.repository';
const TAG = 'io.backref.tag';

interface BackupEntry {
  mediaType: string;
  digest: string;
  size: number;
  annotations: Record<string, string>;
}

type Extra = Pick<BackupContents, 'missing' | 'tagChanges'> & {createdAt: string; digest: string};

/** The text of index.json, in pieces. @param at milliseconds since the epoch */
export function* indexText({manifests, missing, tagChanges}: BackupContents, at: number): Generator<string> {
  const digester = createDigester('sha256');
  const note = (value: unknown): string => {
    const text = JSON.stringify(value);
    digester.update(Buffer.from(`${text}\n`));
    return text;
  };
  yield `{"schemaVersion":2,"mediaType":"${OCI_INDEX}","manifests":[`;
  let separator = '\n';
  for (const manifest of manifests) {
    for (const line of linesOf(manifest)) {
      yield `${separator}${note(line)}`;
      separator = ',\n';
    }
  }
  for (const [name, list] of Object.entries({missing, tagChanges})) {
    yield `${name === 'missing' ? '\n],"backref":{' : ','}"${name}":${note(list)}`;
  }
  yield `,"createdAt":"${new Date(at).toISOString()}","digest":"${digester.digest()}"}}\n`;
}

function linesOf({
  repository: {registry, name},
  digest,
  mediaType,
  size,
  tags,
}: BackupManifest): BackupEntry[] {
  const line = (annotations: Record<string, string>): BackupEntry => ({
    mediaType,
    digest,
    size,
    annotations: {...annotations, [REGISTRY]: registry, [REPOSITORY]: name},
  });
  if (tags.length === 0) return [line({})];
  return tags.map((tag) => line({[REF_NAME]: `${registry}/${name}:${tag}`, [TAG]: tag}));
}

/**
 * Reads the text of an index.json.
 * @throws Error that says what is wrong with it
 */
export function parseIndex(text: string): BackupContents {
  const {manifests, backref} = JSON.parse(text) as {manifests?: BackupEntry[]; backref?: Extra};
  if (!Array.isArray(manifests) || typeof backref !== 'object' || backref === null) {
    throw new Error('it is not the index of a backup');
  }
  const {missing, tagChanges, digest} = backref;
  const digester = createDigester('sha256');
  for (const value of [...manifests, missing, tagChanges]) {
    digester.update(Buffer.from(`${JSON.stringify(value)}\n`));
  }
  if (digester.digest() !== digest) throw new Error('its content does not have the digest that it names');
  return {manifests: manifestsOf(manifests), missing, tagChanges};
}

/** The tags of one manifest follow each other. */
function manifestsOf(lines: readonly BackupEntry[]): BackupManifest[] {
  const manifests: (BackupManifest & {tags: Tag[]})[] = [];
  for (const {mediaType, digest, size, annotations} of lines) {
    const repository = {
      registry: annotations[REGISTRY] ?? '',
      name: parseName(annotations[REPOSITORY] ?? ''),
    };
    const tags = annotations[TAG] === undefined ? [] : [parseTag(annotations[TAG])];
    const last = manifests.at(-1);
    if (last && isSame(last, repository, digest)) last.tags.push(...tags);
    else manifests.push({repository, digest: expectDigest(digest), mediaType, size, tags});
  }
  return manifests;
}

const isSame = (
  {repository: {registry, name}, digest}: BackupManifest,
  other: {registry: string; name: RepositoryName},
  otherDigest: string,
): boolean => digest === otherDigest && registry === other.registry && name === other.name;

function expectDigest(text: string): Digest {
  if (isDigest(text)) return text;
  throw new Error(`"${text}" is not a digest`);
}
