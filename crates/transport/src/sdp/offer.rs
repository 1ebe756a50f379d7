//! The offering side: one [`OfferSession`] per connection on which the client always answers.

use std::sync::Arc;

use sluice_rtp::codec::{Codec, MediaKind};

use super::bindings::{NegotiatedCodec, SenderBinding, SenderId, SenderSpec};
use super::candidate::RemoteCandidate;
use super::codecs::{self, CodecPolicy, Format};
use super::error::{Misuse, SdpError};
use super::params::SessionParams;
use super::parse::{self, Role};
use super::remote::{Direction, RemoteSection};
use super::sender::{self, Receiving, Sender, Senders};
use super::write::{Body, DATA_FORMAT, DATA_PROTO, Description, MEDIA_PROTO, Media, Section};
use super::{extensions, fmtp};
use crate::{Candidate, IceCredentials, RemoteParams, Setup};

/// Session of a connection on which we always offer.
#[derive(Debug)]
pub struct OfferSession {
    params: SessionParams,
    with_data: bool,
    /// `<sess-version>` of the latest offer; 0 before the first.
    version: u64,
    /// Number of the next mid.
    next_mid: u32,
    senders: Senders,
    sections: Vec<OfferedSection>,
    in_flight: bool,
    /// New local ICE credentials were not offered yet.
    restart: bool,
    /// Senders without an offerable codec wait to be reported by the next answer.
    unreported: bool,
    /// Transport as of the latest answer.
    remote: Option<RemoteParams>,
}

#[derive(Debug)]
struct OfferedSection {
    mid: Arc<str>,
    /// `None` is the data section.
    kind: Option<MediaKind>,
    /// The sender that the next offer announces here.
    sender: Option<SenderId>,
    /// The sender that the client may believe to be here. A section is free for another only after
    /// an offer without one: clients fire no track when a section changes hands directly.
    announced: Option<SenderId>,
    /// Whether the client rejected it; only a new mid revives it (RFC 8829 §5.2.2).
    rejected: bool,
    /// Codecs of the latest offer, ours.
    codecs: Arc<[NegotiatedCodec]>,
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
    /// Living senders that the client rejected or can decode in none of their codecs. Reported in
    /// each answer until removed.
    pub unsupported: Vec<SenderId>,
    /// Whether another offer is needed: senders changed while this one was in flight.
    pub needs_offer: bool,
}

impl OfferSession {
    /// A session without sections. With a data channel, the first offer has a data section.
    pub fn new(params: SessionParams, with_data_channel: bool) -> Self {
        Self {
            params,
            with_data: with_data_channel,
            version: 0,
            next_mid: 0,
            senders: Senders::default(),
            sections: Vec::new(),
            in_flight: false,
            restart: false,
            unreported: false,
            remote: None,
        }
    }

    /// Adds a stream towards the client; it is in the next offer.
    pub fn add_sender(&mut self, spec: SenderSpec) -> SenderId {
        let offerable = !offered_codecs(&spec, &self.params.send).is_empty();
        let id = self.senders.add(spec);
        if let Some(sender) = self.senders.get_mut(id) {
            sender.unsupported = !offerable;
            self.unreported |= !offerable;
        }
        id
    }

    /// Removes a sender; its section is inactive from the next offer on.
    pub fn remove_sender(&mut self, id: SenderId) {
        if let Some(Sender { section: Some(index), .. }) = self.senders.remove(id) {
            self.sections[index].sender = None;
        }
    }

    /// What the latest description said of a sender; `None` while it has no section.
    pub fn binding(&self, id: SenderId) -> Option<&SenderBinding> {
        self.senders.binding(id)
    }

    /// Restarts ICE in the next offer with new local credentials (RFC 8839 §4.4.1.1.1). An offer
    /// in flight is given up: after a resume it may never have arrived. The caller ignores a late
    /// answer to it by its id.
    pub fn restart_ice(&mut self, ice: IceCredentials) {
        self.params.local.ice = ice;
        self.restart = true;
        self.in_flight = false;
    }

    /// Replaces our candidates, from the next offer on.
    pub fn set_candidates(&mut self, candidates: Vec<Candidate>) {
        self.params.local.candidates = candidates;
    }

    /// Whether the client does not know the present state yet.
    pub fn needs_offer(&self) -> bool {
        let first = self.version == 0 && self.with_data;
        let changed = self.sections.iter().any(|section| section.sender != section.announced);
        first
            || changed
            || self.restart
            || self.unreported
            || self.senders.waiting().next().is_some()
    }

    /// Whether an offer waits for its answer.
    pub fn offer_in_flight(&self) -> bool {
        self.in_flight
    }

