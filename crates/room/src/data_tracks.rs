//! Data tracks: announced with a handle by the publisher, forwarded frame by frame with the handle
//! that each subscriber was given.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use sluice_engine::api::{ChannelLabel, Command};
use sluice_proto as proto;
use sluice_proto::data_track_frame_encoding::Value as FrameEncoding;
use sluice_proto::data_track_subscriber_handles::PublishedDataTrack;
use sluice_proto::request_response::{Reason, Request};
use sluice_proto::signal_response::Message as Response;

use crate::data_blobs::{exceeds, is_good_schema};
use crate::ids::TrackSid;
use crate::params::Limits;
use crate::participant::ParticipantKey;
use crate::room::Room;
use crate::subscribe::permits;

/// Longest name, bytes.
const MAX_NAME_LEN: usize = 256;

/// Data tracks that one participant may publish.
const MAX_DATA_TRACKS: usize = 256;

/// Wishes that one participant may hold for data tracks that do not exist.
const MAX_WISHES: usize = 1000;

/// Fixed header of a data track packet: version and flags, reserved, handle, sequence, frame
/// number, timestamp.
const HEADER_LEN: usize = 12;

/// Where the handle lies in the header.
const HANDLE_OFFSET: usize = 2;

/// Handles of subscribers start below this, so that a new session's differ.
const MAX_FIRST_HANDLE: u32 = 256;

/// A participant's data tracks, published and subscribed.
#[derive(Debug, Default)]
pub(crate) struct ParticipantDataTracks {
    published: BTreeMap<u16, DataTrack>,
    /// Wishes by track SID.
    desired: BTreeMap<String, bool>,
    /// Handles given out, by track SID.
    handles: BTreeMap<TrackSid, u16>,
    last_handle: u16,
}

#[derive(Debug)]
struct DataTrack {
    sid: TrackSid,
    info: proto::DataTrackInfo,
    subscribers: BTreeSet<ParticipantKey>,
}

impl ParticipantDataTracks {
    pub(crate) fn new(random: u32) -> Self {
        // Below `MAX_FIRST_HANDLE`, so it fits.
        Self { last_handle: (random % MAX_FIRST_HANDLE) as u16, ..Self::default() }
    }

    pub(crate) fn to_proto(&self) -> Vec<proto::DataTrackInfo> {
        self.published.values().map(|track| track.info.clone()).collect()
    }

    pub(crate) fn has_published(&self, sid: &str) -> bool {
        self.published.values().any(|track| track.sid.as_str() == sid)
    }

    fn next_handle(&mut self) -> u16 {
        loop {
            self.last_handle = self.last_handle.wrapping_add(1).max(1);
            if !self.handles.values().any(|handle| *handle == self.last_handle) {
                return self.last_handle;
            }
        }
    }
}

impl Room {
    pub(crate) fn publish_data_track(
        &mut self,
        now: std::time::Instant,
        key: ParticipantKey,
        request: proto::PublishDataTrackRequest,
    ) {
        let config = self.config.clone();
        let enabled = config.enable_data_tracks;
        let Some(participant) = self.participants.get_mut(&key) else { return };
        let published = &participant.data_tracks.published;
        let same_name = |track: &DataTrack| track.info.name == request.name;
        let handle = u16::try_from(request.pub_handle).ok().filter(|handle| *handle != 0);
        let refusal = if !enabled || !participant.grants.can_publish_data() {
            Some((Reason::NotAllowed, "does not have permission to publish data"))
        } else if handle.is_none() {
            Some((Reason::InvalidHandle, "handle must be between 1 and 65535"))
        } else if request.name.is_empty() || request.name.len() > MAX_NAME_LEN {
            Some((Reason::InvalidName, "name must have between 1 and 256 characters"))
        } else if !has_good_encodings(&request, &config.limits) {
            let message = "encoding identifier is empty or exceeds the maximum length";
            Some((Reason::InvalidRequest, message))
        } else if handle.is_some_and(|handle| published.contains_key(&handle)) {
            Some((Reason::DuplicateHandle, "handle is in use"))
        } else if published.values().any(same_name) {
            Some((Reason::DuplicateName, "name is in use"))
        } else if published.len() >= MAX_DATA_TRACKS {
            Some((Reason::LimitExceeded, "too many data tracks"))
        } else {
            None
        };
        let (None, Some(handle)) = (refusal, handle) else {
            let (reason, message) = refusal.unwrap_or((Reason::InvalidHandle, "invalid handle"));
            return self.refuse(key, 0, reason, message, Request::PublishDataTrack(request));
        };
        let sid = TrackSid::random_data_track(&mut self.rng);
        let info = proto::DataTrackInfo {
            pub_handle: request.pub_handle,
            sid: (&sid).into(),
            name: request.name,
            encryption: request.encryption,
            frame_encoding: request.frame_encoding,
            schema: request.schema,
        };
        let track = DataTrack { sid, info: info.clone(), subscribers: BTreeSet::new() };
        participant.data_tracks.published.insert(handle, track);
        let response = proto::PublishDataTrackResponse { info: Some(info) };
        self.send(key, Response::PublishDataTrackResponse(response));
        self.participant_changed(now, key, true);
        self.reconcile_data_tracks_of(key);
    }

