import type {FileRequest, FileRun} from '../http/file-runs.ts';
import type {ToWorker} from './messages.ts';
import type {Post} from './relayed-connection.ts';

/** The answers that a worker gives from files, each of which the owner counts and reports from its begin to its end. */
export interface RemoteRuns {
  /** As of `FileRuns`, once the owner has decided. */
  begin(request: FileRequest): Promise<FileRun | undefined>;
  /** The owner has decided. */
  decided(decision: Extract<ToWorker, {type: 'begun'}>): void;
}

export function createRemoteRuns(post: Post): RemoteRuns {
  const asked = new Map<number, (run: FileRun | undefined) => void>();
  let last = 0;
  return {
    begin(request) {
      const {promise, resolve} = Promise.withResolvers<FileRun | undefined>();
      last += 1;
      asked.set(last, resolve);
      post({type: 'begin', run: last, request});
      return promise;
    },
    decided({run, id}) {
      const resolve = asked.get(run);
      asked.delete(run);
      resolve?.(id === undefined ? undefined : {id, end: (end) => post({type: 'end', run, end})});
    },
  };
}
