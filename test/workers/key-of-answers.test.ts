import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {hashSync} from '@node-rs/bcrypt';
import test from 'ava';
import {openBare} from '../http/ways.ts';
import {startBackref} from '../support/backref.ts';
import {imageManifest} from '../support/content.ts';
import {createFolder} from '../support/folder.ts';
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
    for (let count = 0; count < 8; count += 1) {
      const evil = await openBare(t, proxy.port);
      await evil.ask(get(`/v2/app/manifests/${a.digest}`, 'User-Agent: x\r\n'));
      await evil.ask(get(`/v2/app/manifests/${b.digest}`, `Accept: ${'x'.repeat(9000)}\r\n`));
    }
    for (let count = 0; count < 8; count += 1) {
      const c = await openBare(t, proxy.port);
      const answer = await c.ask(get(`/v2/app/manifests/${a.digest}`));
      if (!answer.includes(a.digest)) wrong.push(answer);
    }
    t.deepEqual(wrong, []);
  });

for (const workers of [1, 2])
  test(`a private answer is given to those with the login alone (${workers})`, async (t) => {
    const htpasswd = join(await createFolder(t), 'htpasswd');
    await writeFile(htpasswd, `joe:${hashSync('secret', 4)}\n`);
    const validate = {blobs: false, children: false, sizes: false};
    const configFor = (who: string) => ({
      workers,
      access: {
        users: {htpasswd},
        rules: [{who: [who], where: ['docker.io/**'], may: ['pull' as const, 'push' as const]}],
      },
    });
    const proxy = await startBackref(t, {registries: [{validate}], config: configFor('anonymous')});
    await pusherTo(proxy, 'app').manifest(a, '1');
    proxy.reload({config: configFor('user:joe')});
    const path = `/v2/app/manifests/${a.digest}`;
    const login = `Authorization: Basic ${Buffer.from('joe:secret').toString('base64')}\r\n`;
    for (let count = 0; count < 8; count += 1) {
      const joe = await openBare(t, proxy.port);
      // As docker does: without a login first, then with one. The second head is long.
      await joe.ask(get(path));
      const answer = await joe.ask(get(path, `${login}User-Agent: ${'x'.repeat(9000)}\r\n`));
      t.true(answer.startsWith('HTTP/1.1 200'), answer);
    }
    for (let count = 0; count < 8; count += 1) {
      const answer = await (await openBare(t, proxy.port)).ask(get(path));
      t.true(answer.startsWith('HTTP/1.1 401'), answer);
    }
  });
