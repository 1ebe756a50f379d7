//! WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep): publishing and playing over plain HTTP, without
//! LiveKit's signalling. `POST` an offer and get an answer; the resource in `Location` takes `PATCH`
//! (candidates, ICE restart) and `DELETE`. Each client is a participant like any other.

mod fragment;
mod offer;
mod resource;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::header::{CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_MATCH, LINK, LOCATION};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Extension, Router};
use serde::Deserialize;
use sluice_control::SessionOutput;
use sluice_proto as proto;
use sluice_proto::signal_response::Message as SignalResponse;
use tokio::sync::oneshot;

use crate::auth::Caller;
use crate::error::HttpError;
use crate::host::{HostedSession, SessionHost, SessionSource};
use crate::rtc::{JoinAttempt, JoinTicket, Query, Version};
use crate::server::Shared;
pub use fragment::{Fragment, FragmentError, of_answer, with_credentials};
use offer::Offer;
pub(crate) use resource::Registry;
use resource::{Command, Handle, Opened, Selection};

/// Largest offer, bytes (LiveKit's).
const MAX_OFFER: usize = 1 << 20;

/// How long a room may take to answer an offer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(12);

const SDP: &str = "application/sdp";
const SDP_FRAGMENT: &str = "application/trickle-ice-sdpfrag";
/// LiveKit's own header: a WHIP client that also receives.
const CLIENT_INFO: &str = "x-livekit-clientinfo";
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");

/// Answer headers that pages of other origins may read.
pub(crate) const EXPOSED_HEADERS: [HeaderName; 4] = [LOCATION, ETAG, LINK, ACCEPT_PATCH];

/// Which of the two protocols a path speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Whip,
    Whep,
}

impl Protocol {
    fn path(self) -> &'static str {
        match self {
            Self::Whip => "/whip/v1",
            Self::Whep => "/whep/v1",
        }
    }
}

/// The paths of both protocols.
pub(crate) fn routes<H: SessionHost>() -> Router<Shared<H>> {
    [Protocol::Whip, Protocol::Whep].into_iter().fold(Router::new(), |router, protocol| {
        let endpoint: MethodRouter<Shared<H>> = get(no_content).post(create::<H>);
        let resource: MethodRouter<Shared<H>> =
            get(no_content).patch(patch::<H>).delete(delete::<H>);
        let paths = Router::new()
            .route(protocol.path(), endpoint)
            .route(&format!("{}/{{sid}}", protocol.path()), resource)
            .layer(Extension(protocol));
        router.merge(paths)
    })
}

/// RFC 9725 §4.1 leaves `GET` to later versions.
async fn no_content() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// An error as WHIP clients get it.
struct Refusal(HttpError);

impl<E: Into<HttpError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let HttpError { status, text } = self.0;
        let body = serde_json::json!({ "error": text }).to_string();
        (status, [(CONTENT_TYPE, "application/json")], body).into_response()
    }
}

fn refusal(status: StatusCode, text: impl Into<String>) -> Refusal {
    Refusal(HttpError { status, text: text.into() })
}

/// `POST`: an offer comes, a participant joins, an answer goes.
async fn create<H: SessionHost>(
    State(shared): State<Shared<H>>,
    Extension(protocol): Extension<Protocol>,
    Extension(caller): Extension<Caller>,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    request: Request,
) -> Response {
    let peer = peer.map(|Extension(ConnectInfo(peer))| peer);
    match open(&shared, protocol, &caller, peer, request).await {
        Ok(response) => {
            match protocol {
                Protocol::Whip => shared.stats().whip_created.add(),
                Protocol::Whep => shared.stats().whep_created.add(),
            }
            response
        }
        Err(refusal) => {
            shared.stats().one_shot_refused.add();
            let HttpError { status, text } = &refusal.0;
            tracing::debug!(?protocol, status = status.as_u16(), text, "refused");
            refusal.into_response()
        }
    }
}

