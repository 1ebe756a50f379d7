//! An open signal socket: a reader that hands the client's messages to the room, and a writer that
//! carries the room's messages out.
//!
//! The room never waits for either. Its messages wait in the session's bounded queue; when that
//! overflows the session is over, and when a write makes no progress the socket is. Pings are
//! answered here; the room hears of one now and then.

use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use sluice_control::{CloseReason, SessionOutput, SharedResponse, TokenClaims};
use sluice_proto::signal_request::Message as Request;
use sluice_proto::signal_response::Message as Response;
use sluice_proto::{Pong, RoomMovedResponse, SignalRequest};
use tokio::sync::{mpsc, oneshot};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_websockets::{CloseCode, Error, Message as Frame};

use super::frame::{Encoding, decode_request, encode_response};
use crate::host::{HostedSession, SessionHost, SessionSink, SessionSource};
use crate::server::{Shared, unix_time};
use crate::stats::SignalStats;
use crate::token::{Claims, REFRESH_TOKEN_TTL, VideoGrant, kind_name, mint};
use crate::websocket::{PingLimit, WebSocket};

/// Interval of WebSocket pings, which keep proxies from closing an idle connection.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// A connection on which something was written since so long needs no ping: clients of today ping
/// every 5 s and are answered.
const IDLE_AFTER: Duration = Duration::from_secs(5);

/// A client that was heard within this is not reported to the room for a mere ping. With a ping
/// every 5 s the room hears of each client at least every 10 s; it calls one silent after 15 s.
const HEARD_INTERVAL: Duration = Duration::from_secs(9);

/// A write without progress for so long ends the socket.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Budget for what is queued at the end, and for the client's own close frame.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(250);

/// Answers of this module that may wait for the writer.
const LOCAL_QUEUE: usize = 16;

/// Frames that leave in one system call at most. The library writes earlier when they are long.
const WRITE_BATCH: usize = 8;

/// A session that is ready for its socket.
pub(super) struct Opening<H: SessionHost> {
    pub(super) session: HostedSession<H>,
    pub(super) first: SharedResponse,
    pub(super) api_key: String,
}

/// Encoding of the last frame of the client, in which it gets its answers.
#[derive(Clone, Default)]
struct LastEncoding(Arc<AtomicBool>);

impl LastEncoding {
    fn set(&self, encoding: Encoding) {
        self.0.store(encoding == Encoding::Json, Ordering::Relaxed);
    }

    fn get(&self) -> Encoding {
        if self.0.load(Ordering::Relaxed) { Encoding::Json } else { Encoding::Protobuf }
    }
}

/// Whether the writer goes on; if not, the code to close with, `None` when nobody would read it.
type Step = ControlFlow<Option<CloseCode>>;

/// Why the reader stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadEnd {
    /// The client closed.
    Gone,
    /// The connection broke, or its frames cannot be followed any more.
    Broken,
    /// The room is over.
    RoomOver,
    /// The client sent something that ends the connection with this close code.
    Refused(CloseCode),
    /// Like `Refused`, but what follows cannot be told apart any more, or has no end, and must not be read.
    Unreadable(CloseCode),
}

/// Counts an open socket for as long as it lives, whatever ends it.
struct OpenSocket(Arc<SignalStats>);

impl OpenSocket {
    fn count(stats: Arc<SignalStats>) -> Self {
        stats.sockets_open.add();
        stats.sockets_opened.add();
        Self(stats)
    }
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.0.sockets_open.sub();
    }
}

