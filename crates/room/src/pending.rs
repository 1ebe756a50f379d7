//! What a client announced and has not sent yet: tracks, and further codecs of tracks.

use sluice_proto as proto;
use sluice_proto::TrackSource;
use sluice_rtp::codec::MediaKind;

use crate::backup_codec::AnnouncedBackup;

/// Something that was announced and has no media section yet.
#[derive(Debug)]
pub(crate) struct PendingTrack {
    pub(crate) cid: String,
    pub(crate) kind: MediaKind,
    pub(crate) state: Pending,
}

#[derive(Debug)]
pub(crate) enum Pending {
    /// The same cid is in use; announced when it is free.
    Queued(Box<proto::AddTrackRequest>),
    /// The client knows the SID; a media section will match.
    Announced(Announced),
    /// A section of the offer that is being answered matches.
    Claimed(Announced, String),
}

/// What a media section will carry.
#[derive(Debug)]
pub(crate) enum Announced {
    /// A new track.
    Track(Box<proto::TrackInfo>),
    /// A further codec of a track.
    Backup(AnnouncedBackup),
}

impl PendingTrack {
    /// A further codec of a track.
    pub(crate) fn backup(cid: String, kind: MediaKind, backup: AnnouncedBackup) -> Self {
        Self { cid, kind, state: Pending::Announced(Announced::Backup(backup)) }
    }

    pub(crate) fn announced(&self) -> Option<&Announced> {
        match &self.state {
            Pending::Announced(announced) | Pending::Claimed(announced, _) => Some(announced),
            Pending::Queued(_) => None,
        }
    }

    /// The announced track; `None` while it waits for its cid, and for a further codec of one.
    pub(crate) fn info(&self) -> Option<&proto::TrackInfo> {
        match self.announced()? {
            Announced::Track(info) => Some(info),
            Announced::Backup(_) => None,
        }
    }

    pub(crate) fn info_mut(&mut self) -> Option<&mut proto::TrackInfo> {
        match &mut self.state {
            Pending::Announced(Announced::Track(info))
            | Pending::Claimed(Announced::Track(info), _) => Some(info),
            _ => None,
        }
    }

    /// The further codec of a track.
    pub(crate) fn as_backup(&self) -> Option<&AnnouncedBackup> {
        match self.announced()? {
            Announced::Backup(backup) => Some(backup),
            Announced::Track(_) => None,
        }
    }

    pub(crate) fn source(&self) -> TrackSource {
        match &self.state {
            Pending::Queued(request) => request.source(),
            Pending::Announced(announced) | Pending::Claimed(announced, _) => match announced {
                Announced::Track(info) => info.source(),
                Announced::Backup(backup) => backup.source,
            },
        }
    }

    pub(crate) fn is_queued(&self) -> bool {
        matches!(self.state, Pending::Queued(_))
    }

    pub(crate) fn is_announced(&self) -> bool {
        matches!(self.state, Pending::Announced(_))
    }

    pub(crate) fn is_claimed_by(&self, mid: &str) -> bool {
        matches!(&self.state, Pending::Claimed(_, claimed) if claimed == mid)
    }

    pub(crate) fn claim(&mut self, mid: String) {
        self.state = match std::mem::replace(&mut self.state, Pending::Queued(Box::default())) {
            Pending::Announced(announced) => Pending::Claimed(announced, mid),
            state => state,
        };
    }

    pub(crate) fn has_cid(&self, id: &str) -> bool {
        let of_codec = |info: &proto::TrackInfo| info.codecs.iter().any(|codec| codec.cid == id);
        self.cid == id || self.info().is_some_and(of_codec)
    }
}
