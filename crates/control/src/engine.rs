//! The part of the media engine that the control plane uses, so that tests can record commands
//! instead of starting workers.

use std::sync::Arc;

use sluice_engine::api::{Command, PeerId, RoomKey, SubscriptionId, TrackId, WorkerId};
use sluice_engine::{Engine, SendError};
use sluice_room::MediaHost;
use sluice_transport::{Candidate, Fingerprint, IceCredentials};

/// Media workers as seen from above.
pub trait MediaEngine: Send + Sync + 'static {
    /// Queues a command; never blocks.
    ///
    /// # Errors
    /// The worker's queue is full or it has ended; the command comes back.
    fn send(&self, command: Command) -> Result<(), SendError>;
    /// The worker for a new participant of a room.
    fn place(&self, room: RoomKey) -> WorkerId;
    /// A fresh id for a peer on a worker.
    fn next_peer_id(&self, worker: WorkerId) -> PeerId;
    /// A fresh id for a track published from a worker.
    fn next_track_id(&self, worker: WorkerId) -> TrackId;
    /// A fresh id for a subscription of a receiver on a worker.
    fn next_subscription_id(&self, worker: WorkerId) -> SubscriptionId;
    /// Fresh local ICE credentials whose `ufrag` leads STUN to a worker.
    fn new_ice_credentials(&self, worker: WorkerId) -> IceCredentials;
    /// Addresses that clients can reach a worker at.
    fn candidates(&self, worker: WorkerId) -> Vec<Candidate>;
    /// Fingerprint of the node's DTLS certificate.
    fn fingerprint(&self) -> Fingerprint;
}

impl MediaEngine for Engine {
    fn send(&self, command: Command) -> Result<(), SendError> {
        Self::send(self, command)
    }

    fn place(&self, room: RoomKey) -> WorkerId {
        Self::place(self, room)
    }

    fn next_peer_id(&self, worker: WorkerId) -> PeerId {
        Self::next_peer_id(self, worker)
    }

    fn next_track_id(&self, worker: WorkerId) -> TrackId {
        Self::next_track_id(self, worker)
    }

    fn next_subscription_id(&self, worker: WorkerId) -> SubscriptionId {
        Self::next_subscription_id(self, worker)
    }

    fn new_ice_credentials(&self, worker: WorkerId) -> IceCredentials {
        Self::new_ice_credentials(self, worker)
    }

    fn candidates(&self, worker: WorkerId) -> Vec<Candidate> {
        Self::candidates(self, worker)
    }

    fn fingerprint(&self) -> Fingerprint {
        Self::fingerprint(self)
    }
}

/// The engine as a room sees it.
pub(crate) struct Host(pub(crate) Arc<dyn MediaEngine>);

impl MediaHost for Host {
    fn place(&mut self, room: RoomKey) -> WorkerId {
        self.0.place(room)
    }

    fn next_peer_id(&mut self, worker: WorkerId) -> PeerId {
        self.0.next_peer_id(worker)
    }

    fn next_track_id(&mut self, worker: WorkerId) -> TrackId {
        self.0.next_track_id(worker)
    }

    fn next_subscription_id(&mut self, worker: WorkerId) -> SubscriptionId {
        self.0.next_subscription_id(worker)
    }

    fn ice_credentials(&mut self, worker: WorkerId) -> IceCredentials {
        self.0.new_ice_credentials(worker)
    }

    fn candidates(&self, worker: WorkerId) -> Vec<Candidate> {
        self.0.candidates(worker)
    }

    fn fingerprint(&self) -> Fingerprint {
        self.0.fingerprint()
    }
}
