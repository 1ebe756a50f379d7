//! `/agent`: the socket of one worker. Its first message registers it; then messages flow both ways.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use prost::Message as _;
use sluice_proto::json::{self, JsonError};
use sluice_proto::server_message::Message as ToWorker;
use sluice_proto::worker_message::Message as FromWorker;
use sluice_proto::{RegisterWorkerRequest, ServerMessage, WorkerMessage, WorkerPong};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout, timeout_at};
use tokio_websockets::{CloseCode, Message as Frame};

use super::hub::WorkerId;
use super::task::Input;
use super::{AgentStats, Agents};
use crate::auth::Caller;
use crate::error::HttpError;
use crate::rtc::{Encoding, FrameError};
use crate::server::{Shared, unix_time};
use crate::websocket::{PingLimit, Upgrade, WebSocket};

/// A worker registers within this time (LiveKit's `RegisterTimeout`).
const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);

/// Messages that may wait for one worker.
const MESSAGE_QUEUE: usize = 1024;

/// Keeps the connection alive through proxies, and tells a dead one.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// A worker from which nothing came for this long is gone: three pings without a pong.
const SILENCE: Duration = Duration::from_secs(35);

/// A write that takes longer has met a dead connection.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections so far, over all servers of the process.
static LAST_WORKER: AtomicU64 = AtomicU64::new(0);

/// `GET /agent` with an upgrade to WebSocket.
pub(crate) async fn connect<H>(
    State(shared): State<Shared<H>>,
    Extension(caller): Extension<Caller>,
    upgrade: Upgrade,
) -> Response {
    let Some(agents) = shared.agents().cloned() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let token =
        caller.token().filter(|token| token.claims.video.as_ref().is_some_and(|video| video.agent));
    let Some(token) = token else {
        return HttpError::unauthorized("no permissions to access the room").into_response();
    };
    let api_key = token.api_key.clone();
    let max_size = shared.max_agent_message_size();
    let failed = |error| tracing::debug!(%error, "upgrade failed");
    upgrade.open(max_size, failed, move |socket| run(socket, agents, api_key))
}

/// Reads the payload of one data frame; `None` is a message that this server does not know.
///
/// # Errors
/// See [`FrameError`].
pub fn decode_worker_message(
    encoding: Encoding,
    payload: &[u8],
) -> Result<Option<FromWorker>, FrameError> {
    Ok(match encoding {
        Encoding::Protobuf => WorkerMessage::decode(payload)?.message,
        Encoding::Json => json::from_json::<WorkerMessage>(payload)?.message,
    })
}

async fn run(socket: WebSocket, agents: Agents, api_key: String) {
    let (sink, mut stream) = socket.split();
    let (encoding, pings) = (Encoding::default(), PingLimit::default());
    let mut reader = Reader { stream: &mut stream, encoding, pings };
    let mut writer = Writer { sink, encoding };
    let Some(request) = registration(&mut reader, &mut writer).await else {
        return writer.close(CloseCode::POLICY_VIOLATION).await;
    };
    let id = WorkerId(LAST_WORKER.fetch_add(1, Ordering::Relaxed));
    let (messages, outgoing) = mpsc::channel(MESSAGE_QUEUE);
    let request = Box::new(request);
    let register = Input::Register { id, api_key, request, messages: messages.clone() };
    if agents.inputs.send(register).await.is_err() {
        return writer.close(CloseCode::GOING_AWAY).await;
    }
    let (encodings, encoding) = tokio::sync::watch::channel(reader.encoding);
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(write(writer, outgoing, encoding));
    // Ends when the worker is gone, or when the hub has dropped its way to it.
    let inputs = agents.inputs.clone();
    let reading = read(&mut reader, id, &inputs, messages.downgrade(), encodings, &agents.stats);
    drop(messages);
    tokio::select! {
        () = reading => {}
        _ = tasks.join_next() => {}
    }
    // Full only for a moment: the task never waits.
    let _ = agents.inputs.send(Input::Gone { id }).await;
    // A writer with a farewell to say says it.
    let _ = timeout(WRITE_TIMEOUT, async { while tasks.join_next().await.is_some() {} }).await;
}

struct Reader<'a> {
    stream: &'a mut SplitStream<WebSocket>,
    encoding: Encoding,
    pings: PingLimit,
}

