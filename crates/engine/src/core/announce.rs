//! The first packets of a stream that has none. pion, under LiveKit's Go SDK, shows a track to its
//! application only once a packet of it has come: that of a muted track would stay hidden. Such
//! receivers get silence, or packets of padding for video and for what is encrypted, until the track
//! itself sends something or the receiver says that it knows the stream.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use sluice_rtp::codec::MediaKind;
use sluice_sfu::MediaPacket;

use crate::core::Core;
use crate::core::fill::{frame, silence_for};
use crate::core::peer::DownKey;
use crate::core::track::Down;

/// Time before the first packet and between them (LiveKit `waitBeforeSendPaddingOnMute`,
/// `paddingOnMuteInterval`).
const INTERVAL: Duration = Duration::from_millis(100);

/// Packets at most (LiveKit `maxPaddingOnMuteDuration` of 5 s).
const PACKETS: u8 = 50;

/// Subscriptions that still get packets of our own, in the order in which the next one is due. One
/// entry for each subscription at most.
#[derive(Debug, Default)]
pub(super) struct Announcements(VecDeque<Announcement>);

#[derive(Debug, Clone, Copy)]
struct Announcement {
    due: Instant,
    down: DownKey,
    packets_left: u8,
}

impl Announcements {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.0.front().map(|announcement| announcement.due)
    }
}

impl Core {
    /// Begins once the subscription has a transport, if its receiver needs packets.
    pub(super) fn begin_announcement(&mut self, now: Instant, key: DownKey) {
        let Some(down) = self.downs.get_mut(key) else { return };
        if down.announce && down.connected {
            // Not again when a transport comes back.
            down.announce = false;
            let due = now + INTERVAL;
            self.announcements.0.push_back(Announcement { due, down: key, packets_left: PACKETS });
        }
    }

    /// Sends the packets that are due.
    pub(super) fn send_announcements(&mut self, now: Instant) {
        while let Some(next) = self.announcements.0.front().copied().filter(|a| a.due <= now) {
            self.announcements.0.pop_front();
            let Some(packet) = self.downs.get(next.down).and_then(|down| packet_for(now, down))
            else {
                continue;
            };
            if !self.send_own(now, next.down, packet, |track| track.announce(now)) {
                continue;
            }
            if next.packets_left > 1 {
                let (due, packets_left) = (next.due + INTERVAL, next.packets_left - 1);
                self.announcements.0.push_back(Announcement { due, packets_left, ..next });
            }
        }
    }
}

/// `None` if the receiver knows the stream.
fn packet_for(now: Instant, down: &Down) -> Option<MediaPacket> {
    if !down.wire.send_mid {
        return None;
    }
    let config = down.track.config();
    let padding = || frame(now, config.codec, &[]);
    match config.kind {
        MediaKind::Audio if !config.encrypted => silence_for(now, down).or_else(|| Some(padding())),
        _ => Some(padding()),
    }
}
