import {mkdir, writeFile} from 'node:fs/promises';
import {dirname, join} from 'node:path';
import {ownPort} from '../rig/port.ts';
import {answers, ready, type Scope} from '../rig/scope.ts';
import type {Toolbox} from '../rig/tools.ts';
import {blobPath, manifestPath, type ServedArtifact} from './artifact.ts';
import type {RunningMirror} from './mirrors.ts';

/** Starts nginx over plain files at a registry's paths: a lower bound for a server's cost. @param list of referrers */
export async function startNginx(
  scope: Scope,
  tools: Toolbox,
  artifact: ServedArtifact,
  prefix: readonly string[],
  list?: {path: string; bytes: Buffer},
): Promise<RunningMirror> {
  const root = join(scope.folder, 'files');
  const files = artifact.blobs.map((blob): [string, Buffer] => [blobPath(artifact, blob.digest), blob.bytes]);
  for (const reference of [artifact.tag, artifact.manifest.digest]) {
    files.push([manifestPath(artifact, reference), artifact.manifest.bytes]);
  }
  if (list) files.push([list.path, list.bytes]);
  for (const [path, bytes] of files) {
    await mkdir(dirname(join(root, path)), {recursive: true});
    await writeFile(join(root, path), bytes);
  }

  const port = await ownPort();
  const file = join(scope.folder, 'nginx.conf');
  await writeFile(file, configuration(scope.folder, root, port, artifact.manifest.mediaType));
  const [command = '', ...args] = [
    ...prefix,
    tools.path('nginx'),
    '-c',
    file,
    '-e',
    join(scope.folder, 'error.log'),
  ];
  const started = scope.start(command, args);
  const url = `http://127.0.0.1:${port}`;
  await ready(started, 'nginx', answers(url + manifestPath(artifact, artifact.tag)));
  return {name: 'nginx', url, pid: started.pid};
}

/** `user root`, because its worker's default user may not read the scope's folder. */
const configuration = (folder: string, root: string, port: number, manifestType: string): string => `
daemon off;
${process.getuid?.() === 0 ? 'user root;' : ''}
worker_processes 1;
pid ${folder}/nginx.pid;
worker_rlimit_nofile 16384;
events { worker_connections 8192; }
http {
  access_log off;
  client_body_temp_path ${folder}/body;
  proxy_temp_path ${folder}/proxy;
  fastcgi_temp_path ${folder}/fastcgi;
  uwsgi_temp_path ${folder}/uwsgi;
  scgi_temp_path ${folder}/scgi;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 100000000;
  open_file_cache max=1000;
  default_type application/octet-stream;
  server {
    listen 127.0.0.1:${port};
    root ${root};
    location ~ /manifests/ { default_type ${manifestType}; }
    location ~ /referrers/ { default_type application/vnd.oci.image.index.v1+json; }
  }
}
`;
