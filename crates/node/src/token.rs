//! `create-token`: an access token from the words of the command line.

use std::time::Duration;

use sluice_signal::token::{ApiKeys, Claims, TokenError, VideoGrant, mint};

use crate::cli::{ParticipantKind, PublishSource, TokenArgs};

/// Tolerance for clocks that run behind ours.
const NOT_BEFORE_SLACK: Duration = Duration::from_secs(10);

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateError {
    /// Joining needs to know who.
    #[error("a token to join a room needs --identity")]
    NoIdentity,
    /// Joining needs to know where.
    #[error("give --room to join one, or --list, --create or another right for the server API")]
    NoGrant,
    /// Signing failed.
    #[error(transparent)]
    Sign(#[from] TokenError),
}

/// Makes a token that `key` signs at `now` (Unix time).
pub(crate) fn create(
    arguments: &TokenArgs,
    key: &str,
    secret: &str,
    now: Duration,
) -> Result<String, CreateError> {
    let claims = Claims {
        identity: arguments.identity.clone().unwrap_or_default(),
        name: arguments.name.clone().unwrap_or_default(),
        kind: kind(arguments).into(),
        video: Some(video_grant(arguments)?),
        metadata: arguments.metadata.clone().unwrap_or_default(),
        attributes: arguments.attributes.iter().cloned().collect(),
        ..Claims::default()
    };
    let keys = ApiKeys::new([(key, secret)]);
    let not_before = now.saturating_sub(NOT_BEFORE_SLACK);
    Ok(mint(&keys, key, &claims, arguments.ttl + (now - not_before), not_before)?)
}

/// Rights that are given unless taken away are spelled out, so that a reader of the token sees them.
fn video_grant(arguments: &TokenArgs) -> Result<VideoGrant, CreateError> {
    let grants = &arguments.grants;
    let api_only = grants.list || grants.create || grants.admin || grants.record;
    let joins =
        grants.join || arguments.room.is_some() && (arguments.identity.is_some() || !api_only);
    if joins && arguments.identity.is_none() {
        return Err(CreateError::NoIdentity);
    }
    if (joins || grants.admin) && arguments.room.is_none()
        || !joins && !api_only && !grants.ingress_admin && !grants.agent
    {
        return Err(CreateError::NoGrant);
    }
    let sources = grants.publish_sources.iter().copied().map(source_name).map(Into::into);
    Ok(VideoGrant {
        room: arguments.room.clone().unwrap_or_default(),
        room_join: joins,
        room_list: grants.list,
        room_create: grants.create,
        room_admin: grants.admin,
        room_record: grants.record,
        ingress_admin: grants.ingress_admin,
        hidden: grants.hidden || grants.recorder,
        recorder: grants.recorder,
        agent: grants.agent,
        can_publish: joins.then_some(!grants.no_publish && !grants.recorder),
        can_subscribe: joins.then_some(!grants.no_subscribe),
        can_publish_data: joins.then_some(!grants.no_publish_data),
        can_publish_sources: sources.collect(),
        can_update_own_metadata: grants.update_own_metadata.then_some(true),
        ..VideoGrant::default()
    })
}

/// The `kind` claim; empty for a standard participant.
fn kind(arguments: &TokenArgs) -> &'static str {
    match arguments.kind {
        Some(ParticipantKind::Standard) => "",
        Some(ParticipantKind::Agent) => "agent",
        Some(ParticipantKind::Egress) => "egress",
        Some(ParticipantKind::Ingress) => "ingress",
        Some(ParticipantKind::Sip) => "sip",
        None if arguments.grants.recorder => "egress",
        None if arguments.grants.agent => "agent",
        None => "",
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
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::{self, Command};

    const NOW: Duration = Duration::from_secs(1_700_000_000);

    fn claims(words: &[&str]) -> Result<Value, CreateError> {
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
        assert!(matches!(claims(&["--room", "r"]), Err(CreateError::NoIdentity)));
        assert!(matches!(claims(&["--identity", "i"]), Err(CreateError::NoGrant)));
        assert!(matches!(claims(&["--admin"]), Err(CreateError::NoGrant)));
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
