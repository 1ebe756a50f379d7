use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use sluice_rtp::codec::{MediaKind, PayloadInfo};
use sluice_rtp::dd::{DependencyDescriptor, MAX_LEN, Structure};

use super::encoder::{Encoder, Frame, Ingress, Mode, WirePacket};
use super::*;
use crate::down_track::{Allocation, DownTrack, DownTrackConfig, DownTrackSettings, Forwarded};
use crate::test_util::{epoch, media_packet};

#[path = "properties.rs"]
mod properties;

const FIRST_SEQ: u16 = 65_500;
const L3T3_KEY: Mode = Mode { spatial: 3, temporal: 3, key: true };
const L3T3: Mode = Mode { spatial: 3, temporal: 3, key: false };
const L1T3: Mode = Mode { spatial: 1, temporal: 3, key: false };

fn config(codec: Codec) -> DownTrackConfig {
    DownTrackConfig {
        kind: MediaKind::Video,
        codec,
        clock_rate: 90_000,
        ssrc: 1,
        pt: 96,
        rtx: Some((2, 97)),
        encrypted: true,
        first_seq: FIRST_SEQ,
        first_rtx_seq: 0,
        live_layers: LayerSet::single(0),
    }
}

fn settings(max_spatial: u8, max_temporal: u8) -> DownTrackSettings {
    DownTrackSettings { enabled: true, max_spatial, max_temporal }
}

/// What the receiver got of a frame.
#[derive(Debug, Clone, Default)]
struct Got {
    packets: usize,
    marker: bool,
}

/// A scalable publisher, the server, and a receiver.
struct Scene {
    encoder: Encoder,
    ingress: Ingress,
    down: DownTrack,
    t0: Instant,
    picture: u32,
    /// What arrived at the server, and what it sent on, by frame.
    arrived: BTreeSet<u64>,
    got: BTreeMap<u64, Got>,
    targets: Vec<u64>,
    masks: Vec<(u64, u32)>,
    structure: Option<Structure>,
    key_frames_asked: u32,
    /// The publisher answers requests with the next picture.
    answers: bool,
    key_wanted: bool,
}

impl Scene {
    fn new(mode: Mode, max: DownTrackSettings) -> Self {
        let t0 = epoch();
        Self {
            encoder: Encoder::new(mode, 65_500),
            ingress: Ingress::default(),
            down: DownTrack::new(config(Codec::Av1), max, t0),
            t0,
            picture: 0,
            arrived: BTreeSet::new(),
            got: BTreeMap::new(),
            targets: Vec::new(),
            masks: Vec::new(),
            structure: None,
            key_frames_asked: 0,
            answers: true,
            key_wanted: false,
        }
    }

    fn now(&self) -> Instant {
        self.t0 + Duration::from_millis(33) * self.picture
    }

    fn want(&mut self, max: DownTrackSettings) {
        self.down.set_settings(self.now(), max);
    }

    /// The next picture, as the publisher sends it.
    fn encode(&mut self) -> Vec<WirePacket> {
        self.picture += 1;
        if self.down.poll_key_frame_request(self.now()).is_some() {
            self.key_frames_asked += 1;
            self.key_wanted = self.answers;
        }
        let key = std::mem::take(&mut self.key_wanted) || self.picture == 1;
        self.encoder.picture(key, 2)
    }

    fn deliver(&mut self, wire: &WirePacket) -> Option<Forwarded> {
        let packet = self.ingress.receive(self.now(), wire);
        // Without its structure it waits in the history for the receiver's NACK.
        if packet.described.is_some() {
            self.arrived.insert(wire.frame);
        }
        let sent = self.down.forward(self.now(), &packet)?;
        let got = self.got.entry(wire.frame).or_default();
        got.packets += 1;
        got.marker |= sent.marker;
        self.targets.push(self.unwrap(sent.seq));
        self.read_mask(&packet, wire.frame, &sent);
        Some(sent)
    }

    fn unwrap(&self, seq: u16) -> u64 {
        let last = self.targets.last().copied().unwrap_or((1 << 16) + u64::from(FIRST_SEQ) - 1);
        last.saturating_add_signed(i64::from(seq.wrapping_sub(last as u16) as i16))
    }

