import type {IncomingHttpHeaders} from 'node:http';

/** What an upstream's rate limit leaves. */
export interface Quota {
  limit: number;
  remaining: number;
  /** Milliseconds in which `limit` requests are allowed, where the upstream says so. */
  window: number | undefined;
}

const ITEM = /^\s*(\d{1,12})\s*(?:;\s*w=(\d{1,9}))?/;

/** Reads `RateLimit-Limit: 100;w=21600` and `RateLimit-Remaining: 76;w=21600`, as Docker Hub sends them, or plain numbers. */
export function parseQuota(headers: IncomingHttpHeaders): Quota | undefined {
  const limit = ITEM.exec(String(headers['ratelimit-limit'] ?? ''));
  const remaining = ITEM.exec(String(headers['ratelimit-remaining'] ?? ''));
  if (!limit || !remaining) return undefined;
  const seconds = limit[2] ?? remaining[2];
  return {
    limit: Number(limit[1]),
    remaining: Number(remaining[1]),
    window: seconds === undefined ? undefined : Number(seconds) * 1000,
  };
}
