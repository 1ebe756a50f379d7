//! What to send to whom: the state machines between a publisher's packets and its receivers.
//!
//! Upstream, per published track: [`binder::StreamBinder`] finds the layer of an SSRC,
//! [`track_receiver::TrackReceiver`] turns its packets into [`packet::MediaPacket`]s and asks the
//! publisher for what is missing, [`twcc::TwccReceiver`] feeds the publisher's congestion control.
//! Downstream, per subscription: [`down_track::DownTrack`] chooses layers, rewrites numbers and
//! timestamps, and answers NACKs out of the [`history::TrackHistory`] that all receivers of a track
//! on one worker share. Nothing here does I/O, keeps a clock, locks, or allocates per packet once it
//! runs.

pub mod allocator;
pub mod audio_level;
pub mod binder;
pub mod body;
pub mod bwe;
pub mod descriptor;
pub mod dominant_speaker;
pub mod down_track;
pub mod drop_reason;
pub mod history;
pub mod key_frame;
pub mod liveness;
pub mod meter;
pub mod nack;
pub mod pacer;
pub mod packet;
pub mod playout_delay;
pub mod quality;
pub mod reception;
pub mod red;
pub mod selector;
pub mod sender_report;
pub mod sent_log;
pub mod seq_munger;
pub mod stream;
pub mod svc;
pub mod top_speakers;
pub mod track_receiver;
pub mod ts_munger;
pub mod twcc;
pub mod vp8_munger;

pub use audio_level::{AudioLevelConfig, AudioLevelObserver};
pub use binder::{BinderSection, StreamBinder, StreamBinding};
pub use body::{BodyPool, PacketBody};
pub use descriptor::Described;
pub use down_track::{
    Allocation, DownTrack, DownTrackConfig, DownTrackSettings, Forwarded, NackCounters,
    ReceiverFeedback, Resend,
};
pub use drop_reason::{DropCounters, DropReason};
pub use history::TrackHistory;
pub use packet::{ByteRange, LayerSet, MAX_LAYERS, MediaPacket};
pub use playout_delay::{PlayoutDelayControl, PlayoutDelayRange};
pub use red::{RedJoiner, RedSplitter};
pub use sender_report::SourceReport;
pub use sent_log::PayloadRewrite;
pub use top_speakers::TopSpeakers;
pub use track_receiver::{LayerStarted, ReceivePayloadType, TrackReceiver, TrackReceiverConfig};
pub use twcc::TwccReceiver;

#[cfg(test)]
mod test_util;