    /// Reads the descriptor as the receiver does.
    fn read_mask(&mut self, packet: &MediaPacket, frame: u64, sent: &Forwarded) {
        let mut out = [0; MAX_LEN];
        let original = packet.slice(packet.dependency_descriptor.expect("every packet has one"));
        let len = sent.active_targets.and_then(|mask| packet.rewrite_descriptor(mask, &mut out));
        let data = len.map_or(original, |len| &out[..len]);
        let Ok((dd, structure)) = DependencyDescriptor::parse(data, self.structure.as_ref()) else {
            return;
        };
        self.structure = structure.or(self.structure.take());
        if let Some(mask) = dd.active_targets {
            self.masks.push((frame, mask));
        }
    }

    /// Runs pictures over a perfect network.
    fn run(&mut self, pictures: u32) {
        for _ in 0..pictures {
            for packet in self.encode() {
                self.deliver(&packet);
            }
        }
    }

    fn frame(&self, number: u64) -> &Frame {
        let found = self.encoder.frames.iter().find(|frame| frame.number == number);
        found.expect("it was encoded")
    }

    /// Layers sent of each of the last pictures: spatial layers, and the temporal layer.
    fn layers_of_last(&self, pictures: u32) -> Vec<(Vec<u8>, u8)> {
        let newest = self.picture;
        (newest - pictures + 1..=newest)
            .filter_map(|picture| {
                let frames = self.got.keys().map(|n| self.frame(*n));
                let frames: Vec<_> = frames.filter(|f| f.picture == picture).collect();
                let temporal = frames.first()?.temporal;
                Some((frames.iter().map(|f| f.spatial).collect(), temporal))
            })
            .collect()
    }

    /// Frames that were sent although one that they refer to arrived and was not.
    fn undecodable(&self) -> Vec<u64> {
        let is_bad = |n: &u64| {
            let missing = |r: &u64| self.arrived.contains(r) && !self.got.contains_key(r);
            self.frame(*n).refs.iter().any(missing)
        };
        self.got.keys().copied().filter(is_bad).collect()
    }

    fn assert_contiguous(&self) {
        let first = self.targets.first().copied().unwrap_or(0);
        let expected: Vec<u64> = (first..).take(self.targets.len()).collect();
        assert_eq!(self.targets, expected, "a drop left a gap");
    }

    /// Every picture of which something was sent ended with one marker, on its highest frame.
    fn assert_markers(&self) {
        let mut pictures: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for number in self.got.keys() {
            pictures.entry(self.frame(*number).picture).or_default().push(*number);
        }
        for (picture, frames) in pictures {
            let markers: Vec<bool> = frames.iter().map(|n| self.got[n].marker).collect();
            let (last, rest) = markers.split_last().expect("not empty");
            assert!(*last && rest.iter().all(|m| !m), "picture {picture}: {markers:?}");
        }
    }
}

#[test]
fn every_mode_reaches_every_layer_that_is_asked_for() {
    for key in [false, true] {
        for (spatial, temporal) in [(1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2), (3, 3)] {
            let mode = Mode { spatial, temporal, key };
            let mut scene = Scene::new(mode, settings(2, 3));
            for (s, t) in [(2, 3), (0, 3), (2, 0), (1, 1), (0, 0), (2, 3)] {
                scene.want(settings(s, t));
                scene.run(45);
                let (s, t) = (s.min(spatial - 1), t.min(temporal - 1));
                for (layers, sent_temporal) in scene.layers_of_last(12) {
                    assert_eq!(layers.last(), Some(&s), "{mode:?}, spatial {s}");
                    assert!(sent_temporal <= t, "{mode:?}: {sent_temporal} above {t}");
                }
                let sent = scene.layers_of_last(12).len();
                let expected = 12 / (1 << (temporal - 1 - t));
                assert!(sent >= expected, "{mode:?} {s} {t}: {sent} of {expected} pictures");
                assert_eq!(scene.down.current_layer(), Some(s));
                assert_eq!(scene.down.current_temporal(), Some(t));
            }
            assert_eq!(scene.undecodable(), [], "{mode:?}");
            scene.assert_contiguous();
            scene.assert_markers();
        }
    }
}

