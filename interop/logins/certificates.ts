import {copyFile, mkdir} from 'node:fs/promises';
import {join} from 'node:path';
import type {Scope} from '../../rig/scope.ts';
import type {Toolbox} from '../../rig/tools.ts';

/** Paths of PEM files. */
export interface Certificates {
  /** A certificate authority that no system knows. */
  ca: string;
  /** A server's certificate, signed by it, and its key. */
  cert: string;
  key: string;
}

const EC_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '365'];

/** Makes a private certificate authority and a certificate of it for a server with these names. */
export async function createCertificates(
  scope: Scope,
  tools: Toolbox,
  names: readonly string[],
): Promise<Certificates> {
  const path = (name: string) => join(scope.folder, name);
  const openssl = (...args: string[]) =>
    scope.run(tools.path('openssl'), ['req', '-x509', ...EC_KEY, ...args]);
  const [ca, caKey, cert, key] = [path('ca.crt'), path('ca.key'), path('server.crt'), path('server.key')];
  await openssl('-subj', '/CN=private CA', '-keyout', caKey, '-out', ca);
  const usage = [
    'basicConstraints=critical,CA:FALSE',
    `subjectAltName=${names.map((name) => `DNS:${name}`)}`,
  ];
  const extensions = usage.flatMap((each) => ['-addext', each]);
  const signed = ['-CA', ca, '-CAkey', caKey, '-subj', `/CN=${names[0]}`, ...extensions];
  await openssl(...signed, '-keyout', key, '-out', cert);
  return {ca, cert, key};
}

/** A folder with an authority's certificate, as Podman and skopeo are given it; undefined without one. */
export async function certificateFolder(
  {folder}: Scope,
  ca: string | undefined,
): Promise<string | undefined> {
  if (ca === undefined) return undefined;
  const certificates = join(folder, 'certificates');
  await mkdir(certificates);
  await copyFile(ca, join(certificates, 'ca.crt'));
  return certificates;
}
