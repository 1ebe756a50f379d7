//! The admin API of the stand-in, with Turms' oddities: an envelope, 204 for nothing, a page size of
//! ten, a parser of its own for queries, 400 for unknown endpoints, and a limit on requests.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State as Extract};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::dates::iso;
use super::state::{Fault, State};
use super::{FakeTurms, LOGIN, PASSWORD};

/// Records of an answer when the request does not say.
const DEFAULT_SIZE: usize = 10;
/// Most records of an answer.
const MAX_SIZE: usize = 1000;
/// Requests per second and address.
pub(super) const REQUESTS_PER_SECOND: f64 = 50.0;
/// Turms' account of the beginning.
const ROOT_LOGIN: &str = "turms:turms";
/// Longest text of a message.
const MAX_TEXT: usize = 500;
/// Permissions of Turms that concern us.
const PERMISSIONS: [&str; 9] = [
    "GROUP_QUERY",
    "GROUP_TYPE_QUERY",
    "GROUP_MEMBER_QUERY",
    "GROUP_BLOCKLIST_QUERY",
    "CLIENT_BLOCKLIST_QUERY",
    "USER_QUERY",
    "USER_RELATIONSHIP_QUERY",
    "USER_ONLINE_INFO_QUERY",
    "MESSAGE_CREATE",
];
/// Fields that a message may have.
const MESSAGE_FIELDS: [&str; 13] = [
    "id",
    "isGroupMessage",
    "isSystemMessage",
    "text",
    "records",
    "senderId",
    "senderIp",
    "senderDeviceType",
    "targetId",
    "burnAfter",
    "referenceId",
    "preMessageId",
    "priority",
];

