import type {Caller} from '../../caller.ts';
import type {Digest} from '../../oci/digest.ts';
import type {Route} from '../namespace.ts';
import type {Source} from './download.ts';

/** The registry's upstream, as what a blob is downloaded from. */
export const blobSource = ({registry, repository}: Route, digest: Digest, caller: Caller): Source => ({
  host: registry.upstream.host,
  open: (demand, range) => registry.upstream.getBlob(repository.name, digest, caller, range, demand),
  stream: (range) => registry.upstream.streamBlob(repository.name, digest, caller, range),
});
