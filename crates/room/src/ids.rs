//! Identifiers on the wire: a prefix and random base57 characters.

use std::fmt;
use std::sync::Arc;

use rand::RngExt;
use sluice_proto::{TrackSource, TrackType};

/// Random characters of a SID.
const SID_RANDOM_LEN: usize = 12;

/// Longest SID that is looked at, bytes; ours have 17.
const MAX_SID_LEN: usize = 64;

/// LiveKit's SID alphabet: base57, without the characters that are read as one another.
const BASE57: &[u8; 57] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

macro_rules! sid {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The SID as the wire writes it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&$name> for String {
            fn from(sid: &$name) -> Self {
                sid.0.as_ref().to_owned()
            }
        }

        impl From<&$name> for Arc<str> {
            fn from(sid: &$name) -> Self {
                sid.0.clone()
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

sid! {
    /// `RM_…`: one life of a room.
    RoomSid
}
sid! {
    /// `PA_…`: one session of a participant; a full reconnect makes a new one.
    ParticipantSid
}
sid! {
    /// `TR_…` or `DTR_…`: one published track or data track.
    TrackSid
}

impl RoomSid {
    pub(crate) fn random(rng: &mut impl rand::Rng) -> Self {
        Self(sid("RM_", rng).into())
    }
}

impl ParticipantSid {
    pub(crate) fn random(rng: &mut impl rand::Rng) -> Self {
        Self(sid("PA_", rng).into())
    }
}

impl TrackSid {
    /// `TR_`, a letter for the type, a letter for the source, random characters.
    pub(crate) fn random(kind: TrackType, source: TrackSource, rng: &mut impl rand::Rng) -> Self {
        let kind = match kind {
            TrackType::Video => 'V',
            TrackType::Audio => 'A',
            TrackType::Data => 'D',
        };
        let source = match source {
            TrackSource::Camera => 'C',
            TrackSource::Microphone => 'M',
            TrackSource::ScreenShare => 'S',
            TrackSource::ScreenShareAudio => 's',
            TrackSource::Unknown => '?',
        };
        Self(sid(&format!("TR_{kind}{source}"), rng).into())
    }

    /// A SID that a client names. `None` when it cannot be one of ours.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let plausible = text.starts_with("TR_") && text.len() <= MAX_SID_LEN;
        plausible.then(|| Self(text.into()))
    }

    pub(crate) fn random_data_track(rng: &mut impl rand::Rng) -> Self {
        Self(sid("DTR_", rng).into())
    }
}

fn sid(prefix: &str, rng: &mut impl rand::Rng) -> String {
    let mut text = String::with_capacity(prefix.len() + SID_RANDOM_LEN);
    text.push_str(prefix);
    text.extend((0..SID_RANDOM_LEN).map(|_| char::from(BASE57[rng.random_range(0..BASE57.len())])));
    text
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn track_sids_carry_type_and_source_letters() {
        let mut rng = StdRng::seed_from_u64(1);
        let camera = TrackSid::random(TrackType::Video, TrackSource::Camera, &mut rng);
        let screen_audio =
            TrackSid::random(TrackType::Audio, TrackSource::ScreenShareAudio, &mut rng);
        assert!(camera.as_str().starts_with("TR_VC"));
        assert!(screen_audio.as_str().starts_with("TR_As"));
        assert_eq!(camera.as_str().len(), 5 + SID_RANDOM_LEN);
    }
}
