const LINK = /<([^>]*)>((?:\s*;\s*[^\s=;,]+\s*(?:=\s*(?:"(?:[^"\\]|\\.)*"|[^\s";,]+))?)*)/g;
const REL = /;\s*rel\s*=\s*(?:"([^"]*)"|([^\s";,]+))/i;

/** The target of the link to the next page in a `Link` field (RFC 8288, section 3), as it is written there. */
export function nextLink(field: string | undefined): string | undefined {
  for (const [, target, params = ''] of (field ?? '').matchAll(LINK)) {
    const rel = REL.exec(params);
    const relations = (rel?.[1] ?? rel?.[2] ?? '').toLowerCase().split(/\s+/);
    if (relations.includes('next')) return target;
  }
  return undefined;
}
