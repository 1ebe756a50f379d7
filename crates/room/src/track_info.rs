//! `TrackInfo`: from what a client announces, and completed by what was negotiated.

use sluice_proto as proto;
use sluice_proto::video_layer::Mode;
use sluice_proto::{AddTrackRequest, AudioTrackFeature, BackupCodecPolicy, TrackInfo, TrackType};
use sluice_rtp::codec::Codec;
use sluice_transport::sdp::{CodecPolicy, ReceiverBinding};

use crate::ids::TrackSid;
use crate::track::is_svc;

/// Rids of simulcast encodings, lowest quality first; both families are in use.
const RID_ORDER: [[&str; 3]; 2] = [["q", "h", "f"], ["2", "1", "0"]];

/// The track as its publisher announced it.
pub(crate) fn from_request(
    request: &AddTrackRequest,
    sid: &TrackSid,
    enabled: &CodecPolicy,
) -> TrackInfo {
    let is_audio = request.r#type() == TrackType::Audio;
    let mut features = request.audio_features.clone();
    let mut add_feature = |feature: AudioTrackFeature, wanted: bool| {
        if is_audio && wanted && !features.contains(&feature.into()) {
            features.push(feature.into());
        }
    };
    add_feature(AudioTrackFeature::TfStereo, request.stereo);
    add_feature(AudioTrackFeature::TfNoDtx, request.disable_dtx);
    let has = |feature: AudioTrackFeature| features.contains(&feature.into());

    let codecs = codecs_from_request(request, enabled);
    let layers = codecs.first().map_or_else(Vec::new, |codec| codec.layers.clone());
    let simulcast = codecs.first().is_some_and(|codec| {
        codec.layers.len() > 1 && codec.video_layer_mode() != Mode::MultipleSpatialLayersPerStream
    });
    let regression = request.backup_codec_policy() == BackupCodecPolicy::Regression;
    let backup_codec_policy = match is_audio && !regression {
        true => BackupCodecPolicy::Simulcast.into(),
        false => request.backup_codec_policy,
    };
    TrackInfo {
        sid: sid.into(),
        r#type: request.r#type,
        name: request.name.clone(),
        muted: request.muted,
        width: request.width,
        height: request.height,
        simulcast,
        disable_dtx: has(AudioTrackFeature::TfNoDtx),
        source: request.source,
        layers,
        mime_type: codecs.first().map_or_else(String::new, |codec| codec.mime_type.clone()),
        codecs,
        stereo: has(AudioTrackFeature::TfStereo),
        disable_red: request.disable_red,
        encryption: request.encryption,
        stream: request.stream.clone(),
        audio_features: features,
        backup_codec_policy,
        packet_trailer_features: request.packet_trailer_features.clone(),
        ..TrackInfo::default()
    }
}

/// One entry per codec that the client wants to send, at least one.
pub(crate) fn codecs_from_request(
    request: &AddTrackRequest,
    enabled: &CodecPolicy,
) -> Vec<proto::SimulcastCodecInfo> {
    let kind = if request.r#type() == TrackType::Audio { "audio/" } else { "video/" };
    let mut result: Vec<proto::SimulcastCodecInfo> = Vec::new();
    for wanted in &request.simulcast_codecs {
        let mime = match wanted.codec.as_str() {
            "" => String::new(),
            codec => enabled_mime(codec, kind, enabled),
        };
        if result.iter().any(|codec| codec.mime_type == mime) {
            continue;
        }
        let layers = if wanted.layers.is_empty() { &request.layers } else { &wanted.layers };
        let mode = match wanted.video_layer_mode() {
            Mode::Unused => default_mode(&mime),
            mode => mode,
        };
        result.push(proto::SimulcastCodecInfo {
            mime_type: mime,
            cid: wanted.cid.clone(),
            layers: sorted_layers(layers, request),
            video_layer_mode: if kind == "video/" { mode.into() } else { 0 },
            ..Default::default()
        });
    }
    if result.is_empty() {
        result.push(proto::SimulcastCodecInfo {
            cid: request.cid.clone(),
            layers: sorted_layers(&request.layers, request),
            video_layer_mode: match kind {
                "video/" => Mode::OneSpatialLayerPerStream.into(),
                _ => 0,
            },
            ..Default::default()
        });
    }
    result
}

