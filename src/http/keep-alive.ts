/**
 * How long a connection without requests stays open: longer than a proxy in front keeps it for reuse, or a request that
 * it sends just then fails (nginx and AWS's load balancers: 60 s).
 */
export const IDLE_TIMEOUT_MS = 75_000;

/** What a client is told of it, in the `Keep-Alive` field. */
export const KEEP_ALIVE = `timeout=${IDLE_TIMEOUT_MS / 1000}`;