async fn open<H: SessionHost>(
    shared: &Shared<H>,
    protocol: Protocol,
    caller: &Caller,
    peer: Option<SocketAddr>,
    request: Request,
) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let query = Query::parse(parts.uri.query());
    let attempt = JoinAttempt {
        version: Version::OneShot,
        caller,
        query: &query,
        headers: &parts.headers,
        peer,
        limits: shared.limits(),
        strict: false,
    };
    let mut ticket = attempt.check()?;
    expect_type(&parts.headers, SDP)?;
    let selection = selection(protocol, &parts.headers, &query)?;
    let sdp = read_text(body, MAX_OFFER).await?;
    let offer = Offer::parse(&sdp)?;
    check_wishes(protocol, &ticket, &offer)?;
    shared.check_admission()?;
    shared.host().check_join(&ticket.room, &ticket.params.grants)?;

    ticket.params.options.auto_subscribe = selection == Selection::Everything;
    ticket.params.add_track_requests = match protocol {
        Protocol::Whip => offer.announcements(),
        Protocol::Whep => Vec::new(),
    };
    let (room, identity) = (ticket.room.clone(), ticket.params.identity.clone());
    let started = tokio::time::timeout(ANSWER_TIMEOUT, join(shared, ticket, sdp.clone())).await;
    let started = started
        .map_err(|_| HttpError::internal("timed out waiting for the session to start"))??;

    let Started { sid, session, join, answer } = started;
    let etag = fragment::ufrag_of(&answer).unwrap_or_default().to_owned();
    let response = created(protocol, &sid, &etag, &join.ice_servers, answer);
    let client_ufrag = fragment::ufrag_of(&sdp).unwrap_or_default().to_owned();
    let known = join.other_participants;
    let offer = sdp.into();
    let opened =
        Opened { sid, session, selection, known, room, identity, etag, client_ufrag, offer };
    resource::start(opened, shared.one_shots(), shared.stats().clone());
    Ok(response)
}

/// What the token must allow for what the offer wants.
fn check_wishes(protocol: Protocol, ticket: &JoinTicket, offer: &Offer) -> Result<(), Refusal> {
    offer.check_use()?;
    let grants = &ticket.params.grants;
    match protocol {
        Protocol::Whip if offer.sends() && !grants.can_publish() => {
            Err(refusal(StatusCode::FORBIDDEN, "the token does not allow to publish"))
        }
        Protocol::Whep if !grants.can_subscribe() => {
            Err(refusal(StatusCode::FORBIDDEN, "the token does not allow to subscribe"))
        }
        Protocol::Whep if !offer.receives() => {
            Err(offer::unusable("the offer has no section that receives audio or video").into())
        }
        _ => Ok(()),
    }
}

/// `X-LiveKit-ClientInfo` names tracks by identity and name; `?participant=` names one participant.
fn selection(
    protocol: Protocol,
    headers: &HeaderMap,
    query: &Query<'_>,
) -> Result<Selection, HttpError> {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct ClientInfo {
        subscribed_participant_track_names: HashMap<String, Vec<String>>,
    }
    if let Some(participant) = query.optional("participant") {
        return Ok(Selection::Of(HashMap::from([(participant.to_owned(), None)])));
    }
    if let Some(header) = headers.get(CLIENT_INFO) {
        let info: ClientInfo = serde_json::from_slice(header.as_bytes()).map_err(|error| {
            HttpError::bad_request(format!("malformed json in client info header: {error}"))
        })?;
        let names = info.subscribed_participant_track_names;
        if !names.is_empty() {
            let tracks = names.into_iter().map(|(identity, names)| (identity, Some(names)));
            return Ok(Selection::Of(tracks.collect()));
        }
    }
    Ok(match protocol {
        Protocol::Whip => Selection::Nothing,
        Protocol::Whep => Selection::Everything,
    })
}

/// A session that has its answer.
struct Started<H: SessionHost> {
    sid: String,
    session: HostedSession<H>,
    join: proto::JoinResponse,
    answer: String,
}

async fn join<H: SessionHost>(
    shared: &Shared<H>,
    ticket: JoinTicket,
    sdp: String,
) -> Result<Started<H>, HttpError> {
    let JoinTicket { room, settings, mut params, .. } = ticket;
    let offer = proto::SessionDescription {
        r#type: "offer".into(),
        sdp,
        id: 1,
        ..proto::SessionDescription::default()
    };
    params.publisher_offer = Some(offer);
    let mut session = shared.host().join(&room, settings, params).await?;
    let mut join = proto::JoinResponse::default();
    loop {
        let Some(SessionOutput::Message(response)) = session.responses.next().await else {
            // The offer was readable, so that the room found its media impossible.
            return Err(offer::unusable("the offer cannot be answered"));
        };
        match response.response() {
            Some(SignalResponse::Join(response)) => join = response.clone(),
            Some(SignalResponse::Answer(answer)) => {
                let answer = answer.sdp.clone();
                let sid = session.participant_sid.clone();
                let sid = sid.ok_or_else(|| HttpError::internal("the session has no SID"))?;
                return Ok(Started { sid, session, join, answer });
            }
            _ => {}
        }
    }
}

