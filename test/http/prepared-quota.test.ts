import test from 'ava';
import type {Backref} from '../support/backref.ts';
import {startBackref} from '../support/backref.ts';
import {imageManifest, manifestAnswer} from '../support/content.ts';
import {createScriptedUpstream} from '../support/scripted-upstream.ts';
import {openWay} from './ways.ts';

const images = [imageManifest(), imageManifest()] as const;

/** Whether an answer is prepared. Only the ordinary way emits the event while nobody hears of each request. */
async function isPrepared({server: {events}}: Backref, ask: () => Promise<unknown>): Promise<boolean> {
  let served = 0;
  const count = (): void => {
    served += 1;
  };
  events.on('manifest.served', count);
  await ask();
  events.off('manifest.served', count);
  return served === 0;
}

for (const [left, isKept] of [
  [80, true],
  [20, false],
] as const) {
  test(`with ${left} of 100 pulls left, another pull ${isKept ? 'ends no answer' : 'ends the answers of tags alone'}`, async (t) => {
    const limited = (image: (typeof images)[number], remaining: number) => {
      const answer = manifestAnswer(image);
      const limit = {'RateLimit-Limit': '100;w=21600', 'RateLimit-Remaining': `${remaining};w=21600`};
      return {...answer, headers: {...answer.headers, ...limit}};
    };
    const upstream = await createScriptedUpstream(t, [
      {request: 'GET /v2/library/app/manifests/1', answer: limited(images[0], left)},
      {request: `GET /v2/library/other/manifests/${images[1].digest}`, answer: limited(images[1], left - 1)},
    ]);
    const proxy = await startBackref(t, {registries: [{url: upstream.url}]});
    const {ask} = await openWay(t, proxy.port, 'table');
    const asked = (reference: string) => () =>
      ask(`GET /v2/app/manifests/${reference} HTTP/1.1\r\nHost: 127.0.0.1:${proxy.port}\r\n\r\n`);
    const [tag, digest] = [asked('1'), asked(images[0].digest)];
    for (let time = 0; time < 3; time += 1) {
      await tag();
      await digest();
    }
    t.true(await isPrepared(proxy, tag));
    t.is((await proxy.ask(`/v2/other/manifests/${images[1].digest}`)).status, 200);
    t.true(await isPrepared(proxy, digest));
    t.is(await isPrepared(proxy, tag), isKept);
  });
}
