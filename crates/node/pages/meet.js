// The page: a lobby with a preview, then tiles of everybody in the room.

import { Signal, nameOf } from '/meet/signal.js';

const $ = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);
const fragment = new URLSearchParams(location.hash.slice(1));

const CAMERA = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };
// Simulcast, lowest first: receivers with little room or bandwidth get the small ones.
const LAYERS = [
  { rid: 'q', scaleResolutionDownBy: 4, maxBitrate: 160_000 },
  { rid: 'h', scaleResolutionDownBy: 2, maxBitrate: 500_000 },
  { rid: 'f', scaleResolutionDownBy: 1, maxBitrate: 1_700_000 },
];

let signal;
let mints = false;
// Own devices: track, and what it is published as.
const own = { microphone: {}, camera: {}, screen: {} };
// Others by SID: name, tracks by SID, tiles.
const people = new Map();

class Tile {
  constructor(name, { isOwn = false, isScreen = false } = {}) {
    this.element = document.createElement('article');
    this.element.className = `tile${isOwn ? ' own' : ''}${isScreen ? ' screen' : ''}`;
    const avatar = document.createElement('span');
    avatar.className = 'avatar';
    avatar.textContent = [...name][0] ?? '?';
    const hue = [...name].reduce((sum, letter) => sum + letter.codePointAt(0) * 37, 0) % 360;
    this.element.style.setProperty('--hue', hue);
    this.video = document.createElement('video');
    Object.assign(this.video, { autoplay: true, playsInline: true, muted: true, hidden: true });
    const label = document.createElement('span');
    label.className = 'label';
    label.textContent = isScreen ? `${name}: screen` : isOwn ? `${name} (you)` : name;
    this.element.append(avatar, this.video, label);
    $('tiles').append(this.element);
    layout();
  }

  show(track) {
    if (track && this.video.srcObject?.getTracks()[0] !== track) {
      this.video.srcObject = new MediaStream([track]);
    }
    this.video.hidden = !track;
  }

  remove() {
    this.element.remove();
    layout();
  }
}

function layout() {
  const tiles = $('tiles');
  const count = Math.max(tiles.childElementCount, 1);
  const { width, height } = tiles.getBoundingClientRect();
  let best = { columns: 1, tile: 0 };
  for (let columns = 1; columns <= count; columns++) {
    const rows = Math.ceil(count / columns);
    const tile = Math.min(width / columns - 16, ((height / rows - 16) * 16) / 9);
    if (tile > best.tile) best = { columns, tile };
  }
  tiles.style.setProperty('--columns', best.columns);
  tiles.style.setProperty('--width', `${Math.max(best.tile, 160)}px`);
  const others = people.size;
  $('count').textContent = others === 0 ? 'only you' : `${others + 1} people`;
}
addEventListener('resize', layout);

// ---- the lobby

const pressed = (button) => button.getAttribute('aria-pressed') === 'true';
const press = (button, value) => button.setAttribute('aria-pressed', String(value));

async function preview() {
  const wanted = pressed($('lobby-camera'));
  if (wanted && !own.camera.track) {
    const stream = await navigator.mediaDevices?.getUserMedia({ video: CAMERA }).catch(() => null);
    own.camera.track = stream?.getVideoTracks()[0];
    press($('lobby-camera'), Boolean(own.camera.track));
  } else if (!wanted && own.camera.track) {
    own.camera.track.stop();
    own.camera.track = undefined;
  }
  $('preview').srcObject = own.camera.track ? new MediaStream([own.camera.track]) : null;
}

for (const id of ['lobby-microphone', 'lobby-camera']) {
  $(id).onclick = async () => {
    press($(id), !pressed($(id)));
    if (id === 'lobby-camera') await preview();
  };
}

async function tokenFor(room, name) {
  const given = fragment.get('token') ?? $('token').value.trim();
  if (given) return given;
  const identity = `${name}-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}`;
  const answer = await fetch(`/meet/token?${new URLSearchParams({ room, identity, name })}`, { method: 'POST' });
  if (!answer.ok) throw new Error('This server asks for an access token.');
  return answer.text();
}

$('enter').onsubmit = async (event) => {
  event.preventDefault();
  $('join').disabled = true;
  $('lobby-message').textContent = '';
  try {
    const [room, name] = [$('room').value.trim(), $('name').value.trim()];
    await enter(await tokenFor(room, name), room);
  } catch (error) {
    $('lobby-message').textContent = error.message;
  }
  $('join').disabled = false;
};

async function open() {
  $('name').value = query.get('name') ?? '';
  $('room').value = query.get('room') ?? 'demo';
  mints = (await fetch('/meet/token').catch(() => null))?.ok ?? false;
  $('token-field').hidden = mints || fragment.has('token');
  await preview();
}

// ---- the call

function enter(token, room) {
  people.clear();
  $('tiles').replaceChildren();
  signal = new Signal();
  const joined = new Promise((resolve, reject) => {
    signal.addEventListener('joined', ({ detail }) => resolve(detail), { once: true });
    signal.addEventListener('closed', ({ detail }) => {
      reject(new Error(detail || 'The server refused the call.'));
      leaveCall(detail);
    }, { once: true });
  });
  signal.addEventListener('participants', ({ detail }) => detail.forEach(updated));
  signal.addEventListener('media', ({ detail }) => media(detail));
  signal.addEventListener('speakers', ({ detail }) => detail.forEach(speaks));
  signal.addEventListener('muted', ({ detail }) => mutedByServer(detail));
  const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
  signal.connect(`${scheme}://${location.host}`, token);
  return joined.then((participant) => start(participant, room));
}

