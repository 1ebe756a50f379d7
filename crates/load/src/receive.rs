//! What a subscriber does with media: counts every packet by its header, finds losses, asks for them
//! again, reports arrivals to the server, and opens a sample to measure latency.
//!
//! Only a random sample is authenticated and decrypted, so that one core can receive what a server
//! on the other core sends. The exceptions: everything up to the first key frame, and repairs.

use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use sluice_proto::{DataPacket, Message, data_packet};
use sluice_rtp::rtcp::write;
use sluice_rtp::{Codec, PayloadInfo, Rtcp, RtcpIter, RtpView};
use sluice_sfu::TwccReceiver;
use sluice_transport::peer::SRTP_OVERHEAD;
use sluice_transport::{Peer, Received, Route};

use crate::measure::{Measurements, ReceiveTotals};
use crate::stamp::{self, Clock};
use crate::stream::{Arrival, ReceiveStream, StreamKind};

/// Time between receiver reports and bandwidth estimates.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Time between looks at missing packets and transport-wide feedback.
const FEEDBACK_INTERVAL: Duration = Duration::from_millis(50);
/// Bandwidth that REMB claims: more than any layout needs, so that the server never throttles.
const CLAIMED_BPS: u64 = 50_000_000;

/// The P bit of an RTP header.
const PADDING_BIT: u8 = 0x20;
/// Most bytes of padding: their number is one byte (RFC 3550 §5.1).
const MAX_PADDING: usize = 255;

/// A track that the server's offer says it will send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExpectedTrack {
    pub(crate) ssrc: u32,
    pub(crate) repair_ssrc: Option<u32>,
    pub(crate) codec: Option<Codec>,
    pub(crate) clock_rate: u32,
    /// Loss is reported by NACK.
    pub(crate) nack: bool,
    /// When the track was asked for.
    pub(crate) wanted_at: Instant,
}

/// How a connection receives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReceiveOptions {
    /// One of this many packets is authenticated; 1 opens all.
    pub(crate) sample_every: u32,
    /// Id of the transport-wide sequence number extension.
    pub(crate) transport_cc: Option<u8>,
    /// The server wants REMB.
    pub(crate) remb: bool,
}

/// The receiving side of one connection.
#[derive(Debug)]
pub(crate) struct Receiver {
    options: ReceiveOptions,
    streams: Vec<ReceiveStream>,
    /// SSRC to stream, and whether it is that stream's repair.
    by_ssrc: FxHashMap<u32, (usize, bool)>,
    twcc: TwccReceiver,
    next_feedback: Instant,
    next_report: Instant,
    our_ssrc: u32,
    totals: ReceiveTotals,
}

/// What a packet needs besides the receiver.
pub(crate) struct Context<'a> {
    pub(crate) now: Instant,
    pub(crate) clock: &'a Clock,
    pub(crate) peer: &'a mut Peer,
    pub(crate) route: Route,
    pub(crate) measurements: &'a mut Measurements,
}

impl Receiver {
    pub(crate) fn new(options: ReceiveOptions, now: Instant) -> Self {
        let our_ssrc = rand::random();
        Self {
            options,
            streams: Vec::new(),
            by_ssrc: FxHashMap::default(),
            twcc: TwccReceiver::new(our_ssrc),
            next_feedback: now + FEEDBACK_INTERVAL,
            next_report: now + REPORT_INTERVAL,
            our_ssrc,
            totals: ReceiveTotals::default(),
        }
    }

    /// Takes the tracks of a new offer. Streams that are still there keep their state.
    pub(crate) fn expect(&mut self, options: ReceiveOptions, tracks: &[ExpectedTrack]) {
        self.options = options;
        for stream in &mut self.streams {
            stream.active = tracks.iter().any(|track| track.ssrc == stream.ssrc);
        }
        for track in tracks {
            let known = self.streams.iter().any(|stream| stream.ssrc == track.ssrc);
            if !known {
                let at = self.streams.len();
                self.by_ssrc.insert(track.ssrc, (at, false));
                if let Some(repair) = track.repair_ssrc {
                    self.by_ssrc.insert(repair, (at, true));
                }
                self.streams.push(ReceiveStream::new(track));
            }
        }
    }

