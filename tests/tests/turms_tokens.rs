//! Turms users ask for tokens: the adapter over a stand-in for Turms, by HTTP as clients do it.

mod turms;

use serde_json::{Value, json};
use sluice_tests::fake_turms::{Fault, HMAC_KEY, jwt, statements};
use sluice_turms::config::{GatewayProbeConfig, HttpIdentityConfig, Secret};
use sluice_turms::signed::sign;
use std::time::Duration;
use turms::{EVENT_SECRET, World, far, now_ms};

fn group(id: &str) -> Value {
    json!({ "target": { "type": "group", "id": id } })
}

#[tokio::test]
async fn a_member_gets_a_token_bound_to_the_turms_user() {
    let world = World::start().await;
    world.turms.script(&json!([
        { "op": "group", "id": 42 },
        { "op": "member", "group": 42, "user": 7, "role": "MEMBER" },
        { "op": "member", "group": 42, "user": 8, "role": "MANAGER" },
        { "op": "member", "group": 42, "user": 9, "role": "MEMBER", "mute_end": far() },
        { "op": "member", "group": 42, "user": 10, "role": "GUEST" },
    ]));
    let (status, answer) = world.token(7, &group("42")).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["room_name"], "turms:g:42");
    assert_eq!(answer["identity"], "7");
    let token = answer["participant_token"].as_str().unwrap_or_default();
    assert!(token.starts_with("token of 7 for turms:g:42"), "{token}");
    assert_eq!(answer["permissions"]["can_publish"], true);
    assert_eq!(answer["permissions"]["room_admin"], false);
    assert!(answer["server_url"].as_str().is_some_and(|url| url.starts_with("ws://127.0.0.1:")));
    let (_, manager) = world.token(8, &group("42")).await;
    assert_eq!(manager["permissions"]["room_admin"], true);
    let (_, muted) = world.token(9, &group("42")).await;
    assert_eq!(
        muted["permissions"],
        json!({
            "room_admin": false, "can_publish": false, "muted_until": far(),
        })
    );
    assert_eq!(
        world.rooms.last_token().unwrap().attributes["turms.muted_until"],
        far().to_string()
    );
    let (_, guest) = world.token(10, &group("42")).await;
    assert_eq!(guest["permissions"]["can_publish"], false);
}

#[tokio::test]
async fn whoever_may_not_be_there_is_told_why() {
    let world = World::start().await;
    world.turms.script(&json!([
        { "op": "group", "id": 1 }, { "op": "group", "id": 2, "inactive": true },
        { "op": "member", "group": 1, "user": 3, "role": "MEMBER" },
        { "op": "member", "group": 2, "user": 3, "role": "MEMBER" },
        { "op": "group_block", "group": 1, "user": 4 },
        { "op": "block", "user": 5, "until": far() },
        { "op": "member", "group": 1, "user": 5, "role": "OWNER" },
    ]));
    for (user, id, status, reason) in [
        (9, "1", 403, "not_member"),
        (4, "1", 403, "blocked"),
        (5, "1", 403, "blocked"),
        (3, "2", 404, "group_gone"),
        (3, "77", 404, "group_gone"),
    ] {
        let (got, answer) = world.token(user, &group(id)).await;
        assert_eq!((got, answer["reason"].as_str()), (status, Some(reason)), "{user} in {id}");
    }
    let query_only = json!([{ "effect": "ALLOW", "actions": "QUERY", "resources": "*" }]);
    let token = jwt(&json!({
        "sub": "3", "exp": now_ms() / 1000 + 60, "authenticated": true, "statements": query_only,
    }));
    let (status, answer) = world.post("/turms/v1/token", Some(&token), &group("1")).await;
    assert_eq!((status, answer["reason"].as_str()), (403, Some("policy")));
    assert_eq!(world.adapter.stats().tokens_issued.get(), 0);
}

#[tokio::test]
async fn livekits_token_source_is_understood_and_its_wishes_are_not_granted() {
    let world = World::start().await;
    world.turms.script(&json!([
        { "op": "group", "id": 42 }, { "op": "member", "group": 42, "user": 7, "role": "MEMBER" },
    ]));
    let request = json!({
        "room_name": "turms:g:42", "participant_identity": "8", "participant_name": "Seven",
        "participant_metadata": "{}", "participant_attributes": { "turms.role": "OWNER" },
    });
    let (status, answer) = world.token(7, &request).await;
    assert_eq!(status, 200, "{answer}");
    let token = world.rooms.last_token().unwrap();
    assert_eq!((token.identity.as_str(), token.name.as_str()), ("7", "Seven"));
    assert_eq!(token.attributes["turms.role"], "MEMBER");
}

