/** An image as results name it. */
export interface LabelledImage {
  registry: string;
  repository?: string;
  digest?: string;
  tags?: readonly string[];
}

/** Tags that a label shows. */
const MAX_TAGS = 3;

/** `docker.io/library/alpine:3,3.20`; by digest where there is no tag; of a repository or a registry its name. */
export function imageLabel({registry, repository, digest, tags = []}: LabelledImage): string {
  const name = repository === undefined ? registry : `${registry}/${repository}`;
  if (digest === undefined) return name;
  if (tags.length === 0) return `${name}@${digest}`;
  const more = tags.length > MAX_TAGS ? ` and ${tags.length - MAX_TAGS} more` : '';
  return `${name}:${tags.slice(0, MAX_TAGS).join(',')}${more}`;
}