#[test]
fn key_modes_send_lower_layers_in_key_pictures_only() {
    let mut scene = Scene::new(L3T3_KEY, settings(2, 3));
    scene.run(1);
    assert_eq!(scene.layers_of_last(1), [(vec![0, 1, 2], 0)]);
    scene.run(8);
    assert!(scene.layers_of_last(8).iter().all(|(layers, _)| *layers == [2]));
}

#[test]
fn with_full_prediction_a_receiver_steps_down_at_the_next_picture_without_a_key_frame() {
    let mut scene = Scene::new(L3T3, settings(2, 3));
    scene.run(10);
    scene.key_frames_asked = 0;
    scene.want(settings(0, 3));
    scene.run(5);
    assert!(scene.layers_of_last(5).iter().all(|(layers, _)| *layers == [0]));
    assert_eq!(scene.key_frames_asked, 0);
    scene.want(settings(1, 3));
    scene.run(5);
    assert!(scene.key_frames_asked > 0);
    assert_eq!(scene.layers_of_last(1)[0].0, [0, 1]);
    assert_eq!(scene.undecodable(), []);
}

#[test]
fn with_key_modes_the_old_layer_goes_on_until_the_key_frame() {
    for (from, to) in [(2, 0), (0, 2)] {
        let mut scene = Scene::new(L3T3_KEY, settings(from, 3));
        scene.run(10);
        scene.answers = false;
        scene.key_frames_asked = 0;
        scene.want(settings(to, 3));
        scene.run(8);
        assert!(scene.key_frames_asked > 0);
        assert!(scene.layers_of_last(8).iter().all(|(layers, _)| *layers == [from]));
        scene.key_wanted = true;
        scene.run(3);
        assert_eq!(scene.layers_of_last(1)[0].0, [to]);
        assert_eq!(scene.undecodable(), []);
        scene.assert_markers();
    }
}

#[test]
fn an_urgent_step_down_in_a_key_mode_stops_the_old_layer_at_once() {
    let mut scene = Scene::new(L3T3_KEY, settings(2, 3));
    scene.run(10);
    scene.answers = false;
    let low = Allocation::UpTo { spatial: 0, temporal: 3, urgent: true };
    scene.down.set_allocation(scene.now(), low);
    scene.run(3);
    assert_eq!(scene.layers_of_last(3), []);
    scene.key_wanted = true;
    scene.run(2);
    assert_eq!(scene.layers_of_last(2).len(), 2);
    assert_eq!(scene.down.current_layer(), Some(0));
}

#[test]
fn temporal_layers_come_and_go_without_key_frames() {
    let mut scene = Scene::new(L1T3, settings(0, 3));
    scene.run(8);
    scene.key_frames_asked = 0;
    for temporal in [0, 2, 1, 2, 0, 1] {
        scene.want(settings(0, temporal));
        scene.run(16);
        let highest = scene.layers_of_last(8).iter().map(|(_, t)| *t).max();
        assert_eq!(highest, Some(temporal));
    }
    assert_eq!(scene.key_frames_asked, 0);
    assert_eq!(scene.undecodable(), []);
    scene.assert_contiguous();
}

#[test]
fn the_mask_states_the_targets_that_the_receiver_gets_whole() {
    let mut scene = Scene::new(L3T3, settings(1, 1));
    scene.run(6);
    // Targets in order S0T0 S0T1 S0T2 S1T0 ...; up to S1T1 without T2.
    assert_eq!(scene.masks, [(scene.encoder.frames[0].number, 0b011_011)]);
    scene.want(settings(0, 3));
    scene.run(6);
    assert_eq!(scene.masks.last().map(|m| m.1), Some(0b000_111));
    let mut scene = Scene::new(L3T3_KEY, settings(2, 3));
    scene.run(6);
    assert_eq!(scene.masks.last().map(|m| m.1), Some(0b111_000_000));
}

#[test]
fn layers_that_the_publisher_stops_are_not_waited_for() {
    let mut scene = Scene::new(L3T3_KEY, settings(2, 3));
    scene.run(10);
    scene.encoder.limit_spatial(1);
    scene.run(10);
    assert_eq!(scene.layers_of_last(4).len(), 4);
    assert_eq!(scene.layers_of_last(1)[0].0, [1]);
    scene.key_frames_asked = 0;
    scene.run(30);
    assert_eq!(scene.key_frames_asked, 0);
    assert_eq!(scene.undecodable(), []);
    scene.assert_markers();
}

