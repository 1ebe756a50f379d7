//! A published track as the room sees it, and how LiveKit's qualities map to spatial layers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use sluice_engine::api::{SubscriptionSettings, TrackId};
use sluice_proto as proto;
use sluice_proto::{BackupCodecPolicy, TrackSource, VideoQuality};
use sluice_rtp::codec::{Codec, MediaKind};
use sluice_transport::sdp::{CodecParameters, SenderBinding};

use crate::ids::TrackSid;
use crate::low_power::LowPower;
use crate::participant::ParticipantKey;

/// A layer is good enough when it has this share of the wanted size (LiveKit's layer selection).
const SIZE_TOLERANCE_PERCENT: u64 = 90;

/// Shorter edges that stand for the lower layers when the publisher declared none, pixels.
const DEFAULT_LAYER_EDGES: [u64; 2] = [180, 360];

/// Frame rates up to which the lower temporal layers suffice, for sources of 30 frames a second in
/// three layers.
const TEMPORAL_LAYER_FPS: [u32; 2] = [8, 15];

/// Largest weight of a stream when bandwidth is short.
const MAX_WEIGHT: u8 = 8;

/// Highest temporal layer there is.
const MAX_TEMPORAL: u8 = 3;

/// A track that others can subscribe to.
pub(crate) struct Track {
    pub(crate) sid: TrackSid,
    /// Stream id and CNAME of the track by itself, for all its receivers.
    pub(crate) stream_id: Arc<str>,
    pub(crate) owner: ParticipantKey,
    pub(crate) kind: MediaKind,
    /// The codec that it was published with first.
    pub(crate) codec: CodecParameters,
    /// Other codecs of a video track that its publisher can send, most wanted first.
    pub(crate) backups: Vec<BackupCodec>,
    /// The backup codec that receivers get wherever they can decode it, in place of the first one.
    pub(crate) regressed: Option<Codec>,
    /// Audio is published with redundancy (RED), or gets it from us: receivers are offered RED.
    pub(crate) redundant: bool,
    pub(crate) info: proto::TrackInfo,
    /// The track is published in another room, whose workers' affair it is.
    pub(crate) forwarded: bool,
    /// Participants with an active subscription.
    pub(crate) subscribers: BTreeSet<ParticipantKey>,
    /// Whether the publisher knows that somebody has subscribed.
    pub(crate) subscribed_once: bool,
    pub(crate) wanted: Wanted,
    /// Whether any media of it has come.
    pub(crate) has_media: bool,
}

/// A codec that a video track is published in beside its first one, or can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BackupCodec {
    pub(crate) codec: CodecParameters,
    /// Its stream with the workers; `None` until the publisher sends it.
    pub(crate) id: Option<TrackId>,
    /// Whether any media of it has come.
    pub(crate) has_media: bool,
    /// Last highest wanted layer from the workers; outer `None` = they never said.
    pub(crate) latest: Option<Option<u8>>,
}

impl BackupCodec {
    /// One that could be published.
    pub(crate) fn possible(codec: CodecParameters) -> Self {
        Self { codec, id: None, has_media: false, latest: None }
    }
}

/// What receivers want of a video track, for dynacast.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    /// Last value from the workers for the first codec; outer `None` = they never said.
    pub(crate) latest: Option<Option<u8>>,
    /// What the publisher was told last of each codec; empty = nothing yet.
    pub(crate) announced: Vec<(Codec, Option<VideoQuality>)>,
}

impl Track {
    pub(crate) fn source(&self) -> TrackSource {
        self.info.source()
    }

    /// Whether it is the picture or the sound of a screen share.
    pub(crate) fn is_screen_share(&self) -> bool {
        matches!(self.source(), TrackSource::ScreenShare | TrackSource::ScreenShareAudio)
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        self.info.encryption() != proto::encryption::Type::None
    }

    pub(crate) fn is_stereo(&self) -> bool {
        self.info.stereo
            || self.info.audio_features.contains(&proto::AudioTrackFeature::TfStereo.into())
    }

