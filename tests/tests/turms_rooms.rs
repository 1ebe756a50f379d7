//! Rooms follow Turms: who is muted, promoted, removed or blocked there feels it in the call.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a delay is shown, not judged")]

mod turms;

use std::time::{Duration, Instant};

use serde_json::json;
use sluice_tests::fake_rooms::{Deed, FakeRooms};
use sluice_tests::fake_turms::Fault;
use sluice_turms::config::OnStale;
use turms::{World, far, now_ms};

const ROOM: &str = "turms:g:42";

/// Group 42 with owner 1, manager 2 and members 3 and 4, all in the call.
async fn call(change: impl FnOnce(&mut sluice_turms::TurmsConfig)) -> World {
    let world = World::start_with(|config, _| change(config)).await;
    world.turms.script(&json!([
        { "op": "group", "id": 42 },
        { "op": "member", "group": 42, "user": 1, "role": "OWNER" },
        { "op": "member", "group": 42, "user": 2, "role": "MANAGER" },
        { "op": "member", "group": 42, "user": 3, "role": "MEMBER" },
        { "op": "member", "group": 42, "user": 4, "role": "MEMBER" },
    ]));
    for user in ["1", "2", "3", "4"] {
        world.rooms.join(ROOM, user);
    }
    world
        .rooms
        .until("all seen", |rooms| {
            ["1", "2", "3", "4"].iter().all(|user| {
                let seen =
                    |a: sluice_turms::rooms::Attendee| a.attributes.contains_key("turms.role");
                rooms.attendee(ROOM, user).is_some_and(seen)
            })
        })
        .await;
    world
}

/// Polls so seldom that only notices can be the reason for anything.
fn only_notices(config: &mut sluice_turms::TurmsConfig) {
    config.sync.poll_interval = Duration::from_secs(3600);
    config.sync.stale_after = Duration::from_secs(10_000);
}

/// Polls often, for tests without notices.
fn often(config: &mut sluice_turms::TurmsConfig) {
    config.sync.poll_interval = Duration::from_millis(200);
}

fn may_publish(rooms: &FakeRooms, user: &str) -> bool {
    rooms.attendee(ROOM, user).is_some_and(|attendee| attendee.can_publish)
}

#[tokio::test]
async fn a_notice_mutes_within_a_second_and_the_end_of_the_mute_restores() {
    let world = call(only_notices).await;
    let end = now_ms() + 2_500;
    world.turms.script(&json!([
        { "op": "member", "group": 42, "user": 3, "role": "MEMBER", "mute_end": end },
    ]));
    let told = Instant::now();
    world.notice(json!({ "kind": "member_updated", "group_id": "42", "user_ids": ["3"] })).await;
    world.rooms.until("muted", |rooms| !may_publish(rooms, "3")).await;
    println!("muted {} ms after the notice", told.elapsed().as_millis());
    let muted = world.rooms.attendee(ROOM, "3").unwrap();
    assert_eq!(muted.attributes["turms.muted_until"], end.to_string());
    assert!(may_publish(&world.rooms, "4"), "nobody else");
    world.rooms.until("unmuted", |rooms| may_publish(rooms, "3")).await;
    assert!(now_ms() >= end);
    let unmuted = world.rooms.attendee(ROOM, "3").unwrap();
    assert!(!unmuted.attributes.contains_key("turms.muted_until"));
    assert_eq!(world.adapter.stats().participants_unmuted.get(), 1);
}

#[tokio::test]
async fn without_notices_the_next_look_does_the_same() {
    let world = call(often).await;
    world.turms.script(&json!([{ "op": "group", "id": 42, "mute_end": far() }]));
    world
        .rooms
        .until("members muted", |rooms| !may_publish(rooms, "3") && !may_publish(rooms, "4"))
        .await;
    assert!(may_publish(&world.rooms, "1") && may_publish(&world.rooms, "2"), "administrators");
    world.turms.script(&json!([{ "op": "group", "id": 42 }]));
    world.rooms.until("unmuted", |rooms| may_publish(rooms, "3")).await;
}

