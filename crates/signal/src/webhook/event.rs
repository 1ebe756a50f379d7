//! Events as their receivers see them: names, which fields go with which, and the filter.

use sluice_control::{WebhookEvent, WebhookKind};
use sluice_proto as proto;

/// Every event that LiveKit names.
pub const EVENT_NAMES: [&str; 14] = [
    "room_started",
    "room_finished",
    "participant_joined",
    "participant_left",
    "participant_connection_aborted",
    "track_published",
    "track_unpublished",
    "egress_started",
    "egress_updated",
    "egress_ended",
    "ingress_started",
    "ingress_ended",
    "agent_job_started",
    "agent_job_ended",
];

/// Which events are sent (`webhook.filter_params`). A list of included events makes the excluded
/// ones moot; two empty lists let everything through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Only these.
    pub include: Vec<String>,
    /// All but these.
    pub exclude: Vec<String>,
}

impl EventFilter {
    /// Whether an event of this name is sent.
    pub fn allows(&self, event: &str) -> bool {
        let names = |list: &[String]| list.iter().any(|name| name == event);
        if self.include.is_empty() { !names(&self.exclude) } else { names(&self.include) }
    }
}

impl From<proto::FilterParams> for EventFilter {
    fn from(params: proto::FilterParams) -> Self {
        Self { include: params.include_events, exclude: params.exclude_events }
    }
}

/// The event of a room, without id and time. Events of tracks name the room and the participant and
/// say no more about them, unless `full_room` is set.
pub(super) fn of_room(event: &WebhookEvent, full_room: bool) -> proto::WebhookEvent {
    let is_track_event =
        matches!(event.kind, WebhookKind::TrackPublished | WebhookKind::TrackUnpublished);
    let room = match &event.room {
        room if is_track_event && !full_room => {
            proto::Room { sid: room.sid.clone(), name: room.name.clone(), ..proto::Room::default() }
        }
        room => room.clone(),
    };
    let participant = event.participant.as_ref().map(|participant| {
        if is_track_event {
            proto::ParticipantInfo {
                sid: participant.sid.clone(),
                identity: participant.identity.clone(),
                ..proto::ParticipantInfo::default()
            }
        } else {
            participant.clone()
        }
    });
    proto::WebhookEvent {
        event: name(event.kind).into(),
        room: Some(room),
        participant,
        track: event.track.clone(),
        room_end_reason: event.end_reason.into(),
        ..proto::WebhookEvent::default()
    }
}

fn name(kind: WebhookKind) -> &'static str {
    match kind {
        WebhookKind::RoomStarted => "room_started",
        WebhookKind::RoomFinished => "room_finished",
        WebhookKind::ParticipantJoined => "participant_joined",
        WebhookKind::ParticipantLeft => "participant_left",
        WebhookKind::ParticipantConnectionAborted => "participant_connection_aborted",
        WebhookKind::TrackPublished => "track_published",
        WebhookKind::TrackUnpublished => "track_unpublished",
    }
}

/// What an event is about: events with the same resource stay in order.
pub(super) fn resource(event: &proto::WebhookEvent) -> &str {
    if let Some(egress) = &event.egress_info {
        &egress.egress_id
    } else if let Some(ingress) = &event.ingress_info {
        &ingress.ingress_id
    } else if let Some(room) = &event.room {
        &room.name
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_include_list_beats_an_exclude_list() {
        let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let both = EventFilter { include: list(&["a"]), exclude: list(&["a", "b"]) };
        assert!(both.allows("a") && !both.allows("b") && !both.allows("c"));
        let without = EventFilter { exclude: list(&["a"]), ..EventFilter::default() };
        assert!(!without.allows("a") && without.allows("b"));
        assert!(EventFilter::default().allows("anything"));
    }

    #[test]
    fn events_of_tracks_name_the_room_and_say_no_more_of_it() {
        let event = WebhookEvent {
            kind: WebhookKind::TrackPublished,
            room: proto::Room {
                sid: "RM_1".into(),
                name: "r".into(),
                num_participants: 3,
                ..Default::default()
            },
            participant: Some(proto::ParticipantInfo {
                sid: "PA_1".into(),
                identity: "alice".into(),
                metadata: "m".into(),
                ..Default::default()
            }),
            track: Some(proto::TrackInfo { sid: "TR_1".into(), ..Default::default() }),
            ..WebhookEvent::default()
        };
        let sent = of_room(&event, false);
        assert_eq!(sent.event, "track_published");
        let room = sent.room.expect("a room");
        assert_eq!(
            (room.sid.as_str(), room.name.as_str(), room.num_participants),
            ("RM_1", "r", 0)
        );
        let participant = sent.participant.expect("a participant");
        assert_eq!((participant.identity.as_str(), participant.metadata.as_str()), ("alice", ""));
        assert_eq!(of_room(&event, true).room.expect("a room").num_participants, 3);
        let joined = WebhookEvent { kind: WebhookKind::ParticipantJoined, ..event };
        assert_eq!(of_room(&joined, false).participant.expect("a participant").metadata, "m");
    }
}
