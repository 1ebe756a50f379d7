//! What a run shall do: the options, and the participants that follow from them.

use std::time::Duration;

use serde::Serialize;
use url::Url;

use crate::encoder::{CAMERA_720P, LayerSpec};

/// Which tracks a subscriber watches, and how large (LiveKit's load tester's layouts).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// One at 1280x720 and five at 320x180
    Speaker,
    /// Nine at 640x360
    #[value(name = "3x3")]
    #[serde(rename = "3x3")]
    Grid3,
    /// Sixteen at 320x180
    #[value(name = "4x4")]
    #[serde(rename = "4x4")]
    Grid4,
    /// Twenty-five at 320x180
    #[value(name = "5x5")]
    #[serde(rename = "5x5")]
    Grid5,
    /// Every track at full size
    All,
}

impl Layout {
    /// What a subscriber shows, for a report.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Speaker => "one video at 1280x720 and five at 320x180",
            Self::Grid3 => "nine videos at 640x360",
            Self::Grid4 => "sixteen videos at 320x180",
            Self::Grid5 => "twenty-five videos at 320x180",
            Self::All => "every track at full size",
        }
    }

    /// Size of the tile that the `index`-th video gets; `None`: it is not shown.
    pub(crate) fn tile(self, index: usize) -> Option<(u32, u32)> {
        match self {
            Self::Speaker if index == 0 => Some((1280, 720)),
            Self::Speaker if index < 6 => Some((320, 180)),
            Self::Grid3 if index < 9 => Some((640, 360)),
            Self::Grid4 if index < 16 => Some((320, 180)),
            Self::Grid5 if index < 25 => Some((320, 180)),
            Self::All => Some((1280, 720)),
            _ => None,
        }
    }
}

/// Data messages of each publisher.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct DataLoad {
    /// Messages per second.
    pub rate: f64,
    /// Bytes of each.
    pub bytes: usize,
    /// In order and repeated until they arrive.
    pub reliable: bool,
}

/// While publishers have their tracks muted and send nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Muted {
    /// Media flows at once.
    Never,
    /// Until everybody has joined, so that no media flows during the joins.
    Joining,
    /// During the whole run.
    Always,
}

/// Everything about a run.
#[derive(Debug, Clone, Serialize)]
pub struct Options {
    /// `ws://` URL of the server.
    #[serde(serialize_with = "as_text")]
    pub url: Url,
    /// API key.
    #[serde(skip)]
    pub api_key: String,
    /// Its secret.
    #[serde(skip)]
    pub api_secret: String,
    /// Rooms, all alike.
    pub rooms: usize,
    /// Name of the room; several rooms get a number behind it.
    pub room: String,
    /// Participants of each room that publish.
    pub publishers: usize,
    /// Participants of each room that only subscribe.
    pub subscribers: usize,
    /// Publishers publish audio.
    pub audio: bool,
    /// Publishers publish video.
    pub video: bool,
    /// Publishers send one layer instead of three.
    pub no_simulcast: bool,
    /// Publishers watch the others.
    pub publishers_subscribe: bool,
    /// What subscribers watch.
    pub layout: Layout,
    /// One publisher of each room speaks at a time, in turn; otherwise all do.
    pub simulate_speakers: bool,
    /// Whether tracks are muted.
    pub muted: Muted,
    /// Nobody subscribes before everybody has joined.
    pub subscribe_late: bool,
    /// Data messages of publishers.
    pub data: Option<DataLoad>,
    /// Time of measuring, after everybody joined.
    pub duration: Duration,
    /// Time between the last join and the beginning of measuring.
    pub settle: Duration,
    /// So many of a hundred participants lose their signalling at once when everybody has joined,
    /// and resume.
    pub storm_percent: usize,
    /// Joins per second.
    pub ramp: f64,
    /// One of this many packets is authenticated and its latency measured.
    pub sample_every: u32,
    /// Media threads.
    pub threads: usize,
}

fn as_text<S: serde::Serializer>(url: &Url, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(url.as_str())
}