#[tokio::test]
async fn whoever_is_removed_is_out_and_cannot_return_with_the_old_token() {
    let world = call(only_notices).await;
    let body = json!({ "target": { "type": "group", "id": "42" } });
    assert_eq!(world.token(3, &body).await.0, 200);
    let old = world.rooms.last_token().unwrap();
    world.turms.script(&json!([{ "op": "remove_member", "group": 42, "user": 3 }]));
    world.notice(json!({ "kind": "members_removed", "group_id": "42", "user_ids": ["3"] })).await;
    world.rooms.until("out", |rooms| rooms.attendee(ROOM, "3").is_none()).await;
    let token =
        |issued_at| sluice_turms::gate::TokenFacts { api_key: "turms", identity: "3", issued_at };
    assert!(world.adapter.gate().admit(ROOM, token(old.issued_at), now_ms()).is_err());
    assert_eq!(world.token(3, &body).await.0, 403);
    // Nor can one who was not in the call just then.
    assert_eq!(world.token(4, &body).await.0, 200);
    let old = world.rooms.last_token().unwrap();
    world.rooms.leave(ROOM, "4");
    world.turms.script(&json!([{ "op": "remove_member", "group": 42, "user": 4 }]));
    let removed = json!({ "kind": "members_removed", "group_id": "42", "user_ids": ["4", "1"] });
    world.notice(removed).await;
    let four = sluice_turms::gate::TokenFacts { identity: "4", ..token(old.issued_at) };
    assert!(world.adapter.gate().admit(ROOM, four, now_ms()).is_err());
    let owner = sluice_turms::gate::TokenFacts { identity: "1", ..token(old.issued_at) };
    assert!(world.adapter.gate().admit(ROOM, owner, now_ms()).is_ok(), "still a member");
    // Added again, with a new token, they may return at once.
    world.turms.script(&json!([{ "op": "member", "group": 42, "user": 3, "role": "MEMBER" }]));
    world.notice(json!({ "kind": "members_added", "group_id": "42", "user_ids": ["3"] })).await;
    assert_eq!(world.token(3, &body).await.0, 200);
    let new = world.rooms.last_token().unwrap();
    assert!(world.adapter.gate().admit(ROOM, token(new.issued_at), now_ms()).is_ok());
}

#[tokio::test]
async fn promotion_and_demotion_reach_the_call() {
    let world = call(only_notices).await;
    world.turms.script(&json!([
        { "op": "member", "group": 42, "user": 3, "role": "MANAGER" },
        { "op": "member", "group": 42, "user": 2, "role": "MEMBER" },
    ]));
    world.notice(json!({ "kind": "member_updated", "group_id": "42", "user_ids": ["2"] })).await;
    let deed = |user: &str, admin| Deed::Admin(ROOM.into(), user.into(), admin);
    world.rooms.until("promoted", |rooms| rooms.deeds().contains(&deed("3", true))).await;
    world.rooms.until("demoted", |rooms| rooms.deeds().contains(&deed("2", false))).await;
    world
        .rooms
        .until("told", |rooms| {
            rooms.attendee(ROOM, "3").is_some_and(|a| a.attributes["turms.role"] == "MANAGER")
        })
        .await;
    let old = sluice_turms::gate::TokenFacts {
        api_key: "turms",
        identity: "2",
        issued_at: now_ms() / 1000 - 5,
    };
    assert!(!world.adapter.gate().may_administer(ROOM, old, now_ms()));
    assert!(may_publish(&world.rooms, "2"), "still a member");
}

#[tokio::test]
async fn blocks_of_the_group_and_of_turms_remove() {
    let world = call(often).await;
    world.turms.script(&json!([{ "op": "group_block", "group": 42, "user": 3 }]));
    world.rooms.until("blocked there", |rooms| rooms.attendee(ROOM, "3").is_none()).await;
    world.turms.script(&json!([{ "op": "block", "user": 4, "until": far() }]));
    world.notice(json!({ "kind": "user_blocked", "user_ids": ["4"] })).await;
    world.rooms.until("blocked everywhere", |rooms| rooms.attendee(ROOM, "4").is_none()).await;
    assert!(world.rooms.attendee(ROOM, "1").is_some());
}

#[tokio::test]
async fn a_deleted_group_ends_its_call() {
    let world = call(only_notices).await;
    world.turms.script(&json!([{ "op": "delete_group", "id": 42 }]));
    world.notice(json!({ "kind": "group_deleted", "group_id": "42" })).await;
    world.rooms.until("closed", |rooms| !rooms.is_open(ROOM)).await;
    assert!(world.rooms.deeds().contains(&Deed::Closed(ROOM.into())));
    let record = world.until_message("room_finished").await;
    assert_eq!(record["peak_participants"], 4);
}

