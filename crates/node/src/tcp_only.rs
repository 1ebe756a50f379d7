//! `rtc.force_tcp`: the media engine with its UDP candidates left out.

use sluice_control::MediaEngine;
use sluice_engine::api::{Command, PeerId, RoomKey, SubscriptionId, TrackId, WorkerId};
use sluice_engine::{Engine, SendError};
use sluice_transport::{Candidate, Fingerprint, IceCredentials, TransportProto};

/// An engine that advertises ICE-TCP only.
pub(crate) struct TcpOnly(pub(crate) Engine);

impl MediaEngine for TcpOnly {
    fn send(&self, command: Command) -> Result<(), SendError> {
        self.0.send(command)
    }

    fn place(&self, room: RoomKey) -> WorkerId {
        self.0.place(room)
    }

    fn next_peer_id(&self, worker: WorkerId) -> PeerId {
        self.0.next_peer_id(worker)
    }

    fn next_track_id(&self, worker: WorkerId) -> TrackId {
        self.0.next_track_id(worker)
    }

    fn next_subscription_id(&self, worker: WorkerId) -> SubscriptionId {
        self.0.next_subscription_id(worker)
    }

    fn new_ice_credentials(&self, worker: WorkerId) -> IceCredentials {
        self.0.new_ice_credentials(worker)
    }

    fn candidates(&self, worker: WorkerId) -> Vec<Candidate> {
        let mut candidates = self.0.candidates(worker);
        candidates.retain(|candidate| candidate.proto == TransportProto::Tcp);
        candidates
    }

    fn fingerprint(&self) -> Fingerprint {
        self.0.fingerprint()
    }
}
