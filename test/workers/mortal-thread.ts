/* A worker whose thread a test can end. It says its number when it listens, and ends when it hears that. */
import {threadId} from 'node:worker_threads';

const channel = new BroadcastChannel('mortal workers');
channel.onmessage = (message) => {
  if ((message as MessageEvent).data === threadId) throw new Error('planted');
};
channel.unref();
await import('../../src/workers/worker-thread.ts');
channel.postMessage({listens: threadId});