#[tokio::test]
async fn a_turms_that_loses_its_data_removes_nobody() {
    let world = call(often).await;
    for group in 1..=5 {
        world.turms.script(&json!([
            { "op": "group", "id": group },
            { "op": "member", "group": group, "user": 1, "role": "OWNER" },
        ]));
        world.rooms.join(&format!("turms:g:{group}"), "1");
    }
    world
        .rooms
        .until("all seen", |rooms| {
            (1..=5).all(|group| {
                let attendee = rooms.attendee(&format!("turms:g:{group}"), "1");
                attendee.is_some_and(|a| a.attributes.contains_key("turms.role"))
            })
        })
        .await;
    for fault in [Fault::Empty, Fault::ServerError, Fault::HalfAnswer, Fault::Unauthorized] {
        let asked = || {
            let stats = world.adapter.stats();
            stats.admin_requests.get() + stats.admin_breaker_refusals.get()
        };
        let before = asked();
        world.turms.lock().fault = fault;
        let waited = async {
            while asked() < before + 12 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waited).await.expect("requests go on");
        assert!(world.rooms.is_open(ROOM), "{fault:?}");
        assert!((1..=5).all(|group| world.rooms.is_open(&format!("turms:g:{group}"))), "{fault:?}");
    }
    assert_eq!(world.adapter.stats().participants_removed.get(), 0);
    assert_eq!(world.adapter.stats().rooms_closed.get(), 0);
    assert!(world.adapter.stats().removals_held.get() > 0);
}

#[tokio::test]
async fn stale_facts_mute_and_fresh_ones_restore_where_that_is_chosen() {
    let world = call(|config| {
        config.sync.poll_interval = Duration::from_millis(200);
        config.sync.stale_after = Duration::from_millis(900);
        config.sync.on_stale = OnStale::Mute;
    })
    .await;
    world.turms.lock().fault = Fault::ServerError;
    world.rooms.until("muted", |rooms| !may_publish(rooms, "3") && !may_publish(rooms, "1")).await;
    assert_eq!(world.adapter.stats().stale_rooms.get(), 1);
    world.turms.lock().fault = Fault::None;
    world.rooms.until("restored", |rooms| may_publish(rooms, "3") && may_publish(rooms, "1")).await;
}

#[tokio::test]
async fn an_adapter_that_starts_in_the_middle_of_a_call_changes_only_what_is_wrong() {
    let world = World::start_with(|config, _| often(config)).await;
    world.turms.script(&json!([
        { "op": "group", "id": 42 },
        { "op": "member", "group": 42, "user": 1, "role": "OWNER" },
        { "op": "member", "group": 42, "user": 3, "role": "MEMBER" },
    ]));
    // Muted by Turms before; the mute has ended meanwhile.
    let muted = [("turms.muted_until".to_owned(), (now_ms() - 1000).to_string())];
    world.rooms.join_with(ROOM, "3", false, muted.into());
    // Muted by an administrator of the room, which is not Turms' business.
    world.rooms.join_with(ROOM, "1", false, [].into());
    world.rooms.join(ROOM, "9");
    world.rooms.join(ROOM, "agent-of-the-house");
    world.rooms.until("restored", |rooms| may_publish(rooms, "3")).await;
    world.rooms.until("stranger out", |rooms| rooms.attendee(ROOM, "9").is_none()).await;
    assert!(!may_publish(&world.rooms, "1"));
    assert!(world.rooms.attendee(ROOM, "agent-of-the-house").is_some());
}

#[tokio::test]
async fn groups_hear_of_their_calls_once() {
    let world = call(|config| {
        often(config);
        config.messages.roster_digest = Duration::from_millis(300);
    })
    .await;
    world.until_message("room_started").await;
    let roster = world.until_message("roster").await;
    assert_eq!(roster["participants"], json!(["1", "2", "3", "4"]));
    for user in ["1", "2", "3", "4"] {
        world.rooms.leave(ROOM, user);
    }
    let finished = world.until_message("room_finished").await;
    assert_eq!(finished["peak_participants"], 4);
    let started = world.records().iter().filter(|r| r["event"] == "room_started").count();
    assert_eq!(started, 1);
    let state = world.turms.lock();
    assert!(state.messages.iter().all(|message| message["targetId"] == 42));
    assert!(state.messages.iter().all(|message| message["records"][0] == "ZA=="), "type 100");
    assert!(state.refused.is_empty(), "{:?}", state.refused);
}