async function start(participant, room) {
  $('lobby').hidden = true;
  $('call').hidden = false;
  $('title').textContent = room;
  $('status').textContent = '';
  own.tile = new Tile(participant.name || participant.identity, { isOwn: true });
  own.tile.element.classList.add('silent');
  if (pressed($('lobby-microphone'))) await turn('microphone', true);
  if (own.camera.track) await turn('camera', true);
}

function leaveCall(reason) {
  for (const device of [own.microphone, own.camera, own.screen]) {
    device.track?.stop();
    for (const key of Object.keys(device)) delete device[key];
  }
  for (const person of people.values()) person.audio?.remove();
  people.clear();
  for (const id of ['microphone', 'camera', 'screen']) press($(id), false);
  $('call').hidden = true;
  $('lobby').hidden = false;
  $('lobby-message').textContent = reason;
  preview();
}

const CAPTURE = {
  microphone: () => navigator.mediaDevices.getUserMedia({
    audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true },
  }),
  camera: () => navigator.mediaDevices.getUserMedia({ video: CAMERA }),
  screen: () => navigator.mediaDevices.getDisplayMedia({ video: { frameRate: 15 } }),
};
const SOURCE = { microphone: 'MICROPHONE', camera: 'CAMERA', screen: 'SCREEN_SHARE' };

// Turns a device on or off. A device that is off is released, so that its light goes out.
async function turn(name, on) {
  const device = own[name];
  const button = $(name);
  button.disabled = true;
  try {
    if (on) {
      device.track ??= (await CAPTURE[name]()).getTracks()[0];
      device.track.onended = () => turn(name, false);
      if (device.published) {
        await device.published.transceiver.sender.replaceTrack(device.track);
        signal.send({ mute: { sid: device.published.sid, muted: false } });
      } else {
        device.published = await signal.publish(device.track, SOURCE[name], name === 'camera' ? LAYERS : [{}]);
      }
    } else if (device.published) {
      device.track?.stop();
      device.track = undefined;
      if (name === 'screen') {
        await signal.unpublish(device.published);
        device.published = undefined;
      } else {
        signal.send({ mute: { sid: device.published.sid, muted: true } });
        await device.published.transceiver.sender.replaceTrack(null);
      }
    }
  } catch (error) {
    $('status').textContent = `${button.textContent}: ${error.message}`;
  }
  button.disabled = false;
  press(button, Boolean(device.track));
  showOwn();
}

function showOwn() {
  own.tile?.show(own.camera.track);
  own.tile?.element.classList.toggle('silent', !own.microphone.track);
}

function mutedByServer({ sid, muted }) {
  const name = ['microphone', 'camera', 'screen'].find((id) => own[id].published?.sid === sid);
  if (name && muted) turn(name, false);
}

function updated(info) {
  if (info.sid === signal.sid) return;
  if (nameOf('state', info.state) === 'DISCONNECTED') return gone(info.sid);
  let person = people.get(info.sid);
  if (!person) {
    person = { media: new Map() };
    people.set(info.sid, person);
    person.tile = new Tile(info.name || info.identity);
    person.name = info.name || info.identity;
  }
  person.tracks = (info.tracks ?? []).map((track) => ({
    sid: track.sid,
    muted: track.muted ?? false,
    source: nameOf('source', track.source),
  }));
  show(person);
}

function gone(sid) {
  const person = people.get(sid);
  if (!person) return;
  people.delete(sid);
  person.tile.remove();
  person.screen?.remove();
  person.audio?.remove();
  layout();
}

function media({ participantSid, track, stream }) {
  const person = people.get(participantSid);
  if (!person) return;
  const sid = stream.id.split('|')[1];
  if (track.kind === 'audio') {
    person.audio ??= document.body.appendChild(new Audio());
    person.audio.autoplay = true;
    person.audio.srcObject = new MediaStream([track]);
    return;
  }
  person.media.set(sid, track);
  stream.onremovetrack = () => {
    person.media.delete(sid);
    show(person);
  };
  show(person);
}

function show(person) {
  const of = (source) => person.tracks.find((track) => track.source === source);
  const live = (track) => (track && !track.muted ? person.media.get(track.sid) : undefined);
  const known = new Set(['MICROPHONE', 'SCREEN_SHARE', 'SCREEN_SHARE_AUDIO']);
  const camera = of('CAMERA') ?? person.tracks.find((track) => !known.has(track.source));
  person.tile.show(live(camera));
  const microphone = of('MICROPHONE');
  person.tile.element.classList.toggle('silent', !microphone || microphone.muted);
  const screen = live(of('SCREEN_SHARE'));
  if (screen) {
    person.screen ??= new Tile(person.name, { isScreen: true });
    person.screen.show(screen);
  } else {
    person.screen?.remove();
    person.screen = undefined;
  }
}

function speaks({ sid, active = false }) {
  const tile = sid === signal.sid ? own.tile : people.get(sid)?.tile;
  tile?.element.classList.toggle('speaking', active);
}

for (const name of ['microphone', 'camera', 'screen']) {
  $(name).onclick = () => turn(name, !pressed($(name)));
}
$('invite').onclick = async () => {
  const link = `${location.origin}/meet?${new URLSearchParams({ room: $('title').textContent })}`;
  await navigator.clipboard.writeText(link).catch(() => prompt('Link to this room', link));
};
$('leave').onclick = () => signal.leave();
addEventListener('pagehide', () => signal?.send({ leave: { reason: 'CLIENT_INITIATED' } }));
open();
