import LinkHeader from 'http-link-header';

/** A `Link` field that cannot be read, and so does not say whether there is a next page. */
export class UnreadableLink extends Error {
  override readonly name = 'UnreadableLink';

  constructor(field: string, options?: ErrorOptions) {
    super(`sends a Link field that cannot be read: ${field.slice(0, 200)}`, options);
  }
}

/** RFC 9110, section 5.6.2; a parameter's name may end in an asterisk, which is one of these. */
const TOKEN = /^[\w!#$%&'*+.^`|~-]+$/;

/**
 * Finds the target of the link to the next page in a `Link` field (RFC 8288, section 3), as it is written there.
 * @returns undefined when there is no such link
 * @throws UnreadableLink: an unreadable field is not the end of a list
 */
export function nextLink(field: string | undefined): string | undefined {
  const links = parse(field ?? '');
  return links.find(({rel = ''}) => rel.toLowerCase().split(/\s+/).includes('next'))?.uri;
}

interface Reference {
  uri: string;
  rel?: string;
}

function parse(field: string): Reference[] {
  // The library takes a space before a comma for the beginning of a parameter.
  const tight = field.replaceAll(/\s+/g, ' ').replaceAll(/ (?=[,;])/g, '');
  try {
    const links: Reference[] = LinkHeader.parse(tight).refs;
    // It reads past the end of a parameter without a value, and past that of a quoted string without a closing quote.
    // The next page may be in what it has swallowed.
    const names = links.flatMap((link) => Object.keys(link));
    const quotes = tight.match(/(?<!\\)"/g)?.length ?? 0;
    if (names.every((name) => TOKEN.test(name)) && quotes % 2 === 0) return links;
  } catch (error) {
    throw new UnreadableLink(field, {cause: error});
  }
  throw new UnreadableLink(field);
}