    /// Tracks that brought nothing so far are waited for from now on.
    pub(crate) fn expect_from(&mut self, now: Instant) {
        self.streams.iter_mut().for_each(|stream| stream.expect_from(now));
    }

    /// Takes one datagram that looks like RTP.
    pub(crate) fn on_rtp(&mut self, data: &mut [u8], context: Context<'_>) {
        let Context { now, clock, peer, route, measurements } = context;
        // The padding count is encrypted: look at the header as if there were none.
        let padded = data[0] & PADDING_BIT != 0;
        data[0] &= !PADDING_BIT;
        let Ok(view) = RtpView::parse(data) else {
            self.totals.malformed += 1;
            return;
        };
        let ssrc = view.ssrc();
        let (seq, timestamp, marker) = (view.sequence_number(), view.timestamp(), view.marker());
        let arrival = Arrival { now, seq, timestamp, marker };
        let sealed_len = view.payload().len();
        self.totals.packets += 1;
        self.totals.bytes += data.len() as u64;
        if let Some(id) = self.options.transport_cc
            && let Some(&[high, low]) = view.extension(id)
        {
            self.twcc.on_packet(now, ssrc, u16::from_be_bytes([high, low]));
        }
        data[0] |= if padded { PADDING_BIT } else { 0 };

        let Some(&(at, is_repair)) = self.by_ssrc.get(&ssrc) else {
            self.totals.unknown_ssrc += 1;
            return;
        };
        let stream = &mut self.streams[at];
        if is_repair {
            let payload = open(now, peer, route, data, &mut self.totals);
            let osn = payload.and_then(<[u8]>::first_chunk::<2>).copied();
            self.totals.repair_packets += 1;
            if let Some(osn) = osn {
                stream.on_repair(u16::from_be_bytes(osn), &mut self.totals);
            }
            return;
        }
        let may_be_empty = may_be_empty(stream.kind, padded, sealed_len);
        let looked_into = match may_be_empty {
            true => match open(now, peer, route, data, &mut self.totals) {
                Some(payload) => Some(payload),
                None => return,
            },
            false => None,
        };
        let empty = looked_into.is_some_and(<[u8]>::is_empty);
        stream.on_packet(arrival, empty, &mut self.totals, measurements);
        if empty || !stream.wants_sample(self.options.sample_every) {
            return;
        }
        let payload = match looked_into {
            Some(payload) => payload,
            None => match open(now, peer, route, data, &mut self.totals) {
                Some(payload) => payload,
                None => return,
            },
        };
        let key_frame = match stream.codec {
            Some(codec) if stream.awaits_key_frame() => {
                PayloadInfo::inspect(codec, payload, marker).key_frame
            }
            _ => false,
        };
        stream.on_opened(arrival, key_frame, measurements);
        match stamp::read(payload) {
            Some(sent_us) => {
                let latency = clock.unix_us(now).saturating_sub(sent_us);
                measurements.record_latency(stream.kind == StreamKind::Audio, latency);
            }
            None => self.totals.unstamped += 1,
        }
    }

    /// Takes a decrypted RTCP compound.
    pub(crate) fn on_rtcp(&mut self, now: Instant, compound: &[u8]) {
        for packet in RtcpIter::new(compound).flatten() {
            if let Rtcp::SenderReport(report) = packet
                && let Some(&(at, false)) = self.by_ssrc.get(&report.info.ssrc)
            {
                self.streams[at].on_sender_report(now, report.info.ntp.compact());
            }
        }
    }