    pub(crate) fn unpublish_data_track(
        &mut self,
        now: std::time::Instant,
        key: ParticipantKey,
        request: proto::UnpublishDataTrackRequest,
    ) {
        let Some(participant) = self.participants.get_mut(&key) else { return };
        let handle = u16::try_from(request.pub_handle).ok();
        let track = handle.and_then(|handle| participant.data_tracks.published.remove(&handle));
        let Some(track) = track else {
            let request = Request::UnpublishDataTrack(request);
            return self.refuse(key, 0, Reason::NotFound, "data track is not found", request);
        };
        let response = proto::UnpublishDataTrackResponse { info: Some(track.info.clone()) };
        self.send(key, Response::UnpublishDataTrackResponse(response));
        self.participant_changed(now, key, true);
        self.withdraw_handles(&track);
    }

    /// Ends the data tracks of a participant that is gone.
    pub(crate) fn end_data_tracks(&mut self, tracks: &ParticipantDataTracks) {
        for track in tracks.published.values() {
            self.withdraw_handles(track);
        }
    }

    /// Ends the data tracks of a participant that may not publish data any more.
    pub(crate) fn revoke_data_tracks(&mut self, now: std::time::Instant, key: ParticipantKey) {
        let Some(participant) = self.participants.get_mut(&key) else { return };
        if participant.grants.can_publish_data() || participant.data_tracks.published.is_empty() {
            return;
        }
        let revoked = std::mem::take(&mut participant.data_tracks.published);
        for track in revoked.values() {
            let info = Some(track.info.clone());
            let response = proto::UnpublishDataTrackResponse { info };
            self.send(key, Response::UnpublishDataTrackResponse(response));
            self.withdraw_handles(track);
        }
        self.participant_changed(now, key, true);
    }

    fn withdraw_handles(&mut self, track: &DataTrack) {
        // Its SID never comes back, so wishes for it are of no use.
        for participant in self.participants.values_mut() {
            participant.data_tracks.desired.remove(track.sid.as_str());
        }
        for &subscriber in &track.subscribers {
            if let Some(participant) = self.participants.get_mut(&subscriber) {
                participant.data_tracks.handles.remove(&track.sid);
                self.send_handles(subscriber);
            }
        }
    }

    pub(crate) fn update_data_subscription(
        &mut self,
        key: ParticipantKey,
        update: &proto::UpdateDataSubscription,
    ) {
        let Some(participant) = self.participants.get_mut(&key) else { return };
        for one in &update.updates {
            let desired = &mut participant.data_tracks.desired;
            if desired.len() < MAX_WISHES || desired.contains_key(&one.track_sid) {
                desired.insert(one.track_sid.clone(), one.subscribe);
            }
        }
        let publishers: Vec<ParticipantKey> = self.participants.keys().copied().collect();
        let mut changed = false;
        for publisher in publishers {
            changed |= self.reconcile_data_tracks(publisher, key);
        }
        if changed {
            self.send_handles(key);
        }
    }

    /// Everyone's subscription to one participant's data tracks.
    pub(crate) fn reconcile_data_tracks_of(&mut self, publisher: ParticipantKey) {
        let subscribers: Vec<ParticipantKey> = self.participants.keys().copied().collect();
        for subscriber in subscribers {
            if self.reconcile_data_tracks(publisher, subscriber) {
                self.send_handles(subscriber);
            }
        }
    }

    /// Everyone's data tracks for a participant who is joining.
    pub(crate) fn subscribe_to_existing_data_tracks(&mut self, key: ParticipantKey) {
        self.update_data_subscription(key, &proto::UpdateDataSubscription::default());
    }

    /// Makes one participant's handles for another's data tracks equal to what is wanted and
    /// allowed. True when any changed.
    fn reconcile_data_tracks(
        &mut self,
        publisher_key: ParticipantKey,
        subscriber_key: ParticipantKey,
    ) -> bool {
        if publisher_key == subscriber_key {
            return false;
        }
        let Some(publisher) = self.participants.get(&publisher_key) else { return false };
        let Some(subscriber) = self.participants.get(&subscriber_key) else { return false };
        let may = subscriber.grants.can_subscribe() && !publisher.is_hidden();
        let default = subscriber.options.auto_subscribe_data_track;
        let wishes: Vec<(u16, TrackSid, bool)> = publisher
            .data_tracks
            .published
            .iter()
            .map(|(handle, track)| {
                let sid = track.sid.as_str();
                let wish = subscriber.data_tracks.desired.get(sid).copied().unwrap_or(default);
                (*handle, track.sid.clone(), wish && may && permits(publisher, subscriber, sid))
            })
            .collect();
        let mut changed = false;
        for (handle, sid, wanted) in wishes {
            if let Some(publisher) = self.participants.get_mut(&publisher_key)
                && let Some(track) = publisher.data_tracks.published.get_mut(&handle)
            {
                changed |= match wanted {
                    true => track.subscribers.insert(subscriber_key),
                    false => track.subscribers.remove(&subscriber_key),
                };
            }
            let Some(subscriber) = self.participants.get_mut(&subscriber_key) else { continue };
            let tracks = &mut subscriber.data_tracks;
            if !wanted {
                tracks.handles.remove(&sid);
            } else if !tracks.handles.contains_key(&sid) {
                let handle = tracks.next_handle();
                tracks.handles.insert(sid, handle);
            }
        }
        changed
    }

