//! HTTP around the signal socket: health, CORS, limits, paths, and refusals before the upgrade.

mod support;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::header::{ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION};
use reqwest::{Client, Method, Response};
use serde_json::json;
use sluice_control::JoinError;
use support::{KEY, SECRET, TestServer, join_claims, now, sign, token};

async fn get(server: &TestServer, path: &str) -> Response {
    Client::new().get(server.url(path)).send().await.expect("answers")
}

async fn text(response: Response) -> (u16, String) {
    (response.status().as_u16(), response.text().await.expect("text"))
}

#[tokio::test]
async fn health_answers_get_and_head() {
    let server = TestServer::start().await;
    assert_eq!(text(get(&server, "/").await).await, (200, "OK".into()));
    let head = Client::new().head(server.url("/")).send().await.expect("answers");
    assert_eq!(head.status(), 200);
    assert_eq!(get(&server, "/settings/regions").await.status(), 404);
}

#[tokio::test]
async fn every_answer_allows_any_origin() {
    let server = TestServer::start().await;
    for (path, status) in
        [("/", 200), ("/nowhere", 404), ("/rtc/validate", 401), ("/rtc/v1/validate", 401)]
    {
        let response = get(&server, path).await;
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(response.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], "*", "{path}");
    }
}

#[tokio::test]
async fn a_preflight_allows_the_headers_it_asks_for() {
    let server = TestServer::start().await;
    let request = Client::new()
        .request(Method::OPTIONS, server.url("/twirp/livekit.RoomService/ListRooms"))
        .header("Origin", "https://example.org")
        .header("Access-Control-Request-Method", "POST")
        .header("Access-Control-Request-Headers", "authorization,content-type");
    let response = request.send().await.expect("answers");
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()[ACCESS_CONTROL_ALLOW_HEADERS], "authorization,content-type");
    assert_eq!(response.headers()["access-control-max-age"], "86400");
}

#[tokio::test]
async fn one_doubled_leading_slash_is_forgiven() {
    let server = TestServer::start().await;
    let path = format!("//rtc/validate?access_token={}", token("r"));
    assert_eq!(text(get(&server, &path).await).await, (200, "success".into()));
}

#[tokio::test]
async fn a_body_above_the_limit_is_413() {
    let server = TestServer::start().await;
    let body = vec![b' '; (10 << 20) + 1];
    let request = Client::new()
        .post(server.url("/twirp/livekit.RoomService/ListRooms"))
        .header("Content-Type", "application/json")
        .body(body);
    assert_eq!(request.send().await.expect("answers").status(), 413);
}

#[tokio::test]
async fn without_an_upgrade_the_socket_paths_do_not_exist() {
    let server = TestServer::start().await;
    for path in ["/rtc", "/rtc/v1"] {
        let path = format!("{path}?access_token={}", token("r"));
        assert_eq!(get(&server, &path).await.status(), 404);
    }
}

#[tokio::test]
async fn a_header_must_be_a_bearer_token() {
    let server = TestServer::start().await;
    let request = Client::new().get(server.url("/rtc/validate")).header(AUTHORIZATION, "Basic x");
    let answer = text(request.send().await.expect("answers")).await;
    assert_eq!(answer, (401, "invalid authorization header. Must start with Bearer ".into()));
    let request = Client::new().get(server.url("/rtc/validate")).bearer_auth(token("r"));
    assert_eq!(text(request.send().await.expect("answers")).await, (200, "success".into()));
}

