//! Why a packet went no further, and a counter for each reason.

/// Why a received packet, or a packet meant for one receiver, was not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// No section, layer or payload type matches the SSRC.
    UnknownSsrc,
    /// The payload type was not negotiated for the section.
    UnknownPayloadType,
    /// A copy of a packet that was received before.
    Duplicate,
    /// Older than anything the buffers keep.
    TooOld,
    /// A jump in sequence numbers, held back until the next packet confirms it (RFC 3550 A.1).
    SequenceJump,
    /// RTX without a payload: a bandwidth probe of the sender.
    RtxProbe,
    /// RTX that is too short, or repairs an unknown payload type or a stream not seen yet.
    RtxInvalid,
    /// The body could not be parsed as its codec.
    BadPayload,
    /// Padding only: nothing to forward.
    Padding,
    /// The receiver paused the track, or the allocator did.
    Paused,
    /// Not the layer that this receiver gets.
    OtherLayer,
    /// Above the temporal layer that this receiver gets.
    TemporalLayer,
    /// Waiting for a key frame to start from.
    AwaitingKeyFrame,
    /// The codec is not the one negotiated with this receiver.
    CodecMismatch,
    /// A late packet whose place towards this receiver was closed, or filled before.
    NoGap,
    /// The layer's timestamps would step back by more than a receiver tolerates.
    TimestampBehind,
    /// It waited for its turn when its layer was left for want of bandwidth.
    LayerLeft,
}

impl DropReason {
    /// Number of reasons.
    pub const COUNT: usize = 17;

    /// All reasons, in the order of their counters.
    pub const ALL: [Self; Self::COUNT] = [
        Self::UnknownSsrc,
        Self::UnknownPayloadType,
        Self::Duplicate,
        Self::TooOld,
        Self::SequenceJump,
        Self::RtxProbe,
        Self::RtxInvalid,
        Self::BadPayload,
        Self::Padding,
        Self::Paused,
        Self::OtherLayer,
        Self::TemporalLayer,
        Self::AwaitingKeyFrame,
        Self::CodecMismatch,
        Self::NoGap,
        Self::TimestampBehind,
        Self::LayerLeft,
    ];

    /// Label for metrics, `snake_case`.
    pub fn label(self) -> &'static str {
        match self {
            Self::UnknownSsrc => "unknown_ssrc",
            Self::UnknownPayloadType => "unknown_payload_type",
            Self::Duplicate => "duplicate",
            Self::TooOld => "too_old",
            Self::SequenceJump => "sequence_jump",
            Self::RtxProbe => "rtx_probe",
            Self::RtxInvalid => "rtx_invalid",
            Self::BadPayload => "bad_payload",
            Self::Padding => "padding",
            Self::Paused => "paused",
            Self::OtherLayer => "other_layer",
            Self::TemporalLayer => "temporal_layer",
            Self::AwaitingKeyFrame => "awaiting_key_frame",
            Self::CodecMismatch => "codec_mismatch",
            Self::NoGap => "no_gap",
            Self::TimestampBehind => "timestamp_behind",
            Self::LayerLeft => "layer_left",
        }
    }
}

/// Packets dropped, per reason. Workers add theirs up when asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DropCounters([u64; DropReason::COUNT]);

impl DropCounters {
    /// Counts one packet.
    pub fn count(&mut self, reason: DropReason) {
        self.0[reason as usize] += 1;
    }

    /// Counts several packets.
    pub fn count_many(&mut self, reason: DropReason, packets: u64) {
        self.0[reason as usize] += packets;
    }

    /// Packets dropped for `reason`.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// Adds another set of counters to this one.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// Every reason that occurred, with its count.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().zip(self.0).filter(|(_, n)| *n > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter_and_label() {
        let mut counters = DropCounters::default();
        let mut labels = std::collections::BTreeSet::new();
        for (i, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, i);
            counters.count(reason);
            labels.insert(reason.label());
        }
        assert_eq!(labels.len(), DropReason::COUNT);
        assert!(counters.iter().all(|(_, n)| n == 1));
    }
}