    /// Codecs to offer a subscriber, most wanted first.
    pub(crate) fn sender_codecs(&self, takes_red: bool, low_power: bool) -> Vec<CodecParameters> {
        let red = (self.redundant && takes_red).then(|| CodecParameters::new(Codec::Red, ""));
        let codecs = [&self.codec].into_iter().chain(self.backups.iter().map(|b| &b.codec));
        let mut codecs: Vec<CodecParameters> = red.into_iter().chain(codecs.cloned()).collect();
        let published = |backup: &&BackupCodec| backup.id.is_some();
        let spared = (low_power && !self.backups.is_empty()).then(|| self.cheapest(published));
        let front = self.regressed.or(spared);
        codecs.sort_by_key(|codec| front != Some(codec.codec));
        codecs
    }

    /// Which of the codecs of a binding is to flow.
    pub(crate) fn codec_for(&self, binding: &SenderBinding, low_power: bool) -> Codec {
        if self.backups.is_empty() {
            return binding.codec.codec;
        }
        let mut codecs = self.sender_codecs(false, low_power).into_iter().map(|codec| codec.codec);
        codecs.find(|codec| binding.decodes(*codec)).unwrap_or(binding.codec.codec)
    }

    /// The codec that a low-power receiver would rather have than what is published. Asked for only
    /// if that moves nobody else: the publisher is ready for several codecs at a time.
    pub(crate) fn asked_for_low_power(&self) -> Option<Codec> {
        let several = self.info.backup_codec_policy() == BackupCodecPolicy::Simulcast;
        let cheapest = self.cheapest(|_| true);
        let unpublished = self.backup(cheapest).is_some_and(|backup| backup.id.is_none());
        (several && unpublished).then_some(cheapest)
    }

    /// The codec that takes least to decode: the first one, or such a backup.
    fn cheapest(&self, of: impl FnMut(&&BackupCodec) -> bool) -> Codec {
        let backups = self.backups.iter().filter(of).map(|backup| backup.codec.codec);
        let all = std::iter::once(self.codec.codec).chain(backups);
        all.min_by_key(|codec| decoding_cost(*codec)).unwrap_or(self.codec.codec)
    }

    pub(crate) fn backup(&self, codec: Codec) -> Option<&BackupCodec> {
        self.backups.iter().find(|backup| backup.codec.codec == codec)
    }

    pub(crate) fn backup_mut(&mut self, codec: Codec) -> Option<&mut BackupCodec> {
        self.backups.iter_mut().find(|backup| backup.codec.codec == codec)
    }

    /// The stream of a codec with the workers; `own` is the track's own. `None` while the codec is
    /// not published.
    pub(crate) fn stream_of(&self, own: TrackId, codec: Codec) -> Option<TrackId> {
        self.backup(codec).map_or(Some(own), |backup| backup.id)
    }

