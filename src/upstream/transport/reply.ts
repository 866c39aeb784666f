import {bareMediaType} from '../../oci/media-type.ts';
import {UpstreamFailure} from '../port.ts';
import {contentLength, header, type Reply, type RequestOptions, whereFrom} from './request.ts';

const HTML_TYPES: ReadonlySet<string> = new Set(['text/html', 'application/xhtml+xml']);

/** What registries name in the answer to a write. Quay sends its answers to writes as text/html. */
const WRITE_HEADERS = ['docker-content-digest', 'docker-upload-uuid', 'location'] as const;

/** A page for people came with status 2xx: a login form or a maintenance notice answered, not the registry. */
export class HtmlAnswer extends UpstreamFailure {
  constructor(host: string, reply: Pick<Reply, 'status' | 'url'>) {
    super(
      'protocol',
      host,
      `answered ${reply.status} with an HTML page${whereFrom(reply, host)}: a login or maintenance page, not a registry's answer`,
    );
  }
}

/**
 * Refuses HTML in the place of a registry's answer, whatever 2xx status it has.
 * @param host the upstream's, for the failure.
 * @throws HtmlAnswer
 */
export function refuseHtml(reply: Reply, method: RequestOptions['method'], host: string): void {
  if (!HTML_TYPES.has(bareMediaType(header(reply.headers, 'content-type')) ?? '')) return;
  const isRead = method === 'GET' || method === 'HEAD';
  if (isRead ? method === 'GET' && reply.status === 204 : answersWrite(reply)) return;
  throw new HtmlAnswer(host, reply);
}

/** An answer without a body, or with what only a registry names, is not a page, whatever its type says. */
const answersWrite = (reply: Reply): boolean =>
  reply.status === 204 ||
  contentLength(reply) === 0 ||
  WRITE_HEADERS.some((name) => reply.headers[name] !== undefined);
