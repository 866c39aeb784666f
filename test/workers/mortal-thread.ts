/* A worker whose thread a test can end. It says its number when it listens, ends when it hears that, and meets a defect when
   it hears it with a minus. */
import {threadId} from 'node:worker_threads';

const channel = new BroadcastChannel('mortal workers');
channel.onmessage = (message) => {
  const {data} = message as MessageEvent;
  if (data === threadId) process.exit(7);
  if (data === -threadId) throw new Error('planted');
};
channel.unref();
await import('../../src/workers/worker-thread.ts');
channel.postMessage({listens: threadId});
