import {isRecord} from '../oci/json.ts';
import {type CommandIo, failed, misused} from './report.ts';

/** The version of the kubelet's API; the names of the fields below are its own. */
const API_VERSION = 'credentialprovider.kubelet.k8s.io/v1';
/** backref takes a JWT as the password of any user. */
const USERNAME = 'service-account';
const MAX_REQUEST_BYTES = 2 ** 20;
/** The kubelet forgets a token so many seconds before it expires, so that the pull that it begins can still log in. */
const MARGIN_S = 60;
/** How long the kubelet remembers a token at most, in seconds. Its own tokens live for an hour. */
const MAX_CACHED_S = 3600;

export interface CredentialProviderFlags {
  /** Print the kubelet's configuration instead of answering it. */
  printConfig?: boolean;
  /** The images that the kubelet is to ask for credentials for. */
  image: readonly string[];
  audience?: string;
}

/** The request, or the command line, is not one that can be answered. */
class RequestFault extends Error {
  override readonly name = 'RequestFault';
}

/**
 * `backref credential-provider`: answers a kubelet's CredentialProviderRequest on stdin with the token of the pod's
 * service account as the password (KEP-4412). With `printConfig`, prints the configuration that the kubelet needs.
 * @param now milliseconds since the epoch
 * @returns the exit code: 1 for a request that cannot be answered, 2 for wrong arguments
 */
export async function credentialProvider(
  flags: CredentialProviderFlags,
  io: CommandIo,
  now = Date.now(),
): Promise<number> {
  if (flags.printConfig) return printConfig(flags, io);
  if (flags.image.length > 0 || flags.audience !== undefined)
    return misused('--image and --audience are for --print-config.', {}, io);
  try {
    const request = parseRequest(await readBounded(io.stdin ?? []));
    io.stdout.write(`${JSON.stringify(answerTo(request, now))}\n`);
    return 0;
  } catch (error) {
    if (error instanceof RequestFault) return failed(error.message, {}, io);
    throw error;
  }
}

async function readBounded(stdin: AsyncIterable<Uint8Array | string> | readonly []): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of stdin) {
    const bytes = Buffer.from(chunk);
    size += bytes.length;
    if (size > MAX_REQUEST_BYTES)
      throw new RequestFault(`The request on stdin is larger than ${MAX_REQUEST_BYTES} bytes.`);
    chunks.push(bytes);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** The first component of an image's name if it is a registry: it has a dot or a port, or is `localhost`. */
const REGISTRY = /^(?=localhost|.*[.:])(?:[\w.-]+|\[[\da-f:]+\])(?::\d{1,5})?$/i;

interface ProviderRequest {
  /** Host and port of the registry. */
  registry: string;
  token: string;
}

/** @throws RequestFault */
function parseRequest(text: string): ProviderRequest {
  const request = parseJson(text);
  if (!isRecord(request))
    throw new RequestFault(
      'stdin is not a JSON object: the kubelet writes a CredentialProviderRequest there. To see what the kubelet needs, run "backref credential-provider --print-config".',
    );
  if (request['kind'] !== 'CredentialProviderRequest' || request['apiVersion'] !== API_VERSION)
    throw new RequestFault(
      `The request is not a CredentialProviderRequest of ${API_VERSION}: set apiVersion: ${API_VERSION} in the kubelet's configuration.`,
    );
  const {image, serviceAccountToken} = request;
  if (typeof image !== 'string') throw new RequestFault('The request names no image.');
  const [registry = '', ...repository] = image.split('/');
  if (repository.length === 0 || !REGISTRY.test(registry))
    throw new RequestFault(`The image ${JSON.stringify(image)} names no registry: write registry/name.`);
  if (typeof serviceAccountToken !== 'string' || serviceAccountToken === '')
    throw new RequestFault(
      'The request has no serviceAccountToken: add tokenAttributes to the kubelet\'s configuration, as "backref credential-provider --print-config" prints it. It takes Kubernetes 1.34 or later, and a pod with a service account.',
    );
  return {registry, token: serviceAccountToken};
}

/** @returns undefined for anything that is not JSON */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The CredentialProviderResponse. @throws RequestFault when the token is not a JWT that is still valid */
function answerTo({registry, token}: ProviderRequest, now: number) {
  const left = expiryOf(token) - Math.floor(now / 1000);
  if (left <= 0) throw new RequestFault(`The token of the service account expired ${-left} s ago.`);
  return {
    apiVersion: API_VERSION,
    kind: 'CredentialProviderResponse',
    cacheKeyType: 'Registry',
    cacheDuration: `${Math.min(MAX_CACHED_S, Math.max(0, left - MARGIN_S))}s`,
    auth: {[registry]: {username: USERNAME, password: token}},
  };
}

/** When a JWT expires, in seconds since the epoch. Who gets the token verifies it. @throws RequestFault */
function expiryOf(token: string): number {
  const parts = token.split('.');
  const claims = parts.length === 3 ? parseJson(Buffer.from(parts[1] ?? '', 'base64url').toString()) : {};
  const expiry = isRecord(claims) ? claims['exp'] : undefined;
  if (typeof expiry !== 'number' || !Number.isFinite(expiry))
    throw new RequestFault('The serviceAccountToken is not a JWT with an expiry.');
  return Math.floor(expiry);
}

/** The part of a `matchImages` pattern that may hold `*`, then its port, then its path. */
const MATCH_IMAGE = /^[a-z\d*-]+(?:\.[a-z\d*-]+)*(?::\d{1,5})?(?:\/[^*?[\]\s]*)?$/i;

function printConfig({image, audience}: CredentialProviderFlags, io: CommandIo): number {
  if (image.length === 0 || audience === undefined || audience === '')
    return misused(
      "--print-config needs --image with backref's host, e.g. --image registry.example, and --audience as in access.issuers.",
      {},
      io,
    );
  const wrong = image.find((pattern) => !MATCH_IMAGE.test(pattern));
  if (wrong !== undefined)
    return misused(
      `--image "${wrong}" matches nothing: the kubelet takes * in the host alone, and a path is the beginning of a name. Write registry.example, *.example:5000 or registry.example/team.`,
      {},
      io,
    );
  io.stdout.write(kubeletConfig(image, audience));
  return 0;
}

/**
 * The kubelet's CredentialProviderConfig. `cacheType: Token`, because what the kubelet gets is the token itself, which
 * lives no longer than its pod.
 */
const kubeletConfig = (images: readonly string[], audience: string): string => `\
# For the kubelet: --image-credential-provider-config=THIS_FILE --image-credential-provider-bin-dir=FOLDER_OF_BACKREF
# It may ask for tokens of this audience once a ClusterRole that is bound to the group system:nodes has the rule
#   {verbs: [request-serviceaccounts-token-audience], apiGroups: [""], resources: [${JSON.stringify(audience)}]}
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
  - name: backref
    apiVersion: ${API_VERSION}
    args: [credential-provider]
    matchImages:
${images.map((pattern) => `      - ${JSON.stringify(pattern)}\n`).join('')}\
    defaultCacheDuration: 0s
    tokenAttributes:
      serviceAccountTokenAudience: ${JSON.stringify(audience)}
      cacheType: Token
      requireServiceAccount: true
`;