    /// Writes an offer of the present state.
    pub fn create_offer(&mut self) -> Result<String, SdpError> {
        if self.in_flight {
            return Err(Misuse::OfferInFlight.into());
        }
        self.place_senders();
        if self.with_data && !self.sections.iter().any(|section| section.kind.is_none()) {
            self.append(None);
        }
        for section in &mut self.sections {
            section.announced = section.sender;
        }
        self.version += 1;
        self.in_flight = true;
        self.restart = false;
        let description = Description {
            local: &self.params.local,
            session_id: self.params.session_id,
            version: self.version,
            setup: Setup::ActPass,
            allow_mixed: true,
            sections: self.sections.iter().map(|section| self.section(section)).collect(),
        };
        Ok(description.write())
    }

    /// Gives a section to each sender that waits for one: a free one of its kind, else a new one.
    fn place_senders(&mut self) {
        let waiting: Vec<(SenderId, MediaKind)> =
            self.senders.waiting().map(|(id, sender)| (id, sender.spec.kind)).collect();
        let reuse = self.params.reuse_sections;
        for (id, kind) in waiting {
            let free = self.sections.iter().position(|section| section.is_free(kind, reuse));
            let index = match free {
                Some(index) => index,
                None => self.append(Some(kind)),
            };
            if self.sections[index].rejected {
                self.sections[index].mid = self.take_mid();
                self.sections[index].rejected = false;
            }
            self.sections[index].sender = Some(id);
            if let Some(sender) = self.senders.get_mut(id) {
                sender.section = Some(index);
                let codecs = offered_codecs(&sender.spec, &self.params.send);
                self.sections[index].codecs = self.shared(codecs);
            }
        }
    }

    /// Codecs to keep with a section; many are offered the same.
    fn shared(&self, codecs: Vec<NegotiatedCodec>) -> Arc<[NegotiatedCodec]> {
        let known = self.sections.iter().find(|section| *section.codecs == *codecs);
        known.map_or_else(|| codecs.into(), |section| section.codecs.clone())
    }

    fn append(&mut self, kind: Option<MediaKind>) -> usize {
        let mid = self.take_mid();
        self.sections.push(OfferedSection {
            mid,
            kind,
            sender: None,
            announced: None,
            rejected: false,
            codecs: Arc::default(),
        });
        self.sections.len() - 1
    }

    fn take_mid(&mut self) -> Arc<str> {
        let mid = self.next_mid.to_string().into();
        self.next_mid += 1;
        mid
    }

    fn section(&self, section: &OfferedSection) -> Section {
        let Some(kind) = section.kind else {
            return Section {
                mid: section.mid.as_ref().to_owned(),
                media: "application".to_owned(),
                proto: DATA_PROTO.to_owned(),
                body: if section.rejected {
                    Body::Rejected { formats: vec![DATA_FORMAT.to_owned()] }
                } else {
                    Body::Data { format: DATA_FORMAT.to_owned() }
                },
            };
        };
        let sender = section.sender.and_then(|id| self.senders.get(id));
        let body = if section.rejected {
            let formats = section.codecs.iter().map(|codec| codec.pt.to_string());
            Body::Rejected { formats: formats.collect() }
        } else {
            let with_rtx = section.codecs.iter().any(|codec| codec.rtx_pt.is_some());
            Body::Media(Box::new(Media {
                kind,
                direction: Direction::new(sender.is_some(), false),
                codecs: section.codecs.to_vec(),
                extensions: extensions::offered(kind, self.params.playout_delay),
                receive_rids: Vec::new(),
                source: sender.map(|sender| sender.source(with_rtx)),
            }))
        };
        Section {
            mid: section.mid.as_ref().to_owned(),
            media: kind.as_str().to_owned(),
            proto: MEDIA_PROTO.to_owned(),
            body,
        }
    }

    /// Takes the answer to the offer in flight. After an error the offer is still in flight; the
    /// caller ends the connection.
    pub fn accept_answer(&mut self, sdp: &str) -> Result<AnswerResult, SdpError> {
        if !self.in_flight {
            return Err(Misuse::NoLocalOffer.into());
        }
        let answer = parse::parse(sdp, Role::Answer, &self.params.limits)?;
        self.check_sections(&answer.sections)?;
        let remote = answer.transport.or_else(|| self.remote.clone());
        let remote = remote.ok_or(SdpError::Missing("a section that is not rejected"))?;
        let known = self.remote.replace(remote.clone());
        self.in_flight = false;
        self.unreported = false;
        let mut senders = Vec::new();
        for (index, theirs) in answer.sections.iter().enumerate() {
            senders.extend(self.accept_section(index, theirs));
        }
        Ok(AnswerResult {
            ice_restart: known.is_some_and(|known| known.ice != remote.ice),
            remote,
            candidates: answer.candidates,
            senders,
            unsupported: self.senders.unsupported(),
            needs_offer: self.needs_offer(),
        })
    }

