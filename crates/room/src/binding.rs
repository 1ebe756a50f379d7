//! From what was negotiated with a receiver to what flows: each sender is bound to the codec of its
//! track that the receiver can decode, and moved when the track changes codecs. A codec that is not
//! published yet is waited for: dynacast asks the publisher for it.

use std::time::Instant;

use sluice_engine::api::{Command, SenderParams, Subscribe, SubscriptionId, TrackId};
use sluice_proto as proto;
use sluice_proto::signal_response::Message as Response;
use sluice_rtp::codec::{Codec, MediaKind};
use sluice_transport::sdp::{SenderBinding, SenderId};

use crate::ids::TrackSid;
use crate::participant::{Participant, ParticipantKey};
use crate::room::Room;
use crate::subscribe::{Active, Bound};

impl Room {
    /// Takes over what a negotiation says about our senders.
    pub(crate) fn bind_senders(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        bindings: &[SenderBinding],
        unsupported: &[SenderId],
    ) {
        for binding in bindings {
            self.bind_sender(now, key, binding);
        }
        for sender in unsupported {
            self.report_unsupported(now, key, *sender);
        }
    }

    fn bind_sender(&mut self, now: Instant, key: ParticipantKey, binding: &SenderBinding) {
        let Some(participant) = self.participants.get_mut(&key) else { return };
        let low_power = participant.is_low_power();
        let Some(sid) = participant.track_of_sender(binding.id).cloned() else { return };
        let Some(active) = active_mut(participant, &sid) else { return };
        let Some(track) = self.tracks.get(&active.track) else { return };
        let codec = track.codec_for(binding, low_power);
        let Some(binding) = binding.with_codec(codec) else { return };
        let bound = active.bound.as_ref();
        if bound.is_some_and(|bound| bound.mid == binding.mid && bound.pt == binding.codec.pt) {
            return;
        }
        let rebound = bound.is_some();
        active.unbound_since = None;
        let (id, owner) = (active.track, track.owner);
        self.flow(now, key, &sid, &binding);
        if !rebound {
            self.subscription_started(key, id, owner);
        }
    }

    /// Lets a track flow as a binding says, in place of how it flowed before. If the codec is not
    /// published, it will.
    fn flow(&mut self, now: Instant, key: ParticipantKey, sid: &TrackSid, binding: &SenderBinding) {
        let Some(participant) = self.participants.get_mut(&key) else { return };
        let worker = participant.links.worker;
        let peer = participant.data_peer();
        let adaptive = participant.options.adaptive_stream;
        let cap = participant.is_low_power().then_some(&self.config.low_power);
        let announce = participant.client.fires_tracks_on_packets();
        let Some(subscription) = participant.subscriptions.get_mut(sid) else { return };
        let Some(active) = &mut subscription.active else { return };
        let Some(track) = self.tracks.get(&active.track) else { return };
        let codec = binding.codec.codec;
        let wish = subscription.settings.as_deref();
        let settings = track.subscription_settings(codec, wish, adaptive, cap);
        let stream = track.stream_of(active.track, codec);
        let id = stream.map(|_| self.host.next_subscription_id(worker));
        let (mid, pt) = (binding.mid.clone(), binding.codec.pt);
        let before = active.bound.replace(Bound { id, codec, mid, pt, settings });
        let track_id = active.track;
        let subscribe = id.zip(stream).map(|(subscription, stream)| Subscribe {
            subscription,
            peer,
            track: stream,
            kind: track.kind,
            encrypted: track.is_encrypted(),
            screen_share: track.is_screen_share(),
            playout_delay: self.playout_delay.filter(|_| track.kind == MediaKind::Video),
            announce,
            sender: sender_params(binding),
            settings,
        });
        self.stop_flow(before.and_then(|bound| bound.id));
        match subscribe {
            Some(subscribe) => {
                self.subscription_ids.insert(subscribe.subscription, (key, track_id));
                self.out.engine(Command::Subscribe(Box::new(subscribe)));
            }
            None => self.update_dynacast(now, track_id),
        }
    }

    pub(crate) fn stop_flow(&mut self, subscription: Option<SubscriptionId>) {
        if let Some(subscription) = subscription {
            self.subscription_ids.remove(&subscription);
            self.out.engine(Command::Unsubscribe { subscription });
        }
    }

    /// Another codec of a track is wanted most, or was published: everyone who receives the track
    /// gets the most wanted one that it can decode.
    pub(crate) fn rebind_subscribers(&mut self, now: Instant, id: TrackId) {
        let Some(track) = self.tracks.get(&id) else { return };
        let sid = track.sid.clone();
        let subscribers: Vec<ParticipantKey> = track.subscribers.iter().copied().collect();
        for key in subscribers {
            self.rebind(now, key, id, &sid);
        }
    }

