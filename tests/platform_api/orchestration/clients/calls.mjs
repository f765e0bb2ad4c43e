// Carries out calls of the two packages, one JSON line each: in {package, name, arguments}, out {value} or {thrown}.
import { createInterface } from 'node:readline';
import * as client from '@civitai/client';
import * as sdk from '@civitai/app-sdk/orchestrator';

const packages = { client, sdk };
const kept = {};

// Bytes travel as Base64, and what only JavaScript holds by a name.
const incoming = (value) => {
  if (Array.isArray(value)) return value.map(incoming);
  if (value === null || typeof value !== 'object') return value;
  if ('$kept' in value) return kept[value.$kept];
  if ('$bytes' in value) return new Blob([Buffer.from(value.$bytes, 'base64')], { type: value.type });
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, incoming(one)]));
};

const outgoing = async (value) => {
  if (value instanceof Blob) return { $bytes: Buffer.from(await value.arrayBuffer()).toString('base64'), type: value.type };
  if (value instanceof Response) return { status: value.status, headers: Object.fromEntries(value.headers) };
  if (value instanceof Request) return value.url;
  if (Array.isArray(value)) return Promise.all(value.map(outgoing));
  if (value === null || typeof value !== 'object') return value;
  const entries = await Promise.all(Object.entries(value).map(async ([name, one]) => [name, await outgoing(one)]));
  return Object.fromEntries(entries);
};

console.error = () => {}; // app-sdk reports each refusal there
for await (const line of createInterface({ input: process.stdin })) {
  const call = JSON.parse(line);
  let answer;
  try {
    const named = call.name.split('.').reduce((found, part) => found[part], packages[call.package]);
    const value = await named(...call.arguments.map(incoming));
    if (call.keep) kept[call.keep] = value;
    answer = { value: call.keep ? null : await outgoing(value) };
  } catch (error) {
    answer = { thrown: { message: error.message, status: error.status ?? null, body: error.body ?? null } };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
