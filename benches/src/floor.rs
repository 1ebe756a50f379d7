//! The floor: what the machine charges for sending packets to many receivers when nothing is decided
//! about them. One copy into a send arena, AES-128-GCM over the payload in place, and one run per
//! receiver and batch to a real loopback socket: with UDP GSO when there are several packets, and
//! several receivers in one system call, as the server's egress does it.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::Context;
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde::Serialize;
use sluice_load::own_cpu_time;
use sluice_net::{BindOptions, SendArena, UdpEndpoint};

/// RTP header with one extension, as the server sends it, bytes.
const HEADER: usize = 20;
/// GCM tag, bytes.
const TAG: usize = 16;
/// Receivers whose runs are sent together.
const TOGETHER: usize = 16;
/// Socket buffer of the sender.
const SEND_BUFFER: usize = 4 << 20;

/// What to measure.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct FloorCase {
    /// Receivers, each with a socket.
    pub receivers: usize,
    /// Packets that wait for each receiver when it is flushed.
    pub batch: usize,
    /// Payload bytes of each packet.
    pub payload: usize,
}

/// CPU time per packet, nanoseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Floor {
    /// What was measured.
    pub case: FloorCase,
    /// Copy and seal alone.
    pub seal_ns: f64,
    /// Copy, seal and send, kernel included.
    pub total_ns: f64,
    /// Packets that the kernel took.
    pub packets: u64,
}

/// Measures one case for about `duration`. The receivers' buffers fill up and the kernel drops what
/// does not fit: a receiver that reads would cost CPU of this process.
///
/// # Errors
/// Sockets or the cipher cannot be made.
pub fn measure(case: FloorCase, duration: Duration) -> anyhow::Result<Floor> {
    let receivers: Vec<UdpSocket> = (0..case.receivers)
        .map(|_| UdpSocket::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()
        .context("receivers")?;
    let addresses: Vec<SocketAddr> =
        receivers.iter().map(UdpSocket::local_addr).collect::<Result<_, _>>()?;
    let mut socket = UdpEndpoint::bind(BindOptions {
        addr: "127.0.0.1:0".parse()?,
        reuse_port: false,
        recv_buffer_bytes: 64 * 1024,
        send_buffer_bytes: SEND_BUFFER,
    })?;
    let key = UnboundKey::new(&AES_128_GCM, &[7; 16]).ok().context("AES-128-GCM")?;
    let mut work = Work {
        case,
        source: vec![0x5A; HEADER + case.payload],
        key: LessSafeKey::new(key),
        arena: SendArena::new(TOGETHER * case.batch * (HEADER + case.payload + TAG + 64)),
        counter: 0,
    };
    let half = duration / 2;
    let (seal_time, sealed) = timed(half, || {
        for _ in &addresses {
            work.arena.clear();
            work.fill()?;
        }
        Ok(())
    })?;
    let segments = socket.max_segments();
    let mut parcels = Vec::with_capacity(TOGETHER);
    let (total_time, rounds) =
        timed(half, || {
            for addresses in addresses.chunks(TOGETHER) {
                work.arena.clear();
                parcels.clear();
                for address in addresses {
                    work.fill()?;
                    parcels.extend(work.arena.close().map(|parcel| (*address, parcel)));
                }
                let arena = &work.arena;
                socket.send_many(parcels.iter().flat_map(|(to, parcel)| {
                    arena.runs_of(parcel, segments).map(|run| (*to, run))
                }));
            }
            Ok(())
        })?;
    let per_round = (case.receivers * case.batch) as f64;
    let nanos = |time: Duration, rounds: u64| time.as_nanos() as f64 / (rounds as f64 * per_round);
    Ok(Floor {
        case,
        seal_ns: nanos(seal_time, sealed),
        total_ns: nanos(total_time, rounds),
        packets: socket.counters().datagrams_out,
    })
}

struct Work {
    case: FloorCase,
    source: Vec<u8>,
    key: LessSafeKey,
    arena: SendArena,
    counter: u64,
}

impl Work {
    /// One receiver's batch: copies and seals each packet.
    fn fill(&mut self) -> anyhow::Result<()> {
        let len = self.source.len();
        for _ in 0..self.case.batch {
            self.counter += 1;
            let tail = self.arena.tail();
            tail[..len].copy_from_slice(&self.source);
            let mut nonce = [0; 12];
            nonce[4..].copy_from_slice(&self.counter.to_be_bytes());
            let (header, payload) = tail[..len].split_at_mut(HEADER);
            let tag = self
                .key
                .seal_in_place_separate_tag(
                    Nonce::assume_unique_for_key(nonce),
                    Aad::from(&*header),
                    payload,
                )
                .ok()
                .context("sealing")?;
            tail[len..len + TAG].copy_from_slice(tag.as_ref());
            self.arena.commit(len + TAG);
        }
        Ok(())
    }
}

/// Runs rounds for a while; CPU time and rounds.
fn timed(
    duration: Duration,
    mut round: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<(Duration, u64)> {
    round()?;
    let (start, cpu) = (Instant::now(), own_cpu_time());
    let mut rounds = 0;
    while start.elapsed() < duration {
        round()?;
        rounds += 1;
    }
    Ok((own_cpu_time().saturating_sub(cpu), rounds))
}
