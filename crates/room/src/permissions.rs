//! What a token allows: LiveKit's video grant with its tri-state defaults.

use sluice_proto::{ParticipantPermission, TrackSource};

/// The `video` grant of an access token. `None` in a tri-state field means "not in the token".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// May create, delete and, by joining, auto-create rooms.
    pub room_create: bool,
    /// May list rooms.
    pub room_list: bool,
    /// May record.
    pub room_record: bool,
    /// May administer `room`.
    pub room_admin: bool,
    /// May join `room`.
    pub room_join: bool,
    /// Room the grant is for.
    pub room: String,
    /// Room that participants may be forwarded or moved to.
    pub destination_room: String,
    /// May publish tracks; default true.
    pub can_publish: Option<bool>,
    /// May subscribe to tracks; default true.
    pub can_subscribe: Option<bool>,
    /// May publish data; defaults to `can_publish`.
    pub can_publish_data: Option<bool>,
    /// Sources that may be published; empty = all.
    pub can_publish_sources: Vec<TrackSource>,
    /// May change own name, metadata and attributes; default false.
    pub can_update_own_metadata: Option<bool>,
    /// Receives metrics of others; default false.
    pub can_subscribe_metrics: bool,
    /// May control an agent session; default false.
    pub can_manage_agent_session: bool,
    /// May create and delete ingress.
    pub ingress_admin: bool,
    /// Not announced to others.
    pub hidden: bool,
    /// Records the room (deprecated in favour of the kind claim).
    pub recorder: bool,
    /// May register as an agent worker.
    pub agent: bool,
}

impl Grants {
    /// Whether tracks may be published.
    pub fn can_publish(&self) -> bool {
        self.can_publish.unwrap_or(true)
    }

    /// Whether tracks may be subscribed to.
    pub fn can_subscribe(&self) -> bool {
        self.can_subscribe.unwrap_or(true)
    }

    /// Whether data may be published.
    pub fn can_publish_data(&self) -> bool {
        self.can_publish_data.unwrap_or_else(|| self.can_publish())
    }

    /// Whether a track of `source` may be published.
    pub fn can_publish_source(&self, source: TrackSource) -> bool {
        self.can_publish()
            && (self.can_publish_sources.is_empty() || self.can_publish_sources.contains(&source))
    }

    /// Whether own name, metadata and attributes may be changed.
    pub fn can_update_own_metadata(&self) -> bool {
        self.can_update_own_metadata.unwrap_or(false)
    }

    /// The grant as participants see it.
    pub fn to_permission(&self) -> ParticipantPermission {
        let sources = &self.can_publish_sources;
        ParticipantPermission {
            can_subscribe: self.can_subscribe(),
            can_publish: self.can_publish(),
            can_publish_data: self.can_publish_data(),
            can_publish_sources: sources.iter().map(|&source| source.into()).collect(),
            hidden: self.hidden,
            recorder: self.recorder,
            can_update_metadata: self.can_update_own_metadata(),
            agent: self.agent,
            can_subscribe_metrics: self.can_subscribe_metrics,
            can_manage_agent_session: self.can_manage_agent_session,
        }
    }

    /// Takes over a permission set by the server API; what it does not speak of stays.
    pub fn apply_permission(&mut self, permission: &ParticipantPermission) {
        let sources = permission.can_publish_sources.iter();
        self.can_subscribe = Some(permission.can_subscribe);
        self.can_publish = Some(permission.can_publish);
        self.can_publish_data = Some(permission.can_publish_data);
        self.can_publish_sources =
            sources.filter_map(|&source| TrackSource::try_from(source).ok()).collect();
        self.can_update_own_metadata = Some(permission.can_update_metadata);
        self.can_subscribe_metrics = permission.can_subscribe_metrics;
        self.can_manage_agent_session = permission.can_manage_agent_session;
        self.hidden = permission.hidden;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_grants_take_livekits_defaults() {
        let grants = Grants::default();
        assert!(grants.can_publish() && grants.can_subscribe() && grants.can_publish_data());
        assert!(!grants.can_update_own_metadata());
        assert!(grants.can_publish_source(TrackSource::ScreenShare));
    }

    #[test]
    fn data_follows_publish_unless_the_token_says_otherwise() {
        let mut grants = Grants { can_publish: Some(false), ..Grants::default() };
        assert!(!grants.can_publish_data());
        grants.can_publish_data = Some(true);
        assert!(grants.can_publish_data());
    }

    #[test]
    fn listed_sources_exclude_the_others() {
        let grants =
            Grants { can_publish_sources: vec![TrackSource::Microphone], ..Grants::default() };
        assert!(grants.can_publish_source(TrackSource::Microphone));
        assert!(!grants.can_publish_source(TrackSource::Camera));
    }

    #[test]
    fn permission_round_trips() {
        let mut grants = Grants::default();
        let permission = ParticipantPermission {
            can_publish: false,
            can_subscribe: true,
            can_publish_sources: vec![TrackSource::Camera.into()],
            ..ParticipantPermission::default()
        };
        grants.apply_permission(&permission);
        assert_eq!(grants.to_permission(), permission);
    }
}
