// A small client of LiveKit's signalling (protocol v0: two peer connections). What it sends is JSON;
// the server answers in the encoding of the last frame, so that only the first messages are protobuf.

// Messages by field number: [name, schema] with a schema of fields, or none for a scalar; a third
// entry marks a list.
const iceServer = { 1: ['urls', null, true], 2: ['username'], 3: ['credential'] };
const description = { 1: ['type'], 2: ['sdp'], 3: ['id'] };
const track = { 1: ['sid'], 2: ['type'], 3: ['name'], 4: ['muted'], 9: ['source'] };
const participant = {
  1: ['sid'], 2: ['identity'], 3: ['state'], 4: ['tracks', track, true], 9: ['name'],
};
const join = {
  1: ['room', { 2: ['name'] }],
  2: ['participant', participant],
  3: ['otherParticipants', participant, true],
  5: ['iceServers', iceServer, true],
};
const response = {
  1: ['join', join],
  2: ['answer', description],
  3: ['offer', description],
  4: ['trickle', { 1: ['candidateInit'], 2: ['target'] }],
  5: ['update', { 1: ['participants', participant, true] }],
  6: ['trackPublished', { 1: ['cid'], 2: ['track', track] }],
  8: ['leave', { 2: ['reason'], 3: ['action'] }],
  9: ['mute', { 1: ['sid'], 2: ['muted'] }],
};
// Enumerations are numbers in protobuf and names in JSON.
const NAMES = {
  type: ['AUDIO', 'VIDEO', 'DATA'],
  state: ['JOINING', 'JOINED', 'ACTIVE', 'DISCONNECTED'],
  source: ['UNKNOWN', 'CAMERA', 'MICROPHONE', 'SCREEN_SHARE', 'SCREEN_SHARE_AUDIO'],
  target: ['PUBLISHER', 'SUBSCRIBER'],
};

function decode(bytes, schema) {
  const message = {};
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const key = varint();
    const [name, inner, isList] = schema[Math.floor(key / 8)] ?? [];
    let value;
    if (key % 8 === 0) {
      value = varint();
    } else if (key % 8 === 2) {
      const length = varint();
      const part = bytes.subarray(at, at + length);
      at += length;
      value = inner ? decode(part, inner) : name && new TextDecoder().decode(part);
    } else {
      at += key % 8 === 1 ? 8 : 4;
    }
    if (name && isList) (message[name] ??= []).push(value);
    else if (name) message[name] = value;
  }
  return message;
}

export const nameOf = (field, value) =>
  typeof value === 'string' ? value : NAMES[field][value ?? 0] ?? 'UNKNOWN';

// Events: `joined`, `participants`, `media` (track, stream id), `speakers`, `muted`, `closed`.
export class Signal extends EventTarget {
  #socket;
  #ping;
  #publishing = new Map();
  #waiting = { PUBLISHER: [], SUBSCRIBER: [] };
  #offerId = 0;
  #negotiating = Promise.resolve();