    /// Every stream of the track with the workers.
    pub(crate) fn streams(&self, own: TrackId) -> impl Iterator<Item = TrackId> + '_ {
        std::iter::once(own).chain(self.backups.iter().filter_map(|backup| backup.id))
    }

    /// Name of the group that the track is played in sync with: its own stream, or its source's.
    pub(crate) fn stream_name(&self) -> Option<&str> {
        match self.source() {
            _ if !self.info.stream.is_empty() => Some(&self.info.stream),
            TrackSource::Camera | TrackSource::Microphone => Some("camera"),
            TrackSource::ScreenShare | TrackSource::ScreenShareAudio => Some("screen"),
            TrackSource::Unknown => None,
        }
    }

    fn layers(&self, codec: Codec) -> &[proto::VideoLayer] {
        let codecs = &self.info.codecs;
        let own = codecs.iter().find(|entry| entry.mime_type == codec.mime());
        match own.or(codecs.first()) {
            Some(codec) if !codec.layers.is_empty() => &codec.layers,
            _ => &self.info.layers,
        }
    }

    /// The spatial layer of a codec that a quality means: the best declared layer not above it.
    pub(crate) fn spatial_of(&self, codec: Codec, quality: VideoQuality) -> u8 {
        let layers = self.layers(codec);
        if layers.is_empty() {
            return (quality as i32).clamp(0, 2) as u8;
        }
        let within = layers.iter().filter(|layer| layer.quality <= quality as i32).count();
        within.saturating_sub(1).min(2) as u8
    }

    /// The quality that a spatial layer of a codec stands for: the highest layer is always HIGH.
    pub(crate) fn quality_of(&self, codec: Codec, spatial: u8) -> VideoQuality {
        let layers = self.layers(codec);
        if layers.is_empty() {
            return VideoQuality::try_from(i32::from(spatial.min(2))).unwrap_or(VideoQuality::High);
        }
        let index = usize::from(spatial);
        if index + 1 >= layers.len() {
            return VideoQuality::High;
        }
        layers[index].quality()
    }

    /// The lowest quality that fills a view of the given size.
    fn quality_for_size(&self, codec: Codec, width: u32, height: u32) -> VideoQuality {
        let wanted = u64::from(width.min(height));
        let own = u64::from(self.info.width.min(self.info.height));
        let fills = |edge: u64| edge * 100 >= wanted * SIZE_TOLERANCE_PERCENT;
        let layers = self.layers(codec);
        let declared = |layer: &proto::VideoLayer| u64::from(layer.width.min(layer.height));
        if layers.iter().any(|layer| declared(layer) > 0) {
            let fitting = layers.iter().find(|layer| fills(declared(layer)));
            return fitting.map_or(VideoQuality::High, proto::VideoLayer::quality);
        }
        let [low, medium] = DEFAULT_LAYER_EDGES;
        if fills(low) && low < own {
            VideoQuality::Low
        } else if fills(medium) && medium < own {
            VideoQuality::Medium
        } else {
            VideoQuality::High
        }
    }

    /// What a receiver's settings mean for the workers when it gets `codec`. Without settings a
    /// receiver that adapts starts low, because it will ask for more as soon as it shows the track.
    pub(crate) fn subscription_settings(
        &self,
        codec: Codec,
        settings: Option<&proto::UpdateTrackSettings>,
        adaptive_stream: bool,
        low_power: Option<&LowPower>,
    ) -> SubscriptionSettings {
        let mut result = self.wanted_settings(codec, settings, adaptive_stream);
        if let Some(cap) = low_power.filter(|_| self.kind == MediaKind::Video) {
            if self.source() != TrackSource::ScreenShare {
                result.max_spatial =
                    result.max_spatial.min(self.spatial_of(codec, cap.max_quality));
            }
            result.max_temporal = result.max_temporal.min(temporal_for(cap.max_fps));
        }
        result
    }

    fn wanted_settings(
        &self,
        codec: Codec,
        settings: Option<&proto::UpdateTrackSettings>,
        adaptive_stream: bool,
    ) -> SubscriptionSettings {
        let priority = weight_of(settings.map_or(0, |settings| settings.priority));
        let mut result = SubscriptionSettings { priority, ..SubscriptionSettings::default() };
        if self.kind == MediaKind::Audio {
            result.enabled = settings.is_none_or(|settings| !settings.disabled);
            return result;
        }
        let Some(settings) = settings else {
            let quality = if adaptive_stream { VideoQuality::Low } else { VideoQuality::High };
            result.max_spatial = self.spatial_of(codec, quality);
            return result;
        };
        let quality = if settings.width > 0 && settings.height > 0 {
            self.quality_for_size(codec, settings.width, settings.height)
        } else {
            settings.quality()
        };
        result.enabled = !settings.disabled && quality != VideoQuality::Off;
        result.max_spatial = self.spatial_of(codec, quality);
        result.max_temporal = temporal_for(settings.fps);
        result
    }
}

