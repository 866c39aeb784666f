import type {Readiness} from '../registry/readiness.ts';
import {ALWAYS_THE_SAME} from '../registry/repeat.ts';
import type {Answer, Handler} from './answer.ts';

/** Figures for a monitoring system. */
export interface MetricsSource {
  readonly contentType: string;
  text(): Promise<string>;
}

/** dist-spec, end-1. */
export const ping: Handler<undefined> = () => ({
  status: 200,
  headers: {'Docker-Distribution-API-Version': 'registry/2.0', 'Content-Type': 'application/json'},
  body: Buffer.from('{}'),
  repeat: ALWAYS_THE_SAME,
});

/** Whether a request asks how this server is, which a server that is too busy for anything else still answers. */
export const isProbe = ({url = ''}: {url?: string | undefined}): boolean =>
  /^\/(?:healthz|readyz|metrics)(?:\?|$)/.test(url);

/** `GET /healthz`: this process answers. It need not be restarted, whatever its disks do. */
export const getHealth: Handler<undefined> = () => probeAnswer(200, {status: 'alive'});

/**
 * `GET /readyz`: 200 when requests can be served from the store, else 503 with the problems. Either says how many of the
 * blobs that were pushed here are known to be bad.
 */
export const getReadiness =
  (readiness: Readiness): Handler<undefined> =>
  async () => {
    const problems = await readiness.problems();
    const details = {problems, damagedLocalBlobs: readiness.damagedLocalBlobs()};
    if (problems.length === 0) return probeAnswer(200, {status: 'ready', ...details});
    return {...probeAnswer(503, {status: 'not ready', ...details}), reason: problems.join('; ')};
  };

export const getMetrics =
  (metrics: MetricsSource): Handler<undefined> =>
  async () => ({
    status: 200,
    headers: {'Content-Type': metrics.contentType},
    body: Buffer.from(await metrics.text()),
  });

const probeAnswer = (status: number, body: object): Answer => ({
  status,
  headers: {'Content-Type': 'application/json', 'Cache-Control': 'no-store'},
  body: Buffer.from(`${JSON.stringify({server: 'backref', ...body})}\n`),
});