  connect(url, token) {
    const query = new URLSearchParams({ access_token: token, protocol: 16, auto_subscribe: 1 });
    this.#socket = new WebSocket(`${url}/rtc?${query}`);
    this.#socket.binaryType = 'arraybuffer';
    this.#socket.onopen = () => {
      const ping = () => this.send({ pingReq: { timestamp: String(Date.now()), rtt: '0' } });
      ping();
      this.#ping = setInterval(ping, 5000);
    };
    let handled = Promise.resolve();
    this.#socket.onmessage = ({ data }) => {
      const isText = typeof data === 'string';
      const message = isText ? JSON.parse(data) : decode(new Uint8Array(data), response);
      // In order: an answer must be set before the candidate behind it.
      handled = handled.then(() => this.#handle(message)).catch((error) => console.error(error));
    };
    this.#socket.onclose = () => this.close('The connection to the server was lost.');
  }

  send(request) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(request));
  }

  leave() {
    this.send({ leave: { reason: 'CLIENT_INITIATED' } });
    this.close('');
  }

  close(reason) {
    clearInterval(this.#ping);
    this.#socket.onclose = null;
    this.#socket.close();
    this.publisher?.close();
    this.subscriber?.close();
    this.#tell('closed', reason);
  }

  // Publishes a track; resolves to its SID and sender.
  async publish(track, source, encodings) {
    const { width = 0, height = 0 } = track.getSettings();
    const video = track.kind === 'video';
    const scale = (encoding) => encoding.scaleResolutionDownBy ?? 1;
    const qualities = ['LOW', 'MEDIUM', 'HIGH'].slice(-encodings.length);
    const layers = encodings.map((encoding, index) => ({
      quality: encodings.length === 1 ? 'HIGH' : qualities[index],
      width: Math.round(width / scale(encoding)),
      height: Math.round(height / scale(encoding)),
      bitrate: encoding.maxBitrate ?? 0,
    }));
    const request = { cid: track.id, name: source.toLowerCase(), source, type: video ? 'VIDEO' : 'AUDIO' };
    if (video) Object.assign(request, { width, height, layers });
    const answered = new Promise((resolve) => this.#publishing.set(track.id, resolve));
    this.send({ addTrack: request });
    const { sid } = await answered;
    const transceiver = this.publisher.addTransceiver(track, {
      direction: 'sendonly',
      streams: [new MediaStream([track])],
      sendEncodings: encodings,
    });
    await this.negotiate();
    return { sid, transceiver };
  }

  async unpublish({ transceiver }) {
    transceiver.stop();
    await this.negotiate();
  }

  // One offer at a time; the answer to it ends the wait.
  negotiate() {
    this.#negotiating = this.#negotiating.then(async () => {
      await this.publisher.setLocalDescription();
      const { sdp } = this.publisher.localDescription;
      const answered = new Promise((resolve) => { this.answered = resolve; });
      this.send({ offer: { type: 'offer', sdp, id: ++this.#offerId } });
      await answered;
    });
    return this.#negotiating;
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #connection(target, iceServers) {
    const connection = new RTCPeerConnection({ iceServers });
    connection.onicecandidate = ({ candidate }) => {
      if (candidate) this.send({ trickle: { candidateInit: JSON.stringify(candidate), target } });
    };
    return connection;
  }

  async #describe(target, remote) {
    const connection = target === 'PUBLISHER' ? this.publisher : this.subscriber;
    await connection.setRemoteDescription({ type: remote.type, sdp: remote.sdp });
    for (const candidate of this.#waiting[target].splice(0)) {
      await connection.addIceCandidate(candidate);
    }
    return connection;
  }

  async #handle(message) {
    if (message.join) this.#joined(message.join);
    if (message.update) this.#tell('participants', message.update.participants ?? []);
    if (message.speakersChanged) this.#tell('speakers', message.speakersChanged.speakers ?? []);
    if (message.mute) this.#tell('muted', message.mute);
    if (message.offer) {
      const connection = await this.#describe('SUBSCRIBER', { type: 'offer', ...message.offer });
      await connection.setLocalDescription();
      const { sdp } = connection.localDescription;
      this.send({ answer: { type: 'answer', sdp, id: message.offer.id } });
    }
    if (message.answer) {
      await this.#describe('PUBLISHER', { type: 'answer', ...message.answer });
      this.answered?.();
    }
    if (message.trickle) await this.#trickle(message.trickle);
    if (message.trackPublished) {
      this.#publishing.get(message.trackPublished.cid)?.(message.trackPublished.track);
    }
    if (message.leave) this.close('The call has ended.');
  }

  #joined({ participant, otherParticipants = [], iceServers = [] }) {
    this.publisher = this.#connection('PUBLISHER', iceServers);
    this.subscriber = this.#connection('SUBSCRIBER', iceServers);
    this.subscriber.ontrack = ({ track, streams }) => {
      // The stream is `<participant sid>|<track sid>`.
      const [participantSid] = (streams[0]?.id ?? '').split('|');
      this.#tell('media', { participantSid, track, stream: streams[0] });
    };
    this.sid = participant.sid;
    this.#tell('joined', participant);
    this.#tell('participants', otherParticipants);
  }

  async #trickle({ candidateInit, target }) {
    const name = nameOf('target', target);
    const connection = name === 'PUBLISHER' ? this.publisher : this.subscriber;
    const candidate = JSON.parse(candidateInit);
    if (connection.remoteDescription) await connection.addIceCandidate(candidate);
    else this.#waiting[name].push(candidate);
  }
}
