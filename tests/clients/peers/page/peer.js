// One livekit-client participant, driven through `window.peer`; see ../PROTOCOL.md.

const { Room, RoomEvent, Track, VideoQuality, DataPacket_Kind } = LivekitClient;

// Red, green, blue, yellow.
const COLOURS = [[220, 30, 30], [30, 200, 30], [30, 30, 220], [220, 220, 30]];
const KEPT_SAMPLES = 96;

// A grain that hides no colour and that no encoder can predict from one frame to the next.
let grain;
function scatter(context, width, height) {
  grain ??= (() => {
    const canvas = new OffscreenCanvas(2 * width, 2 * height);
    const image = new ImageData(2 * width, 2 * height);
    for (let at = 0; at < image.data.length; at += 4) {
      image.data.fill(Math.random() * 255, at, at + 3);
      image.data[at + 3] = 60;
    }
    canvas.getContext('2d').putImageData(image, 0, 0);
    return canvas;
  })();
  context.drawImage(grain, -Math.random() * width, -Math.random() * height);
}

function draw(context, number, busy = false) {
  const { width, height } = context.canvas;
  const top = (height * 3) / 4;
  context.fillStyle = `rgb(${COLOURS[Math.floor(number / 8) % 4]})`;
  context.fillRect(0, 0, width, top);
  if (busy) scatter(context, width, height);
  for (let bit = 0; bit < 8; bit++) {
    context.fillStyle = (number >> (7 - bit)) & 1 ? '#fff' : '#000';
    context.fillRect((bit * width) / 8, top, width / 8, height - top);
  }
}

function read(context) {
  const { width, height } = context.canvas;
  const pixels = context.getImageData(0, 0, width, height).data;
  const at = (x, y) => 4 * (Math.floor(y) * width + Math.floor(x));
  const middle = at(width / 2, (height * 3) / 8);
  const seen = [pixels[middle], pixels[middle + 1], pixels[middle + 2]];
  const distances = COLOURS.map((c) => c.reduce((sum, value, i) => sum + (value - seen[i]) ** 2, 0));
  let counter = 0;
  for (let bit = 0; bit < 8; bit++) {
    const block = at(((2 * bit + 1) * width) / 16, (height * 7) / 8);
    counter = (counter << 1) | (pixels[block + 1] > 127 ? 1 : 0);
  }
  return [counter, distances.indexOf(Math.min(...distances))];
}

class Received {
  constructor(identity, kind, joinedAt, audioContext) {
    Object.assign(this, { identity, kind, joinedAt, audioContext });
    Object.assign(this, { frames: 0, firstFrameMs: null, samples: [], width: 0, height: 0 });
  }

  watchVideo(track) {
    const video = document.createElement('video');
    Object.assign(video, { muted: true, playsInline: true, autoplay: true });
    document.body.append(video);
    track.attach(video);
    const canvas = new OffscreenCanvas(160, 90);
    const context = canvas.getContext('2d', { willReadFrequently: true });
    const onFrame = () => {
      this.firstFrameMs ??= performance.now() - this.joinedAt;
      this.frames += 1;
      Object.assign(this, { width: video.videoWidth, height: video.videoHeight });
      context.drawImage(video, 0, 0, 160, 90);
      this.samples.push(read(context));
      if (this.samples.length > KEPT_SAMPLES) this.samples.shift();
      video.requestVideoFrameCallback(onFrame);
    };
    video.requestVideoFrameCallback(onFrame);
  }

  watchAudio(track) {
    // Chromium pulls remote audio only while an element plays it.
    const audio = track.attach();
    audio.muted = true;
    const stream = new MediaStream([track.mediaStreamTrack]);
    this.analyser = this.audioContext.createAnalyser();
    this.analyser.fftSize = 16_384;
    this.analyser.smoothingTimeConstant = 0;
    this.audioContext.createMediaStreamSource(stream).connect(this.analyser);
  }

  report() {
    const report = { identity: this.identity, kind: this.kind, frames: this.frames };
    report.first_frame_ms = this.firstFrameMs;
    if (this.kind === 'video') {
      Object.assign(report, { width: this.width, height: this.height, samples: this.samples });
      return report;
    }
    const bins = new Float32Array(this.analyser.frequencyBinCount);
    this.analyser.getFloatFrequencyData(bins);
    const width = this.audioContext.sampleRate / this.analyser.fftSize;
    let best = Math.ceil(50 / width);
    for (let bin = best; bin < bins.length; bin++) if (bins[bin] > bins[best]) best = bin;
    const wave = new Float32Array(this.analyser.fftSize);
    this.analyser.getFloatTimeDomainData(wave);
    report.hz = best * width;
    report.level = Math.sqrt(wave.reduce((sum, s) => sum + s * s, 0) / wave.length);
    return report;
  }
}