    /// Takes a message of a data channel.
    pub(crate) fn on_data(
        &mut self,
        now: Instant,
        clock: &Clock,
        message: &[u8],
        measurements: &mut Measurements,
    ) {
        self.totals.data_messages += 1;
        if let Ok(DataPacket { value: Some(data_packet::Value::User(user)), .. }) =
            DataPacket::decode(message)
            && let Some(sent_us) = stamp::read(&user.payload)
        {
            let latency = clock.unix_us(now).saturating_sub(sent_us);
            measurements.data_latency.record_us(latency);
        }
    }

    /// When [`poll`](Self::poll) has something.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        (!self.streams.is_empty()).then(|| self.next_feedback.min(self.next_report))
    }

    /// Appends the RTCP that is due.
    pub(crate) fn poll(&mut self, now: Instant, out: &mut Vec<u8>) {
        if now >= self.next_report {
            self.next_report = now + REPORT_INTERVAL;
            self.report(now, out);
        }
        if now < self.next_feedback {
            return;
        }
        self.next_feedback = now + FEEDBACK_INTERVAL;
        if self.options.transport_cc.is_some() {
            self.twcc.poll(now, out);
        }
        for stream in &mut self.streams {
            let seqs = stream.missing_to_request(now, &mut self.totals);
            self.totals.nacked += seqs.len() as u64;
            write::nack(out, self.our_ssrc, stream.ssrc, seqs);
            if stream.wants_key_frame(now) {
                self.totals.plis += 1;
                write::pli(out, self.our_ssrc, stream.ssrc);
            }
        }
    }

    fn report(&mut self, now: Instant, out: &mut Vec<u8>) {
        let blocks: Vec<_> =
            self.streams.iter_mut().filter_map(|stream| stream.report_block(now)).collect();
        if blocks.is_empty() {
            return;
        }
        write::receiver_report(out, self.our_ssrc, &blocks);
        if self.options.remb {
            let ssrcs: Vec<u32> = blocks.iter().map(|block| block.ssrc).collect();
            write::remb(out, self.our_ssrc, CLAIMED_BPS, &ssrcs);
        }
    }

    /// Counters so far; streams are counted as they are now.
    pub(crate) fn totals(&self, now: Instant) -> ReceiveTotals {
        let mut totals = self.totals;
        for stream in self.streams.iter().filter(|stream| stream.active) {
            totals.tracks += 1;
            totals.tracks_with_media += u64::from(stream.has_media());
            totals.lost += stream.missing_for_good(now);
        }
        totals
    }

    /// Starts to count anew.
    pub(crate) fn reset_totals(&mut self) {
        self.totals = ReceiveTotals::default();
        self.streams.iter_mut().for_each(ReceiveStream::forget_missing);
    }
}

/// Whether a packet may be a probe, which carries no frame: padding only. Packets of sound never are;
/// a frame is padded as well, to leave in one run with longer packets.
fn may_be_empty(kind: StreamKind, padded: bool, sealed_len: usize) -> bool {
    let padding = if padded && kind == StreamKind::Video { MAX_PADDING } else { 0 };
    sealed_len <= SRTP_OVERHEAD + padding
}

/// Authenticates and decrypts one packet; its payload.
fn open<'a>(
    now: Instant,
    peer: &mut Peer,
    route: Route,
    data: &'a mut [u8],
    totals: &mut ReceiveTotals,
) -> Option<&'a [u8]> {
    match peer.handle_datagram(now, route, data) {
        Received::Rtp(packet) => {
            totals.authenticated += 1;
            RtpView::parse(packet).ok().map(|view| view.payload())
        }
        _ => {
            totals.not_authentic += 1;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_packets_of_video_may_be_probes() {
        let sealed = |len| SRTP_OVERHEAD + len;
        assert!(may_be_empty(StreamKind::Video, true, sealed(255)));
        assert!(!may_be_empty(StreamKind::Video, true, sealed(256)));
        assert!(!may_be_empty(StreamKind::Video, false, sealed(1)));
        assert!(!may_be_empty(StreamKind::Audio, true, sealed(80)));
        assert!(may_be_empty(StreamKind::Audio, false, sealed(0)));
    }
}
