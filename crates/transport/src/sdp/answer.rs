//! The answering side.

use super::bindings::{ReceiverBinding, SenderBinding, SenderId, SenderSpec};
use super::error::SdpError;
use super::params::{SectionPreference, SectionsRequirement, SessionParams};
use super::remote::RemoteOffer;
use crate::IceCredentials;

/// Session of a connection on which the client always offers.
#[derive(Debug)]
pub struct AnswerSession {
    params: SessionParams,
}

/// Our answer and what it means.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The description.
    pub sdp: String,
    /// Every sender that has a section, with what was negotiated.
    pub senders: Vec<SenderBinding>,
    /// Senders none of whose codecs the client can decode; they hold no section. Reported in each
    /// answer until removed.
    pub unsupported: Vec<SenderId>,
    /// Every section on which the client sends.
    pub receivers: Vec<ReceiverBinding>,
    /// Mid of each sender, for `SessionDescription.mid_to_track_id`.
    pub mid_to_sender: Vec<(String, SenderId)>,
}

impl AnswerSession {
    /// A session that has seen nothing yet.
    pub fn new(params: SessionParams) -> Self {
        Self { params }
    }

    /// Takes an offer. Call [`create_answer`](Self::create_answer) next, after
    /// [`set_local_ice`](Self::set_local_ice) when `ice_restart` is set. A second offer before the
    /// answer replaces the first.
    pub fn accept_offer(&mut self, _sdp: &str) -> Result<RemoteOffer, SdpError> {
        Err(SdpError::Missing("an implementation"))
    }

    /// Replaces our ICE credentials in the coming descriptions.
    pub fn set_local_ice(&mut self, ice: IceCredentials) {
        self.params.local.ice = ice;
    }

    /// Sets what the answer says on a section on which the client sends. Stays until replaced.
    pub fn set_section_preference(&mut self, _mid: &str, _preference: SectionPreference) {}

    /// Adds a stream towards the client. It takes a section in the next answer, when the client
    /// has offered a receiving one that is free.
    pub fn add_sender(&mut self, _spec: SenderSpec) -> SenderId {
        SenderId(0)
    }

    /// Removes a sender. Its section becomes inactive in the next answer and free afterwards.
    pub fn remove_sender(&mut self, _id: SenderId) {}

    /// Senders that wait for a section and do not fit into the free ones of the latest offer.
    pub fn unmet_senders(&self) -> SectionsRequirement {
        SectionsRequirement::default()
    }

    /// Whether the client should offer again: a sender waits or a removed one is still described.
    pub fn needs_offer(&self) -> bool {
        false
    }

    /// What to ask of the client now (`MediaSectionsRequirement`): `Some` once for each need that
    /// has not been asked for since the latest offer, so that a client never adds sections twice.
    pub fn take_requirement(&mut self) -> Option<SectionsRequirement> {
        None
    }

    /// Answers the latest offer.
    pub fn create_answer(&mut self) -> Result<Answer, SdpError> {
        Err(SdpError::Missing("an implementation"))
    }
}