/// Rank of codecs by what they take to decode on a phone: every one has hardware for H.264, many have
/// some for VP8 and VP9, few for AV1; without it, the newer the dearer.
fn decoding_cost(codec: Codec) -> u8 {
    match codec {
        Codec::H264 => 0,
        Codec::Vp8 => 1,
        Codec::H265 => 2,
        Codec::Vp9 => 3,
        _ => 4,
    }
}

/// The allocator's weight of `UpdateTrackSettings.priority`, in which 1 is the highest and 0 says
/// nothing.
fn weight_of(priority: u32) -> u8 {
    match priority {
        0 => 1,
        priority => MAX_WEIGHT - priority.min(u32::from(MAX_WEIGHT)) as u8 + 1,
    }
}

/// The temporal layer that suffices for a frame rate; 0 frames per second are no limit.
fn temporal_for(fps: u32) -> u8 {
    match fps {
        0 => MAX_TEMPORAL,
        fps if fps <= TEMPORAL_LAYER_FPS[0] => 0,
        fps if fps <= TEMPORAL_LAYER_FPS[1] => 1,
        _ => MAX_TEMPORAL,
    }
}

/// Whether layers of this codec travel in one stream (SVC) unless the client says otherwise.
pub(crate) fn is_svc(codec: Codec) -> bool {
    matches!(codec, Codec::Vp9 | Codec::Av1)
}

/// The name that subscribed-quality messages use: `vp8`.
pub(crate) fn short_codec_name(mime: &str) -> String {
    mime.rsplit('/').next().unwrap_or_default().to_ascii_lowercase()
}

/// A version of some state that rises even when the clock does not.
pub(crate) fn next_version(
    previous: Option<proto::TimedVersion>,
    unix_micros: i64,
) -> proto::TimedVersion {
    match previous {
        Some(previous) if previous.unix_micro >= unix_micros => proto::TimedVersion {
            unix_micro: previous.unix_micro,
            ticks: previous.ticks.wrapping_add(1),
        },
        _ => proto::TimedVersion { unix_micro: unix_micros, ticks: 0 },
    }
}