#[tokio::test]
async fn private_rooms_are_for_two() {
    let world = World::start().await;
    let (status, answer) =
        world.token(7, &json!({ "target": { "type": "user", "id": "3" } })).await;
    assert_eq!((status, answer["room_name"].as_str()), (200, Some("turms:u:3:7")));
    let (status, _) = world.token(9, &json!({ "room_name": "turms:u:3:7" })).await;
    assert_eq!(status, 403);
    let (status, _) = world.token(7, &json!({ "target": { "type": "user", "id": "7" } })).await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn bad_tokens_and_bad_requests_are_refused() {
    let world = World::start().await;
    world.turms.script(&json!([
        { "op": "group", "id": 1 }, { "op": "member", "group": 1, "user": 3, "role": "MEMBER" },
    ]));
    let now = now_ms() / 1000;
    let claims = |exp: i64| json!({ "sub": "3", "exp": exp, "authenticated": true, "statements": statements() });
    let good = jwt(&claims(now + 60));
    let unsigned = format!("{}.", good.rsplit_once('.').unwrap().0);
    let mut without_exp = claims(0);
    without_exp.as_object_mut().unwrap().remove("exp");
    for token in [jwt(&claims(now - 1)), unsigned, jwt(&without_exp), "x".into(), String::new()] {
        let (status, answer) = world.post("/turms/v1/token", Some(&token), &group("1")).await;
        assert_eq!((status, answer["reason"].as_str()), (401, Some("unauthorized")), "{answer}");
        assert!(!answer.to_string().contains("eyJ"), "no token in an answer");
    }
    let (status, _) = world.post("/turms/v1/token", None, &group("1")).await;
    assert_eq!(status, 401);
    for body in [
        group("01"),
        group("-1"),
        group("9223372036854775808"),
        json!({}),
        json!({ "room_name": "lobby" }),
        json!({ "target": { "type": "planet", "id": "1" } }),
        json!({ "target": { "type": "group", "id": "1" }, "surprise": 1 }),
        json!({ "target": { "type": "group", "id": "1" }, "name": "a\u{7}b" }),
    ] {
        let (status, answer) = world.post("/turms/v1/token", Some(&good), &body).await;
        assert_eq!(status, 400, "{body}: {answer}");
    }
    assert_eq!(HMAC_KEY.last(), Some(&b'\n'), "the line break of a key file is part of the key");
}

#[tokio::test]
async fn without_turms_there_are_no_tokens() {
    let world = World::start().await;
    world.turms.script(&json!([
        { "op": "group", "id": 1 }, { "op": "member", "group": 1, "user": 3, "role": "MEMBER" },
    ]));
    for (fault, status, reason) in [
        (Fault::ServerError, 503, "turms_unavailable"),
        (Fault::HalfAnswer, 503, "turms_unavailable"),
        (Fault::Unauthorized, 503, "turms_unavailable"),
        (Fault::RateLimited, 503, "turms_unavailable"),
        (Fault::Empty, 404, "group_gone"),
        (Fault::Hang, 503, "turms_unavailable"),
    ] {
        let world = World::start().await;
        world.turms.script(&json!([
            { "op": "group", "id": 1 },
            { "op": "member", "group": 1, "user": 3, "role": "MEMBER" },
        ]));
        world.turms.lock().fault = fault;
        let (got, answer) = world.token(3, &group("1")).await;
        assert_eq!((got, answer["reason"].as_str()), (status, Some(reason)), "{fault:?}");
        assert_eq!(world.adapter.stats().tokens_issued.get(), 0);
    }
    let (status, _) = world.token(3, &group("1")).await;
    assert_eq!(status, 200, "all is well again");
}

#[tokio::test]
async fn passwords_are_checked_by_the_gateway_and_guesses_are_slowed_down() {
    for transport in ["ws", "tcp"] {
        let world = World::start_with(|config, turms| {
            let address = if transport == "ws" { turms.websocket } else { turms.tcp };
            config.jwt = None;
            config.gateway_probe = Some(GatewayProbeConfig {
                url: format!("{transport}://{address}"),
                timeout: Duration::from_secs(5),
                per_user_per_min: 5,
            });
        })
        .await;
        world.turms.script(&json!([
            { "op": "group", "id": 1 }, { "op": "member", "group": 1, "user": 3, "role": "MEMBER" },
            { "op": "user", "id": 3, "password": "right" },
            { "op": "user", "id": 4, "password": "right", "inactive": true },
        ]));
        let ask = async |user: &str, password: &str| {
            let mut body = group("1");
            body["user_id"] = user.into();
            body["password"] = password.into();
            world.post("/turms/v1/token", None, &body).await
        };
        let (status, answer) = ask("3", "right").await;
        assert_eq!(status, 200, "{transport}: {answer}");
        assert_eq!(world.turms.lock().logins, 1);
        let (status, answer) = ask("3", "hunter2").await;
        assert_eq!(status, 401);
        assert!(!answer.to_string().contains("hunter2"), "the password is not repeated");
        assert_eq!(ask("4", "right").await.0, 401, "inactive");
        let mut statuses = Vec::new();
        for _ in 0..5 {
            statuses.push(ask("3", "hunter2").await.0);
        }
        assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
    }
}

/// An operator's identity endpoint, in the form of Turms' gateway login type `http`: a GET with a
/// body, which has no content type.
async fn identity_endpoint() -> String {
    use axum::http::{HeaderMap, StatusCode};
    let answer = async |headers: HeaderMap, body: String| {
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&body["version"], headers["x-key"].to_str().unwrap()), (&json!(1), "k"));
        let right = body["password"] == "right";
        let status = if body["userId"] == 5 { StatusCode::BAD_GATEWAY } else { StatusCode::OK };
        let statements = if body["userId"] == 4 { json!([]) } else { statements() };
        let answer = json!({ "authenticated": right.to_string(), "statements": statements });
        (status, answer.to_string())
    };
    let app = axum::Router::new().route("/login", axum::routing::get(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/login", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

#[tokio::test]
async fn passwords_are_checked_by_the_operators_endpoint() {
    let url = identity_endpoint().await;
    let world = World::start_with(|config, _| {
        config.jwt = None;
        config.http_identity = Some(HttpIdentityConfig {
            url,
            method: "GET".into(),
            headers: [("x-key".to_owned(), Secret::new("k"))].into(),
            timeout: Duration::from_secs(5),
            status_codes: vec!["2??".into()],
            body_fields: json!({ "authenticated": true }).as_object().unwrap().clone(),
            per_user_per_min: 5,
        });
    })
    .await;
    world.turms.script(&json!([
        { "op": "group", "id": 1 }, { "op": "member", "group": 1, "user": 3, "role": "MEMBER" },
        { "op": "member", "group": 1, "user": 4, "role": "MEMBER" },
    ]));
    for (user, password, status, reason) in [
        ("3", "right", 200, None),
        ("3", "wrong", 401, Some("unauthorized")),
        ("4", "right", 403, Some("policy")),
        ("5", "right", 503, Some("identity_unavailable")),
        ("03", "right", 400, Some("bad_request")),
    ] {
        let mut body = group("1");
        body["user_id"] = user.into();
        body["password"] = password.into();
        let (got, answer) = world.post("/turms/v1/token", None, &body).await;
        assert_eq!((got, answer["reason"].as_str()), (status, reason), "{user}: {answer}");
    }
    let (status, _) = world.token(3, &group("1")).await;
    assert_eq!(status, 401, "this deployment takes no JWTs");
}

#[tokio::test]
async fn a_meeting_of_the_stock_plugin_is_joined_with_a_bound_token() {
    let world = World::start().await;
    let meeting = |proof: Value| json!({ "target": { "type": "meeting", "id": "123456789", "plugin_token": proof } });
    let (status, answer) = world.token(7, &meeting("proof:turms:123456789".into())).await;
    assert_eq!((status, answer["identity"].as_str()), (200, Some("7")), "{answer}");
    assert_eq!(world.rooms.last_token().unwrap().api_key.as_deref(), Some("turms"));
    for proof in ["proof:turms:987654321", "proof:other:123456789", "nonsense"] {
        assert_eq!(world.token(7, &meeting(proof.into())).await.0, 403, "{proof}");
    }
    assert_eq!(world.token(7, &meeting(Value::Null)).await.0, 403);
}

#[tokio::test]
async fn the_conference_provider_binds_requesters_and_cancelled_meetings_stay_closed() {
    let world = World::start().await;
    world.turms.script(&json!([
        { "op": "group", "id": 42 }, { "op": "member", "group": 42, "user": 7, "role": "MEMBER" },
        { "op": "member", "group": 42, "user": 8, "role": "MEMBER" },
    ]));
    let call = async |op: &str, requester: &str, nonce: &str| {
        let payload = json!({
            "v": 1, "op": format!("conference/{op}"), "ts": now_ms(), "nonce": nonce,
            "requester_id": requester,
            "meeting": { "id": "123456789", "group_id": "42" },
            "options": { "max_participants": 100, "idle_timeout_ms": 3_600_000 },
        });
        let body = sign(EVENT_SECRET, &payload.to_string());
        world.post_text(&format!("/turms/v1/conference/{op}"), None, body).await
    };
    let (status, answer) = call("create", "7", "a").await;
    assert_eq!(status, 200, "{answer}");
    assert!(world.rooms.is_open("123456789"));
    assert!(world.rooms.last_token().unwrap().rights.room_admin, "the creator administrates");
    assert_eq!(call("create", "7", "a").await.0, 409, "a repeated request");
    assert_eq!(call("accept", "8", "b").await.0, 200);
    assert!(!world.rooms.last_token().unwrap().rights.room_admin);
    assert_eq!(call("accept", "9", "c").await.0, 403, "no member of the group");
    assert_eq!(call("cancel", "7", "d").await.0, 200);
    assert!(!world.rooms.is_open("123456789"));
    assert_eq!(call("accept", "8", "e").await.0, 410);
    world.until_message("meeting_cancelled").await;
}

#[tokio::test]
async fn the_roster_is_for_those_who_may_join() {
    let world = World::start().await;
    world.turms.script(&json!([
        { "op": "group", "id": 42 }, { "op": "member", "group": 42, "user": 7, "role": "MEMBER" },
        { "op": "member", "group": 42, "user": 8, "role": "MEMBER" },
    ]));
    let (status, answer) = world.get(7, "/turms/v1/rooms/group/42").await;
    assert_eq!((status, &answer["open"]), (200, &Value::Bool(false)));
    world.rooms.join("turms:g:42", "8");
    let (_, answer) = world.get(7, "/turms/v1/rooms/group/42").await;
    assert_eq!(answer["participants"][0]["user_id"], "8");
    assert_eq!(world.get(9, "/turms/v1/rooms/group/42").await.0, 403);
    let (status, health) = world.get(7, "/turms/v1/health").await;
    assert_eq!((status, health["status"].as_str()), (200, Some("ok")));
}

#[tokio::test]
async fn the_token_of_a_room_shows_its_roster_and_no_other() {
    let world = World::start().await;
    world.turms.script(&json!([
        { "op": "group", "id": 42 }, { "op": "member", "group": 42, "user": 7, "role": "MEMBER" },
        { "op": "group", "id": 43 }, { "op": "member", "group": 43, "user": 7, "role": "MEMBER" },
    ]));
    let (_, answer) = world.token(7, &json!({ "target": { "type": "group", "id": "42" } })).await;
    let token = answer["participant_token"].as_str().expect("a token");
    let (status, roster) = world.get_with(token, "/turms/v1/rooms/group/42").await;
    assert_eq!((status, &roster["open"]), (200, &Value::Bool(false)));
    assert_eq!(world.get_with(token, "/turms/v1/rooms/group/43").await.0, 401);
    // It is no sign-in: no token comes of a token.
    let body = json!({ "target": { "type": "group", "id": "42" } });
    assert_eq!(world.post("/turms/v1/token", Some(token), &body).await.0, 401);
    world.turms.script(&json!([{ "op": "remove_member", "group": 42, "user": 7 }]));
    world.notice(json!({ "kind": "members_removed", "group_id": "42", "user_ids": ["7"] })).await;
    // It was issued before the removal: it counts no more.
    assert_eq!(world.get_with(token, "/turms/v1/rooms/group/42").await.0, 401);
}

#[tokio::test]
async fn a_life_of_zero_is_refused() {
    let world = World::start().await;
    let body = json!({ "target": { "type": "group", "id": "42" }, "ttl_seconds": 0 });
    let (status, answer) = world.token(7, &body).await;
    assert_eq!((status, &answer["reason"]), (400, &json!("bad_request")));
}

#[tokio::test]
async fn a_full_meeting_has_no_tokens_left() {
    let world = World::start().await;
    let (meeting, target) = ("123456789", json!({ "type": "meeting", "id": "123456789" }));
    world.turms.script(&json!([{ "op": "group", "id": 42 }]));
    for user in 1..=3 {
        let member = json!([{ "op": "member", "group": 42, "user": user, "role": "MEMBER" }]);
        world.turms.script(&member);
    }
    let create = json!({
        "requester_id": "1", "meeting": { "id": meeting, "group_id": "42" },
        "options": { "max_participants": 2 },
    });
    assert_eq!(world.conference("create", create).await.0, 200);
    world.rooms.join(meeting, "1");
    assert_eq!(world.token(2, &json!({ "target": target })).await.0, 200);
    world.rooms.join(meeting, "2");
    let (status, answer) = world.token(3, &json!({ "target": target })).await;
    assert_eq!((status, &answer["reason"]), (409, &json!("room_full")));
}
