//! The offering side.

use super::bindings::{SenderBinding, SenderId, SenderSpec};
use super::candidate::RemoteCandidate;
use super::error::SdpError;
use super::params::SessionParams;
use crate::{IceCredentials, RemoteParams};

/// Session of a connection on which we always offer.
#[derive(Debug)]
pub struct OfferSession {
    params: SessionParams,
}

/// What the client's answer means.
#[derive(Debug, Clone)]
pub struct AnswerResult {
    /// Transport of the bundle.
    pub remote: RemoteParams,
    /// Whether the remote ICE credentials differ from the previous answer's.
    pub ice_restart: bool,
    /// Candidates in the description.
    pub candidates: Vec<RemoteCandidate>,
    /// Every living sender that the client receives.
    pub senders: Vec<SenderBinding>,
    /// Living senders that the client rejected or can decode in none of their codecs.
    pub unsupported: Vec<SenderId>,
    /// Whether another offer is needed: senders changed while this one was in flight.
    pub needs_offer: bool,
}

impl OfferSession {
    /// A session without sections. With a data channel, the first offer has a data section.
    pub fn new(params: SessionParams, _with_data_channel: bool) -> Self {
        Self { params }
    }

    /// Adds a stream towards the client; it is in the next offer.
    pub fn add_sender(&mut self, _spec: SenderSpec) -> SenderId {
        SenderId(0)
    }

    /// Removes a sender; its section is inactive from the next offer on.
    pub fn remove_sender(&mut self, _id: SenderId) {}

    /// Restarts ICE in the next offer with new local credentials (RFC 8839 §4.4.1.1.1).
    pub fn restart_ice(&mut self, ice: IceCredentials) {
        self.params.local.ice = ice;
    }

    /// Whether the client does not know the present state yet.
    pub fn needs_offer(&self) -> bool {
        false
    }

    /// Whether an offer waits for its answer.
    pub fn offer_in_flight(&self) -> bool {
        false
    }

    /// Writes an offer of the present state.
    pub fn create_offer(&mut self) -> Result<String, SdpError> {
        Err(SdpError::Missing("an implementation"))
    }

    /// Takes the answer to the offer in flight. After an error the offer is still in flight; the
    /// caller ends the connection.
    pub fn accept_answer(&mut self, _sdp: &str) -> Result<AnswerResult, SdpError> {
        Err(SdpError::Missing("an implementation"))
    }
}
