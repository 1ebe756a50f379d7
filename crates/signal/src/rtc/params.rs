//! From a verified token and the upgrade request to a join: the checks that happen before any room
//! is asked, each with the status and text that clients know.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use axum::http::HeaderMap;
use base64::Engine;
use sluice_control::{JoinParams, Limits, RoomSettings, SessionOptions};
use sluice_proto::{JoinRequest, ReconnectReason};

use super::client_info;
use super::endpoint::Version;
use super::join_request::{BASE64URL, JoinRequestError, decode_join_request};
use super::query::Query;
use crate::auth::Caller;
use crate::error::HttpError;
use crate::gate::Admission;

/// Protocol version of sessions whose client does not speak LiveKit's protocol (LiveKit's current).
const ONE_SHOT_PROTOCOL: i32 = 17;

/// A request that may be put to a room.
#[derive(Debug)]
pub(crate) struct JoinTicket {
    pub(crate) room: String,
    pub(crate) settings: RoomSettings,
    pub(crate) params: JoinParams,
    /// The key that vouched for the client; refreshed tokens are signed with it too.
    pub(crate) api_key: String,
}

/// What the checks look at.
pub(crate) struct JoinAttempt<'a> {
    pub(crate) version: Version,
    pub(crate) caller: &'a Caller,
    pub(crate) query: &'a Query<'a>,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) limits: &'a Limits,
    /// `/validate` also refuses what a join would silently ignore.
    pub(crate) strict: bool,
}

impl JoinAttempt<'_> {
    /// Runs every check that needs no room.
    pub(crate) fn check(&self) -> Result<JoinTicket, HttpError> {
        let token = self.caller.token().ok_or_else(HttpError::permission_denied)?;
        let claims = &token.claims;
        let video = claims.video.as_ref().filter(|video| video.room_join);
        let grants = video.ok_or_else(HttpError::permission_denied)?.to_grants();
        let room = match grants.room.as_str() {
            "" => self.query.text("room").to_owned(),
            room => room.to_owned(),
        };
        let Admission { identity, attributes } = match self.caller.gate() {
            Some((gate, token)) => gate.admit(&room, token)?,
            None => Admission::default(),
        };
        let identity = identity.unwrap_or_else(|| claims.identity.clone());
        self.check_names(&identity, &room)?;

        let mut ticket = JoinTicket {
            room,
            settings: RoomSettings {
                preset: claims.room_preset.clone(),
                ..claims.room_config.as_ref().map(RoomSettings::from).unwrap_or_default()
            },
            params: JoinParams {
                identity,
                name: claims.name.clone(),
                kind: claims.participant_kind(),
                kind_details: claims.participant_kind_details(),
                grants,
                metadata: claims.metadata.clone(),
                attributes: claims.attributes.clone().into_iter().chain(attributes).collect(),
                token_issued_at: token.issued_at,
                ..JoinParams::default()
            },
            api_key: token.api_key.clone(),
        };
        if self.version == Version::OneShot {
            apply_one_shot(&mut ticket.params);
            client_info::complete(&mut ticket.params.client_info, self.headers, self.peer);
            return Ok(ticket);
        }
        match self.query.optional("join_request") {
            Some(value) => {
                let request = decode_join_request(value)?;
                apply_join_request(&mut ticket.params, request)?;
            }
            None if self.version == Version::V1 => return Err(JoinRequestError::Missing.into()),
            None => self.apply_query(&mut ticket.params)?,
        }
        client_info::complete(&mut ticket.params.client_info, self.headers, self.peer);
        Ok(ticket)
    }

    fn check_names(&self, identity: &str, room: &str) -> Result<(), HttpError> {
        let limits = self.limits;
        if identity.is_empty() {
            return Err(HttpError::bad_request("identity cannot be empty"));
        }
        if exceeds(identity, limits.max_participant_identity_length) {
            return Err(HttpError::bad_request(format!(
                "participant identity exceeds limits: max length {}",
                limits.max_participant_identity_length
            )));
        }
        if room.is_empty() {
            return Err(HttpError::bad_request("no room name"));
        }
        if exceeds(room, limits.max_room_name_length) {
            return Err(HttpError::bad_request(format!(
                "room name exceeds limits: max length {}",
                limits.max_room_name_length
            )));
        }
        Ok(())
    }

    /// v0: everything is a query parameter.
    fn apply_query(&self, params: &mut JoinParams) -> Result<(), HttpError> {
        let query = self.query;
        if let Some(suffix) = query.optional("publish") {
            // The second, publish-only connection of very old clients.
            if !params.grants.can_publish() {
                return Err(HttpError::permission_denied());
            }
            params.grants.can_subscribe = Some(false);
            params.identity = format!("{}#{suffix}", params.identity);
        }
        if let Some(attributes) = query.optional("attributes") {
            if !params.grants.can_update_own_metadata() {
                return Err(HttpError::permission_denied());
            }
            match decode_attributes(attributes) {
                Some(attributes) => merge(&mut params.attributes, attributes),
                None if self.strict => {
                    return Err(HttpError::bad_request("cannot decode attributes"));
                }
                None => {}
            }
        }
        params.options = SessionOptions {
            auto_subscribe: query.flag("auto_subscribe").unwrap_or(true),
            auto_subscribe_data_track: query.flag("auto_subscribe_data_track").unwrap_or(false),
            adaptive_stream: query.flag("adaptive_stream").unwrap_or(false),
            subscriber_allow_pause: query.flag("subscriber_allow_pause"),
            disable_ice_lite: query.flag("disable_ice_lite").unwrap_or(false),
            single_peer_connection: false,
            one_shot: false,
        };
        params.client_info = client_info::from_query(query);
        params.reconnect = query.flag("reconnect").unwrap_or(false);
        params.reconnect_reason = reconnect_reason(query.integer("reconnect_reason"));
        if params.reconnect {
            params.participant_sid = query.text("sid").to_owned();
        }
        Ok(())
    }
}

