//! LiveKit's claims, as JSON writes them, and their translation to what rooms understand.
//!
//! Fields which the token leaves out and fields that are `null` mean the same. Booleans of which
//! LiveKit tells "absent" from "false" are options; everything unknown is ignored.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use sluice_control::Grants;
use sluice_proto::participant_info::{Kind, KindDetail};
use sluice_proto::{RoomConfiguration, TrackSource, json};

/// Everything LiveKit puts into a token besides the registered claims.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Claims {
    /// `sub`, or `jti` when that is empty. Not a claim of its own.
    #[serde(skip)]
    pub identity: String,
    /// Display name.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Sort of participant, see [`kind_from_name`].
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// More about the kind.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub kind_details: Vec<String>,
    /// Rights in rooms and on the server API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video: Option<VideoGrant>,
    /// Rights on SIP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sip: Option<SipGrant>,
    /// Rights on agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentGrant>,
    /// Rights on inference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inference: Option<InferenceGrant>,
    /// Rights on observability.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observability: Option<ObservabilityGrant>,
    /// Settings for the room, if this participant creates it.
    #[serde(
        deserialize_with = "read_room_config",
        serialize_with = "write_room_config",
        skip_serializing_if = "Option::is_none"
    )]
    pub room_config: Option<RoomConfiguration>,
    /// Name of configured room settings.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub room_preset: String,
    /// base64 of the SHA-256 of a body that the token vouches for (webhooks).
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    /// Metadata of the participant.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub metadata: String,
    /// Attributes of the participant.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// The `video` claim.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VideoGrant {
    /// May create and delete rooms.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_false")]
    pub room_create: bool,
    /// May list rooms.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_false")]
    pub room_list: bool,
    /// May record.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_false")]
    pub room_record: bool,
    /// May administer `room`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_false")]
    pub room_admin: bool,
    /// May join `room`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_false")]
    pub room_join: bool,
    /// The room that `room_join` and `room_admin` are about.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub room: String,
    /// The room that participants may be moved or forwarded to.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub destination_room: String,
    /// Absent means yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish: Option<bool>,
    /// Absent means yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_subscribe: Option<bool>,
    /// Absent means the same as `can_publish`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish_data: Option<bool>,
    /// Names of sources; empty means all.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub can_publish_sources: Vec<String>,
    /// Absent means no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_update_own_metadata: Option<bool>,
    /// Absent means no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_subscribe_metrics: Option<bool>,
    /// Absent means no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_manage_agent_session: Option<bool>,
    /// May manage ingress.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_false")]
    pub ingress_admin: bool,
    /// Others do not see the participant.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_false")]
    pub hidden: bool,
    /// The participant records the room.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_false")]
    pub recorder: bool,
    /// May register as an agent worker.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_false")]
    pub agent: bool,
}

/// The `sip` claim.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SipGrant {
    /// Trunks and dispatch rules.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_false")]
    pub admin: bool,
    /// Calls.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_false")]
    pub call: bool,
}

/// The `agent` claim.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentGrant {
    /// Agents.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_false")]
    pub admin: bool,
    /// Agent simulations.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_false")]
    pub simulation_admin: bool,
    /// Agent databases.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_false")]
    pub database_admin: bool,
}

/// The `inference` claim.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InferenceGrant {
    /// Inference.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_false")]
    pub perform: bool,
}

/// The `observability` claim.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObservabilityGrant {
    /// Writing observations.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_false")]
    pub write: bool,
}

impl Claims {
    /// The kind claim; an unknown name is a standard participant.
    pub fn participant_kind(&self) -> Kind {
        kind_from_name(&self.kind)
    }

    /// The kind details that are known by name.
    pub fn participant_kind_details(&self) -> Vec<KindDetail> {
        let names = self.kind_details.iter();
        names.filter_map(|name| KindDetail::from_str_name(&name.to_ascii_uppercase())).collect()
    }
}

impl VideoGrant {
    /// The grant as rooms understand it.
    pub fn to_grants(&self) -> Grants {
        // A name that we do not know must not turn the list into "all sources".
        let source = |name: &String| {
            TrackSource::from_str_name(&name.to_ascii_uppercase()).unwrap_or(TrackSource::Unknown)
        };
        Grants {
            room_create: self.room_create,
            room_list: self.room_list,
            room_record: self.room_record,
            room_admin: self.room_admin,
            room_join: self.room_join,
            room: self.room.clone(),
            destination_room: self.destination_room.clone(),
            can_publish: self.can_publish,
            can_subscribe: self.can_subscribe,
            can_publish_data: self.can_publish_data,
            can_publish_sources: self.can_publish_sources.iter().map(source).collect(),
            can_update_own_metadata: self.can_update_own_metadata,
            can_subscribe_metrics: self.can_subscribe_metrics.unwrap_or(false),
            can_manage_agent_session: self.can_manage_agent_session.unwrap_or(false),
            ingress_admin: self.ingress_admin,
            hidden: self.hidden,
            recorder: self.recorder,
            agent: self.agent,
        }
    }
}

impl From<&Grants> for VideoGrant {
    fn from(grants: &Grants) -> Self {
        let source = |source: &TrackSource| source.as_str_name().to_ascii_lowercase();
        Self {
            room_create: grants.room_create,
            room_list: grants.room_list,
            room_record: grants.room_record,
            room_admin: grants.room_admin,
            room_join: grants.room_join,
            room: grants.room.clone(),
            destination_room: grants.destination_room.clone(),
            can_publish: grants.can_publish,
            can_subscribe: grants.can_subscribe,
            can_publish_data: grants.can_publish_data,
            can_publish_sources: grants.can_publish_sources.iter().map(source).collect(),
            can_update_own_metadata: grants.can_update_own_metadata,
            can_subscribe_metrics: grants.can_subscribe_metrics.then_some(true),
            can_manage_agent_session: grants.can_manage_agent_session.then_some(true),
            ingress_admin: grants.ingress_admin,
            hidden: grants.hidden,
            recorder: grants.recorder,
            agent: grants.agent,
        }
    }
}

/// `kind` claim to kind: the enum's name in lower case.
pub fn kind_from_name(name: &str) -> Kind {
    Kind::from_str_name(&name.to_ascii_uppercase()).unwrap_or(Kind::Standard)
}

/// Kind to `kind` claim; empty for a standard participant.
pub fn kind_name(kind: Kind) -> String {
    match kind {
        Kind::Standard => String::new(),
        other => other.as_str_name().to_ascii_lowercase(),
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// `null` is the default.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn read_room_config<'de, D>(deserializer: D) -> Result<Option<RoomConfiguration>, D::Error>
where
    D: Deserializer<'de>,
{
    match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::Null => Ok(None),
        value => {
            let text = value.to_string();
            json::from_json(text.as_bytes()).map(Some).map_err(serde::de::Error::custom)
        }
    }
}

fn write_room_config<S>(
    config: &Option<RoomConfiguration>,
    serializer: S,
) -> Result<S::Ok, S::Error>
where
    S: serde::Serializer,
{
    let config = config.clone().unwrap_or_default();
    let text = json::to_camel(&config).map_err(serde::ser::Error::custom)?;
    let value: serde_json::Value =
        serde_json::from_str(&text).map_err(serde::ser::Error::custom)?;
    value.serialize(serializer)
}
