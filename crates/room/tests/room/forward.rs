//! A participant of one room that appears in another one as well: two rooms, and the news between.

use sluice_engine::api::{Command, EventKind};
use sluice_proto as proto;
use sluice_proto::DisconnectReason;
use sluice_proto::participant_info::{KindDetail, State};
use sluice_room::{ApiError, Forward};

use crate::only;
use crate::support::*;

/// Alice publishes in one room and is forwarded to another, where Bob is.
struct Rooms {
    from: World,
    to: World,
    alice: Client,
    bob: Client,
}

impl Rooms {
    fn new() -> Self {
        let (mut from, mut to) = (World::new(), World::new());
        let alice = from.join_active("alice");
        let bob = to.join_active("bob");
        Self { from, to, alice, bob }
    }

    fn forward(&mut self) -> Result<(), ApiError> {
        let forward = self.from.room.forward_participant("alice", "to")?;
        self.apply(forward)
    }

    fn apply(&mut self, forward: Forward) -> Result<(), ApiError> {
        let result = self.to.room.apply_forward(self.to.now, forward);
        self.to.drain();
        result
    }

    /// Carries over what the first room has to say.
    fn pass_on(&mut self) {
        self.from.drain();
        for (destination, forward) in std::mem::take(&mut self.from.forwards) {
            assert_eq!(destination, "to");
            self.apply(forward).unwrap();
        }
    }

    fn update(&mut self) -> proto::ParticipantInfo {
        let heard = self.to.take(&self.bob);
        let update = heard.into_iter().rev().find_map(|message| match message {
            proto::signal_response::Message::Update(update) => Some(update),
            _ => None,
        });
        update.expect("an update").participants.remove(0)
    }
}

#[test]
fn a_forwarded_participant_appears_with_its_tracks_and_can_be_subscribed_to() {
    let mut rooms = Rooms::new();
    let (track, id) = rooms.from.publish(&rooms.alice, Kind::Microphone);
    rooms.forward().unwrap();
    let info = rooms.update();
    assert_eq!((info.identity.as_str(), info.state()), ("alice", State::Active));
    assert_eq!(info.kind_details, [i32::from(KindDetail::Forwarded)]);
    assert_eq!(info.tracks[0].sid, track.sid);
    assert_ne!(info.sid, rooms.alice.sid, "a participant of its own");
    rooms.to.advance_ms(1000);
    rooms.to.answer_pending(&rooms.bob);
    let subscribed: Vec<_> = rooms.to.take_subscribes().iter().map(|s| s.track).collect();
    assert_eq!(subscribed, [id]);
}

#[test]
fn changes_reach_the_other_room_and_its_workers_are_told_nothing_about_the_track() {
    let mut rooms = Rooms::new();
    rooms.forward().unwrap();
    rooms.to.take_commands();
    let (track, id) = rooms.from.publish(&rooms.alice, Kind::Microphone);
    rooms.pass_on();
    assert_eq!(rooms.update().tracks.len(), 1);
    let mute = proto::MuteTrackRequest { sid: track.sid, muted: true };
    rooms.from.signal(&rooms.alice, proto::signal_request::Message::Mute(mute));
    rooms.pass_on();
    assert!(rooms.update().tracks[0].muted);
    rooms.from.room.remove_participant(rooms.from.now, "alice").unwrap();
    rooms.pass_on();
    assert_eq!(rooms.update().state(), State::Disconnected);
    let about_the_track = |command: &Command| match command {
        Command::Unpublish { track } | Command::SetTrackMuted { track, .. } => *track == id,
        _ => false,
    };
    assert!(!rooms.to.take_commands().iter().any(about_the_track));
}

#[test]
fn whoever_is_removed_from_the_other_room_stays_away_until_forwarded_again() {
    let mut rooms = Rooms::new();
    rooms.forward().unwrap();
    rooms.to.room.remove_participant(rooms.to.now, "alice").unwrap();
    rooms.to.drain();
    rooms.from.publish(&rooms.alice, Kind::Microphone);
    rooms.pass_on();
    assert!(rooms.to.room.get_participant("alice").is_err());
    assert!(rooms.from.room.get_participant("alice").is_ok(), "its own room keeps it");
    rooms.forward().unwrap();
    assert_eq!(rooms.to.room.get_participant("alice").unwrap().tracks.len(), 1);
}

#[test]
fn two_of_one_identity_do_not_meet() {
    let mut rooms = Rooms::new();
    rooms.to.join_active("alice");
    assert!(matches!(rooms.forward(), Err(ApiError::FailedPrecondition(_))));
    // One that joins later takes over, as after any join of the same identity.
    rooms.to.room.remove_participant(rooms.to.now, "alice").unwrap();
    rooms.to.drain();
    rooms.forward().unwrap();
    rooms.to.join_active("alice");
    rooms.pass_on();
    assert_eq!(rooms.to.room.list_participants().len(), 2);
}

#[test]
fn the_end_of_a_room_ends_what_it_forwards() {
    let mut rooms = Rooms::new();
    rooms.forward().unwrap();
    rooms.to.take(&rooms.bob);
    rooms.from.room.close(rooms.from.now, DisconnectReason::RoomDeleted);
    rooms.pass_on();
    let update = only!(rooms.to.take(&rooms.bob), Update);
    assert_eq!(update.participants[0].state(), State::Disconnected);
}

#[test]
fn the_other_room_hears_when_a_forwarded_participant_speaks_and_how_its_connection_is() {
    let mut rooms = Rooms::new();
    let (_, id) = rooms.from.publish(&rooms.alice, Kind::Microphone);
    rooms.forward().unwrap();
    rooms.to.advance_ms(1000);
    rooms.to.answer_pending(&rooms.bob);
    rooms.to.take(&rooms.bob);
    rooms.from.engine(EventKind::AudioLevels { levels: vec![(id, 0.5)] });
    rooms.pass_on();
    let changed = only!(rooms.to.take(&rooms.bob), SpeakersChanged);
    assert!(changed.speakers[0].active && changed.speakers[0].level >= 0.5);
    // Levels of this room's own workers say nothing about it.
    rooms.to.engine(EventKind::AudioLevels { levels: Vec::new() });
    assert!(rooms.to.take(&rooms.bob).is_empty());
    rooms.from.advance_ms(2_000);
    rooms.pass_on();
    let changed = only!(rooms.to.take(&rooms.bob), SpeakersChanged);
    assert!(!changed.speakers[0].active);

    let peer = rooms.from.subscriber_peer(&rooms.alice);
    rooms.from.engine(EventKind::ConnectionQuality { peer, score: 30.0 });
    rooms.pass_on();
    let update = only!(rooms.to.take(&rooms.bob), ConnectionQuality);
    assert_eq!(update.updates[0].quality(), proto::ConnectionQuality::Poor);
    assert_ne!(update.updates[0].participant_sid, rooms.alice.sid);
}
