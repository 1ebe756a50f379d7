//! `create-token`: an access token (JWT, HS256) from the words of the command line. Claims carry
//! LiveKit's names; see its access token documentation.

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value, json};

use crate::cli::{GrantArgs, ParticipantKind, PublishSource, TokenArgs};

/// Tolerance for clocks that run behind ours.
const NOT_BEFORE_SLACK: Duration = Duration::from_secs(10);

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// Joining needs to know who.
    #[error("a token to join a room needs --identity")]
    NoIdentity,
    /// Joining needs to know where.
    #[error("give --room to join one, or --list, --create or another right for the server API")]
    NoGrant,
    /// Signing failed.
    #[error("signing the token: {0}")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

/// Makes a token that `key` signs at `now` (Unix time).
pub(crate) fn create(
    arguments: &TokenArgs,
    key: &str,
    secret: &str,
    now: Duration,
) -> Result<String, TokenError> {
    let video = video_grant(arguments)?;
    let mut claims = Map::new();
    claims.insert("iss".into(), json!(key));
    claims.insert("nbf".into(), json!(now.saturating_sub(NOT_BEFORE_SLACK).as_secs()));
    claims.insert("exp".into(), json!((now + arguments.ttl).as_secs()));
    claims.insert("video".into(), Value::Object(video));
    for (claim, value) in
        [("sub", &arguments.identity), ("name", &arguments.name), ("metadata", &arguments.metadata)]
    {
        if let Some(value) = value {
            claims.insert(claim.into(), json!(value));
        }
    }
    if !arguments.attributes.is_empty() {
        let attributes = arguments.attributes.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
        claims.insert("attributes".into(), Value::Object(attributes));
    }
    if let Some(kind) = kind(arguments) {
        claims.insert("kind".into(), json!(kind));
    }
    let header = Header::new(Algorithm::HS256);
    Ok(jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret.as_bytes()))?)
}

fn video_grant(arguments: &TokenArgs) -> Result<Map<String, Value>, TokenError> {
    let grants = &arguments.grants;
    let api_only = grants.list || grants.create || grants.admin || grants.record;
    let joins =
        grants.join || arguments.room.is_some() && (arguments.identity.is_some() || !api_only);
    if joins && arguments.identity.is_none() {
        return Err(TokenError::NoIdentity);
    }
    if (joins || grants.admin) && arguments.room.is_none()
        || !joins && !api_only && !grants.ingress_admin && !grants.agent
    {
        return Err(TokenError::NoGrant);
    }
    let mut video = Map::new();
    if let Some(room) = &arguments.room {
        video.insert("room".into(), json!(room));
    }
    for (claim, given) in [
        ("roomJoin", joins),
        ("roomList", grants.list),
        ("roomCreate", grants.create),
        ("roomAdmin", grants.admin),
        ("roomRecord", grants.record),
        ("ingressAdmin", grants.ingress_admin),
        ("hidden", grants.hidden || grants.recorder),
        ("recorder", grants.recorder),
        ("agent", grants.agent),
        ("canUpdateOwnMetadata", grants.update_own_metadata),
    ] {
        if given {
            video.insert(claim.into(), json!(true));
        }
    }
    if joins {
        publish_and_subscribe(grants, &mut video);
    }
    Ok(video)
}

/// Rights that are given unless taken away are spelled out, so that a reader of the token sees them.
fn publish_and_subscribe(grants: &GrantArgs, video: &mut Map<String, Value>) {
    let recorder = grants.recorder;
    video.insert("canPublish".into(), json!(!grants.no_publish && !recorder));
    video.insert("canSubscribe".into(), json!(!grants.no_subscribe));
    video.insert("canPublishData".into(), json!(!grants.no_publish_data));
    if !grants.publish_sources.is_empty() {
        let sources: Vec<_> = grants.publish_sources.iter().copied().map(source_name).collect();
        video.insert("canPublishSources".into(), json!(sources));
    }
}