fn created(
    protocol: Protocol,
    sid: &str,
    etag: &str,
    ice_servers: &[proto::IceServer],
    answer: String,
) -> Response {
    let mut response = (StatusCode::CREATED, answer).into_response();
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: String| {
        // Ids and ICE characters are fit for headers; a URL of the configuration may not be.
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.append(name, value);
        }
    };
    set(LOCATION, format!("{}/{sid}", protocol.path()));
    set(ETAG, format!("\"{etag}\""));
    set(ACCEPT_PATCH, SDP_FRAGMENT.to_owned());
    for link in ice_servers.iter().flat_map(links) {
        set(LINK, link);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(SDP));
    response
}

/// `Link` values of an ICE server (RFC 9725 §4.6).
fn links(server: &proto::IceServer) -> impl Iterator<Item = String> {
    let quoted = |text: &str| text.replace(['"', '\\', '\r', '\n'], "");
    let login = match server.username.as_str() {
        "" => String::new(),
        username => format!(
            "; username=\"{}\"; credential=\"{}\"; credential-type=\"password\"",
            quoted(username),
            quoted(&server.credential)
        ),
    };
    server.urls.iter().map(move |url| format!("<{url}>; rel=\"ice-server\"{login}"))
}

/// `PATCH`: candidates, or new ICE credentials.
async fn patch<H: SessionHost>(
    State(shared): State<Shared<H>>,
    Extension(caller): Extension<Caller>,
    Path(sid): Path<String>,
    request: Request,
) -> Response {
    match change(&shared, &caller, &sid, request).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    }
}

