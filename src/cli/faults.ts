import type {Events} from '../events.ts';

/**
 * From now on, an error that nothing handles is reported instead of ending the process: it would cut off every client,
 * and one that a client can cause would do so again and again. What is stored stays sound: content is verified before
 * it is published, and the metadata changes by whole commits.
 */
export function surviveFaults(events: Events): void {
  process.on('unhandledRejection', (error) => events.emit('server.fault', {origin: 'promise', error}));
  process.on('uncaughtException', (error) => events.emit('server.fault', {origin: 'exception', error}));
  // When the reader of the log has gone, each line fails; reported, it would be a line again.
  process.stdout.on('error', () => {});
}
