// A peer without livekit-client: it publishes over WHIP or plays over WHEP with the browser's own
// RTCPeerConnection. `join` with a `protocol` makes `window.peer` one of these.

const FRAGMENT = 'application/trickle-ice-sdpfrag';

class OneShot {
  received = new Map();
  timers = [];

  // `video` and `audio` as for `publish`; `participant` limits a player to one.
  async join({ url, token, protocol, video = null, audio = null, participant = null }) {
    const started = performance.now();
    this.token = token;
    this.origin = url.replace(/^ws/, 'http');
    this.audioContext = new AudioContext();
    this.connection = new RTCPeerConnection();
    if (protocol === 'whip') {
      this.send(video, audio);
    } else {
      this.play(started);
    }
    await this.connection.setLocalDescription();
    const query = participant ? `?participant=${encodeURIComponent(participant)}` : '';
    const response = await this.request('POST', `${this.origin}/${protocol}/v1${query}`, {
      body: this.connection.localDescription.sdp,
      headers: { 'content-type': 'application/sdp' },
    });
    this.answer = await response.text();
    this.resource = new URL(response.headers.get('location'), this.origin).href;
    this.tag = response.headers.get('etag');
    await this.connection.setRemoteDescription({ type: 'answer', sdp: this.answer });
    await this.connected();
    await this.audioContext.resume();
    return { sid: this.resource.split('/').pop(), join_ms: performance.now() - started };
  }

  send(video, audio) {
    const stream = new MediaStream();
    if (video) {
      const canvas = document.createElement('canvas');
      Object.assign(canvas, { width: video.width, height: video.height });
      const context = canvas.getContext('2d');
      let number = 0;
      draw(context, number);
      this.timers.push(setInterval(() => draw(context, ++number), 1000 / video.fps));
      const [track] = canvas.captureStream(video.fps).getVideoTracks();
      const scaled = (rid, scaleResolutionDownBy) => ({ rid, scaleResolutionDownBy });
      this.connection.addTransceiver(track, {
        direction: 'sendonly',
        streams: [stream],
        // Two, because Chromium sends no third one at 360 lines.
        sendEncodings: video.simulcast ? [scaled('q', 2), scaled('h', 1)] : [{}],
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
      const [track] = output.stream.getAudioTracks();
      this.connection.addTransceiver(track, { direction: 'sendonly', streams: [stream] });
    }
  }

  play(started) {
    for (const kind of ['audio', 'video']) {
      this.connection.addTransceiver(kind, { direction: 'recvonly' });
    }
    this.connection.ontrack = ({ track }) => {
      // What livekit-client's tracks have and `Received` uses.
      const attach = (element = document.createElement('audio')) => {
        element.srcObject = new MediaStream([track]);
        element.play();
        return element;
      };
      const received = new Received('stream', track.kind, started, this.audioContext);
      this.received.set(track.kind, received);
      const adapted = { attach, mediaStreamTrack: track };
      if (track.kind === 'video') received.watchVideo(adapted);
      else received.watchAudio(adapted);
    };
  }

  // Restarts ICE by PATCH, as RFC 9725 has it: fragments go both ways.
  async restart() {
    const offer = await this.connection.createOffer({ iceRestart: true });
    await this.connection.setLocalDescription(offer);
    const line = (sdp, name) => sdp.match(new RegExp(`^a=${name}:.*$`, 'm'))[0].trim();
    const names = ['ice-ufrag', 'ice-pwd'];
    const response = await this.request('PATCH', this.resource, {
      body: names.map((name) => `${line(offer.sdp, name)}\r\n`).join(''),
      headers: { 'content-type': FRAGMENT, 'if-match': '*' },
    });
    const fragment = await response.text();
    for (const name of names) {
      const old = new RegExp(`^a=${name}:.*$`, 'gm');
      this.answer = this.answer.replace(old, line(fragment, name));
    }
    const changed = this.tag !== response.headers.get('etag');
    this.tag = response.headers.get('etag');
    await this.connection.setRemoteDescription({ type: 'answer', sdp: this.answer });
    await this.connected();
    return { changed };
  }

  async connected() {
    const deadline = performance.now() + 20_000;
    while (this.connection.connectionState !== 'connected') {
      if (performance.now() > deadline) {
        throw new Error(`still ${this.connection.connectionState}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  async request(method, url, { body, headers = {} } = {}) {
    const authorization = { authorization: `Bearer ${this.token}` };
    const response = await fetch(url, { method, body, headers: { ...headers, ...authorization } });
    if (!response.ok) throw new Error(`${method} ${url}: ${response.status} ${await response.text()}`);
    return response;
  }

  async report() {
    return {
      tracks: [...this.received.values()].map((received) => received.report()),
      data: [],
      participants: [],
      connected: this.connection.connectionState === 'connected',
    };
  }

  async leave() {
    this.timers.forEach(clearInterval);
    await this.request('DELETE', this.resource);
    this.connection.close();
  }
}

const joinWithLiveKit = window.peer.join.bind(window.peer);
window.peer.join = (options) => {
  if (!options.protocol) return joinWithLiveKit(options);
  window.peer = new OneShot();
  return window.peer.join(options);
};