// Every description of this page leaves a video codec out.
function forgetCodec(name) {
  const { codecs } = RTCRtpReceiver.getCapabilities('video');
  const others = codecs.filter((codec) => codec.mimeType.toLowerCase() !== `video/${name}`);
  for (const method of ['createOffer', 'createAnswer']) {
    const original = RTCPeerConnection.prototype[method];
    RTCPeerConnection.prototype[method] = function (...options) {
      for (const transceiver of this.getTransceivers()) {
        const video = transceiver.receiver.track.kind === 'video';
        if (video && !transceiver.stopped) transceiver.setCodecPreferences(others);
      }
      return original.apply(this, options);
    };
  }
}

class Peer {
  received = new Map();
  data = [];
  timers = [];
  events = [];
  speakers = [];
  said = 0;

  // `cannot` names a video codec that this client does not have, as in an older browser.
  async join({ url, token, v1 = true, subscribe = true, cannot = null }) {
    const started = performance.now();
    if (cannot) forgetCodec(cannot);
    this.audioContext = new AudioContext();
    this.room = new Room({ singlePeerConnection: v1, adaptiveStream: false, dynacast: false });
    this.room.on(RoomEvent.TrackSubscribed, (track, publication, participant) => {
      const received = new Received(participant.identity, track.kind, started, this.audioContext);
      this.received.set(publication.trackSid, received);
      if (track.kind === 'video') received.watchVideo(track);
      else received.watchAudio(track);
    });
    this.room.on(RoomEvent.TrackUnsubscribed, (_track, publication) => {
      this.received.delete(publication.trackSid);
    });
    const note = (name) => (reason) => this.events.push([name, reason ?? null]);
    this.room.on(RoomEvent.SignalReconnecting, note('resuming'));
    this.room.on(RoomEvent.Reconnecting, note('reconnecting'));
    this.room.on(RoomEvent.Reconnected, note('reconnected'));
    this.room.on(RoomEvent.Disconnected, note('disconnected'));
    this.room.on(RoomEvent.ActiveSpeakersChanged, (speakers) => {
      this.speakers.push(speakers.map((speaker) => speaker.identity));
    });
    this.room.on(RoomEvent.DataReceived, (payload, participant, kind, topic) => {
      const text = new TextDecoder().decode(payload);
      const reliable = kind === DataPacket_Kind.RELIABLE;
      this.data.push({ from: participant?.identity ?? null, text, topic, reliable });
    });
    await this.room.connect(url, token, { autoSubscribe: subscribe });
    await this.audioContext.resume();
    return { sid: this.room.localParticipant.sid, join_ms: performance.now() - started };
  }

  async publish({ video = null, audio = null, device = false }) {
    const local = this.room.localParticipant;
    if (device) {
      await local.enableCameraAndMicrophone();
    }
    if (video) {
      await local.publishTrack(this.film(video), {
        name: 'picture',
        source: Track.Source.Camera,
        simulcast: video.simulcast ?? false,
        videoCodec: video.codec ?? 'vp8',
        ...(video.mode && { scalabilityMode: video.mode, backupCodec: false }),
        ...(video.backup && { backupCodec: { codec: video.backup } }),
        ...(video.policy !== undefined && { backupCodecPolicy: video.policy }),
      });
    }
    if (audio) {
      const oscillator = this.audioContext.createOscillator();
      oscillator.frequency.value = audio.hz;
      const gain = this.audioContext.createGain();
      gain.gain.value = 0.4;
      const output = this.audioContext.createMediaStreamDestination();
      oscillator.connect(gain).connect(output);
      oscillator.start();
      await local.publishTrack(output.stream.getAudioTracks()[0], {
        name: 'tone',
        source: Track.Source.Microphone,
        dtx: audio.dtx ?? false,
        red: audio.red ?? false,
      });
    }
    return { tracks: [...local.trackPublications.keys()] };
  }

  // A camera that films the test picture.
  film({ width, height, fps, busy }) {
    const canvas = document.createElement('canvas');
    Object.assign(canvas, { width, height });
    const context = canvas.getContext('2d');
    let number = 0;
    draw(context, number, busy);
    this.timers.push(setInterval(() => draw(context, ++number, busy), 1000 / fps));
    return canvas.captureStream(fps).getVideoTracks()[0];
  }

  async mute({ muted, source = Track.Source.Microphone }) {
    const publication = this.room.localParticipant.getTrackPublication(source);
    await (muted ? publication.mute() : publication.unmute());
  }