    /// The whole map from handles to tracks, as clients expect it.
    fn send_handles(&mut self, key: ParticipantKey) {
        let Some(subscriber) = self.participants.get(&key) else { return };
        let mut sub_handles = BTreeMap::new();
        for publisher in self.participants.values() {
            for track in publisher.data_tracks.published.values() {
                if let Some(handle) = subscriber.data_tracks.handles.get(&track.sid) {
                    let published = PublishedDataTrack {
                        publisher_identity: publisher.identity.as_ref().to_owned(),
                        publisher_sid: (&publisher.sid).into(),
                        track_sid: (&track.sid).into(),
                    };
                    sub_handles.insert(u32::from(*handle), published);
                }
            }
        }
        let handles = proto::DataTrackSubscriberHandles { sub_handles };
        self.send(key, Response::DataTrackSubscriberHandles(handles));
    }

    /// A packet on a participant's `_data_track` channel.
    pub(crate) fn data_track_packet(&mut self, key: ParticipantKey, packet: &Bytes) {
        let Some(handle) = handle_of(packet) else {
            self.drops.malformed += 1;
            return;
        };
        let Some(publisher) = self.participants.get(&key) else { return };
        let Some(track) = publisher.data_tracks.published.get(&handle) else {
            self.drops.unknown_data_track += 1;
            return;
        };
        for subscriber in &track.subscribers {
            let Some(participant) = self.participants.get(subscriber) else { continue };
            let Some(handle) = participant.data_tracks.handles.get(&track.sid) else { continue };
            if !participant.links.sending_peer().is_connected() {
                self.drops.not_connected += 1;
                continue;
            }
            self.out.engine(Command::SendData {
                peers: Arc::new([participant.data_peer()]),
                channel: ChannelLabel::DataTrack,
                binary: true,
                payload: with_handle(packet, *handle),
            });
        }
    }
}

/// Whether the names of a client's own encodings are within the limit.
fn has_good_encodings(request: &proto::PublishDataTrackRequest, limits: &Limits) -> bool {
    let frame = request.frame_encoding.as_ref().and_then(|encoding| encoding.value.as_ref());
    let good_frame = match frame {
        Some(FrameEncoding::Custom(name)) => {
            !name.is_empty() && !exceeds(name.len(), limits.max_data_track_custom_encoding_length)
        }
        Some(FrameEncoding::WellKnown(_)) | None => true,
    };
    good_frame && request.schema.as_ref().is_none_or(|schema| is_good_schema(schema, limits))
}

/// The handle of a packet of version 0.
fn handle_of(packet: &[u8]) -> Option<u16> {
    if packet.len() < HEADER_LEN || packet[0] >> 5 != 0 {
        return None;
    }
    Some(u16::from_be_bytes([packet[HANDLE_OFFSET], packet[HANDLE_OFFSET + 1]]))
}

fn with_handle(packet: &[u8], handle: u16) -> Bytes {
    let mut copy = BytesMut::with_capacity(packet.len());
    copy.put_slice(&packet[..HANDLE_OFFSET]);
    copy.put_u16(handle);
    copy.put_slice(&packet[HANDLE_OFFSET + 2..]);
    copy.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handle_is_replaced_and_the_rest_kept() {
        let packet: Vec<u8> = (0..20).collect();
        assert_eq!(handle_of(&packet), Some(0x0203));
        let copy = with_handle(&packet, 0xabcd);
        assert_eq!(copy[..5], [0, 1, 0xab, 0xcd, 4]);
        assert_eq!(copy[4..], packet[4..]);
    }

    #[test]
    fn short_packets_and_other_versions_have_no_handle() {
        assert_eq!(handle_of(&[0; 11]), None);
        assert_eq!(handle_of(&[0x20; 12]), None);
    }

    #[test]
    fn subscriber_handles_skip_zero_and_those_in_use() {
        let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(1);
        let mut tracks = ParticipantDataTracks::new(0);
        tracks.last_handle = u16::MAX;
        tracks.handles.insert(TrackSid::random_data_track(&mut rng), 1);
        assert_eq!(tracks.next_handle(), 2);
    }
}
