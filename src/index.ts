/** The library: a registry proxy inside another program, and artifacts attached to manifests anywhere. */

export type {Artifact, ArtifactData, ArtifactManifest} from './artifact/artifact.ts';
export type {ReferrersIndex} from './artifact/list.ts';
export {ArtifactError} from './artifact/target.ts';
export {ConfigError, type Fault} from './config/fault.ts';
export {type LoadOptions, loadConfig} from './config/load.ts';
export type {Config, CredentialsConfig, ListenerConfig, RegistryConfig, UpstreamConfig} from './config.ts';
export type {RegistryChanges} from './current-registries.ts';
export {
  type AttachOptions,
  attach,
  indexReferrers,
  type ListOptions,
  type LocalStore,
  listReferrers,
  type RegistryOptions,
  type Target,
} from './library.ts';
export type {Address} from './listeners.ts';
export {type BlobSource, blobOf} from './oci/blob.ts';
export type {Descriptor} from './oci/descriptor.ts';
export type {Digest} from './oci/digest.ts';
export {OciError} from './oci/errors.ts';
export {type BackrefServer, createServer, type Reloaded, type ServerDeps} from './server.ts';
export {UpstreamFailure} from './upstream/port.ts';
