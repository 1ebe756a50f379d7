//! What a restart must not forget: who was removed, which meetings were cancelled, whose one is.
//! The second server starts on a copy of the first one's state file, as after a kill.

#![allow(clippy::disallowed_methods, reason = "tokens carry dates")]

mod turms;

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use sluice_turms::gate::{GateRefusal, TokenFacts};
use turms::{World, now_ms};

const ROOM: &str = "turms:g:42";
const MEETING: &str = "123456789";
const CANCELLED: &str = "987654321";

fn group() -> Value {
    json!([
        { "op": "group", "id": 42 },
        { "op": "member", "group": 42, "user": 1, "role": "OWNER" },
        { "op": "member", "group": 42, "user": 3, "role": "MEMBER" },
    ])
}

async fn start(state: &Path) -> World {
    let world = World::start_with(|config, _| {
        config.state_file = Some(state.to_owned());
        config.sync.poll_interval = Duration::from_millis(200);
    })
    .await;
    world.turms.script(&group());
    world
}

fn admit(world: &World, room: &str, identity: &str, issued_at: i64) -> Result<(), GateRefusal> {
    let token = TokenFacts { api_key: "turms", identity, issued_at };
    world.adapter.gate().admit(room, token, now_ms())
}

#[tokio::test]
async fn removals_cancelled_meetings_and_meetings_outlive_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let state = directory.path().join("turms.state");
    let world = start(&state).await;
    let body = json!({ "target": { "type": "group", "id": "42" } });
    assert_eq!(world.token(3, &body).await.0, 200);
    let old = world.rooms.last_token().expect("a token").issued_at;
    world.rooms.join(ROOM, "1");
    world.rooms.join(ROOM, "3");
    world.turms.script(&json!([{ "op": "remove_member", "group": 42, "user": 3 }]));
    world.rooms.until("out", |rooms| rooms.attendee(ROOM, "3").is_none()).await;
    for id in [MEETING, CANCELLED] {
        let meeting = json!({ "requester_id": "1", "meeting": { "id": id, "group_id": "42" } });
        assert_eq!(world.conference("create", meeting).await.0, 200);
    }
    let cancel = json!({ "requester_id": "1", "meeting": { "id": CANCELLED } });
    assert_eq!(world.conference("cancel", cancel).await.0, 200);

    let copy = directory.path().join("copy.state");
    std::fs::copy(&state, &copy).expect("the file of the first");
    let world = start(&copy).await;
    assert_eq!(admit(&world, ROOM, "3", old), Err(GateRefusal::Revoked));
    assert_eq!(admit(&world, ROOM, "1", old), Ok(()));
    assert_eq!(admit(&world, CANCELLED, "1", old), Err(GateRefusal::Closed));
    let accept = |id: &str, user: &str| json!({ "requester_id": user, "meeting": { "id": id } });
    assert_eq!(world.conference("accept", accept(CANCELLED, "3")).await.0, 410);
    // The meeting is still its group's: of strangers nobody gets in, and whoever leaves is out.
    assert_eq!(world.conference("accept", accept(MEETING, "3")).await.0, 200);
    assert_eq!(world.conference("accept", accept(MEETING, "9")).await.0, 403);
    world.rooms.join(MEETING, "1");
    world.rooms.join(MEETING, "3");
    world.turms.script(&json!([{ "op": "remove_member", "group": 42, "user": 3 }]));
    world.rooms.until("out again", |rooms| rooms.attendee(MEETING, "3").is_none()).await;
}

#[tokio::test]
async fn a_signed_request_from_before_the_start_does_not_count() {
    let world = World::start().await;
    let before = now_ms() - 5_000;
    let payload = json!({ "v": 1, "op": "events", "ts": before, "nonce": "n", "kind": "unknown" });
    let body = sluice_turms::signed::sign(turms::EVENT_SECRET, &payload.to_string());
    let (status, answer) = world.post_text("/turms/v1/events", None, body).await;
    assert_eq!((status, &answer["reason"]), (401, &json!("unauthorized")), "{answer}");
}
