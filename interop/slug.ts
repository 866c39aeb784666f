/** Turns a text into a component of a repository name (dist-spec, Pulling manifests: the grammar of names). */
export const slug = (text: string): string =>
  text
    .toLowerCase()
    .match(/[a-z0-9]+/g)
    ?.join('-') ?? '';
