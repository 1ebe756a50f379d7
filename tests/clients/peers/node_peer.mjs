// Host of LiveKit Node SDK peers; see PROTOCOL.md.

import {
  AudioFrame,
  AudioSource,
  AudioStream,
  LocalAudioTrack,
  LocalVideoTrack,
  Room,
  RoomEvent,
  TrackKind,
  TrackPublishOptions,
  TrackSource,
  VideoBufferType,
  VideoCodec,
  VideoFrame,
  VideoSource,
  VideoStream,
  dispose,
} from '@livekit/rtc-node';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

// Y, U, V of red, green, blue, yellow (BT.601, limited range).
const COLOURS = [[76, 95, 212], [128, 58, 50], [51, 214, 117], [195, 35, 143]];
const SAMPLE_RATE = 48_000;
const KEPT_SAMPLES = 96;
const CODECS = { vp8: VideoCodec.VP8, h264: VideoCodec.H264, vp9: VideoCodec.VP9, av1: VideoCodec.AV1 };

function draw(width, height, number) {
  const [y, u, v] = COLOURS[Math.floor(number / 8) % 4];
  const luma = width * height;
  const chroma = luma / 4;
  const data = new Uint8Array(luma + 2 * chroma);
  const top = Math.floor((height * 3) / 4);
  data.fill(y, 0, top * width);
  for (let row = top; row < height; row++) {
    for (let bit = 0; bit < 8; bit++) {
      const start = row * width + Math.floor((bit * width) / 8);
      data.fill((number >> (7 - bit)) & 1 ? 235 : 16, start, start + Math.floor(width / 8));
    }
  }
  const split = (top / 2) * (width / 2);
  for (const [plane, value] of [[luma, u], [luma + chroma, v]]) {
    data.fill(value, plane, plane + split);
    data.fill(128, plane + split, plane + chroma);
  }
  return new VideoFrame(data, width, height, VideoBufferType.I420);
}

function read(frame) {
  const { width, height, data } = frame;
  const chromaWidth = (width + 1) >> 1;
  const chromaHeight = (height + 1) >> 1;
  const at = Math.floor((chromaHeight * 3) / 8) * chromaWidth + (chromaWidth >> 1);
  const seen = [
    data[Math.floor((height * 3) / 8) * width + (width >> 1)],
    data[width * height + at],
    data[width * height + chromaWidth * chromaHeight + at],
  ];
  const distances = COLOURS.map((c) => c.reduce((sum, value, i) => sum + (value - seen[i]) ** 2, 0));
  let counter = 0;
  for (let bit = 0; bit < 8; bit++) {
    const column = Math.floor(((2 * bit + 1) * width) / 16);
    counter = (counter << 1) | (data[Math.floor((height * 7) / 8) * width + column] > 125 ? 1 : 0);
  }
  return [counter, distances.indexOf(Math.min(...distances))];
}

// The strongest frequency between 100 and 2000 Hz, in steps of 10 Hz (Goertzel).
function dominantHz(samples) {
  let best = { hz: 0, power: -1 };
  for (let hz = 100; hz <= 2000; hz += 10) {
    const k = 2 * Math.cos((2 * Math.PI * hz) / SAMPLE_RATE);
    let [a, b] = [0, 0];
    for (const sample of samples) [a, b] = [sample + k * a - b, a];
    const power = a * a + b * b - k * a * b;
    if (power > best.power) best = { hz, power };
  }
  return best.hz;
}

class Received {
  constructor(identity, kind, joinedAt) {
    Object.assign(this, { identity, kind, joinedAt, frames: 0, firstFrameMs: null });
    Object.assign(this, { width: 0, height: 0, samples: [], audio: [] });
  }

  async watch(track) {
    const stream =
      this.kind === 'video' ? new VideoStream(track) : new AudioStream(track, SAMPLE_RATE, 1);
    for await (const event of stream) {
      this.firstFrameMs ??= performance.now() - this.joinedAt;
      this.frames += 1;
      if (this.kind === 'video') {
        const frame = event.frame.convert(VideoBufferType.I420);
        Object.assign(this, { width: frame.width, height: frame.height });
        this.samples.push(read(frame));
        if (this.samples.length > KEPT_SAMPLES) this.samples.shift();
      } else {
        this.audio.push(...event.data);
        if (this.audio.length > SAMPLE_RATE / 2) this.audio = this.audio.slice(-SAMPLE_RATE / 2);
      }
    }
  }