#[test]
fn a_lost_structure_is_made_good_by_its_retransmission() {
    let mut scene = Scene::new(L3T3_KEY, settings(2, 3));
    scene.run(5);
    scene.key_wanted = true;
    let mut packets = scene.encode();
    let lost = packets.remove(0);
    for packet in &packets {
        assert_eq!(scene.deliver(packet), None);
    }
    let next = scene.encode();
    next.iter().for_each(|packet| assert_eq!(scene.deliver(packet), None));
    let key = scene.deliver(&lost).expect("it begins the picture");
    // What came before can be asked for: its places are open.
    let after = scene.encode().iter().filter_map(|packet| scene.deliver(packet)).next();
    let gap = after.map(|sent| sent.seq.wrapping_sub(key.seq));
    assert!(gap.is_some_and(|gap| usize::from(gap) > packets.len()), "{gap:?}");
    let first = key.seq.wrapping_add(1);
    let mut history = crate::history::TrackHistory::new(MediaKind::Video);
    let mut unparsed = Ingress::default();
    for packet in packets.iter().chain(&next) {
        history.push(&unparsed.receive(scene.now(), packet));
    }
    let mut sent = 0;
    let now = scene.now();
    scene.down.on_nack(
        now,
        (0..5).map(|i| first.wrapping_add(i)),
        &history,
        |_| true,
        |_| sent += 1,
    );
    assert_eq!(sent, 5, "the rest of the key picture");
}

#[test]
fn a_structure_that_never_comes_is_asked_for_anew() {
    let mut scene = Scene::new(L3T3_KEY, settings(2, 3));
    scene.run(5);
    scene.key_wanted = true;
    let packets = scene.encode();
    packets.iter().skip(1).for_each(|packet| assert_eq!(scene.deliver(packet), None));
    scene.key_frames_asked = 0;
    scene.run(3);
    assert_eq!(scene.key_frames_asked, 0, "its retransmission may be on its way");
    scene.run(10);
    assert_eq!(scene.key_frames_asked, 1);
    assert_eq!(scene.layers_of_last(3).len(), 3);
    assert_eq!(scene.undecodable(), []);
}

/// Jitsi's rule (`doc/svc.md`): nobody knows the layer of a packet that has not come, so it keeps
/// its place, whatever it turns out to be.
#[test]
fn a_missing_frame_keeps_its_place_and_is_sent_into_it_when_it_is_of_a_wanted_layer() {
    let mut scene = Scene::new(L1T3, settings(0, 3));
    scene.run(5);
    let missing = scene.encode();
    let next = scene.encode();
    let before = scene.targets.last().copied().expect("something was sent");
    next.iter().for_each(|packet| assert!(scene.deliver(packet).is_some()));
    assert_eq!(scene.targets.last(), Some(&(before + 4)));
    missing.iter().for_each(|packet| assert!(scene.deliver(packet).is_some()));
    assert_eq!(scene.targets.last(), Some(&(before + 2)));
    missing.iter().for_each(|packet| assert_eq!(scene.deliver(packet), None));
}

#[test]
fn a_missing_frame_of_an_unwanted_layer_leaves_its_place_empty_and_moves_nothing() {
    let mut scene = Scene::new(L1T3, settings(0, 0));
    // T0 T2 T1 T2 T0
    scene.run(1);
    let [late, dropped, other] = [scene.encode(), scene.encode(), scene.encode()];
    let base = scene.encode();
    dropped.iter().for_each(|packet| assert_eq!(scene.deliver(packet), None));
    late.iter().for_each(|packet| assert_eq!(scene.deliver(packet), None));
    other.iter().for_each(|packet| assert_eq!(scene.deliver(packet), None));
    base.iter().for_each(|packet| assert!(scene.deliver(packet).is_some()));
    let first = (1 << 16) + u64::from(FIRST_SEQ);
    assert_eq!(scene.targets, [first, first + 1, first + 4, first + 5]);
}

