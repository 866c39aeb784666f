/** A repository's name component of a text (dist-spec, Pulling manifests: the grammar of names). */
export const slug = (text: string): string =>
  text
    .toLowerCase()
    .match(/[a-z0-9]+/g)
    ?.join('-') ?? '';