/// Runs the socket until either side ends it.
pub(super) async fn run<H: SessionHost>(socket: WebSocket, opening: Opening<H>, shared: Shared<H>) {
    let stats = shared.stats().clone();
    let _open = OpenSocket::count(stats.clone());
    let Opening { session, first, api_key } = opening;
    let HostedSession { participant_sid, requests, responses } = session;
    tracing::debug!(participant = participant_sid, "signal socket open");
    let (sink, stream) = socket.split();
    let (local, local_queue) = mpsc::channel(LOCAL_QUEUE);
    let (reader_ends, reader_ended) = oneshot::channel();
    let max_message_size = shared.max_message_size();
    let written = Instant::now();
    let encoding = LastEncoding::default();
    let reader = Reader {
        requests,
        local,
        encoding: encoding.clone(),
        stats,
        max_message_size,
        heard: None,
    };
    let writer =
        Writer { sink, responses, local_queue, encoding, shared, api_key, written, unflushed: 0 };

    let reading = reader.run(stream, reader_ends);
    let writing = writer.run(first, reader_ended);
    let mut reading = pin!(reading);
    let mut writing = pin!(writing);
    tokio::select! {
        // The close frame is out: leave the client a moment to answer it.
        () = &mut writing => { let _ = timeout(DRAIN_TIMEOUT, reading).await; }
        () = &mut reading => writing.await,
    }
    tracing::debug!(participant = participant_sid, "signal socket closed");
}

/// Client to room.
struct Reader<S> {
    requests: S,
    local: mpsc::Sender<SharedResponse>,
    encoding: LastEncoding,
    stats: Arc<SignalStats>,
    max_message_size: usize,
    /// When the room heard of the client.
    heard: Option<Instant>,
}

impl<S: SessionSink> Reader<S> {
    async fn run(mut self, mut stream: SplitStream<WebSocket>, ends: oneshot::Sender<ReadEnd>) {
        let end = self.read(&mut stream).await;
        // Tells the room that the connection is gone.
        drop(self.requests);
        // The writer may have ended before.
        let _ = ends.send(end);
        if matches!(end, ReadEnd::Gone | ReadEnd::Refused(_)) {
            // Reading on sends the answer to a close frame, and lets ours arrive.
            let drain = async { while let Some(Ok(_)) = stream.next().await {} };
            let _ = timeout(DRAIN_TIMEOUT, drain).await;
        }
    }

    async fn read(&mut self, stream: &mut SplitStream<WebSocket>) -> ReadEnd {
        // While its latest message lives, the library's read buffer cannot grow back to the size of
        // that: it begins a small one, and the large one goes with the message.
        let mut latest = None;
        let mut pings = PingLimit::default();
        while let Some(frame) = stream.next().await {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => return self.read_error(&error),
            };
            if !pings.admits(Instant::now().into_std(), &frame) {
                self.stats.closed_flood.add();
                return ReadEnd::Unreadable(CloseCode::POLICY_VIOLATION);
            }
            let payload = frame.as_payload();
            let step = match () {
                () if frame.is_binary() => self.request(Encoding::Protobuf, payload).await,
                () if frame.is_text() => self.request(Encoding::Json, payload).await,
                () if frame.is_close() => ControlFlow::Break(ReadEnd::Gone),
                // The WebSocket layer answers pings by itself.
                () => ControlFlow::Continue(()),
            };
            if let ControlFlow::Break(end) = step {
                return end;
            }
            drop(latest.replace(frame));
        }
        ReadEnd::Broken
    }

    fn read_error(&self, error: &Error) -> ReadEnd {
        if matches!(error, Error::PayloadTooLong { .. }) {
            self.stats.closed_oversize.add();
            return ReadEnd::Unreadable(CloseCode::MESSAGE_TOO_BIG);
        }
        tracing::debug!(%error, "signal socket broke");
        ReadEnd::Broken
    }

    async fn request(&mut self, encoding: Encoding, payload: &[u8]) -> ControlFlow<ReadEnd> {
        if payload.len() > self.max_message_size {
            self.stats.closed_oversize.add();
            return ControlFlow::Break(ReadEnd::Refused(CloseCode::MESSAGE_TOO_BIG));
        }
        self.encoding.set(encoding);
        self.stats.messages_received.add();
        let request = match decode_request(encoding, payload) {
            Ok(request) => request,
            Err(error) => {
                self.stats.closed_malformed.add();
                tracing::debug!(%error, "malformed signal message");
                return ControlFlow::Break(ReadEnd::Refused(CloseCode::INVALID_FRAME_PAYLOAD_DATA));
            }
        };
        let is_ping = self.answer_ping(&request);
        if request.message.is_none() {
            self.stats.messages_unknown.add();
            return ControlFlow::Continue(());
        }
        let now = Instant::now();
        if is_ping && self.heard.is_some_and(|at| now - at < HEARD_INTERVAL) {
            return ControlFlow::Continue(());
        }
        self.heard = Some(now);
        if !self.requests.send(request).await {
            return ControlFlow::Break(ReadEnd::RoomOver);
        }
        ControlFlow::Continue(())
    }

    /// Whether it was a ping.
    fn answer_ping(&self, request: &SignalRequest) -> bool {
        let response = match &request.message {
            Some(Request::Ping(_)) => Response::Pong(unix_millis()),
            Some(Request::PingReq(ping)) => Response::PongResp(Pong {
                last_ping_timestamp: ping.timestamp,
                timestamp: unix_millis(),
            }),
            _ => return false,
        };
        if self.local.try_send(SharedResponse::new(response)).is_err() {
            self.stats.pongs_dropped.add();
        }
        true
    }
}

