/** The library: a registry proxy inside another program. */

export {ConfigError, type Fault} from './config/fault.ts';
export {type LoadOptions, loadConfig} from './config/load.ts';
export type {Config, CredentialsConfig, RegistryConfig, UpstreamConfig} from './config.ts';
export {type Address, type BackrefServer, createServer, type ServerDeps} from './server.ts';
