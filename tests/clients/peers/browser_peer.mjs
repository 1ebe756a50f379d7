// Host of Chromium peers with livekit-client; see PROTOCOL.md. One browser, one page per peer, all
// served from 127.0.0.1 by this process.

import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const HERE = fileURLToPath(new URL('.', import.meta.url));
const FILES = {
  '/': ['text/html', join(HERE, 'page/index.html')],
  '/peer.js': ['text/javascript', join(HERE, 'page/peer.js')],
  '/one_shot.js': ['text/javascript', join(HERE, 'page/one_shot.js')],
  '/livekit-client.js': [
    'text/javascript',
    join(HERE, '../node_modules/livekit-client/dist/livekit-client.umd.js'),
  ],
};
const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--disable-background-timer-throttling',
  '--disable-backgrounding-occluded-windows',
  '--disable-renderer-backgrounding',
  '--autoplay-policy=no-user-gesture-required',
  '--use-fake-device-for-media-stream',
  '--use-fake-ui-for-media-stream',
  // Loopback candidates: the server listens on 127.0.0.1 and nowhere else.
  '--allow-loopback-in-peer-connection',
];

const server = createServer(async (request, response) => {
  const file = FILES[new URL(request.url, 'http://localhost').pathname];
  if (!file) {
    response.writeHead(404).end();
    return;
  }
  response.writeHead(200, { 'content-type': file[0] }).end(await readFile(file[1]));
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const origin = `http://127.0.0.1:${server.address().port}`;

const profile = await mkdtemp(join(tmpdir(), 'sluice-chromium-'));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  headless: true,
  args: FLAGS,
});
const pages = new Map();

async function openPage(name, address = origin) {
  const page = await context.newPage();
  page.on('console', (message) => console.error(`[${name}] ${message.type()}: ${message.text()}`));
  page.on('pageerror', (error) => console.error(`[${name}] error: ${error.stack ?? error}`));
  await page.goto(address);
  pages.set(name, page);
  return page;
}

// Commands for a page that is not ours: what a visitor does.
const VISITOR = {
  visit: async (name, { address }) => void (await openPage(name, address)),
  fill: (name, { field, text }) => pages.get(name).fill(field, text),
  click: (name, { button }) => pages.get(name).click(button),
  screenshot: async (name, { path }) => void (await pages.get(name).screenshot({ path })),
  // Tiles as they show: label, classes, and the video's decoded frames if one is visible.
  look: (name) =>
    pages.get(name).$$eval('.tile', (tiles) =>
      tiles.filter((tile) => tile.checkVisibility()).map((tile) => {
        const video = tile.querySelector('video');
        return {
          label: tile.querySelector('.label')?.textContent ?? '',
          classes: [...tile.classList],
          shows: video.checkVisibility(),
          frames: video.getVideoPlaybackQuality().totalVideoFrames,
        };
      }),
    ),
  text: (name, { field }) => pages.get(name).textContent(field),
  sound: (name) =>
    pages.get(name).$$eval('audio', (all) => all.filter((audio) => !audio.paused).length),
  close: async (name) => {
    await pages.get(name).close();
    pages.delete(name);
  },
};

async function answer({ id, command, peer: name, ...options }) {
  try {
    if (VISITOR[command]) {
      const result = await VISITOR[command](name, options);
      console.log(JSON.stringify({ id, result: result ?? {} }));
      return;
    }
    const page = command === 'join' ? await openPage(name) : pages.get(name);
    if (!page) throw new Error(`no peer ${name}`);
    const call = ([method, argument]) => window.peer[method](argument);
    const result = await page.evaluate(call, [command, options]);
    if (command === 'leave') {
      pages.delete(name);
      await page.close();
    }
    console.log(JSON.stringify({ id, result: result ?? {} }));
  } catch (error) {
    console.log(JSON.stringify({ id, error: `${error?.name}: ${error?.message ?? error}` }));
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  if (request.command === 'quit') break;
  answer(request);
}
await context.close();
server.close();
await rm(profile, { recursive: true, force: true });
process.exit(0);
