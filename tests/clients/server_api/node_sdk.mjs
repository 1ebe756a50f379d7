// `livekit-server-sdk` (npm) against every method of RoomService and AgentDispatchService. Prints
// one line per check: `ok NAME` or `FAIL NAME reason`. With `verify KEY SECRET` it reads webhooks from
// stdin instead (a JSON list of [authorization, body]) and prints the events that it believes.
//
//     node node_sdk.mjs URL KEY SECRET ROOM IDENTITY TRACK_SID
//     node node_sdk.mjs verify KEY SECRET

import assert from 'node:assert/strict';
import { text } from 'node:stream/consumers';
import {
  AgentDispatchClient,
  DataPacket_Kind,
  EgressClient,
  IngressClient,
  RoomServiceClient,
  SipClient,
  WebhookReceiver,
} from 'livekit-server-sdk';

if (process.argv[2] === 'verify') {
  const receiver = new WebhookReceiver(process.argv[3], process.argv[4]);
  const events = [];
  for (const [authorization, body] of JSON.parse(await text(process.stdin))) {
    await assert.rejects(receiver.receive(`${body} `, authorization));
    const event = await receiver.receive(body, authorization);
    events.push({ event: event.event, room: event.room?.name, id: event.id });
  }
  console.log(JSON.stringify(events));
  process.exit(0);
}

const [url, key, secret, room, identity, trackSid] = process.argv.slice(2);
const rooms = new RoomServiceClient(url, key, secret);
const agents = new AgentDispatchClient(url, key, secret);
const nobody = 'nobody';
const absent = `${room}-absent`;

async function check(name, test) {
  try {
    await test();
    console.log(`ok ${name}`);
  } catch (error) {
    console.log(`FAIL ${name} ${String(error.stack).replaceAll('\n', ' | ')}`);
    process.exitCode = 1;
  }
}

// A call that must fail with a Twirp code.
async function refused(call, code, status) {
  const error = await call.then(
    () => assert.fail('was not refused'),
    (error) => error,
  );
  assert.equal(error.code, code, String(error));
  if (status) assert.equal(error.status, status);
}

await check('createRoom', async () => {
  const made = await rooms.createRoom({ name: `${room}-node`, emptyTimeout: 60, metadata: 'm' });
  assert.match(made.sid, /^RM_/);
  assert.equal(made.emptyTimeout, 60);
  await refused(rooms.createRoom({ name: 'x'.repeat(257) }), 'invalid_argument', 400);
});

await check('listRooms', async () => {
  const listed = await rooms.listRooms([`${room}-node`, absent]);
  assert.deepEqual(listed.map((r) => r.metadata), ['m']);
});

await check('deleteRoom', async () => {
  await rooms.deleteRoom(`${room}-node`);
  await refused(rooms.deleteRoom(`${room}-node`), 'not_found', 404);
});

await check('updateRoomMetadata', async () => {
  assert.equal((await rooms.updateRoomMetadata(room, 'new')).metadata, 'new');
  await refused(rooms.updateRoomMetadata(absent, 'new'), 'not_found', 404);
});

await check('listParticipants', async () => {
  const listed = await rooms.listParticipants(room);
  assert(listed.some((p) => p.identity === identity));
  assert.deepEqual(await rooms.listParticipants(absent), []);
});

await check('getParticipant', async () => {
  assert.match((await rooms.getParticipant(room, identity)).sid, /^PA_/);
  await refused(rooms.getParticipant(room, nobody), 'not_found', 404);
});

await check('mutePublishedTrack', async () => {
  const track = await rooms.mutePublishedTrack(room, identity, trackSid, true);
  assert(track.muted);
  await refused(rooms.mutePublishedTrack(room, identity, trackSid, false), 'failed_precondition', 412);
  await refused(rooms.mutePublishedTrack(room, nobody, trackSid, true), 'not_found', 404);
});

await check('updateParticipant', async () => {
  const info = await rooms.updateParticipant(room, identity, {
    name: 'Alice',
    attributes: { a: '1' },
  });
  assert.deepEqual([info.name, info.attributes.a], ['Alice', '1']);
  await refused(rooms.updateParticipant(room, nobody, { name: 'x' }), 'not_found', 404);
  const long = { name: 'x'.repeat(257) };
  await refused(rooms.updateParticipant(room, identity, long), 'invalid_argument', 400);
});

await check('updateSubscriptions', async () => {
  await rooms.updateSubscriptions(room, identity, ['TR_none'], false);
  await refused(rooms.updateSubscriptions(room, nobody, [], true), 'not_found', 404);
});

await check('sendData', async () => {
  const data = new TextEncoder().encode('hi');
  await rooms.sendData(room, data, DataPacket_Kind.RELIABLE, { topic: 't' });
  await refused(rooms.sendData(absent, data, DataPacket_Kind.LOSSY), 'not_found', 404);
});

await check('forwardParticipant', async () => {
  await rooms.forwardParticipant(room, identity, `${room}-forward`);
  const [there] = await rooms.listParticipants(`${room}-forward`);
  assert.deepEqual([there.identity, there.tracks.map((t) => t.sid)], [identity, [trackSid]]);
  await rooms.removeParticipant(`${room}-forward`, identity);
  await refused(rooms.forwardParticipant(room, identity, room), 'invalid_argument', 400);
  await refused(rooms.forwardParticipant(room, nobody, `${room}-forward`), 'not_found', 404);
});

await check('moveParticipant', async () => {
  await refused(rooms.moveParticipant(room, identity, room), 'invalid_argument', 400);
  await refused(rooms.moveParticipant(room, nobody, absent), 'not_found', 404);
});

await check('agent dispatch', async () => {
  const made = await agents.createDispatch(room, 'helper', { metadata: 'm' });
  assert.match(made.id, /^AD_/);
  assert((await agents.listDispatch(room)).some((d) => d.id === made.id));
  assert.equal((await agents.getDispatch(made.id, room)).metadata, 'm');
  await agents.deleteDispatch(made.id, room);
  await refused(agents.deleteDispatch(made.id, room), 'not_found', 404);
  await refused(agents.listDispatch(absent), 'not_found', 404);
});

await check('removeParticipant', async () => {
  await refused(rooms.removeParticipant(room, nobody), 'not_found', 404);
  await rooms.removeParticipant(room, identity);
  const gone = (await rooms.listParticipants(room)).every((p) => p.identity !== identity);
  assert(gone);
});

await check('a wrong secret', async () => {
  const stranger = new RoomServiceClient(url, key, 'x'.repeat(32));
  await assert.rejects(stranger.listRooms(), (error) => error.status === 401);
});

await check('missing services', async () => {
  const egress = new EgressClient(url, key, secret);
  assert.deepEqual(await egress.listEgress({}), []);
  await refused(egress.stopEgress('EG_none'), 'unimplemented', 501);
  assert.deepEqual(await new IngressClient(url, key, secret).listIngress({}), []);
  assert.deepEqual(await new SipClient(url, key, secret).listSipInboundTrunk(), []);
});