/// A refusal: status, code of the envelope, reason.
type Refusal = (StatusCode, i64, &'static str);

const BAD_REQUEST: Refusal = (StatusCode::BAD_REQUEST, 1102, "illegal argument");

pub(super) fn router(fake: FakeTurms) -> Router {
    Router::new().fallback(serve).with_state(fake)
}

async fn serve(Extract(fake): Extract<FakeTurms>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, MAX_BODY).await.unwrap_or_default();
    while fake.lock().fault == Fault::Hang {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let fault = fake.lock().fault;
    let path = parts.uri.path().trim_end_matches('/').to_owned();
    let outcome = if fault == Fault::ServerError {
        Err((StatusCode::INTERNAL_SERVER_ERROR, 1200, "server internal error"))
    } else if fault == Fault::RateLimited || !fake.take_token() {
        fake.lock().rate_limited += 1;
        Err((StatusCode::TOO_MANY_REQUESTS, 1101, "client requests too frequent"))
    } else if fault == Fault::Unauthorized || !authorized(&parts.headers, &path) {
        Err((StatusCode::UNAUTHORIZED, 1300, "unauthorized"))
    } else {
        let query = parts.uri.query().unwrap_or_default();
        match parse_query(query) {
            Some(query) => answer(&mut fake.lock(), &parts.method, &path, &query, &body),
            None => Err(BAD_REQUEST),
        }
    };
    let mut state = fake.lock();
    state.requests += 1;
    match outcome {
        Err((status, code, reason)) => {
            if status == StatusCode::BAD_REQUEST {
                let query = parts.uri.query().unwrap_or_default();
                state.refused.push(format!("{} {path}?{query}", parts.method));
            }
            envelope(status, &json!({ "code": code, "reason": reason, "timestamp": iso(0) }))
        }
        Ok(None) => nothing(),
        Ok(Some(_)) if fault == Fault::Empty && parts.method == Method::GET => nothing(),
        Ok(Some(data)) => {
            let body = json!({ "code": 1000, "reason": "ok", "timestamp": iso(0), "data": data });
            if fault == Fault::HalfAnswer {
                let text = body.to_string();
                let half = text[..text.len() / 2].to_owned();
                return respond(StatusCode::OK, half.into());
            }
            envelope(StatusCode::OK, &body)
        }
    }
}

const MAX_BODY: usize = 10 << 20;

/// The service account for everything, the root account for accounts.
fn authorized(headers: &HeaderMap, path: &str) -> bool {
    let login = match path {
        "/admins" | "/admins/roles" => ROOT_LOGIN.to_owned(),
        _ => format!("{LOGIN}:{PASSWORD}"),
    };
    let expected = format!("Basic {}", STANDARD.encode(login));
    headers.get(header::AUTHORIZATION).is_some_and(|given| given.as_bytes() == expected.as_bytes())
}

fn nothing() -> Response {
    respond(StatusCode::NO_CONTENT, Body::empty())
}

fn envelope(status: StatusCode, body: &Value) -> Response {
    respond(status, body.to_string().into())
}

fn respond(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let json = header::HeaderValue::from_static("application/json;charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// Turms' parser knows two escapes and fails at any other.
fn parse_query(query: &str) -> Option<BTreeMap<String, String>> {
    let mut parsed = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=')?;
        let plain = value.replace("%2B", "+").replace("%2C", ",");
        if plain.contains('%') || name.contains('%') {
            return None;
        }
        parsed.insert(name.to_owned(), plain);
    }
    Some(parsed)
}

type Query = BTreeMap<String, String>;

/// `None` = nothing there.
fn answer(
    state: &mut State,
    method: &Method,
    path: &str,
    query: &Query,
    body: &Bytes,
) -> Result<Option<Value>, Refusal> {
    if *method == Method::POST && path == "/messages" {
        return post_message(state, body).map(Some);
    }
    if *method == Method::POST && path == "/admins/roles" {
        return add_role(state, body).map(Some);
    }
    if *method == Method::POST && path == "/admins" {
        return add_admin(state, body).map(Some);
    }
    if *method != Method::GET {
        return Err(BAD_REQUEST);
    }
    let (path, paged) = match path.strip_suffix("/page") {
        Some(path) => (path, true),
        None => (path, false),
    };
    let records = match path {
        "/groups" => groups(state, query)?,
        "/groups/members" => members(state, query)?,
        "/groups/blocked-users" => group_blocks(state, query)?,
        "/groups/types" if !paged => types(state),
        "/blocked-clients/users" => blocks(state, query, paged)?,
        "/users" => users(state, query)?,
        "/users/relationships" => relationships(state, query)?,
        _ => return Err(BAD_REQUEST),
    };
    let size = match query.get("size") {
        Some(size) => size.parse::<usize>().map_err(|_| BAD_REQUEST)?.min(MAX_SIZE),
        None => DEFAULT_SIZE,
    };
    if paged {
        let page: usize =
            query.get("page").and_then(|page| page.parse().ok()).ok_or(BAD_REQUEST)?;
        let total = records.len();
        let records: Vec<Value> = records.into_iter().skip(page * size).take(size).collect();
        return Ok((total > 0).then(|| json!({ "total": total, "records": records })));
    }
    // The blocked users asked for by id come without a limit.
    let size = if path == "/blocked-clients/users" { usize::MAX } else { size };
    let records: Vec<Value> = records.into_iter().take(size).collect();
    Ok((!records.is_empty()).then(|| Value::from(records)))
}

/// A list of ids; `None` = no filter.
fn ids(query: &Query, name: &str) -> Result<Option<Vec<i64>>, Refusal> {
    let Some(list) = query.get(name) else { return Ok(None) };
    let ids = list.split(',').map(|id| id.parse().map_err(|_| BAD_REQUEST));
    ids.collect::<Result<Vec<i64>, _>>().map(Some)
}

fn wanted(filter: Option<&Vec<i64>>, id: i64) -> bool {
    filter.is_none_or(|ids| ids.contains(&id))
}

fn groups(state: &State, query: &Query) -> Result<Vec<Value>, Refusal> {
    let filter = ids(query, "ids")?;
    let groups = state.groups.iter().filter(|(id, _)| wanted(filter.as_ref(), **id));
    Ok(groups
        .map(|(id, group)| {
            let mut record = json!({
                "id": id, "typeId": group.type_id, "creatorId": 1, "ownerId": 1, "name": "group",
                "creationDate": iso(0), "lastUpdatedDate": iso(0), "isActive": group.active,
                "userDefinedAttributes": {},
            });
            if let Some(date) = group.mute_end {
                record["muteEndDate"] = iso(date).into();
            }
            if let Some(date) = group.deleted {
                record["deletionDate"] = iso(date).into();
            }
            record
        })
        .collect())
}

fn members(state: &State, query: &Query) -> Result<Vec<Value>, Refusal> {
    let (groups, users) = (ids(query, "groupIds")?, ids(query, "userIds")?);
    let members = state
        .members
        .iter()
        .filter(|((g, u), _)| wanted(groups.as_ref(), *g) && wanted(users.as_ref(), *u));
    Ok(members
        .map(|((group, user), member)| {
            let mut record = json!({
                "key": { "groupId": group, "userId": user }, "name": "", "role": member.role,
                "joinDate": iso(0),
            });
            if let Some(date) = member.mute_end {
                record["muteEndDate"] = iso(date).into();
            }
            record
        })
        .collect())
}

fn group_blocks(state: &State, query: &Query) -> Result<Vec<Value>, Refusal> {
    let (groups, users) = (ids(query, "groupIds")?, ids(query, "userIds")?);
    let blocks = state
        .group_blocks
        .iter()
        .filter(|(g, u)| wanted(groups.as_ref(), *g) && wanted(users.as_ref(), *u));
    Ok(blocks
        .map(|(group, user)| {
            json!({ "key": { "groupId": group, "userId": user }, "blockDate": iso(0),
                    "requesterId": 1 })
        })
        .collect())
}

fn blocks(state: &State, query: &Query, paged: bool) -> Result<Vec<Value>, Refusal> {
    let filter = ids(query, "ids")?;
    if filter.is_none() && !paged {
        return Err(BAD_REQUEST);
    }
    let blocks = state.blocks.iter().filter(|(id, _)| wanted(filter.as_ref(), **id));
    Ok(blocks.map(|(id, until)| json!({ "id": id, "blockEndTime": iso(*until) })).collect())
}

fn types(state: &State) -> Vec<Value> {
    let types = [0].iter().chain(state.speakable_types.iter());
    types
        .map(|id| {
            json!({ "id": id, "name": "type", "groupSizeLimit": 500,
                    "guestSpeakable": state.speakable_types.contains(id) })
        })
        .collect()
}

fn users(state: &State, query: &Query) -> Result<Vec<Value>, Refusal> {
    let filter = ids(query, "ids")?;
    let users = state.users.iter().filter(|(id, _)| wanted(filter.as_ref(), **id));
    Ok(users
        .map(|(id, user)| {
            // Turms really sends the hash along.
            let hash = STANDARD.encode(format!("hash of {}", user.password));
            json!({ "id": id, "password": hash, "name": "", "isActive": user.active,
                    "registrationDate": iso(0) })
        })
        .collect())
}

/// Only blocks are known here; the two flags are of types that cannot be left out.
fn relationships(state: &State, query: &Query) -> Result<Vec<Value>, Refusal> {
    let flag = |name| query.get(name).map(String::as_str);
    if flag("isBlocked") != Some("true") || flag("withGroupIndexes") != Some("false") {
        return Err(BAD_REQUEST);
    }
    let (owners, related) = (ids(query, "ownerIds")?, ids(query, "relatedUserIds")?);
    let blocks = state.user_blocks.iter();
    let blocks = blocks
        .filter(|(o, r)| wanted(owners.as_ref(), *o) && wanted(related.as_ref(), *r))
        .map(|(owner, related)| {
            json!({ "key": { "ownerId": owner, "relatedUserId": related }, "name": "",
                    "blockDate": iso(0), "establishmentDate": iso(0) })
        });
    Ok(blocks.collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Role {
    id: i64,
    #[serde(rename = "name")]
    _name: String,
    #[serde(rename = "rank")]
    _rank: i64,
    permissions: Vec<String>,
}

fn add_role(state: &mut State, body: &Bytes) -> Result<Value, Refusal> {
    let role: Role = serde_json::from_slice(body).map_err(|_| BAD_REQUEST)?;
    if role.permissions.iter().any(|permission| !PERMISSIONS.contains(&permission.as_str())) {
        return Err(BAD_REQUEST);
    }
    state.roles.insert(role.id, role.permissions);
    Ok(json!({}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Admin {
    login_name: String,
    #[serde(rename = "password")]
    _password: String,
    #[serde(rename = "displayName")]
    _display_name: String,
    role_ids: Vec<i64>,
}

fn add_admin(state: &mut State, body: &Bytes) -> Result<Value, Refusal> {
    let admin: Admin = serde_json::from_slice(body).map_err(|_| BAD_REQUEST)?;
    if admin.role_ids.iter().any(|role| !state.roles.contains_key(role)) {
        return Err(BAD_REQUEST);
    }
    state.admins.insert(admin.login_name, admin.role_ids);
    Ok(json!({}))
}

fn post_message(state: &mut State, body: &Bytes) -> Result<Value, Refusal> {
    let message: Value = serde_json::from_slice(body).map_err(|_| BAD_REQUEST)?;
    let fields = message.as_object().ok_or(BAD_REQUEST)?;
    if fields.keys().any(|field| !MESSAGE_FIELDS.contains(&field.as_str())) {
        return Err(BAD_REQUEST);
    }
    let text = fields.get("text").and_then(Value::as_str).unwrap_or_default();
    let has_records = fields.get("records").is_some_and(Value::is_array);
    let target = fields.get("targetId").and_then(Value::as_i64);
    if text.chars().count() > MAX_TEXT || (text.is_empty() && !has_records) || target.is_none() {
        return Err(BAD_REQUEST);
    }
    let id = fields.get("id").and_then(Value::as_i64);
    let known = |other: &Value| id.is_some() && other.get("id").and_then(Value::as_i64) == id;
    if state.messages.iter().any(known) {
        return Err((StatusCode::CONFLICT, 1103, "record contains duplicate key"));
    }
    state.messages.push(message);
    Ok(json!({}))
}

/// The bucket behind the limit on requests.
#[derive(Debug)]
pub(super) struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    pub(super) fn full() -> Self {
        Self { tokens: REQUESTS_PER_SECOND, at: Instant::now() }
    }

    pub(super) fn take(&mut self) -> bool {
        let now = Instant::now();
        let refilled = self.tokens + (now - self.at).as_secs_f64() * REQUESTS_PER_SECOND;
        (self.tokens, self.at) = (refilled.min(REQUESTS_PER_SECOND), now);
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}