impl From<JoinRequestError> for HttpError {
    fn from(error: JoinRequestError) -> Self {
        Self::bad_request(error.to_string())
    }
}

/// WHIP and WHEP: the client says nothing; its HTTP side speaks the current protocol for it.
fn apply_one_shot(params: &mut JoinParams) {
    params.options = SessionOptions {
        auto_subscribe: false,
        single_peer_connection: true,
        one_shot: true,
        ..SessionOptions::default()
    };
    params.client_info.protocol = ONE_SHOT_PROTOCOL;
}

/// v1: everything is in the join request, and what is absent is false.
fn apply_join_request(params: &mut JoinParams, request: JoinRequest) -> Result<(), HttpError> {
    let reconnect_reason = request.reconnect_reason();
    let changes_self = !request.metadata.is_empty() || !request.participant_attributes.is_empty();
    if changes_self && !params.grants.can_update_own_metadata() {
        return Err(HttpError::permission_denied());
    }
    if !request.metadata.is_empty() {
        params.metadata = request.metadata;
    }
    merge(&mut params.attributes, request.participant_attributes);
    let settings = request.connection_settings.unwrap_or_default();
    params.options = SessionOptions {
        auto_subscribe: settings.auto_subscribe,
        auto_subscribe_data_track: settings.auto_subscribe_data_track.unwrap_or(false),
        adaptive_stream: settings.adaptive_stream,
        // Always explicit in v1: absent is "no", not "as the server is configured".
        subscriber_allow_pause: Some(settings.subscriber_allow_pause.unwrap_or(false)),
        disable_ice_lite: settings.disable_ice_lite,
        single_peer_connection: true,
        one_shot: false,
    };
    params.client_info = request.client_info.unwrap_or_default();
    params.reconnect = request.reconnect;
    params.reconnect_reason = reconnect_reason;
    if request.reconnect {
        params.participant_sid = request.participant_sid;
    }
    params.add_track_requests = request.add_track_requests;
    params.publisher_offer = request.publisher_offer;
    Ok(())
}

/// Attributes of the request go over those of the token; an empty value deletes nothing.
fn merge(attributes: &mut BTreeMap<String, String>, from: BTreeMap<String, String>) {
    attributes.extend(from.into_iter().filter(|(_, value)| !value.is_empty()));
}

fn decode_attributes(value: &str) -> Option<BTreeMap<String, String>> {
    serde_json::from_slice(&BASE64URL.decode(value).ok()?).ok()
}

fn reconnect_reason(number: i32) -> ReconnectReason {
    ReconnectReason::try_from(number).unwrap_or(ReconnectReason::RrUnknown)
}

/// A limit of 0 is no limit.
fn exceeds(text: &str, limit: usize) -> bool {
    limit > 0 && text.len() > limit
}
