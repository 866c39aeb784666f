import type {Readiness} from '../registry/readiness.ts';
import type {Ctx} from './routing.ts';

/** `GET /healthz`: this process answers. It need not be restarted, whatever its disks do. */
export function getHealth(ctx: Ctx): void {
  answer(ctx, 200, {server: 'backref', status: 'alive'});
}

/** `GET /readyz`: 200 when requests can be served from the store, else 503 with what is in the way. */
export const getReadiness = (readiness: Readiness) => async (ctx: Ctx) => {
  const problems = await readiness.problems();
  const isReady = problems.length === 0;
  const status = isReady ? 'ready' : 'not ready';
  if (!isReady) ctx.state.reason = problems.join('; ');
  answer(ctx, isReady ? 200 : 503, {server: 'backref', status, problems});
};

function answer(ctx: Ctx, status: number, body: object): void {
  ctx.status = status;
  ctx.set('Content-Type', 'application/json');
  ctx.set('Cache-Control', 'no-store');
  ctx.body = Buffer.from(`${JSON.stringify(body)}\n`);
}