#[test]
fn a_frame_that_refers_to_a_missing_one_goes_out_and_the_missing_one_follows() {
    let mut scene = Scene::new(L3T3, settings(2, 3));
    scene.run(4);
    let base = scene.encode();
    let (lowest, upper) = base.split_at(2);
    upper.iter().for_each(|packet| assert!(scene.deliver(packet).is_some()));
    // The goal no longer has the upper layers, and still what was promised is sent.
    scene.want(settings(0, 0));
    lowest.iter().for_each(|packet| assert!(scene.deliver(packet).is_some()));
    assert_eq!(scene.undecodable(), []);
}

#[test]
fn a_stream_of_its_own_per_layer_goes_by_streams() {
    let t0 = epoch();
    let mut down = DownTrack::new(config(Codec::Vp9), settings(0, 3), t0);
    let packet = |stream: u8, seq: u64| {
        let mut packet = media_packet(t0, stream, seq, 0);
        packet.codec = Codec::Vp9;
        packet.info.key_frame = true;
        packet.info.start_of_frame = true;
        packet
    };
    assert_eq!(down.forward(t0, &packet(2, 70_000)), None);
    assert!(down.forward(t0, &packet(0, 70_000)).is_some());
    assert_eq!(down.current_layer(), Some(0));
    down.set_settings(t0, settings(2, 3));
    assert_eq!(down.poll_key_frame_request(t0), Some(2));
    assert!(down.forward(t0, &packet(2, 70_001)).is_some());
    assert_eq!(down.current_layer(), Some(2));
}

#[test]
fn av1_without_descriptors_goes_out_whole() {
    let t0 = epoch();
    let mut down = DownTrack::new(config(Codec::Av1), settings(0, 0), t0);
    for seq in 70_000..70_020 {
        let mut packet = media_packet(t0, 0, seq, 0);
        packet.codec = Codec::Av1;
        packet.live_layers = LayerSet::single(0);
        packet.info.temporal_id = Some((seq % 3) as u8);
        packet.info.spatial_id = Some((seq % 2) as u8);
        assert!(down.forward(t0, &packet).is_some());
    }
}

/// A VP9 picture without descriptors: one packet per layer.
fn vp9_picture(seq: u64, picture: u32, temporal: u8, key: bool, up: bool) -> Vec<MediaPacket> {
    (0..3u8)
        .map(|spatial| {
            let mut packet = media_packet(epoch(), 0, seq + u64::from(spatial), picture * 3_000);
            packet.codec = Codec::Vp9;
            packet.live_layers = LayerSet::single(0);
            packet.marker = spatial == 2;
            packet.info = PayloadInfo {
                key_frame: key && spatial == 0,
                start_of_frame: true,
                end_of_frame: true,
                temporal_id: Some(temporal),
                spatial_id: Some(spatial),
                switching_up: up,
                inter_layer: spatial > 0,
                inter_picture: !key,
                ..PayloadInfo::default()
            };
            packet
        })
        .collect()
}

#[test]
fn vp9_without_descriptors_goes_by_its_payload_descriptor() {
    let t0 = epoch();
    let mut down = DownTrack::new(config(Codec::Vp9), settings(2, 3), t0);
    let mut seq = 70_000;
    let mut picture = 0;
    let mut send = |down: &mut DownTrack, temporal, key, up| {
        picture += 1;
        seq += 3;
        let packets = vp9_picture(seq, picture, temporal, key, up);
        let sent = packets.iter().filter_map(|p| down.forward(t0, p));
        sent.map(|forwarded| forwarded.marker).collect::<Vec<_>>()
    };
    assert_eq!(send(&mut down, 0, true, false), [false, false, true]);
    down.set_settings(t0, settings(0, 0));
    assert_eq!(send(&mut down, 0, false, false), [true]);
    assert_eq!(send(&mut down, 1, false, false), []);
    assert_eq!(down.poll_key_frame_request(t0), None);
    down.set_settings(t0, settings(1, 2));
    assert_eq!(down.poll_key_frame_request(t0), Some(0));
    assert_eq!(send(&mut down, 1, false, false), []);
    assert_eq!(send(&mut down, 0, false, true), [true]);
    assert_eq!(send(&mut down, 1, false, false), [true]);
    assert_eq!(send(&mut down, 0, true, false), [false, true]);
    assert_eq!(down.poll_key_frame_request(t0), None);
}
