//! The answering side: one [`AnswerSession`] per connection on which the client always offers.

use rustc_hash::FxHashMap;
use sluice_rtp::codec::MediaKind;
use sluice_rtp::ext::{ExtensionKind, ExtensionMap};

use super::bindings::{ReceiverBinding, SenderBinding, SenderId, SenderSpec};
use super::error::{Misuse, SdpError};
use super::extensions::{accept_received, accept_sent, accept_sent_unnamed};
use super::params::{SectionPreference, SectionsRequirement, SessionParams};
use super::parse::{self, Role};
use super::receive::receive_codecs;
use super::remote::{Direction, RemoteDescription, RemoteOffer, RemoteSection, SectionKind};
use super::sender::{self, Receiving, Senders};
use super::write::{Body, DATA_FORMAT, Description, Media, Section, Source};
use crate::{Candidate, IceCredentials, RemoteParams, Setup};

/// Stream id of all open sections: a player shows them as one stream.
const OPEN_STREAM: &str = "sluice";

/// Session of a connection on which the client always offers.
#[derive(Debug)]
pub struct AnswerSession {
    params: SessionParams,
    /// `<sess-version>` of the latest answer.
    version: u64,
    senders: Senders,
    /// By mid, set by the room.
    preferences: FxHashMap<String, SectionPreference>,
    /// Sections as of the latest answer.
    sections: Vec<AnsweredSection>,
    /// Transport as of the latest answer.
    remote: Option<RemoteParams>,
    /// The offer that waits for an answer.
    offer: Option<RemoteDescription>,
    /// What the client was asked for since its latest offer.
    asked: Option<SectionsRequirement>,
    /// Whether the client offers once and its sections stay open for any sender.
    open: bool,
    /// The latest offer that was answered, kept for [`reassign`](Self::reassign).
    latest: Option<RemoteDescription>,
}