#[tokio::test]
async fn each_bad_token_is_401_with_its_reason() {
    let server = TestServer::start().await;
    let with = |name: &str, value: serde_json::Value| {
        let mut claims = join_claims("r");
        claims[name] = value;
        claims
    };
    let without = |name: &str| {
        let mut claims = join_claims("r");
        claims.as_object_mut().expect("an object").remove(name);
        claims
    };
    let invalid = |detail: &str| format!("invalid authorization token{detail}");
    let unsigned = {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let claims = join_claims("r").to_string();
        format!("{}.{}.", part(r#"{"alg":"none","typ":"JWT"}"#), part(&claims))
    };
    let wrong_algorithm = {
        let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
        let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS512);
        jsonwebtoken::encode(&header, &join_claims("r"), &key).expect("signs")
    };
    let cases = [
        ("garbage".to_owned(), invalid("")),
        (unsigned, invalid("")),
        (wrong_algorithm, invalid("")),
        (sign(&with("iss", json!("nobody")), SECRET), "invalid API key".to_owned()),
        (sign(&without("iss"), SECRET), "invalid API key".to_owned()),
        (
            sign(&join_claims("r"), "guess"),
            invalid(": token signature is invalid: signature is invalid"),
        ),
        (
            sign(&join_claims("r"), "other-secret"),
            invalid(": token signature is invalid: signature is invalid"),
        ),
        (
            sign(&with("exp", json!(now() - 61)), SECRET),
            invalid(": token has invalid claims: token is expired"),
        ),
        (
            sign(&without("exp"), SECRET),
            invalid(
                ": token has invalid claims: token is missing required claim: exp claim is required",
            ),
        ),
        (
            sign(&with("nbf", json!(now() + 120)), SECRET),
            invalid(": token has invalid claims: token is not valid yet"),
        ),
        (sign(&with("video", json!("all")), SECRET), invalid("")),
    ];
    for (token, reason) in cases {
        let path = format!("/rtc/validate?access_token={token}");
        assert_eq!(text(get(&server, &path).await).await, (401, reason.clone()));
        let refused = server.refused(&format!("/rtc?access_token={token}")).await;
        assert_eq!(refused, (401, reason));
    }
    assert_eq!(server.stats.tokens_refused.get(), 22);
}

#[tokio::test]
async fn clocks_may_differ_by_a_minute() {
    let server = TestServer::start().await;
    let mut claims = join_claims("r");
    claims["exp"] = json!(now() - 30);
    claims["nbf"] = json!(now() + 30);
    let path = format!("/rtc/validate?access_token={}", sign(&claims, SECRET));
    assert_eq!(text(get(&server, &path).await).await, (200, "success".into()));
}

#[tokio::test]
async fn a_good_token_still_needs_the_right_grants_and_names() {
    let server = TestServer::start().await;
    let claims = |identity: &str, video: serde_json::Value| json!({ "iss": KEY, "sub": identity, "exp": now() + 600, "video": video });
    let may = |room: &str| json!({ "roomJoin": true, "room": room });
    let denied = (401, "permission denied");
    let long = "x".repeat(257);
    let cases = [
        (json!({ "iss": KEY, "sub": "a", "exp": now() + 600 }), denied),
        (claims("a", json!({})), denied),
        (claims("a", json!({ "roomJoin": false, "room": "r" })), denied),
        (claims("", may("r")), (400, "identity cannot be empty")),
        (claims(&long, may("r")), (400, "participant identity exceeds limits: max length 256")),
        (claims("a", may("")), (400, "no room name")),
        (claims("a", may(&long)), (400, "room name exceeds limits: max length 256")),
        (claims("a", may("missing")), (404, "requested room does not exist")),
    ];
    for (claims, (status, reason)) in cases {
        let path = format!("/rtc/validate?access_token={}", sign(&claims, SECRET));
        assert_eq!(text(get(&server, &path).await).await, (status, reason.to_owned()));
    }
    let nobody = get(&server, "/rtc/validate").await;
    assert_eq!(text(nobody).await, (401, "permission denied".into()));
}

#[tokio::test]
async fn the_id_stands_in_for_a_missing_subject() {
    let server = TestServer::start().await;
    let mut claims = join_claims("r");
    claims["sub"] = json!("");
    claims["jti"] = json!("from-jti");
    let path = format!("/rtc?access_token={}", sign(&claims, SECRET));
    let _socket = server.connect(&path).await;
    assert_eq!(server.joined().await.params.identity, "from-jti");
}

#[tokio::test]
async fn rooms_refuse_before_the_upgrade() {
    let server = TestServer::start().await;
    let path = format!("/rtc?access_token={}", token("r"));
    for (error, status) in [
        (JoinError::MaxParticipants, 429),
        (JoinError::Unavailable, 503),
        (JoinError::Internal("oops".into()), 500),
    ] {
        let text = error.to_string();
        server.refuse(error).await;
        assert_eq!(server.refused(&path).await, (status, text));
    }
    assert_eq!(server.stats.joins_refused.get(), 3);
    assert_eq!(server.stats.sockets_opened.get(), 0);
}

#[tokio::test]
async fn a_session_that_ends_before_its_first_message_is_a_500() {
    let server = TestServer::start_silent().await;
    let path = format!("/rtc?access_token={}", token("r"));
    let (refused, ()) = tokio::join!(server.refused(&path), async { drop(server.joined().await) });
    assert_eq!(refused, (500, "connection closed by media".into()));
}