/// The MIME type of a codec name, or of the first enabled codec when that one is not enabled.
fn enabled_mime(name: &str, kind: &str, enabled: &CodecPolicy) -> String {
    let mime = if name.contains('/') { name.to_owned() } else { format!("{kind}{name}") };
    let codec = Codec::from_mime(&mime).filter(|codec| enabled.enables(*codec));
    let of_kind = |codec: &&Codec| codec.mime().starts_with(kind);
    codec
        .or_else(|| enabled.codecs().iter().find(of_kind).copied())
        .map_or(mime, |codec| codec.mime().to_owned())
}

fn default_mode(mime: &str) -> Mode {
    if Codec::from_mime(mime).is_some_and(is_svc) {
        Mode::MultipleSpatialLayersPerStream
    } else {
        Mode::OneSpatialLayerPerStream
    }
}

fn sorted_layers(
    layers: &[proto::VideoLayer],
    request: &AddTrackRequest,
) -> Vec<proto::VideoLayer> {
    if request.r#type() != TrackType::Video {
        return Vec::new();
    }
    let mut layers = layers.to_vec();
    if layers.is_empty() {
        layers.push(proto::VideoLayer {
            quality: proto::VideoQuality::High.into(),
            width: request.width,
            height: request.height,
            ..Default::default()
        });
    }
    layers.sort_by_key(|layer| layer.quality);
    for (index, layer) in layers.iter_mut().enumerate() {
        layer.spatial_layer = i32::try_from(index).unwrap_or(0);
    }
    layers
}

/// Adds a further codec that the client announces for an existing track, or what it says anew of a
/// known one.
pub(crate) fn add_codec(info: &mut TrackInfo, mut announced: proto::SimulcastCodecInfo) {
    let known = info.codecs.iter_mut().find(|known| known.mime_type == announced.mime_type);
    let Some(known) = known else { return info.codecs.push(announced) };
    known.cid = announced.cid;
    // livekit-client does not repeat the size of the picture.
    for layer in announced.layers.iter_mut().filter(|layer| layer.width == 0) {
        let of_quality = known.layers.iter().find(|known| known.quality == layer.quality);
        if let Some(sized) = of_quality {
            (layer.width, layer.height) = (sized.width, sized.height);
        }
    }
    known.layers = announced.layers;
}

/// Fills in what the SDP and the answer decided.
pub(crate) fn complete(
    info: &mut TrackInfo,
    receiver: &ReceiverBinding,
    codec: Codec,
    sdp_track_id: &str,
) {
    let mime = codec.mime();
    let index = info.codecs.iter().position(|entry| entry.mime_type == mime).unwrap_or(0);
    // The codec that flows is the primary one.
    if index > 0 {
        info.codecs.swap(0, index);
    }
    mime.clone_into(&mut info.mime_type);
    info.mid.clone_from(&receiver.mid);
    if let Some(entry) = info.codecs.first_mut() {
        complete_codec(entry, receiver, mime, sdp_track_id);
        info.layers.clone_from(&entry.layers);
    }
}

/// Fills in what the SDP and the answer decided about a further codec of a track.
pub(crate) fn complete_backup(
    info: &mut TrackInfo,
    receiver: &ReceiverBinding,
    codec: Codec,
    sdp_track_id: &str,
) {
    let mime = codec.mime();
    if let Some(entry) = info.codecs.iter_mut().find(|entry| entry.mime_type == mime) {
        complete_codec(entry, receiver, mime, sdp_track_id);
    }
}

fn complete_codec(
    entry: &mut proto::SimulcastCodecInfo,
    receiver: &ReceiverBinding,
    mime: &str,
    sdp_track_id: &str,
) {
    let rids = rids_low_to_high(&receiver.rids);
    for (layer_index, layer) in entry.layers.iter_mut().enumerate() {
        if let Some(rid) = rids.get(layer_index) {
            layer.rid.clone_from(rid);
        }
        if let Some(ssrc) = receiver.ssrcs.get(layer_index) {
            layer.ssrc = ssrc.ssrc;
            layer.repair_ssrc = ssrc.rtx_ssrc.unwrap_or(0);
        }
    }
    mime.clone_into(&mut entry.mime_type);
    entry.mid.clone_from(&receiver.mid);
    if entry.cid != sdp_track_id {
        sdp_track_id.clone_into(&mut entry.sdp_cid);
    }
}

