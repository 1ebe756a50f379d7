/*
 * A plugin for turms-service: tells Sluice at once what changes in groups, and lets Turms'
 * conference requests go through Sluice, so that every participant is bound to a Turms user.
 *
 * Set the two constants, then load it: put the file into the `plugins` folder of turms-service, or
 * `POST /plugins/js` and `PUT /plugins` as deploy/turms/README.md shows. It is signed in the body,
 * because the HTTP client of Turms' JavaScript plugins sends no headers.
 *
 * Three properties of that engine shape the code: methods are called without `this`; `fetch` and
 * `turms` exist only after the file was evaluated; and options of `fetch` must be its own Java class.
 */

/** Base URL of Sluice, as turms-service reaches it. */
const SLUICE_URL = 'http://127.0.0.1:7880';
/** Content of the file `turms.events.secret_file` of Sluice, without its line break. */
const SECRET = 'replace with at least 32 random characters';
/** Whether Turms' conference requests go through this plugin. Only one such plugin may run. */
const CONFERENCE = true;

/** How long Sluice may take to answer, milliseconds. */
const TIMEOUT_MS = 5000;
/** Users named in one notice. */
const MAX_USERS = 100;

const EXTENSION_POINTS = 'im.turms.service.infra.plugin.extension';

// --- SHA-256 (FIPS 180-4) and HMAC (RFC 2104), so that nothing of the host is needed ---

const K = Uint32Array.from(primes(64), (p) => fraction(Math.cbrt(p)));
const INITIAL = Uint32Array.from(primes(8), (p) => fraction(Math.sqrt(p)));

function primes(count) {
    const found = [];
    for (let n = 2; found.length < count; n++) {
        if (found.every((p) => n % p !== 0)) found.push(n);
    }
    return found;
}

function fraction(x) {
    return Math.floor((x - Math.floor(x)) * 0x100000000);
}

function utf8(text) {
    const bytes = [];
    for (const char of text) {
        const code = char.codePointAt(0);
        if (code < 0x80) bytes.push(code);
        else if (code < 0x800) bytes.push(0xc0 | code >> 6, 0x80 | code & 63);
        else if (code < 0x10000) {
            bytes.push(0xe0 | code >> 12, 0x80 | code >> 6 & 63, 0x80 | code & 63);
        } else {
            bytes.push(0xf0 | code >> 18, 0x80 | code >> 12 & 63,
                0x80 | code >> 6 & 63, 0x80 | code & 63);
        }
    }
    return bytes;
}

function sha256(bytes) {
    const padded = bytes.concat([0x80]);
    while (padded.length % 64 !== 56) padded.push(0);
    const bits = bytes.length * 8;
    for (let shift = 56; shift >= 0; shift -= 8) {
        padded.push(Math.floor(bits / 2 ** shift) % 256);
    }
    const state = Uint32Array.from(INITIAL);
    const w = new Uint32Array(64);
    const rotate = (x, n) => x >>> n | x << 32 - n;
    for (let at = 0; at < padded.length; at += 64) {
        for (let i = 0; i < 16; i++) {
            const b = at + i * 4;
            w[i] = padded[b] << 24 | padded[b + 1] << 16 | padded[b + 2] << 8 | padded[b + 3];
        }
        for (let i = 16; i < 64; i++) {
            const s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >>> 3;
            const s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >>> 10;
            w[i] = w[i - 16] + s0 + w[i - 7] + s1;
        }
        let [a, b, c, d, e, f, g, h] = state;
        for (let i = 0; i < 64; i++) {
            const s1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
            const t1 = h + s1 + (e & f ^ ~e & g) + K[i] + w[i] | 0;
            const s0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
            const t2 = s0 + (a & b ^ a & c ^ b & c) | 0;
            h = g; g = f; f = e; e = d + t1 | 0;
            d = c; c = b; b = a; a = t1 + t2 | 0;
        }
        [a, b, c, d, e, f, g, h].forEach((value, i) => { state[i] += value; });
    }
    const digest = [];
    for (const word of state) {
        digest.push(word >>> 24, word >>> 16 & 255, word >>> 8 & 255, word & 255);
    }
    return digest;
}