/// Room to client.
struct Writer<H: SessionHost> {
    sink: SplitSink<WebSocket, Frame>,
    responses: H::Responses,
    local_queue: mpsc::Receiver<SharedResponse>,
    encoding: LastEncoding,
    shared: Shared<H>,
    api_key: String,
    /// When something was written last.
    written: Instant,
    /// Frames that wait for those behind them.
    unflushed: usize,
}

impl<H: SessionHost> Writer<H> {
    /// Returns when nothing more is to be written.
    async fn run(mut self, first: SharedResponse, mut reader_ended: oneshot::Receiver<ReadEnd>) {
        let mut said_leave = is_leave(&first);
        let mut step = self.respond(&first).await;
        // It names everybody in the room.
        drop(first);
        let mut pings = interval_at(first_ping(), PING_INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let close = loop {
            if step.is_continue() {
                step = self.flush_unless_more().await;
            }
            if let ControlFlow::Break(close) = step {
                break close;
            }
            step = tokio::select! {
                end = &mut reader_ended => {
                    ControlFlow::Break(self.reader_ended(end.unwrap_or(ReadEnd::Broken)).await)
                }
                output = self.responses.next() => self.output(output, &mut said_leave).await,
                Some(response) = self.local_queue.recv() => self.respond(&response).await,
                _ = pings.tick() => self.ping_if_idle().await,
            };
        };
        if let Some(code) = close {
            let frame = Frame::close(Some(code), "");
            // The client may be gone already.
            let _ = timeout(DRAIN_TIMEOUT, self.sink.send(frame)).await;
        }
    }

    async fn output(&mut self, output: Option<SessionOutput>, said_leave: &mut bool) -> Step {
        match output {
            Some(SessionOutput::Message(response)) => {
                *said_leave = is_leave(&response);
                self.respond(&response).await
            }
            Some(SessionOutput::RefreshToken(claims)) => {
                self.with_token(&claims, Response::RefreshToken).await
            }
            Some(SessionOutput::RoomMoved(moved)) => {
                let (claims, moved) = *moved;
                self.with_token(&claims, |token| {
                    Response::RoomMoved(RoomMovedResponse { token, ..moved })
                })
                .await
            }
            Some(SessionOutput::Close(reason)) => {
                ControlFlow::Break(Some(self.close_code(reason, *said_leave)))
            }
            // The room let go without a word: the queue overflowed.
            None => ControlFlow::Break(Some(self.close_code(CloseReason::Overflow, *said_leave))),
        }
    }

    /// What to close with, after the reader has ended.
    async fn reader_ended(&mut self, end: ReadEnd) -> Option<CloseCode> {
        match end {
            ReadEnd::Gone | ReadEnd::Broken => None,
            ReadEnd::Refused(code) | ReadEnd::Unreadable(code) => Some(code),
            ReadEnd::RoomOver => {
                let _ = timeout(DRAIN_TIMEOUT, self.drain()).await;
                Some(CloseCode::NORMAL_CLOSURE)
            }
        }
    }

    /// Writes what the room said before it was over.
    async fn drain(&mut self) {
        loop {
            match self.responses.next().await {
                Some(SessionOutput::Message(response)) => {
                    if self.respond(&response).await.is_break() {
                        return;
                    }
                }
                // Of no use any more.
                Some(SessionOutput::RefreshToken(_) | SessionOutput::RoomMoved(_)) => {}
                Some(SessionOutput::Close(_)) | None => return,
            }
        }
    }

    /// Clients take 1000 as the wanted end and do not come back by themselves; without a `Leave`
    /// that says what to do they must see something else.
    fn close_code(&self, reason: CloseReason, said_leave: bool) -> CloseCode {
        match reason {
            CloseReason::Left(_) | CloseReason::Replaced => CloseCode::NORMAL_CLOSURE,
            CloseReason::Resume if said_leave => CloseCode::NORMAL_CLOSURE,
            CloseReason::Resume => CloseCode::GOING_AWAY,
            CloseReason::Abnormal => CloseCode::INTERNAL_SERVER_ERROR,
            CloseReason::Overflow => {
                self.shared.stats().closed_overflow.add();
                // 1013, try again later.
                CloseCode::SERVICE_OVERLOAD
            }
        }
    }

    /// Sends a message that carries a new token.
    async fn with_token(
        &mut self,
        claims: &TokenClaims,
        message: impl FnOnce(String) -> Response,
    ) -> Step {
        let (keys, claims) = (self.shared.keys(), refreshed(claims));
        match mint(keys, &self.api_key, &claims, REFRESH_TOKEN_TTL, unix_time()) {
            Ok(token) => self.respond(&SharedResponse::new(message(token))).await,
            Err(error) => {
                tracing::warn!(%error, "cannot refresh a token");
                ControlFlow::Continue(())
            }
        }
    }

    async fn respond(&mut self, response: &SharedResponse) -> Step {
        match encode_response(self.encoding.get(), response) {
            Ok(frame) => {
                self.shared.stats().messages_sent.add();
                self.write(frame).await
            }
            Err(error) => {
                self.shared.stats().encode_failures.add();
                tracing::error!(%error, "cannot write a signal response");
                ControlFlow::Continue(())
            }
        }
    }

    async fn ping_if_idle(&mut self) -> Step {
        if self.written.elapsed() < IDLE_AFTER {
            return ControlFlow::Continue(());
        }
        self.write(Frame::ping(Bytes::new())).await
    }

    /// Queues a frame; [`Self::flush_unless_more`] has to follow.
    async fn write(&mut self, frame: Frame) -> Step {
        self.written = Instant::now();
        self.unflushed += 1;
        let fed = timeout(WRITE_TIMEOUT, self.sink.feed(frame)).await;
        self.progress(&fed)
    }

    /// Writes what is queued, unless more of it is there already: a room says several things at once,
    /// and each write is a system call here and a wake-up of the client.
    async fn flush_unless_more(&mut self) -> Step {
        let more = self.unflushed < WRITE_BATCH && self.responses.has_next();
        if self.unflushed == 0 || more {
            return ControlFlow::Continue(());
        }
        self.unflushed = 0;
        let flushed = timeout(WRITE_TIMEOUT, self.sink.flush()).await;
        self.progress(&flushed)
    }

    fn progress(&self, written: &Result<Result<(), Error>, Elapsed>) -> Step {
        match written {
            Ok(Ok(())) => ControlFlow::Continue(()),
            // The reader sees the same and says it better.
            Ok(Err(_)) => ControlFlow::Break(None),
            Err(_) => {
                self.shared.stats().closed_stalled.add();
                ControlFlow::Break(None)
            }
        }
    }
}

/// The next whole second after the interval: the pings of all sockets leave together, which wakes
/// an idle server once a second and not once for each.
fn first_ping() -> Instant {
    let into_second = Duration::from_nanos(unix_time().subsec_nanos().into());
    Instant::now() + PING_INTERVAL + (Duration::from_secs(1) - into_second)
}

fn is_leave(response: &SharedResponse) -> bool {
    matches!(response.response(), Some(Response::Leave(_)))
}

fn refreshed(claims: &TokenClaims) -> Claims {
    Claims {
        identity: claims.identity.clone(),
        name: claims.name.clone(),
        kind: kind_name(claims.kind),
        metadata: claims.metadata.clone(),
        attributes: claims.attributes.clone(),
        video: Some(VideoGrant::from(&claims.grants)),
        ..Claims::default()
    }
}

fn unix_millis() -> i64 {
    unix_time().as_millis() as i64
}
