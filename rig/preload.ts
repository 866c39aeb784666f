/*
 * Loaded into a server under test before its first module (`node --import`), so that a run can set its wall clock and
 * its DNS: from the file that RIG_CONTROL names, at the start and after each SIGUSR2. Upstreams have names below
 * `.test`, which lead to 127.0.0.1 while the DNS works. `surroundings.ts` writes the file.
 */
import dns, {type LookupOptions} from 'node:dns';
import dnsPromises from 'node:dns/promises';
import {readFileSync, writeFileSync} from 'node:fs';
import {syncBuiltinESMExports} from 'node:module';
import {isMainThread} from 'node:worker_threads';
import type {Control} from './surroundings.ts';

type Found = (error: Error | null, ...address: unknown[]) => void;

const file = process.env['RIG_CONTROL'] ?? '';

const failure = (name: string): Error =>
  Object.assign(new Error(`getaddrinfo EAI_AGAIN ${name}`), {code: 'EAI_AGAIN', syscall: 'getaddrinfo'});

function install(): void {
  const systemNow = Date.now;
  const systemLookup = dns.lookup;
  let control: Control = JSON.parse(readFileSync(file, 'utf8'));
  const read = () => {
    control = JSON.parse(readFileSync(file, 'utf8'));
    writeFileSync(`${file}.seen`, String(control.version));
  };
  Date.now = () => systemNow() + control.clockOffset;

  const lookup = (name: string, given: LookupOptions | Found, found?: Found) => {
    const options = typeof given === 'function' ? {} : given;
    const call = typeof given === 'function' ? given : found;
    if (!name.endsWith('.test')) return systemLookup(name, options, call as never);
    const address = '127.0.0.1';
    setImmediate(() => {
      if (control.dnsFails) call?.(failure(name));
      else if (options.all) call?.(null, [{address, family: 4}]);
      else call?.(null, address, 4);
    });
  };
  Object.assign(dns, {lookup});
  Object.assign(dnsPromises, {
    lookup: async (name: string, options: LookupOptions = {}) => {
      if (name.endsWith('.test') && control.dnsFails) throw failure(name);
      const found = {address: name.endsWith('.test') ? '127.0.0.1' : name, family: 4};
      return options.all ? [found] : found;
    },
  });
  syncBuiltinESMExports();
  process.on('SIGUSR2', read);
  read();
}

if (isMainThread && file !== '') install();
