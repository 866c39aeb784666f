import test from 'ava';
import {openBare} from '../http/ways.ts';
import {startBackref} from '../support/backref.ts';
import {imageManifest} from '../support/content.ts';
import {pusherTo} from '../support/pusher.ts';

const [a, b] = [imageManifest(), imageManifest()];
const get = (path: string, fields = ''): string => `GET ${path} HTTP/1.1\r\nHost: a\r\n${fields}\r\n`;

for (const workers of [1, 2])
  test(`a long head does not put its answer in the place of another (${workers})`, async (t) => {
    const validate = {blobs: false, children: false, sizes: false};
    const proxy = await startBackref(t, {registries: [{validate}], config: {workers}});
    await pusherTo(proxy, 'app').manifest(a, '1');
    await pusherTo(proxy, 'app').manifest(b, '2');
    const wrong: string[] = [];
    for (let i = 0; i < 8; i += 1) {
      const evil = await openBare(t, proxy.port);
      await evil.ask(get(`/v2/app/manifests/${a.digest}`, 'User-Agent: x\r\n'));
      await evil.ask(get(`/v2/app/manifests/${b.digest}`, `Accept: ${'x'.repeat(9000)}\r\n`));
    }
    for (let i = 0; i < 8; i += 1) {
      const c = await openBare(t, proxy.port);
      const answer = await c.ask(get(`/v2/app/manifests/${a.digest}`));
      if (!answer.includes(a.digest)) wrong.push(answer);
    }
    t.deepEqual(wrong, []);
  });