/// What carries a layer of a codec, or of the first one.
pub(crate) fn set_layer_source(
    info: &mut TrackInfo,
    backup: Option<Codec>,
    layer: u8,
    ssrc: u32,
    rid: &str,
) {
    let entry = match backup {
        Some(codec) => info.codecs.iter_mut().find(|entry| entry.mime_type == codec.mime()),
        None => info.codecs.first_mut(),
    };
    let of_codec = entry.into_iter().flat_map(|entry| &mut entry.layers);
    let of_track = info.layers.iter_mut().filter(|_| backup.is_none());
    for of_layer in of_codec.chain(of_track) {
        if of_layer.spatial_layer == i32::from(layer) {
            of_layer.ssrc = ssrc;
            rid.clone_into(&mut of_layer.rid);
        }
    }
}

/// Rids sorted by quality where they are known ones, else in the order given.
pub(crate) fn rids_low_to_high(rids: &[String]) -> Vec<String> {
    let mut sorted = rids.to_vec();
    let rank = |rid: &String, family: &[&str; 3]| family.iter().position(|known| known == rid);
    for family in &RID_ORDER {
        if rids.iter().all(|rid| rank(rid, family).is_some()) {
            sorted.sort_by_key(|rid| rank(rid, family));
            break;
        }
    }
    sorted
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn info(request: &AddTrackRequest) -> TrackInfo {
        let mut rng = rand::rngs::StdRng::seed_from_u64(1);
        let sid = TrackSid::random(request.r#type(), request.source(), &mut rng);
        from_request(request, &sid, &CodecPolicy::default())
    }

    fn layers(qualities: &[proto::VideoQuality]) -> Vec<proto::VideoLayer> {
        let layer = |&quality: &proto::VideoQuality| proto::VideoLayer {
            quality: quality.into(),
            ..Default::default()
        };
        qualities.iter().map(layer).collect()
    }

    #[test]
    fn deprecated_audio_flags_become_features_and_back() {
        let request = AddTrackRequest { stereo: true, disable_dtx: true, ..Default::default() };
        let info = info(&request);
        assert!(info.stereo && info.disable_dtx);
        assert_eq!(info.audio_features.len(), 2);
        assert_eq!(info.backup_codec_policy(), BackupCodecPolicy::Simulcast);
    }

    #[test]
    fn layers_are_sorted_by_quality_and_make_simulcast() {
        use proto::VideoQuality::{High, Low, Medium};
        let request = AddTrackRequest {
            r#type: TrackType::Video.into(),
            layers: layers(&[High, Low, Medium]),
            simulcast_codecs: vec![proto::SimulcastCodec {
                codec: "vp8".into(),
                cid: "c".into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let info = info(&request);
        assert!(info.simulcast);
        assert_eq!(info.mime_type, "video/VP8");
        let qualities: Vec<_> = info.codecs[0].layers.iter().map(|l| l.quality()).collect();
        assert_eq!(qualities, [Low, Medium, High]);
    }

    #[test]
    fn svc_codecs_are_not_simulcast() {
        let request = AddTrackRequest {
            r#type: TrackType::Video.into(),
            layers: layers(&[proto::VideoQuality::Low, proto::VideoQuality::High]),
            simulcast_codecs: vec![proto::SimulcastCodec {
                codec: "vp9".into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let info = info(&request);
        assert!(!info.simulcast);
        assert_eq!(info.codecs[0].video_layer_mode(), Mode::MultipleSpatialLayersPerStream);
    }

    #[test]
    fn a_codec_that_is_not_enabled_becomes_the_first_enabled_one() {
        let enabled = CodecPolicy::new([Codec::Opus, Codec::H264, Codec::Vp8]);
        assert_eq!(enabled_mime("av1", "video/", &enabled), "video/H264");
        assert_eq!(enabled_mime("VIDEO/vp8", "video/", &enabled), "video/VP8");
    }

    #[test]
    fn known_rids_are_put_in_order_of_quality() {
        let rids = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
        assert_eq!(rids_low_to_high(&rids(&["f", "h", "q"])), rids(&["q", "h", "f"]));
        assert_eq!(rids_low_to_high(&rids(&["0", "1", "2"])), rids(&["2", "1", "0"]));
        assert_eq!(rids_low_to_high(&rids(&["hi", "lo"])), rids(&["hi", "lo"]));
    }
}