function hmacHex(key, text) {
    let block = utf8(key);
    if (block.length > 64) block = sha256(block);
    block = block.concat(new Array(64 - block.length).fill(0));
    const inner = sha256(block.map((b) => b ^ 0x36).concat(utf8(text)));
    const outer = sha256(block.map((b) => b ^ 0x5c).concat(inner));
    return outer.map((b) => b.toString(16).padStart(2, '0')).join('');
}

// --- Requests to Sluice ---

let counter = 0;

function nonce() {
    counter += 1;
    const random = () => Math.floor(Math.random() * 0x100000000).toString(16).padStart(8, '0');
    return `${random()}${random()}-${counter}`;
}

/** Ids are 63-bit: only a BigInt holds them without loss. */
function id(long) {
    return BigInt(long).toString();
}

/** Posts a signed payload; resolves to the answer's JSON, rejects where Sluice refuses. */
function post(path, op, fields) {
    const payload = JSON.stringify({ v: 1, op, ts: Date.now(), nonce: nonce(), ...fields });
    const FetchOptions =
        Java.type('im.turms.server.common.infra.plugin.script.JsHttp$FetchOptions');
    const options = new FetchOptions();
    options.method = 'POST';
    options.body = JSON.stringify({ payload, mac: hmacHex(SECRET, payload) });
    options.timeout = TIMEOUT_MS;
    return new Promise((resolve, reject) => {
        fetch(`${SLUICE_URL}${path}`, options).then((response) => {
            if (response.status >= 200 && response.status < 300) {
                resolve(JSON.parse(response.data));
            } else {
                reject(new Error(`Sluice answered ${response.status} to ${path}`));
            }
        }, reject);
    });
}

/** Tells Sluice and does not wait: a client's request must not hang on Sluice. */
function notify(notice) {
    post('/turms/v1/events', 'events', notice).catch((error) => {
        // Sluice looks by itself now and then; this only makes it slower.
        turms.log.warn('Sluice was not told of a change: ' + error);
    });
}

// --- What changed ---

/** A Java list as an array of ids. */
function ids(list) {
    const found = [];
    for (let at = 0; at < list.size() && at < MAX_USERS; at++) found.push(id(list.get(at)));
    return found;
}

/** The request of a notification, by its kind, as a notice; undefined = does not matter. */
const READERS = {
    CREATE_GROUP_MEMBERS_REQUEST: (request) => {
        const r = request.getCreateGroupMembersRequest();
        return { kind: 'members_added', group_id: id(r.getGroupId()), user_ids: ids(r.getUserIdsList()) };
    },
    DELETE_GROUP_MEMBERS_REQUEST: (request) => {
        const r = request.getDeleteGroupMembersRequest();
        return { kind: 'members_removed', group_id: id(r.getGroupId()), user_ids: ids(r.getMemberIdsList()) };
    },
    UPDATE_GROUP_MEMBER_REQUEST: (request) => {
        const r = request.getUpdateGroupMemberRequest();
        return { kind: 'member_updated', group_id: id(r.getGroupId()), user_ids: [id(r.getMemberId())] };
    },
    UPDATE_GROUP_REQUEST: (request) => {
        return { kind: 'group_updated', group_id: id(request.getUpdateGroupRequest().getGroupId()) };
    },
    DELETE_GROUP_REQUEST: (request) => {
        return { kind: 'group_deleted', group_id: id(request.getDeleteGroupRequest().getGroupId()) };
    },
    CREATE_GROUP_BLOCKED_USER_REQUEST: (request) => {
        const r = request.getCreateGroupBlockedUserRequest();
        return { kind: 'members_removed', group_id: id(r.getGroupId()), user_ids: [id(r.getUserId())] };
    },
    DELETE_GROUP_BLOCKED_USER_REQUEST: (request) => {
        const r = request.getDeleteGroupBlockedUserRequest();
        return { kind: 'member_updated', group_id: id(r.getGroupId()), user_ids: [id(r.getUserId())] };
    },
    // One user blocks another one, or does not any more.
    CREATE_RELATIONSHIP_REQUEST: (request) => {
        return { kind: 'user_blocked', user_ids: [id(request.getCreateRelationshipRequest().getUserId())] };
    },
    UPDATE_RELATIONSHIP_REQUEST: (request) => {
        return { kind: 'user_blocked', user_ids: [id(request.getUpdateRelationshipRequest().getUserId())] };
    },
};