impl Options {
    /// A run against a development server: one room, one publisher of video, no subscriber.
    ///
    /// # Errors
    /// The URL is malformed.
    pub fn new(url: &str, api_key: &str, api_secret: &str) -> anyhow::Result<Self> {
        Ok(Self {
            url: Url::parse(url)?,
            api_key: api_key.to_owned(),
            api_secret: api_secret.to_owned(),
            rooms: 1,
            room: format!("load-{:06x}", rand::random::<u32>() & 0xFF_FFFF),
            publishers: 1,
            subscribers: 0,
            audio: false,
            video: true,
            no_simulcast: false,
            publishers_subscribe: false,
            layout: Layout::All,
            simulate_speakers: false,
            muted: Muted::Never,
            subscribe_late: false,
            data: None,
            duration: Duration::from_secs(10),
            settle: Duration::from_secs(2),
            storm_percent: 0,
            ramp: 50.0,
            sample_every: 64,
            threads: 1,
        })
    }

    /// All participants in the order in which they join: publishers of each room first.
    pub(crate) fn participants(&self) -> Vec<ParticipantPlan> {
        let publishes = self.audio || self.video || self.data.is_some();
        let mut plans = Vec::new();
        for room in 0..self.rooms {
            let name =
                if self.rooms == 1 { self.room.clone() } else { format!("{}-{room}", self.room) };
            for at in 0..self.publishers + self.subscribers {
                let is_publisher = at < self.publishers;
                let kind = if is_publisher { "pub" } else { "sub" };
                plans.push(ParticipantPlan {
                    room: name.clone(),
                    identity: format!("{kind}-{at:05}"),
                    index_in_room: at,
                    audio: is_publisher && self.audio,
                    video: (is_publisher && self.video).then(|| self.layers()),
                    data: self.data.filter(|_| is_publisher),
                    muted: self.muted != Muted::Never,
                    subscribes: !is_publisher || self.publishers_subscribe || !publishes,
                    subscribes_late: self.subscribe_late,
                    layout: self.layout,
                });
            }
        }
        // Rooms fill side by side.
        plans.sort_by_key(|plan| plan.index_in_room);
        plans
    }

    fn layers(&self) -> Vec<LayerSpec> {
        let skip = if self.no_simulcast { CAMERA_720P.len() - 1 } else { 0 };
        CAMERA_720P[skip..].to_vec()
    }
}

/// What one participant does.
#[derive(Debug, Clone)]
pub(crate) struct ParticipantPlan {
    pub(crate) room: String,
    pub(crate) identity: String,
    pub(crate) index_in_room: usize,
    pub(crate) audio: bool,
    pub(crate) video: Option<Vec<LayerSpec>>,
    pub(crate) data: Option<DataLoad>,
    /// Its tracks are muted at first.
    pub(crate) muted: bool,
    pub(crate) subscribes: bool,
    pub(crate) subscribes_late: bool,
    pub(crate) layout: Layout,
}

impl ParticipantPlan {
    /// The server subscribes on its own to everything.
    pub(crate) fn auto_subscribe(&self) -> bool {
        self.subscribes && !self.subscribes_late && self.layout == Layout::All
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishers_of_all_rooms_join_before_subscribers() {
        let options = Options {
            rooms: 2,
            publishers: 1,
            subscribers: 2,
            ..Options::new("ws://localhost:7880", "k", "s").unwrap()
        };
        let plans = options.participants();
        let kinds: Vec<_> = plans.iter().map(|plan| &plan.identity[..3]).collect();
        assert_eq!(kinds, ["pub", "pub", "sub", "sub", "sub", "sub"]);
        assert_ne!(plans[0].room, plans[1].room);
        assert!(!plans[0].subscribes && plans[2].subscribes);
    }

    #[test]
    fn speaker_layout_shows_one_large_and_five_small() {
        let tiles: Vec<_> = (0..8).map(|index| Layout::Speaker.tile(index)).collect();
        assert_eq!(tiles[0], Some((1280, 720)));
        assert_eq!(tiles[5], Some((320, 180)));
        assert_eq!(tiles[6], None);
    }
}