    /// RFC 8829 §5.3.1: an answer has the sections of the offer, in its order.
    fn check_sections(&self, answered: &[RemoteSection]) -> Result<(), SdpError> {
        if answered.len() != self.sections.len() {
            return Err(SdpError::SectionsChanged(format!(
                "{} answer {} of the offer",
                answered.len(),
                self.sections.len()
            )));
        }
        for (offered, answered) in self.sections.iter().zip(answered) {
            let media = offered.kind.map_or("application", MediaKind::as_str);
            if *offered.mid != *answered.mid || media != answered.media {
                return Err(SdpError::SectionsChanged(format!(
                    "a=mid:{} answers a=mid:{}, or its kind differs",
                    answered.mid, offered.mid
                )));
            }
        }
        Ok(())
    }

    fn accept_section(&mut self, index: usize, theirs: &RemoteSection) -> Option<SenderBinding> {
        let section = &mut self.sections[index];
        section.rejected |= theirs.rejected.is_some();
        let kind = section.kind?;
        let id = section.announced.filter(|id| section.sender == Some(*id))?;
        let sender = self.senders.get_mut(id)?;
        let accepted = theirs.media_kind().is_some() && theirs.direction.receives();
        let ours = &section.codecs;
        let offered: Vec<NegotiatedCodec> =
            theirs.codecs.iter().filter_map(|codec| as_offered(codec, ours)).collect();
        let chosen = sender::decodable(&sender.spec, &self.params.send, &offered);
        let offered_extensions = extensions::offered(kind, self.params.playout_delay);
        let extensions = extensions::intersection(&offered_extensions, &theirs.receive_extensions);
        let receiving = Receiving { mid: section.mid.clone(), codecs: &offered, extensions };
        let binding = sender::binding(id, &sender.spec, &receiving, &chosen);
        let Some(binding) = binding.filter(|_| accepted) else {
            // The next offer lets go of the section.
            sender.unsupported = true;
            sender.section = None;
            section.sender = None;
            if section.rejected {
                section.announced = None;
            }
            return None;
        };
        Some(self.senders.bind(binding))
    }
}

impl OfferedSection {
    fn is_free(&self, kind: MediaKind, reuse: bool) -> bool {
        let idle = self.sender.is_none() && self.announced.is_none();
        self.kind == Some(kind) && idle && (reuse || self.rejected)
    }
}

/// Codecs under which a track is offered: ours, with the payload types of the table.
fn offered_codecs(spec: &SenderSpec, policy: &CodecPolicy) -> Vec<NegotiatedCodec> {
    let mut formats: Vec<&Format> = Vec::new();
    let wanted = spec.codecs.iter().filter(|it| it.codec.kind() == spec.kind);
    for wanted in wanted.filter(|wanted| policy.enables(wanted.codec)) {
        if let Some(format) = codecs::format_to_offer(wanted)
            && !formats.contains(&format)
        {
            formats.push(format);
        }
    }
    let redundant = formats.first().is_some_and(|format| format.codec == Codec::Red);
    if formats.iter().any(|format| format.codec == Codec::Red)
        && !formats.iter().any(|format| format.codec == Codec::Opus)
    {
        formats.push(codecs::opus_format());
    }
    let with_rtx = spec.rtx_ssrc.is_some();
    formats
        .into_iter()
        .map(|format| {
            let mut feedback = sender::sent_feedback(format.codec);
            feedback.nack &= !redundant;
            let mut fmtp = format.fmtp.into();
            if spec.stereo && format.codec == Codec::Opus {
                fmtp::extend(&mut fmtp, "sprop-stereo", "1");
            }
            NegotiatedCodec {
                pt: format.pt,
                codec: format.codec,
                clock_rate: format.codec.clock_rate(),
                channels: format.codec.channels().unwrap_or_default(),
                fmtp,
                rtx_pt: format.rtx_pt().filter(|_| with_rtx),
                feedback,
            }
        })
        .collect()
}

/// A codec of an answer, with no more feedback than we offered; `None` if we did not offer it.
fn as_offered(theirs: &NegotiatedCodec, ours: &[NegotiatedCodec]) -> Option<NegotiatedCodec> {
    let ours = ours.iter().find(|ours| {
        ours.codec == theirs.codec && fmtp::fitness(ours.codec, &ours.fmtp, &theirs.fmtp).is_some()
    })?;
    let mut codec = theirs.clone();
    codec.feedback = codec.feedback.intersection(ours.feedback);
    codec.rtx_pt = codec.rtx_pt.filter(|_| ours.rtx_pt.is_some());
    Some(codec)
}