/** Admin API calls that change who may be where. */
const ADMIN_ACTIONS = /Group|Member|Block|User/;
const ADMIN_READS = /^(query|count|get|list)/;

class ChangeNotices extends TurmsExtension {
    getExtensionPoints() {
        return [
            `${EXTENSION_POINTS}.RequestHandlerResultHandler`,
            'im.turms.server.common.infra.plugin.extension.AdminActionHandler',
        ];
    }

    /** Whatever happens here, Turms gets its result back: without it, nobody would be notified. */
    beforeNotify(result) {
        try {
            const notifications = result.notifications();
            const told = new Set();
            for (let at = 0; at < notifications.size(); at++) {
                const request = notifications.get(at).notification();
                const read = READERS[request.getKindCase().name()];
                const notice = read && read(request);
                // The same request goes to several groups of sessions.
                const key = notice && JSON.stringify(notice);
                if (key && !told.has(key)) {
                    told.add(key);
                    notify(notice);
                }
            }
        } catch (error) {
            turms.log.error('A change could not be read: ' + error);
        }
        return result;
    }

    /** Changes through the admin API: Sluice looks at everything, as its request budget allows. */
    async handleAdminAction(action) {
        const name = action.action();
        if (name && ADMIN_ACTIONS.test(name) && !ADMIN_READS.test(name)) {
            notify({ kind: 'unknown' });
        }
    }
}

class Conference extends TurmsExtension {
    getExtensionPoints() {
        return [`${EXTENSION_POINTS}.ConferenceServiceProvider`];
    }

    async addMeetingEndedEventListener() {
        // Sluice tells the group that the call is over; Turms' own record stays as it is.
    }

    async createMeeting(requesterId, meeting, options) {
        const optional = (value) => value === null || value === undefined ? undefined : id(value);
        const answer = await post('/turms/v1/conference/create', 'conference/create', {
            requester_id: id(requesterId),
            meeting: {
                id: id(meeting.getId()),
                user_id: optional(meeting.getUserId()),
                group_id: optional(meeting.getGroupId()),
            },
            options: {
                max_participants: options.maxParticipants() ?? undefined,
                idle_timeout_ms: options.idleTimeoutMillis() ?? undefined,
            },
        });
        const Result = Java.type(`${EXTENSION_POINTS}.model.CreateMeetingResult`);
        return new Result(answer.access_token);
    }

    async cancelMeeting(requesterId, meetingId) {
        await post('/turms/v1/conference/cancel', 'conference/cancel', {
            requester_id: id(requesterId),
            meeting: { id: id(meetingId) },
        });
    }

    async acceptMeetingInvitation(requesterId, meetingId) {
        const answer = await post('/turms/v1/conference/accept', 'conference/accept', {
            requester_id: id(requesterId),
            meeting: { id: id(meetingId) },
        });
        const Result = Java.type(`${EXTENSION_POINTS}.model.AcceptMeetingInvitationResult`);
        return new Result(answer.access_token);
    }
}

class SluicePlugin extends TurmsPlugin {
    getDescriptor() {
        return {
            id: 'sluice.turms',
            version: '1.0.0',
            provider: 'sluice',
            license: 'MIT OR Apache-2.0',
            description: 'Change notices and conferences for Sluice',
        };
    }

    getExtensions() {
        return CONFERENCE ? [ChangeNotices, Conference] : [ChangeNotices];
    }
}

export default SluicePlugin;