async fn change<H: SessionHost>(
    shared: &Shared<H>,
    caller: &Caller,
    sid: &str,
    request: Request,
) -> Result<Response, Refusal> {
    let handle = own_resource(shared, caller, sid)?;
    let (parts, body) = request.into_parts();
    expect_type(&parts.headers, SDP_FRAGMENT)?;
    let condition = parts.headers.get(IF_MATCH).and_then(|value| value.to_str().ok());
    let condition = condition
        .ok_or_else(|| refusal(StatusCode::PRECONDITION_REQUIRED, "If-Match is missing"))?;
    let restart = condition == "*";
    if !restart && !names(condition, &handle.etag) {
        let text = "the ICE session has changed: use the latest ETag";
        return Err(refusal(StatusCode::PRECONDITION_FAILED, text));
    }
    let text = read_text(body, fragment::MAX_FRAGMENT).await?;
    let fragment = Fragment::parse(&text).map_err(|e| HttpError::bad_request(e.to_string()))?;
    if restart {
        return restart_ice(shared, sid, &handle, &fragment).await;
    }
    if fragment.ufrag.is_some_and(|ufrag| ufrag != handle.client_ufrag) {
        let text = "the ufrag is not the offer's: restart ICE with `If-Match: *`";
        return Err(HttpError::bad_request(text).into());
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Whether an `If-Match` list names an entity tag. Quotes are the rule and often missing.
fn names(condition: &str, etag: &str) -> bool {
    condition.split(',').any(|tag| tag.trim().trim_matches('"') == etag)
}

async fn restart_ice<H: SessionHost>(
    shared: &Shared<H>,
    sid: &str,
    handle: &Handle,
    fragment: &Fragment,
) -> Result<Response, Refusal> {
    let (Some(ufrag), Some(pwd)) = (&fragment.ufrag, &fragment.pwd) else {
        let text = "an ICE restart needs a=ice-ufrag and a=ice-pwd";
        return Err(HttpError::bad_request(text).into());
    };
    let offer = with_credentials(&handle.offer, ufrag, pwd);
    let (sender, answer) = oneshot::channel();
    if !handle.send(Command::Restart { offer: offer.clone(), answer: sender }) {
        return Err(refusal(StatusCode::TOO_MANY_REQUESTS, "too many requests for this resource"));
    }
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, answer).await;
    let Ok(Ok(answer)) = answer else {
        return Err(not_found());
    };
    shared.stats().ice_restarts.add();
    let etag = fragment::ufrag_of(&answer).unwrap_or_default().to_owned();
    let quoted = format!("\"{etag}\"");
    shared.one_shots().restarted(sid, etag, ufrag.clone(), &offer);
    let headers = [(CONTENT_TYPE, SDP_FRAGMENT), (ETAG, quoted.as_str())];
    Ok((StatusCode::OK, headers, of_answer(&answer)).into_response())
}

/// `DELETE`: the participant leaves.
async fn delete<H: SessionHost>(
    State(shared): State<Shared<H>>,
    Extension(caller): Extension<Caller>,
    Path(sid): Path<String>,
) -> Response {
    match own_resource(&shared, &caller, &sid) {
        Ok(handle) => {
            // A resource that is over already is what was asked for.
            handle.send(Command::End);
            StatusCode::OK.into_response()
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// The resource, if the caller's token is for its room and participant. SIDs are no secret.
fn own_resource<H>(shared: &Shared<H>, caller: &Caller, sid: &str) -> Result<Handle, Refusal> {
    let claims = caller.claims().ok_or_else(HttpError::permission_denied)?;
    let video = claims.video.as_ref().filter(|video| video.room_join);
    let video = video.ok_or_else(HttpError::permission_denied)?;
    let handle = shared.one_shots().get(sid).ok_or_else(not_found)?;
    if claims.identity == handle.identity && (video.room == handle.room || video.room.is_empty()) {
        Ok(handle)
    } else {
        Err(refusal(StatusCode::FORBIDDEN, "the token is for another room or participant"))
    }
}

fn not_found() -> Refusal {
    refusal(StatusCode::NOT_FOUND, "no such resource")
}

fn expect_type(headers: &HeaderMap, expected: &str) -> Result<(), Refusal> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let bare = given.split(';').next().unwrap_or_default().trim();
    if bare.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    let text = format!("unsupported content-type `{given}`: {expected} is expected");
    Err(refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, text))
}

async fn read_text(body: axum::body::Body, limit: usize) -> Result<String, Refusal> {
    let bytes = to_bytes(body, limit).await.map_err(|_| {
        let text = format!("request body exceeds {limit} bytes or broke off");
        refusal(StatusCode::PAYLOAD_TOO_LARGE, text)
    })?;
    let bad = |_| HttpError::bad_request("the body is not UTF-8");
    Ok(String::from_utf8(bytes.into()).map_err(bad)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_tags_match_with_and_without_quotes() {
        assert!(names("\"abcd\"", "abcd"));
        assert!(names("abcd", "abcd"));
        assert!(names("\"x\", \"abcd\"", "abcd"));
        assert!(!names("\"abc\"", "abcd"));
    }

    #[test]
    fn turn_logins_stand_in_links() {
        let server = proto::IceServer {
            urls: vec!["turn:t.example:3478?transport=udp".into()],
            username: "u\"".into(),
            credential: "c".into(),
        };
        let links: Vec<_> = links(&server).collect();
        assert_eq!(
            links,
            ["<turn:t.example:3478?transport=udp>; rel=\"ice-server\"; username=\"u\"; \
              credential=\"c\"; credential-type=\"password\""]
        );
    }

    #[test]
    fn header_and_query_choose_tracks() {
        let query = |text| Query::parse(Some(text));
        let mut headers = HeaderMap::new();
        let chosen = |headers: &HeaderMap, text| selection(Protocol::Whip, headers, &query(text));
        assert_eq!(chosen(&headers, "").unwrap(), Selection::Nothing);
        let one = Selection::Of(HashMap::from([("alice".into(), None)]));
        assert_eq!(chosen(&headers, "participant=alice").unwrap(), one);
        let json = r#"{"clientIp":"1","subscribedParticipantTrackNames":{"bob":["mic"]}}"#;
        headers.insert(CLIENT_INFO, HeaderValue::from_static(json));
        let named = Selection::Of(HashMap::from([("bob".into(), Some(vec!["mic".into()]))]));
        assert_eq!(chosen(&headers, "").unwrap(), named);
        headers.insert(CLIENT_INFO, HeaderValue::from_static("{"));
        assert_eq!(chosen(&headers, "").unwrap_err().status, StatusCode::BAD_REQUEST);
    }
}