fn kind(arguments: &TokenArgs) -> Option<&'static str> {
    match arguments.kind {
        Some(ParticipantKind::Standard) => None,
        Some(ParticipantKind::Agent) => Some("agent"),
        Some(ParticipantKind::Egress) => Some("egress"),
        Some(ParticipantKind::Ingress) => Some("ingress"),
        Some(ParticipantKind::Sip) => Some("sip"),
        None if arguments.grants.recorder => Some("egress"),
        None if arguments.grants.agent => Some("agent"),
        None => None,
    }
}

fn source_name(source: PublishSource) -> &'static str {
    match source {
        PublishSource::Camera => "camera",
        PublishSource::Microphone => "microphone",
        PublishSource::ScreenShare => "screen_share",
        PublishSource::ScreenShareAudio => "screen_share_audio",
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;
    use crate::cli::{self, Command};

    const NOW: Duration = Duration::from_secs(1_700_000_000);

    fn claims(words: &[&str]) -> Result<Value, TokenError> {
        let words = ["sluice", "create-token"].iter().chain(words);
        let Some(Command::CreateToken(arguments)) = cli::parse(words).unwrap().command else {
            panic!("not a token command");
        };
        let token = create(&arguments, "key", "secret", NOW)?;
        let payload = token.split('.').nth(1).unwrap();
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap();
        Ok(serde_json::from_slice(&bytes).unwrap())
    }

    #[test]
    fn room_and_identity_are_enough_to_join() {
        let claims = claims(&["--room", "r", "--identity", "i", "--ttl", "90s"]).unwrap();
        assert_eq!(claims["iss"], "key");
        assert_eq!(claims["sub"], "i");
        assert_eq!(claims["exp"], 1_700_000_090_u64);
        assert_eq!(claims["video"]["roomJoin"], true);
        assert_eq!(claims["video"]["room"], "r");
        assert_eq!(claims["video"]["canPublish"], true);
        assert!(claims.get("kind").is_none());
    }

    #[test]
    fn rights_can_be_taken_away() {
        let claims = claims(&[
            "--room",
            "r",
            "--identity",
            "i",
            "--no-publish",
            "--no-publish-data",
            "--publish-source",
            "screen_share",
        ])
        .unwrap();
        assert_eq!(claims["video"]["canPublish"], false);
        assert_eq!(claims["video"]["canPublishData"], false);
        assert_eq!(claims["video"]["canSubscribe"], true);
        assert_eq!(claims["video"]["canPublishSources"], json!(["screen_share"]));
    }

    #[test]
    fn server_api_token_needs_no_identity_and_does_not_join() {
        let claims = claims(&["--list", "--create", "--admin", "--room", "r"]).unwrap();
        assert!(claims["video"].get("roomJoin").is_none());
        assert_eq!(claims["video"]["roomAdmin"], true);
        assert_eq!(claims["video"]["roomList"], true);
    }

    #[test]
    fn who_and_where_are_asked_for() {
        assert!(matches!(claims(&["--room", "r"]), Err(TokenError::NoIdentity)));
        assert!(matches!(claims(&["--identity", "i"]), Err(TokenError::NoGrant)));
        assert!(matches!(claims(&["--admin"]), Err(TokenError::NoGrant)));
    }

    #[test]
    fn recorder_is_hidden_and_of_kind_egress() {
        let claims = claims(&["--room", "r", "--identity", "i", "--recorder"]).unwrap();
        assert_eq!(claims["kind"], "egress");
        assert_eq!(claims["video"]["hidden"], true);
        assert_eq!(claims["video"]["canPublish"], false);
    }

    #[test]
    fn attributes_name_and_metadata_are_carried() {
        let claims = claims(&[
            "--room",
            "r",
            "--identity",
            "i",
            "--name",
            "N",
            "--metadata",
            "{}",
            "--attribute",
            "a=b=c",
            "--attribute",
            "d=",
        ])
        .unwrap();
        assert_eq!(claims["attributes"], json!({"a": "b=c", "d": ""}));
        assert_eq!(claims["name"], "N");
        assert_eq!(claims["metadata"], "{}");
    }
}