    /// Gives one receiver the codec that it should have now.
    pub(crate) fn rebind(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        id: TrackId,
        sid: &TrackSid,
    ) {
        let Some(participant) = self.participants.get_mut(&key) else { return };
        let changes_codec = participant.client.changes_codec();
        let low_power = participant.is_low_power();
        let Some(active) = active_mut(participant, sid) else { return };
        let Some(track) = self.tracks.get(&id) else { return };
        let Some(bound) = &active.bound else { return };
        let (sender, bound_codec, flows) = (active.sender, bound.codec, bound.id.is_some());
        let Some(binding) = participant.links.binding(sender) else { return };
        let codec = track.codec_for(binding, low_power);
        if codec != bound_codec && !changes_codec {
            return self.restart_subscription(now, key, sid);
        }
        let exists = track.stream_of(id, codec).is_some();
        if codec == bound_codec && flows == exists {
            return;
        }
        if let Some(binding) = binding.with_codec(codec) {
            self.flow(now, key, sid, &binding);
        }
    }

    /// A track has more codecs than before: whoever could decode none of them is offered it again.
    pub(crate) fn retry_unsupported(&mut self, now: Instant, id: TrackId) {
        let Some(track) = self.tracks.get(&id) else { return };
        let sid = track.sid.clone();
        let subscribers: Vec<ParticipantKey> = track.subscribers.iter().copied().collect();
        for key in subscribers {
            let participant = self.participants.get_mut(&key);
            let active = participant.and_then(|participant| active_mut(participant, &sid));
            if active.is_some_and(|active| active.unsupported) {
                self.restart_subscription(now, key, &sid);
            }
        }
    }

    /// Begins a subscription anew, on another media section.
    fn restart_subscription(&mut self, now: Instant, key: ParticipantKey, sid: &TrackSid) {
        self.deactivate(now, key, sid);
        self.reconcile(now, key, sid);
    }

    /// The stream of a codec ended: who received it waits for the next one.
    pub(crate) fn stop_flows_of(&mut self, id: TrackId, codec: Codec) {
        let Some(track) = self.tracks.get(&id) else { return };
        let sid = track.sid.clone();
        let mut ended = Vec::new();
        for key in &track.subscribers {
            let participant = self.participants.get_mut(key);
            let active = participant.and_then(|participant| active_mut(participant, &sid));
            if let Some(bound) = active.and_then(|active| active.bound.as_mut())
                && bound.codec == codec
            {
                ended.extend(bound.id.take());
            }
        }
        for subscription in ended {
            self.stop_flow(Some(subscription));
        }
    }

    /// Tells the publisher that it is heard, and the subscriber how the publisher is.
    fn subscription_started(&mut self, key: ParticipantKey, id: TrackId, owner: ParticipantKey) {
        let hidden = self.participants.get(&key).is_none_or(Participant::is_hidden);
        if let Some(track) = self.tracks.get_mut(&id)
            && !hidden
            && !std::mem::replace(&mut track.subscribed_once, true)
        {
            let track_sid = (&track.sid).into();
            let knows =
                self.participants.get(&owner).is_some_and(|p| p.client.knows_request_response());
            if knows {
                self.send(owner, Response::TrackSubscribed(proto::TrackSubscribed { track_sid }));
            }
        }
        self.send_quality_of(owner, &[key]);
        self.send_speaker_to(key, id);
    }

    /// The client can decode none of a track's codecs.
    fn report_unsupported(&mut self, now: Instant, key: ParticipantKey, sender: SenderId) {
        let Some(participant) = self.participants.get_mut(&key) else { return };
        let Some(sid) = participant.track_of_sender(sender).cloned() else { return };
        let Some(active) = active_mut(participant, &sid) else { return };
        if std::mem::replace(&mut active.unsupported, true) {
            return;
        }
        active.unbound_since = None;
        let (track, bound) = (active.track, active.bound.take());
        self.stop_flow(bound.and_then(|bound| bound.id));
        self.update_dynacast(now, track);
        let response = proto::SubscriptionResponse {
            track_sid: (&sid).into(),
            err: proto::SubscriptionError::SeCodecUnsupported.into(),
        };
        self.send(key, Response::SubscriptionResponse(response));
        self.negotiate(now, key);
    }
}

fn active_mut<'a>(participant: &'a mut Participant, sid: &TrackSid) -> Option<&'a mut Active> {
    participant.subscriptions.get_mut(sid)?.active.as_mut()
}

fn sender_params(binding: &SenderBinding) -> SenderParams {
    let codec = &binding.codec;
    SenderParams {
        mid: binding.mid.clone(),
        codec: codec.codec,
        pt: codec.pt,
        rtx_pt: codec.rtx_pt,
        red_primary_pt: binding.red_primary_pt,
        ssrc: binding.ssrc,
        rtx_ssrc: binding.rtx_ssrc,
        clock_rate: codec.clock_rate,
        extensions: binding.extensions,
        cname: binding.cname.clone(),
        // RED repairs itself; a retransmission would come too late for it (LiveKit does the same).
        nack: codec.feedback.nack && codec.codec != Codec::Red,
        transport_cc: codec.feedback.transport_cc,
        remb: codec.feedback.remb,
    }
}