/// What the latest answer left of a section.
#[derive(Debug)]
struct AnsweredSection {
    mid: String,
    kind: SectionKind,
    rejected: bool,
    /// Whether the client offered to receive.
    receives: bool,
    /// The sender that the answer announced, removed or not. A section is free for another only
    /// after an answer without one: clients fire no track when a section changes hands directly.
    sending: Option<SenderId>,
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
        Self {
            params,
            version: 0,
            senders: Senders::default(),
            preferences: FxHashMap::default(),
            sections: Vec::new(),
            remote: None,
            offer: None,
            asked: None,
            open: false,
            latest: None,
        }
    }

    /// For a client that offers once (WHIP, WHEP): every section on which it receives is answered as
    /// if we sent there, with every codec that we might send and without an SSRC, so that senders
    /// can come and go without another description. Call before the first offer.
    pub fn keep_sections_open(&mut self) {
        self.open = true;
    }

    /// Gives open sections to the senders of now; the client does not see the answer. `None` before
    /// the first answer, and unless [`keep_sections_open`](Self::keep_sections_open) was called.
    pub fn reassign(&mut self) -> Option<Answer> {
        self.offer = Some(self.latest.clone()?);
        self.create_answer().ok()
    }

    /// Takes an offer. Call [`create_answer`](Self::create_answer) next, after
    /// [`set_local_ice`](Self::set_local_ice) when `ice_restart` is set. A second offer before the
    /// answer replaces the first.
    pub fn accept_offer(&mut self, sdp: &str) -> Result<RemoteOffer, SdpError> {
        let mut offer = parse::parse(sdp, Role::Offer, &self.params.limits)?;
        self.check_sections(&offer.sections)?;
        // An offer that rejects everything says nothing about the transport; it stays.
        let remote = offer.transport.take().or_else(|| self.remote.clone());
        let remote = remote.ok_or(SdpError::Missing("a section to answer"))?;
        let known = self.remote.as_ref();
        let accepted = RemoteOffer {
            ice_restart: known.is_some_and(|known| known.ice != remote.ice),
            candidates: offer.candidates.clone(),
            sections: offer.sections.clone(),
            has_data: remote.sctp.is_some(),
            remote: remote.clone(),
        };
        offer.transport = Some(remote);
        self.offer = Some(offer);
        self.asked = None;
        Ok(accepted)
    }

    /// RFC 8829 §5.8: sections only grow in number, and keep their mid and kind unless they were
    /// rejected.
    fn check_sections(&self, offered: &[RemoteSection]) -> Result<(), SdpError> {
        if offered.len() < self.sections.len() {
            return Err(SdpError::SectionsChanged(format!(
                "{} of {} are left",
                offered.len(),
                self.sections.len()
            )));
        }
        for (known, offered) in self.sections.iter().zip(offered) {
            let same = known.mid == offered.mid && known.kind == offered.kind;
            if !known.rejected && !same {
                return Err(SdpError::SectionsChanged(format!(
                    "a=mid:{} became a=mid:{}, or its kind changed",
                    known.mid, offered.mid
                )));
            }
        }
        Ok(())
    }

    /// Replaces our ICE credentials in the coming descriptions.
    pub fn set_local_ice(&mut self, ice: IceCredentials) {
        self.params.local.ice = ice;
    }

    /// Replaces our candidates, from the next answer on.
    pub fn set_candidates(&mut self, candidates: Vec<Candidate>) {
        self.params.local.candidates = candidates;
    }

    /// Sets what the answer says on a section on which the client sends. Stays until replaced, or
    /// until an answer without such a section.
    pub fn set_section_preference(&mut self, mid: &str, preference: SectionPreference) {
        self.preferences.insert(mid.to_owned(), preference);
    }

    /// Adds a stream towards the client. It takes a section in the next answer, when the client
    /// has offered a receiving one that is free.
    pub fn add_sender(&mut self, spec: SenderSpec) -> SenderId {
        self.senders.add(spec)
    }

    /// Removes a sender. Its section becomes inactive in the next answer and free afterwards.
    pub fn remove_sender(&mut self, id: SenderId) {
        self.senders.remove(id);
    }

    /// What the latest description said of a sender; `None` while it has no section.
    pub fn binding(&self, id: SenderId) -> Option<&SenderBinding> {
        self.senders.binding(id)
    }

    /// Senders that wait for a section and do not fit into the free ones of the latest offer.
    pub fn unmet_senders(&self) -> SectionsRequirement {
        let unmet = |kind| {
            let waiting = self.senders.waiting().filter(|(_, sender)| sender.spec.kind == kind);
            let free = self.sections.iter().filter(|section| section.is_free(kind));
            u32::try_from(waiting.count().saturating_sub(free.count())).unwrap_or(u32::MAX)
        };
        SectionsRequirement { audios: unmet(MediaKind::Audio), videos: unmet(MediaKind::Video) }
    }

    /// Whether the client should offer again: a sender waits or a removed one is still described.
    pub fn needs_offer(&self) -> bool {
        let described = self.sections.iter().filter_map(|section| section.sending);
        self.senders.waiting().next().is_some()
            || described.into_iter().any(|id| !self.senders.contains(id))
    }

    /// What to ask of the client now (`MediaSectionsRequirement`): `Some` once for each need that
    /// has not been asked for since the latest offer, so that a client never adds sections twice.
    pub fn take_requirement(&mut self) -> Option<SectionsRequirement> {
        if !self.needs_offer() {
            return None;
        }
        let unmet = self.unmet_senders();
        let Some(asked) = self.asked else {
            self.asked = Some(unmet);
            return Some(unmet);
        };
        let more = SectionsRequirement {
            audios: unmet.audios.saturating_sub(asked.audios),
            videos: unmet.videos.saturating_sub(asked.videos),
        };
        if more == SectionsRequirement::default() {
            return None;
        }
        self.asked = Some(SectionsRequirement {
            audios: asked.audios + more.audios,
            videos: asked.videos + more.videos,
        });
        Some(more)
    }

    /// Answers the latest offer.
    pub fn create_answer(&mut self) -> Result<Answer, SdpError> {
        let offer = self.offer.take().ok_or(Misuse::NoOffer)?;
        let assigned = self.assign(&offer.sections);
        let mut answer = Answer {
            sdp: String::new(),
            senders: Vec::new(),
            unsupported: self.senders.unsupported(),
            receivers: Vec::new(),
            mid_to_sender: Vec::new(),
        };
        let mut written = Vec::with_capacity(offer.sections.len());
        let mut sections = Vec::with_capacity(offer.sections.len());
        for (section, sender) in offer.sections.iter().zip(assigned) {
            let text = self.answer_section(section, sender, &mut answer);
            sections.push(AnsweredSection {
                mid: section.mid.clone(),
                kind: section.kind,
                rejected: matches!(text.body, Body::Rejected { .. }),
                receives: section.direction.receives(),
                sending: sender,
            });
            written.push(text);
        }
        let sending: Vec<&str> = answer.receivers.iter().map(|it| it.mid.as_str()).collect();
        self.preferences.retain(|mid, _| sending.contains(&mid.as_str()));
        self.sections = sections;
        self.latest = self.open.then(|| offer.clone());
        self.remote = offer.transport;
        self.version += 1;
        answer.sdp = Description {
            local: &self.params.local,
            session_id: self.params.session_id,
            version: self.version,
            setup: self.setup(),
            allow_mixed: offer.allow_mixed,
            sections: written,
        }
        .write();
        Ok(answer)
    }

    /// We are the DTLS server unless the client insists on being it.
    fn setup(&self) -> Setup {
        match self.remote.as_ref().map(|remote| remote.setup) {
            Some(Setup::Passive) => Setup::Active,
            _ => Setup::Passive,
        }
    }

    /// Gives sections to senders: those they have, then free ones in order.
    fn assign(&mut self, offered: &[RemoteSection]) -> Vec<Option<SenderId>> {
        let policy = &self.params.send;
        let fits = |sender: &sender::Sender, section: &RemoteSection| {
            section.media_kind() == Some(sender.spec.kind)
                && section.direction.receives()
                && !sender::decodable(&sender.spec, policy, &section.codecs).is_empty()
        };
        let mut assigned = vec![None; offered.len()];
        for (id, sender) in self.senders.iter_mut() {
            sender.section = sender
                .section
                .filter(|index| offered.get(*index).is_some_and(|section| fits(sender, section)));
            if let Some(index) = sender.section {
                assigned[index] = Some(id);
            }
        }
        let is_free = |index: usize| {
            offered[index].direction.receives()
                && (self.open
                    || self.sections.get(index).is_none_or(|section| section.sending.is_none()))
        };
        let mut free: Vec<usize> = (0..offered.len()).filter(|index| is_free(*index)).collect();
        // A section that the client made only to receive is not taken away with its own track.
        free.sort_by_key(|index| offered[*index].direction.sends());
        for (id, sender) in self.senders.iter_mut() {
            if sender.section.is_some() {
                continue;
            }
            let of_kind = |index: &usize| {
                assigned[*index].is_none() && offered[*index].media_kind() == Some(sender.spec.kind)
            };
            let index =
                free.iter().copied().filter(of_kind).find(|index| fits(sender, &offered[*index]));
            sender.unsupported = index.is_none() && free.iter().any(of_kind);
            sender.section = index;
            if let Some(index) = index {
                assigned[index] = Some(id);
            }
        }
        assigned
    }

    fn answer_section(
        &mut self,
        section: &RemoteSection,
        sender: Option<SenderId>,
        answer: &mut Answer,
    ) -> Section {
        let body = match (section.kind, section.media_kind()) {
            (_, Some(kind)) => self.answer_media(kind, section, sender, answer),
            (SectionKind::Data, None) if section.rejected.is_none() => {
                let format = section.formats.first().cloned();
                Some(Body::Data { format: format.unwrap_or_else(|| DATA_FORMAT.to_owned()) })
            }
            _ => None,
        };
        Section {
            mid: section.mid.clone(),
            media: section.media.clone(),
            proto: section.proto.clone(),
            body: body.unwrap_or_else(|| Body::Rejected { formats: section.formats.clone() }),
        }
    }

    /// `None` when nothing can be agreed on: the section is rejected.
    fn answer_media(
        &mut self,
        kind: MediaKind,
        section: &RemoteSection,
        sender: Option<SenderId>,
        answer: &mut Answer,
    ) -> Option<Body> {
        let mut media = Media {
            kind,
            direction: Direction::Inactive,
            codecs: Vec::new(),
            extensions: self.extensions(kind, section),
            receive_rids: Vec::new(),
            source: None,
        };
        if section.direction.sends() {
            let preference = self.preferences.get(&section.mid).cloned().unwrap_or_default();
            media.codecs =
                receive_codecs(section, &self.params.receive, &preference, &media.extensions);
            if media.codecs.is_empty() {
                return None;
            }
            media.receive_rids.clone_from(&section.rids);
            answer.receivers.push(receiver(kind, section, &media));
        }
        if let Some(id) = sender {
            self.answer_sender(id, section, &mut media, answer);
        }
        if self.open && section.direction.receives() {
            self.open_section(section, &mut media);
        }
        if media.codecs.is_empty() {
            // Inactive: any codec keeps the section alive, the client offers all of them again.
            media.codecs.push(self.any_codec(section)?);
        }
        media.direction = Direction::new(media.source.is_some(), section.direction.sends());
        Some(Body::Media(Box::new(media)))
    }

    /// Adds what any sender of the section might need, and takes away what only one would have.
    fn open_section(&self, section: &RemoteSection, media: &mut Media) {
        for theirs in section.codecs.iter().filter(|codec| self.params.send.enables(codec.codec)) {
            if media.codecs.iter().all(|known| known.pt != theirs.pt) {
                let mut codec = theirs.clone();
                codec.feedback = codec.feedback.intersection(sender::sent_feedback(codec.codec));
                codec.feedback.transport_cc &=
                    media.extensions.contains(ExtensionKind::TransportCc);
                media.codecs.push(codec);
            }
        }
        if !media.codecs.is_empty() {
            media.source = Some(Source {
                stream_id: OPEN_STREAM.into(),
                track_id: format!("{OPEN_STREAM}-{}", section.mid).into(),
                ssrc: None,
                rtx_ssrc: None,
            });
        }
    }

    /// Extensions of what we send on a section.
    fn sent_extensions(&self, kind: MediaKind, section: &RemoteSection) -> ExtensionMap {
        let accept = if self.open { accept_sent_unnamed } else { accept_sent };
        accept(kind, self.params.playout_delay, &section.receive_extensions)
    }

    /// Extensions of the answer. On a section for our senders they stand there even while it is
    /// inactive: libwebrtc never again offers what every answered section of a kind left out, not
    /// even on new sections, and then refuses simulcast for want of the rid extension.
    fn extensions(&self, kind: MediaKind, section: &RemoteSection) -> ExtensionMap {
        let sent = self.sent_extensions(kind, section);
        let received = accept_received(kind, &section.extensions);
        if section.direction == Direction::SendOnly {
            return received;
        }
        sent.iter().chain(received.iter()).collect()
    }

    fn answer_sender(
        &mut self,
        id: SenderId,
        section: &RemoteSection,
        media: &mut Media,
        answer: &mut Answer,
    ) {
        let Some(sender) = self.senders.get(id) else { return };
        let chosen = sender::decodable(&sender.spec, &self.params.send, &section.codecs);
        let extensions = self.sent_extensions(media.kind, section);
        let mid = section.mid.as_str().into();
        let receiving = Receiving { mid, codecs: &section.codecs, extensions };
        let binding = sender::binding(id, &sender.spec, &receiving, &chosen);
        let Some(binding) = binding else { return };
        media.source = Some(sender.source(binding.rtx_ssrc.is_some()));
        for codec in sender::answer_codecs(&chosen, &section.codecs, &sender.spec, &extensions) {
            match media.codecs.iter_mut().find(|known| known.pt == codec.pt) {
                Some(known) => known.feedback = known.feedback.union(codec.feedback),
                None => media.codecs.push(codec),
            }
        }
        answer.mid_to_sender.push((section.mid.clone(), id));
        answer.senders.push(self.senders.bind(binding));
    }

    fn any_codec(&self, section: &RemoteSection) -> Option<super::NegotiatedCodec> {
        let known = section.codecs.iter().find(|codec| {
            self.params.send.enables(codec.codec) || self.params.receive.enables(codec.codec)
        });
        let mut codec = known?.clone();
        codec.feedback = codec.feedback.intersection(sender::sent_feedback(codec.codec));
        Some(codec)
    }
}

impl AnsweredSection {
    fn is_free(&self, kind: MediaKind) -> bool {
        self.kind == SectionKind::Media(kind)
            && !self.rejected
            && self.receives
            && self.sending.is_none()
    }
}

fn receiver(kind: MediaKind, section: &RemoteSection, media: &Media) -> ReceiverBinding {
    ReceiverBinding {
        mid: section.mid.clone(),
        kind,
        msid: section.msid.clone(),
        codecs: media.codecs.clone(),
        extensions: media.extensions,
        rids: section.rids.clone(),
        ssrcs: section.ssrcs.clone(),
        cname: section.cname.clone(),
    }
}