  report() {
    const report = { identity: this.identity, kind: this.kind, frames: this.frames };
    report.first_frame_ms = this.firstFrameMs;
    if (this.kind === 'video') {
      Object.assign(report, { width: this.width, height: this.height, samples: this.samples });
    } else if (this.audio.length >= SAMPLE_RATE / 4) {
      report.hz = dominantHz(this.audio);
      const power = this.audio.reduce((sum, s) => sum + s * s, 0) / this.audio.length;
      report.level = Math.sqrt(power) / 32768;
    }
    return report;
  }
}

class Peer {
  room = new Room();
  received = new Map();
  publications = [];
  data = [];
  over = false;

  async join({ url, token, v1 = true, subscribe = true }) {
    const started = performance.now();
    this.room.on(RoomEvent.TrackSubscribed, (track, publication, participant) => {
      const kind = track.kind === TrackKind.KIND_VIDEO ? 'video' : 'audio';
      const received = new Received(participant.identity, kind, started);
      this.received.set(publication.sid, received);
      this.publications.push(publication);
      received.watch(track).catch((error) => console.error('stream ended', error));
    });
    this.room.on(RoomEvent.DataReceived, (payload, participant, kind, topic) => {
      const text = new TextDecoder().decode(payload);
      this.data.push({ from: participant?.identity ?? null, text, topic, reliable: kind === 1 });
    });
    await this.room.connect(url, token, {
      autoSubscribe: subscribe,
      dynacast: false,
      singlePeerConnection: v1,
    });
    return { sid: this.room.localParticipant.sid, join_ms: performance.now() - started };
  }

  async publish({ video = null, audio = null }) {
    const tracks = [];
    if (video) {
      const source = new VideoSource(video.width, video.height);
      const track = LocalVideoTrack.createVideoTrack('picture', source);
      const options = new TrackPublishOptions({
        source: TrackSource.SOURCE_CAMERA,
        simulcast: video.simulcast ?? false,
        videoCodec: CODECS[video.codec ?? 'vp8'],
      });
      this.draw(source, video);
      tracks.push((await this.room.localParticipant.publishTrack(track, options)).sid);
    }
    if (audio) {
      const source = new AudioSource(SAMPLE_RATE, 1);
      const track = LocalAudioTrack.createAudioTrack('tone', source);
      const options = new TrackPublishOptions({ source: TrackSource.SOURCE_MICROPHONE });
      this.hum(source, audio.hz);
      tracks.push((await this.room.localParticipant.publishTrack(track, options)).sid);
    }
    return { tracks };
  }

  async draw(source, { width, height, fps }) {
    const started = performance.now();
    for (let number = 0; !this.over; number++) {
      source.captureFrame(draw(width, height, number));
      await sleep(Math.max(0, started + ((number + 1) * 1000) / fps - performance.now()));
    }
  }

  async hum(source, hz) {
    const length = SAMPLE_RATE / 100;
    for (let number = 0; !this.over; number++) {
      const samples = new Int16Array(length);
      for (let i = 0; i < length; i++) {
        samples[i] = 12_000 * Math.sin((2 * Math.PI * hz * (number * length + i)) / SAMPLE_RATE);
      }
      await source.captureFrame(new AudioFrame(samples, SAMPLE_RATE, 1, length));
    }
  }

  async send({ text, topic = '', reliable = true, to = [] }) {
    const payload = new TextEncoder().encode(text);
    await this.room.localParticipant.publishData(payload, {
      reliable,
      topic,
      destination_identities: to,
    });
  }

  async quality({ quality }) {
    const value = { low: 0, medium: 1, high: 2 }[quality];
    for (const publication of this.publications) publication.setVideoQuality?.(value);
  }

  async report() {
    return {
      tracks: [...this.received.values()].map((received) => received.report()),
      data: this.data,
      participants: [...this.room.remoteParticipants.keys()].sort(),
      connected: this.room.isConnected,
    };
  }

  async leave() {
    this.over = true;
    await this.room.disconnect();
  }
}

const peers = new Map();

async function answer({ id, command, peer: name, ...options }) {
  try {
    if (command === 'join') peers.set(name, new Peer());
    const result = await peers.get(name)[command](options);
    if (command === 'leave') peers.delete(name);
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
await Promise.allSettled([...peers.values()].map((peer) => peer.leave()));
await dispose();
process.exit(0);
