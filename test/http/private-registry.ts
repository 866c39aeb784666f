import {type Backref, type BackrefOptions, type ProxyAnswer, startBackref} from '../support/backref.ts';
import {
  type Content,
  contentOf,
  headAnswer,
  type ManifestContent,
  manifestAnswer,
} from '../support/content.ts';
import {
  createScriptedUpstream,
  type ReceivedRequest,
  type ScriptedAnswer,
  type ScriptedUpstream,
} from '../support/scripted-upstream.ts';
import type {Lifetime} from '../support/shared.ts';

/** What one repository of a private registry has. */
export interface PrivateRepository {
  /** Who may pull from it; `anonymous` is everybody. */
  readers: string[];
  tags: Record<string, ManifestContent>;
  manifests: ManifestContent[];
  blobs: Content[];
  /** Who may push to it and delete from it, of those who may pull; default nobody. */
  writers?: string[];
  /** By subject; undefined for a registry without the Referrers API. */
  referrers?: Record<string, object[]>;
}

export interface PrivateRegistryOptions {
  /** Passwords by user. */
  users: Record<string, string>;
  repositories: Record<string, PrivateRepository>;
  /** How clients log in; default `bearer`, with a token service of its own. */
  scheme?: 'bearer' | 'basic';
  /** What it says to those who may not pull; default `denied`. Many registries hide a repository instead. */
  refusal?: 'denied' | 'hidden';
  /** Of the token service; default its own host. */
  realm?: string;
  /** Comes first: an answer of this function is sent as it is. */
  before?: (request: ReceivedRequest) => ScriptedAnswer | undefined;
}

export interface PrivateRegistry extends ScriptedUpstream {
  readonly options: PrivateRegistryOptions;
  /** Answers everything with 503 from now on, or no longer. */
  fail(isFailing: boolean): void;
  /** The requests from now on, as `METHOD path`. */
  since(count: number): string[];
}

const userIn = (authorization: string | undefined, users: Record<string, string>): string | undefined => {
  const [, text = ''] = /^Basic (.+)$/.exec(authorization ?? '') ?? [];
  const [name = '', password] = Buffer.from(text, 'base64').toString().split(':');
  return users[name] !== undefined && users[name] === password ? name : undefined;
};

/** A registry that knows its users, and what each may pull. */
export async function createPrivateRegistry(
  t: Lifetime,
  options: PrivateRegistryOptions,
): Promise<PrivateRegistry> {
  let isFailing = false;
  const answer = (request: ReceivedRequest): ScriptedAnswer => {
    if (isFailing) return {status: 503};
    return options.before?.(request) ?? answerOf(request, options, upstream.host);
  };
  const upstream = await createScriptedUpstream(t, [{request: /./, answer, times: Infinity, optional: true}]);
  return {
    ...upstream,
    options,
    fail(failing) {
      isFailing = failing;
    },
    since: (count) => upstream.requests.slice(count).map(({method, url}) => `${method} ${url}`),
  };
}

function answerOf(request: ReceivedRequest, options: PrivateRegistryOptions, host: string): ScriptedAnswer {
  const {
    users,
    repositories,
    scheme = 'bearer',
    refusal = 'denied',
    realm = `http://${host}/token`,
  } = options;
  const {authorization} = request.headers;
  if (request.url.startsWith('/token')) {
    const user = authorization === undefined ? 'anonymous' : userIn(authorization, users);
    if (user === undefined) return {status: 401};
    return {body: JSON.stringify({token: `of-${user}`, expires_in: 300})};
  }
  const challenge =
    scheme === 'basic' ? 'Basic realm="private"' : `Bearer realm="${realm}",service="private"`;
  const refused = {status: 401, headers: {'www-authenticate': challenge}};
  const user =
    scheme === 'basic' ? userIn(authorization, users) : /^Bearer of-(.+)$/.exec(authorization ?? '')?.[1];
  if (request.url === '/v2/') return user === undefined ? refused : {body: '{}'};
  const [, name = '', rest = ''] =
    /^\/v2\/(.+?)\/((?:manifests|blobs|tags|referrers)\/.+)$/.exec(request.url) ?? [];
  const repository = repositories[name];
  const isReader = repository?.readers.some((reader) => reader === user || reader === 'anonymous');
  const isWriter = isReader && user !== undefined && repository?.writers?.includes(user);
  if (repository && isWriter && !['GET', 'HEAD'].includes(request.method))
    return writeAnswer(request, rest, repository, {name, sources: readable(options, user)});
  if (repository && isReader && ['GET', 'HEAD'].includes(request.method))
    return contentAnswer(request.method, rest, repository, name);
  if (user === undefined || (user === 'anonymous' && refusal === 'denied')) return refused;
  if (repository && refusal === 'denied') return {status: 403, body: '{"errors":[{"code":"DENIED"}]}'};
  return {status: 404, body: '{"errors":[{"code":"NAME_UNKNOWN"}]}'};
}

/** The repositories that somebody may mount from. */
const readable = ({repositories}: PrivateRegistryOptions, user: string): Record<string, PrivateRepository> =>
  Object.fromEntries(Object.entries(repositories).filter(([, {readers}]) => readers.includes(user)));

