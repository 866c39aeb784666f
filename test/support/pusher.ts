import type {Backref, ProxyAnswer} from './backref.ts';
import type {Content, ManifestContent} from './content.ts';

/** Pushes to one repository of a server as clients do. */
export interface Pusher {
  /** The whole blob in one request. */
  blob(content: Content): Promise<ProxyAnswer>;
  /** By its digest, or by a tag. `query` begins with `?`. */
  manifest(content: ManifestContent, reference?: string, query?: string): Promise<ProxyAnswer>;
  /** The blobs, then the manifest; throws unless all is taken. */
  image(content: ManifestContent, blobs: readonly Content[], reference?: string): Promise<void>;
  get(path: string): Promise<ProxyAnswer>;
  head(path: string): Promise<ProxyAnswer>;
  delete(path: string): Promise<ProxyAnswer>;
}

/** @param name as a client writes it. */
export function pusherTo({ask}: Backref, name: string): Pusher {
  const at = (path: string) => `/v2/${name}/${path}`;
  const pusher: Pusher = {
    blob: ({bytes, digest}) =>
      ask(at(`blobs/uploads/?digest=${digest}`), {
        method: 'POST',
        headers: {'Content-Type': 'application/octet-stream', 'Content-Length': bytes.length},
        body: bytes,
      }),
    manifest: ({bytes, digest, mediaType}, reference = digest, query = '') =>
      ask(at(`manifests/${reference}${query}`), {
        method: 'PUT',
        headers: {'Content-Type': mediaType, 'Content-Length': bytes.length},
        body: bytes,
      }),
    async image(content, blobs, reference) {
      for (const blob of blobs) expectTaken(await pusher.blob(blob));
      expectTaken(await pusher.manifest(content, reference));
    },
    get: (path) => ask(at(path)),
    head: (path) => ask(at(path), {method: 'HEAD'}),
    delete: (path) => ask(at(path), {method: 'DELETE'}),
  };
  return pusher;
}

function expectTaken({status, body}: ProxyAnswer): void {
  if (status !== 201) throw new Error(`what was pushed was answered with ${status}: ${body}`);
}

/** The code and message of an error's body. */
export function errorOf({json}: ProxyAnswer): {
  code: string;
  message: string;
  detail?: Record<string, unknown>;
} {
  const {errors} = json() as {errors: [{code: string; message: string; detail?: Record<string, unknown>}]};
  return errors[0];
}