/// A level last heard from a microphone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Level {
    pub(crate) level: f32,
    pub(crate) at: Instant,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn video(layers: &[(VideoQuality, u32, u32)]) -> Track {
        let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(1);
        let layers = layers
            .iter()
            .map(|&(quality, width, height)| proto::VideoLayer {
                quality: quality.into(),
                width,
                height,
                ..Default::default()
            })
            .collect();
        Track {
            sid: TrackSid::random(proto::TrackType::Video, TrackSource::Camera, &mut rng),
            stream_id: "PA_x|TR_y".into(),
            forwarded: false,
            owner: ParticipantKey(0),
            kind: MediaKind::Video,
            codec: CodecParameters::new(Codec::Vp8, ""),
            backups: Vec::new(),
            regressed: None,
            redundant: false,
            info: proto::TrackInfo { width: 1280, height: 720, layers, ..Default::default() },
            subscribers: BTreeSet::new(),
            subscribed_once: false,
            wanted: Wanted::default(),
            has_media: false,
        }
    }

    fn three_layers() -> Track {
        video(&[
            (VideoQuality::Low, 320, 180),
            (VideoQuality::Medium, 640, 360),
            (VideoQuality::High, 1280, 720),
        ])
    }

    fn size(width: u32, height: u32) -> proto::UpdateTrackSettings {
        proto::UpdateTrackSettings { width, height, ..Default::default() }
    }

    #[test]
    fn view_size_picks_the_lowest_layer_that_fills_ninety_percent() {
        let track = three_layers();
        let spatial = |w, h| {
            track.subscription_settings(Codec::Vp8, Some(&size(w, h)), true, None).max_spatial
        };
        assert_eq!(spatial(320, 180), 0);
        assert_eq!(spatial(355, 200), 0);
        assert_eq!(spatial(358, 202), 1);
        assert_eq!(spatial(640, 360), 1);
        assert_eq!(spatial(4000, 3000), 2);
        // Portrait views count by their shorter edge.
        assert_eq!(spatial(180, 320), 0);
    }

    #[test]
    fn undeclared_layers_count_as_180_360_and_the_original() {
        let track = video(&[]);
        let spatial = |w, h| {
            track.subscription_settings(Codec::Vp8, Some(&size(w, h)), true, None).max_spatial
        };
        assert_eq!(spatial(300, 170), 0);
        assert_eq!(spatial(600, 340), 1);
        assert_eq!(spatial(1280, 720), 2);
    }

    #[test]
    fn without_settings_an_adaptive_receiver_starts_low() {
        let track = three_layers();
        assert_eq!(track.subscription_settings(Codec::Vp8, None, true, None).max_spatial, 0);
        assert_eq!(track.subscription_settings(Codec::Vp8, None, false, None).max_spatial, 2);
    }

    #[test]
    fn a_single_layer_is_layer_zero_at_any_quality() {
        let track = video(&[(VideoQuality::High, 1280, 720)]);
        assert_eq!(track.spatial_of(Codec::Vp8, VideoQuality::Low), 0);
        assert_eq!(track.spatial_of(Codec::Vp8, VideoQuality::High), 0);
        assert_eq!(track.quality_of(Codec::Vp8, 0), VideoQuality::High);
    }

    #[test]
    fn two_layers_map_to_the_qualities_that_were_declared() {
        let track = video(&[(VideoQuality::Low, 320, 180), (VideoQuality::High, 1280, 720)]);
        assert_eq!(track.spatial_of(Codec::Vp8, VideoQuality::Medium), 0);
        assert_eq!(track.spatial_of(Codec::Vp8, VideoQuality::High), 1);
        assert_eq!(track.quality_of(Codec::Vp8, 1), VideoQuality::High);
    }

    #[test]
    fn disabled_tracks_and_low_frame_rates_are_passed_on() {
        let track = three_layers();
        let disabled = proto::UpdateTrackSettings { disabled: true, ..Default::default() };
        assert!(!track.subscription_settings(Codec::Vp8, Some(&disabled), false, None).enabled);
        let slow = proto::UpdateTrackSettings { fps: 7, ..size(1280, 720) };
        assert_eq!(
            track.subscription_settings(Codec::Vp8, Some(&slow), false, None).max_temporal,
            0
        );
    }

    #[test]
    fn a_low_power_receiver_gets_no_more_than_the_node_allows() {
        let mut track = three_layers();
        let cap = LowPower::default();
        let capped = |track: &Track, settings: Option<&proto::UpdateTrackSettings>| {
            let result = track.subscription_settings(Codec::Vp8, settings, false, Some(&cap));
            (result.max_spatial, result.max_temporal)
        };
        assert_eq!(capped(&track, None), (1, 1));
        assert_eq!(capped(&track, Some(&size(1280, 720))), (1, 1));
        assert_eq!(capped(&track, Some(&size(160, 90))), (0, 1));
        track.info.source = TrackSource::ScreenShare.into();
        assert_eq!(capped(&track, None), (2, 1), "text stays readable");
        let unlimited = LowPower { max_quality: VideoQuality::High, max_fps: 0 };
        let result = track.subscription_settings(Codec::Vp8, None, false, Some(&unlimited));
        assert_eq!((result.max_spatial, result.max_temporal), (2, MAX_TEMPORAL));
    }

    #[test]
    fn priority_one_weighs_most_and_none_weighs_least() {
        let track = three_layers();
        let weight = |priority| {
            let settings = proto::UpdateTrackSettings { priority, ..size(1280, 720) };
            track.subscription_settings(Codec::Vp8, Some(&settings), false, None).priority
        };
        assert_eq!([1, 2, 8, 1_000, 0].map(weight), [8, 7, 1, 1, 1]);
    }

    #[test]
    fn versions_rise_within_one_microsecond() {
        let first = next_version(None, 5);
        let second = next_version(Some(first), 5);
        let third = next_version(Some(second), 6);
        assert_eq!((second.unix_micro, second.ticks), (5, 1));
        assert_eq!((third.unix_micro, third.ticks), (6, 0));
    }
}