function writeAnswer(
  {method, url, body, headers}: ReceivedRequest,
  path: string,
  repository: PrivateRepository,
  {name, sources}: {name: string; sources: Record<string, PrivateRepository>},
): ScriptedAnswer {
  const query = new URL(url, 'http://registry').searchParams;
  const [kind, reference = ''] = path.split('?', 1)[0]?.split('/') ?? [];
  if (method === 'DELETE') {
    const remove = <T extends Content>(list: T[]) => list.filter(({digest}) => digest !== reference);
    repository.manifests = remove(repository.manifests);
    repository.blobs = remove(repository.blobs);
    return {status: 202};
  }
  if (kind === 'manifests') {
    const manifest = {...contentOf(body), mediaType: String(headers['content-type'])};
    if (reference.startsWith('sha256:')) repository.manifests.push(manifest);
    else repository.tags[reference] = manifest;
    return {status: 201};
  }
  if (method === 'POST') {
    const wanted = query.get('mount');
    const mounted = sources[query.get('from') ?? '']?.blobs.find(({digest}) => digest === wanted);
    if (!mounted) return {status: 202, headers: {location: `/v2/${name}/blobs/uploads/1`, range: '0-0'}};
    repository.blobs.push(mounted);
    return {status: 201, headers: {location: `/v2/${name}/blobs/${wanted}`}};
  }
  repository.blobs.push(contentOf(body));
  return {status: 201, headers: {'docker-content-digest': String(query.get('digest'))}};
}

function contentAnswer(
  method: string,
  path: string,
  {tags, manifests, blobs, referrers}: PrivateRepository,
  name: string,
): ScriptedAnswer {
  const [kind = '', reference = ''] = path.split('?', 1)[0]?.split('/') ?? [];
  const json = (body: object, type = 'application/json') => ({
    headers: {'content-type': type},
    body: JSON.stringify(body),
  });
  if (kind === 'tags') return json({name, tags: Object.keys(tags)});
  if (kind === 'referrers') {
    if (!referrers) return {status: 404, body: '404 page not found'};
    const index = {schemaVersion: 2, mediaType: INDEX, manifests: referrers[reference] ?? []};
    return json(index, INDEX);
  }
  if (kind === 'manifests') {
    const found =
      tags[reference] ?? [...manifests, ...Object.values(tags)].find(({digest}) => digest === reference);
    if (!found) return {status: 404, body: '{"errors":[{"code":"MANIFEST_UNKNOWN"}]}'};
    return method === 'HEAD' ? headAnswer(found) : manifestAnswer(found);
  }
  const blob = blobs.find(({digest}) => digest === reference);
  if (!blob) return {status: 404, body: '{"errors":[{"code":"BLOB_UNKNOWN"}]}'};
  const headers = {'content-type': 'application/octet-stream', 'content-length': String(blob.bytes.length)};
  return {headers, body: method === 'HEAD' ? [] : blob.bytes};
}

const INDEX = 'application/vnd.oci.image.index.v1+json';

/** The host at which logins are for the private registry. */
const OWN_HOST = 'private.mirror.test';

export const basic = (username: string, password: string): string =>
  `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;

export interface PassthroughServer extends Backref {
  /** Asks for a path as somebody who sends this with the request; at `OWN_HOST`, unless the headers name another. */
  as(
    authorization: string | undefined,
    path: string,
    more?: {method?: string; headers?: Record<string, string>; body?: Buffer | string},
  ): Promise<ProxyAnswer>;
  /** Gets a token as clients do: from where the challenge of this path leads. */
  login(authorization: string, path: string): Promise<ProxyAnswer>;
}

/** A server in front of a private registry, `private.example`, which is asked with the callers' own logins. */
export async function startPassthrough(
  t: Lifetime,
  upstream: Pick<PrivateRegistry, 'url'>,
  {registries = [], ...options}: Partial<BackrefOptions> = {},
  changes: BackrefOptions['registries'][number] = {},
): Promise<PassthroughServer> {
  const server = await startBackref(t, {
    ...options,
    registries: [
      {
        name: 'private.example',
        library: false,
        hosts: [OWN_HOST],
        url: upstream.url,
        ...changes,
        upstream: {credentials: {kind: 'passthrough'}, ...changes.upstream},
        tags: {keepDeleted: 0, ...changes.tags},
      },
      ...registries,
    ],
  });
  const as: PassthroughServer['as'] = (authorization, path, {headers, ...more} = {}) =>
    server.ask(path, {
      ...more,
      headers: {host: OWN_HOST, ...(authorization === undefined ? {} : {authorization}), ...headers},
    });
  return {
    ...server,
    as,
    async login(authorization, path) {
      const {headers} = await as(undefined, path);
      const challenge = String(headers['www-authenticate']);
      const parameter = (name: string) => new RegExp(`${name}="([^"]*)"`).exec(challenge)?.[1] ?? '';
      const query = new URLSearchParams({service: parameter('service')});
      if (parameter('scope') !== '') query.append('scope', parameter('scope'));
      return as(authorization, `${new URL(parameter('realm')).pathname}?${query}`);
    },
  };
}