  // Goes on with another camera, as phones do between front and back or when they are turned.
  async replace({ video }) {
    const publication = this.room.localParticipant.getTrackPublication(Track.Source.Camera);
    await publication.track.replaceTrack(this.film(video), true);
  }

  async send({ text, topic = '', reliable = true, to = [] }) {
    await this.room.localParticipant.publishData(new TextEncoder().encode(text), {
      reliable,
      topic,
      destinationIdentities: to,
    });
  }

  // Sends numbered reliable messages until `hush`, which says how many were accepted.
  async chatter({ every_ms = 50 }) {
    this.talking = true;
    const talk = async () => {
      // livekit-client 2.23 remembers a failure for good if data is sent while it has no connections.
      const able = ['connected', 'signalReconnecting'];
      while (this.talking) {
        const text = `n${this.said}`;
        if (able.includes(this.room.state)) try {
          await this.send({ text, topic: 'chatter' });
          this.said += 1;
        } catch (error) {
          console.log(`${text} was not accepted: ${error}`);
        }
        await new Promise((resolve) => setTimeout(resolve, every_ms));
      }
    };
    this.talk = talk();
    return {};
  }

  async hush() {
    this.talking = false;
    await this.talk;
    return { said: this.said };
  }

  async simulate({ scenario, argument }) {
    await this.room.simulateScenario(scenario, argument);
    return {};
  }

  // What was decoded so far counts no more.
  async forget() {
    for (const received of this.received.values()) {
      Object.assign(received, { frames: 0, samples: [] });
    }
    return {};
  }

  async quality({ quality }) {
    const value = VideoQuality[quality.toUpperCase()];
    for (const participant of this.room.remoteParticipants.values()) {
      for (const publication of participant.videoTrackPublications.values()) {
        publication.setVideoQuality(value);
      }
    }
  }

  async report() {
    return {
      tracks: [...this.received.values()].map((received) => received.report()),
      data: this.data,
      participants: [...this.room.remoteParticipants.keys()].sort(),
      connected: this.room.state === 'connected',
      sid: this.room.localParticipant.sid,
      events: this.events,
      speakers: this.speakers,
    };
  }

  // What getStats says, one entry per peer connection that exists: transports with their selected
  // pair, received video, sent video.
  async stats() {
    const { publisher, subscriber } = this.room.engine.pcManager;
    const connections = [];
    for (const [role, transport] of Object.entries({ publisher, subscriber })) {
      const stats = await transport?.getStats();
      if (!stats) continue;
      const all = [...stats.values()];
      const byType = (type) => all.filter((entry) => entry.type === type);
      const pick = (entry, keys) => Object.fromEntries(keys.map((key) => [key, entry?.[key]]));
      connections.push({
        role,
        transports: byType('transport').map((entry) => {
          const pair = stats.get(entry.selectedCandidatePairId);
          const remote = stats.get(pair?.remoteCandidateId);
          return {
            ...pick(entry, ['dtlsState', 'srtpCipher', 'dtlsCipher', 'tlsVersion', 'dtlsRole']),
            protocol: remote?.protocol,
            round_trip_ms: pair?.currentRoundTripTime * 1000,
            available_bps: pair?.availableOutgoingBitrate,
          };
        }),
        inbound: byType('inbound-rtp').map((entry) => ({
          codec: stats.get(entry.codecId)?.mimeType,
          ...pick(entry, [
            'kind', 'framesDecoded', 'framesDropped', 'keyFramesDecoded', 'freezeCount',
            'packetsReceived', 'packetsLost', 'nackCount', 'pliCount', 'retransmittedPacketsReceived',
            'frameWidth', 'frameHeight', 'concealedSamples', 'totalSamplesReceived', 'jitter',
            'bytesReceived', 'totalFreezesDuration',
          ]),
        })),
        outbound: byType('outbound-rtp').map((entry) => ({
          codec: stats.get(entry.codecId)?.mimeType,
          ...pick(entry, [
            'kind', 'rid', 'framesEncoded', 'packetsSent', 'nackCount', 'pliCount', 'active',
            'frameWidth', 'frameHeight', 'qualityLimitationReason', 'targetBitrate',
          ]),
        })),
        remoteInbound: byType('remote-inbound-rtp').map((entry) =>
          pick(entry, ['kind', 'packetsLost', 'roundTripTime', 'jitter', 'fractionLost']),
        ),
      });
    }
    return { connections };
  }

  async leave() {
    this.timers.forEach(clearInterval);
    await this.room.disconnect();
  }
}

window.peer = new Peer();