impl Reader<'_> {
    /// The next message; `Ok(None)` for frames without one, an error at the end.
    async fn next(&mut self) -> Result<Option<FromWorker>, ()> {
        let frame = match self.stream.next().await {
            Some(Ok(frame)) if !frame.is_close() => frame,
            Some(_) | None => return Err(()),
        };
        if !self.pings.admits(Instant::now().into_std(), &frame) {
            tracing::warn!("worker floods its connection with pings");
            return Err(());
        }
        let encoding = match () {
            () if frame.is_binary() => Encoding::Protobuf,
            () if frame.is_text() => Encoding::Json,
            () => return Ok(None),
        };
        self.encoding = encoding;
        let message = decode_worker_message(encoding, frame.as_payload());
        message.map_err(|error| tracing::warn!(%error, "worker sent a malformed message"))
    }
}

/// The registration, which must come in time; pings may come before.
async fn registration(
    reader: &mut Reader<'_>,
    writer: &mut Writer,
) -> Option<RegisterWorkerRequest> {
    let deadline = Instant::now() + REGISTER_TIMEOUT;
    loop {
        match timeout_at(deadline, reader.next()).await.ok()?.ok()? {
            Some(FromWorker::Register(request)) => return Some(request),
            Some(FromWorker::Ping(ping)) => {
                writer.encoding = reader.encoding;
                writer.send(pong(ping.timestamp)).await.ok()?;
            }
            Some(_) => return None,
            None => {}
        }
    }
}

async fn read(
    reader: &mut Reader<'_>,
    id: WorkerId,
    inputs: &mpsc::Sender<Input>,
    messages: mpsc::WeakSender<ToWorker>,
    encodings: tokio::sync::watch::Sender<Encoding>,
    stats: &AgentStats,
) {
    loop {
        let message = match timeout(SILENCE, reader.next()).await {
            Ok(Ok(message)) => message,
            Ok(Err(())) => return,
            Err(_) => {
                stats.workers_silent.add();
                return;
            }
        };
        encodings.send_if_modified(|current| {
            std::mem::replace(current, reader.encoding) != reader.encoding
        });
        match message {
            // A second registration breaks the protocol.
            Some(FromWorker::Register(_)) => return,
            Some(FromWorker::Ping(ping)) => {
                // A full queue answers later pings; the hub ends what does not read.
                let Some(messages) = messages.upgrade() else { return };
                let _ = messages.try_send(pong(ping.timestamp));
            }
            Some(message) => {
                let message = Box::new(message);
                if inputs.send(Input::Message { id, message }).await.is_err() {
                    return;
                }
            }
            None => {}
        }
    }
}

/// Writes what the hub sends, and pings, until the hub drops its end.
async fn write(
    mut writer: Writer,
    mut outgoing: mpsc::Receiver<ToWorker>,
    encoding: tokio::sync::watch::Receiver<Encoding>,
) {
    let mut pings = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let sent = tokio::select! {
            message = outgoing.recv() => match message {
                Some(message) => {
                    writer.encoding = *encoding.borrow();
                    writer.send(message).await
                }
                None => return writer.close(CloseCode::NORMAL_CLOSURE).await,
            },
            _ = pings.tick() => writer.write(Frame::ping(Bytes::new())).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

struct Writer {
    sink: SplitSink<WebSocket, Frame>,
    encoding: Encoding,
}

impl Writer {
    async fn send(&mut self, message: ToWorker) -> Result<(), ()> {
        match encode(self.encoding, message) {
            Ok(frame) => self.write(frame).await,
            Err(error) => {
                tracing::error!(%error, "cannot write a message to a worker");
                Ok(())
            }
        }
    }

    async fn write(&mut self, frame: Frame) -> Result<(), ()> {
        match timeout(WRITE_TIMEOUT, self.sink.send(frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(()),
        }
    }

    async fn close(&mut self, code: CloseCode) {
        let _ = self.write(Frame::close(Some(code), "")).await;
    }
}

fn encode(encoding: Encoding, message: ToWorker) -> Result<Frame, JsonError> {
    let message = ServerMessage { message: Some(message) };
    Ok(match encoding {
        Encoding::Protobuf => Frame::binary(message.encode_to_vec()),
        Encoding::Json => Frame::text(json::to_camel(&message)?),
    })
}

fn pong(last_timestamp: i64) -> ToWorker {
    let timestamp = unix_time().as_millis().try_into().unwrap_or(i64::MAX);
    ToWorker::Pong(WorkerPong { last_timestamp, timestamp })
}
