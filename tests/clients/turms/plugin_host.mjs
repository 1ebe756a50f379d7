// Runs deploy/turms/sluice-turms-plugin.js as turms-service does: evaluates the file before `turms`
// and `fetch` exist, makes the plugin and its extensions, and calls methods without `this`. Java
// objects are stood in for by objects with the same methods. Reads calls as JSON from standard
// input, prints their results as one line of JSON.
//
//     node plugin_host.mjs <plugin file> <Sluice URL> <secret>

import { readFileSync } from 'node:fs';

const [file, url, secret] = process.argv.slice(2);

// What the engine's start-up script defines before the plugin.
globalThis.TurmsPlugin = class TurmsPlugin {
  static get isTurmsPlugin() { return true; }
};
globalThis.TurmsExtension = class TurmsExtension {
  static get isTurmsExtension() { return true; }
};

class FetchOptions {
  method = null;
  headers = null;
  body = null;
  timeout = null;
}
class TokenResult {
  #token;
  constructor(token) { this.#token = token; }
  accessToken() { return this.#token; }
}
const model = 'im.turms.service.infra.plugin.extension.model';
const CLASSES = {
  'im.turms.server.common.infra.plugin.script.JsHttp$FetchOptions': FetchOptions,
  [`${model}.CreateMeetingResult`]: class CreateMeetingResult extends TokenResult {},
  [`${model}.AcceptMeetingInvitationResult`]: class AcceptMeetingInvitationResult extends TokenResult {},
};
globalThis.Java = {
  type(name) {
    if (!(name in CLASSES)) throw new TypeError(`Access to host class ${name} does not exist`);
    return CLASSES[name];
  },
};

const nodeFetch = globalThis.fetch;
delete globalThis.fetch;

// The operator's edit.
const set = (source, name, value) => {
  const pattern = new RegExp(`^const ${name} = '.*';$`, 'm');
  if (!pattern.test(source)) throw new Error(`the plugin has no constant ${name}`);
  return source.replace(pattern, `const ${name} = ${JSON.stringify(value)};`);
};
let source = readFileSync(file, 'utf8');
source = set(set(source, 'SLUICE_URL', url), 'SECRET', secret);
const module = await import('data:text/javascript;base64,' + Buffer.from(source).toString('base64'));

const Plugin = module.default;
if (!Plugin.isTurmsPlugin) throw new Error('the default export is no plugin');
const plugin = new Plugin();
const extensions = plugin.getExtensions().map((Extension) => {
  if (!Extension.isTurmsExtension) throw new Error('not an extension');
  return new Extension();
});
const methods = {};
for (const extension of extensions) {
  if (!Array.isArray(extension.getExtensionPoints())) throw new Error('no extension points');
  for (const name of ['beforeNotify', 'handleAdminAction', 'addMeetingEndedEventListener',
    'createMeeting', 'cancelMeeting', 'acceptMeetingInvitation']) {
    if (typeof extension[name] === 'function') methods[name] = extension[name];
  }
}

// What the engine binds after the plugin was evaluated.
const logged = [];
const log = (level) => (...parts) => { logged.push(`${level}: ${parts.join('')}`); };
globalThis.turms = {
  log: { info: log('info'), warn: log('warn'), error: log('error'), debug: log('debug') },
};
let pending = 0;
globalThis.fetch = (uri, options) => {
  if (options !== undefined && !(options instanceof FetchOptions)) {
    throw new TypeError('Cannot convert to Java type FetchOptions');
  }
  return {
    then(resolve, reject) {
      pending += 1;
      // Headers are dropped; a body without a content type; no answer to an empty body, ever.
      const { method, body } = options ?? {};
      nodeFetch(uri, { method: method ?? 'GET', body: body && Buffer.from(body) })
        .then(async (response) => {
          const data = await response.text();
          pending -= 1;
          if (data !== '') resolve({ status: response.status, headers: {}, data });
        }, (error) => { pending -= 1; reject(error); });
    },
  };
};

// Stand-ins for Java objects. Longs arrive as something that only BigInt reads without loss.
const long = (text) => (text === undefined || text === null ? null : BigInt(text));
const list = (items) => ({ size: () => items.length, get: (at) => items[at] });
const camel = (name) => name.toLowerCase().replace(/_(.)/g, (_, c) => c.toUpperCase());
const getters = (fields) => Object.fromEntries(Object.entries(fields).map(([name, value]) => {
  const isList = Array.isArray(value);
  const getter = `get${name[0].toUpperCase()}${name.slice(1)}${isList ? 'List' : ''}`;
  return [getter, () => (isList ? list(value.map(long)) : long(value))];
}));
const turmsRequest = (kind, fields) => ({
  getKindCase: () => ({ name: () => kind }),
  [`get${camel(kind)[0].toUpperCase()}${camel(kind).slice(1)}`]: () => getters(fields),
});
const calls = {
  beforeNotify: ({ kind, fields, copies = 1 }) => {
    const request = turmsRequest(kind, fields);
    const result = {
      notifications: () => list(Array(copies).fill({ notification: () => request })),
    };
    return [result, 1n, 'BROWSER'];
  },
  handleAdminAction: ({ action }) => [{ action: () => action, params: () => new Map() }],
  addMeetingEndedEventListener: () => [() => {}],
  createMeeting: ({ requester, meeting, options }) => [
    long(requester),
    { getId: () => long(meeting.id), getUserId: () => long(meeting.user), getGroupId: () => long(meeting.group) },
    { maxParticipants: () => options.max, idleTimeoutMillis: () => options.idle },
  ],
  cancelMeeting: ({ requester, meeting }) => [long(requester), long(meeting)],
  acceptMeetingInvitation: ({ requester, meeting }) => [long(requester), long(meeting)],
};

let input = '';
for await (const chunk of process.stdin) input += chunk;
const results = [];
for (const { call, ...given } of JSON.parse(input)) {
  const args = calls[call](given);
  try {
    const value = await Reflect.apply(methods[call], undefined, args);
    if (call === 'beforeNotify') results.push({ same: value === args[0] });
    else results.push({ token: value?.accessToken?.() ?? null });
  } catch (error) {
    results.push({ error: String(error) });
  }
}
for (let tries = 0; pending > 0 && tries < 500; tries++) {
  await new Promise((resolve) => setTimeout(resolve, 10));
}
console.log(JSON.stringify({ descriptor: plugin.getDescriptor(), results, logged }));
