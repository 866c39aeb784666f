const END = '\r\n\r\n';
/** Fields that announce a body, and those after which the connection speaks another protocol. */
const MORE_FOLLOWS = /\n(?:content-length|transfer-encoding|upgrade|expect)[ \t]*:/i;
/** Where a less strict reader would see the end of a line. */
const BARE_LINE_FEED = /[^\r]\n/;

/**
 * Whether bytes that begin where a request begins are exactly one whole request without a body, so that the next one
 * begins right after them. False where that is not certain.
 */
export function isLoneRequest(bytes: Buffer): boolean {
  const text = bytes.toString('latin1');
  if (!text.startsWith('GET ') && !text.startsWith('HEAD ')) return false;
  if (text.indexOf(END) !== text.length - END.length) return false;
  return !MORE_FOLLOWS.test(text) && !BARE_LINE_FEED.test(text);
}