#[tokio::test]
async fn answers_of_few_records_remove_nobody() {
    let world = World::start_with(|config, _| {
        often(config);
        config.admin.page_size = 3;
    })
    .await;
    let groups = 1..=7;
    for group in groups.clone() {
        world.turms.script(&json!([{ "op": "group", "id": group }]));
        for user in 1..=4 {
            let role = if user == 1 { "OWNER" } else { "MEMBER" };
            world
                .turms
                .script(&json!([{ "op": "member", "group": group, "user": user, "role": role }]));
            world.rooms.join(&format!("turms:g:{group}"), &user.to_string());
        }
    }
    let told = |rooms: &FakeRooms| {
        groups.clone().all(|group| {
            let role = |user: i32| {
                let attendee = rooms.attendee(&format!("turms:g:{group}"), &user.to_string());
                attendee.is_some_and(|attendee| attendee.attributes.contains_key("turms.role"))
            };
            (1..=4).all(role)
        })
    };
    world.rooms.until("everybody was looked at", told).await;
    let stats = world.adapter.stats();
    assert_eq!(stats.participants_removed.get() + stats.rooms_closed.get(), 0);
    assert_eq!(stats.removals_held.get(), 0);
}

#[tokio::test]
async fn a_private_call_ends_for_whoever_the_other_one_blocks() {
    let world = World::start_with(|config, _| {
        often(config);
        config.admin.check_relationships = true;
        config.admin.check_users = true;
    })
    .await;
    let body = |other: &str| json!({ "target": { "type": "user", "id": other } });
    assert_eq!(world.token(3, &body("4")).await.0, 200);
    let private = "turms:u:3:4";
    world.rooms.join(private, "3");
    world.rooms.join(private, "4");
    world.turms.script(&json!([{ "op": "user_block", "owner": 4, "user": 3 }]));
    world.notice(json!({ "kind": "user_blocked", "user_ids": ["3"] })).await;
    world.rooms.until("out", |rooms| rooms.attendee(private, "3").is_none()).await;
    assert!(world.rooms.attendee(private, "4").is_some(), "who blocked may stay");
    let (status, answer) = world.token(3, &body("4")).await;
    assert_eq!((status, &answer["reason"]), (403, &json!("blocked")));
    assert_eq!(world.token(4, &body("3")).await.0, 200);
    world.turms.script(&json!([{ "op": "user", "id": 4, "password": "p", "inactive": true }]));
    world.rooms.until("inactive", |rooms| !rooms.is_open(private)).await;
    assert_eq!(world.turms.lock().refused, Vec::<String>::new());
}

#[tokio::test]
async fn of_an_unknown_meeting_blocks_are_followed_and_unbound_guests_left_alone() {
    let world = World::start_with(|config, _| often(config)).await;
    let meeting = "123456789";
    world.rooms.join(meeting, "3");
    world.rooms.join(meeting, "turms-00000000000000aa");
    world.turms.script(&json!([{ "op": "block", "user": 3, "until": far() }]));
    world.rooms.until("blocked", |rooms| rooms.attendee(meeting, "3").is_none()).await;
    assert!(world.rooms.attendee(meeting, "turms-00000000000000aa").is_some());
}

#[tokio::test]
async fn a_muted_member_who_comes_back_with_an_old_token_is_muted_again() {
    let world = call(often).await;
    world.turms.script(&json!([
        { "op": "member", "group": 42, "user": 3, "role": "MEMBER", "mute_end": far() },
    ]));
    world.rooms.until("muted", |rooms| !may_publish(rooms, "3")).await;
    // The new session takes the place of the old one, with the rights of before.
    world.rooms.join(ROOM, "3");
    assert!(may_publish(&world.rooms, "3"));
    world.rooms.until("muted again", |rooms| !may_publish(rooms, "3")).await;
}

#[tokio::test]
async fn a_block_that_comes_while_blocks_are_asked_about_is_felt_at_once() {
    let world = call(|config| {
        only_notices(config);
        config.admin.timeout = Duration::from_secs(20);
        config.messages.room_started = false;
    })
    .await;
    // The first question is answered late, and asked before the block.
    world.turms.lock().fault = Fault::Hang;
    let before = world.adapter.stats().admin_requests.get();
    world.notice(json!({ "kind": "user_blocked", "user_ids": ["99"] })).await;
    let asked = async {
        while world.adapter.stats().admin_requests.get() == before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), asked).await.expect("a question is out");
    world.notice(json!({ "kind": "user_blocked", "user_ids": ["98"] })).await;
    world.turms.lock().fault = Fault::Empty;
    let answered = async {
        while world.adapter.stats().admin_requests.get() < before + 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), answered).await.expect("another one follows");
}
