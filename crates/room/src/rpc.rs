//! `PerformRpc` of the server API: the server calls a method of a participant, over the same data
//! packets that participants use among themselves, with an id of its own as the caller's identity.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use prost::Message;
use rand::Rng;
use sluice_proto as proto;
use sluice_proto::data_packet::Value;
use sluice_proto::rpc_response;

use crate::error::ApiError;
use crate::outputs::Output;
use crate::packet::{Destinations, Rewritten};
use crate::participant::ParticipantKey;
use crate::room::Room;
use crate::timers::Timer;

/// Largest payload either way, bytes (LiveKit's `DataChannelRpcMaxPayloadBytes`).
const MAX_PAYLOAD: usize = 15 * 1024;

/// The participant acknowledges a call within this time (LiveKit's maximum round trip).
const ACK_TIMEOUT: Duration = Duration::from_secs(2);

/// A call without a timeout of its own gets this one (LiveKit's).
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Calls under way per room.
const MAX_CALLS: usize = 1000;

/// Version of the calls that we make: payloads within the packet.
const VERSION: u32 = 1;

/// A call under way. Unique within a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RpcId(pub u64);

/// Why a call failed: LiveKit's codes and texts, which SDKs know.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RpcError {
    code: u32,
    message: String,
    data: String,
}

impl RpcError {
    fn built_in(code: u32, message: &str) -> Self {
        Self { code, message: message.to_owned(), data: String::new() }
    }
}

impl From<RpcError> for ApiError {
    fn from(error: RpcError) -> Self {
        let RpcError { code, message, data } = error;
        let data = if data.is_empty() { data } else { format!(": {data}") };
        let text = format!("RpcError {code}: {message}{data}");
        match code {
            1400 => Self::InvalidArgument(text),
            1402 | 1504 => Self::Malformed(text),
            1501 | 1502 => Self::Canceled(text),
            1503 => Self::Gone(text),
            _ => Self::Internal(text),
        }
    }
}

/// Calls under way.
#[derive(Debug, Default)]
pub(crate) struct Rpcs {
    calls: BTreeMap<RpcId, Call>,
    last: u64,
}

#[derive(Debug)]
struct Call {
    /// What the participant knows the call, and the caller, by.
    id: String,
    callee: ParticipantKey,
    /// When an answer is too late; `None` until the call is acknowledged.
    acknowledged: bool,
    until: Instant,
}

impl Room {
    /// Starts a call; [`Output::RpcDone`] says how it ended.
    ///
    /// # Errors
    /// No such participant, the payload is too large, or too many calls are under way.
    pub fn perform_rpc(
        &mut self,
        now: Instant,
        request: &proto::PerformRpcRequest,
    ) -> Result<RpcId, ApiError> {
        let callee = self.key_of(&request.destination_identity)?;
        if request.payload.len() > MAX_PAYLOAD {
            return Err(RpcError::built_in(1402, "Request payload too large").into());
        }
        if self.rpcs.calls.len() >= MAX_CALLS {
            return Err(ApiError::ResourceExhausted(format!(
                "more than {MAX_CALLS} calls at once"
            )));
        }
        let timeout = match request.response_timeout_ms {
            0 => DEFAULT_TIMEOUT,
            ms => Duration::from_millis(ms.into()),
        };
        self.rpcs.last += 1;
        let rpc = RpcId(self.rpcs.last);
        let id = self.new_uuid();
        let call = proto::RpcRequest {
            id: id.clone(),
            method: request.method.clone(),
            payload: request.payload.clone(),
            response_timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
            version: VERSION,
            ..proto::RpcRequest::default()
        };
        let packet = proto::DataPacket {
            participant_identity: id.clone(),
            destination_identities: vec![request.destination_identity.clone()],
            value: Some(Value::RpcRequest(call)),
            ..proto::DataPacket::default()
        };
        let packet = Rewritten {
            payload: packet.encode_to_vec().into(),
            destinations: Destinations {
                identities: vec![request.destination_identity.clone()],
                sids: Vec::new(),
            },
            sequence: 0,
            metrics: false,
        };
        let until = now + timeout;
        self.rpcs.calls.insert(rpc, Call { id, callee, acknowledged: false, until });
        self.timers.set(Timer::Rpc(rpc), until.min(now + ACK_TIMEOUT));
        self.deliver(None, true, &packet);
        Ok(rpc)
    }

    /// Takes a packet that answers one of our calls. False: it is for somebody else.
    pub(crate) fn rpc_received(&mut self, from: ParticipantKey, packet: &Rewritten) -> bool {
        let [caller] = packet.destinations.identities.as_slice() else { return false };
        let call = self.rpcs.calls.iter_mut().find(|(_, call)| call.id == *caller);
        let Some((&rpc, call)) = call.filter(|(_, call)| call.callee == from) else { return false };
        let Ok(packet) = proto::DataPacket::decode(packet.payload.clone()) else { return false };
        match packet.value {
            Some(Value::RpcAck(_)) => {
                call.acknowledged = true;
                let until = call.until;
                self.timers.set(Timer::Rpc(rpc), until);
            }
            Some(Value::RpcResponse(response)) => self.rpc_done(rpc, answer(response)),
            _ => {}
        }
        true
    }

    pub(crate) fn rpc_timed_out(&mut self, rpc: RpcId) {
        let Some(call) = self.rpcs.calls.get(&rpc) else { return };
        let error = if call.acknowledged {
            RpcError::built_in(1502, "Response timeout")
        } else {
            RpcError::built_in(1501, "Connection timeout")
        };
        self.rpc_done(rpc, Err(error));
    }

    /// Calls to someone who left get no answer any more.
    pub(crate) fn end_rpcs_to(&mut self, callee: ParticipantKey) {
        let its = self.rpcs.calls.iter().filter(|(_, call)| call.callee == callee);
        let its: Vec<RpcId> = its.map(|(rpc, _)| *rpc).collect();
        for rpc in its {
            self.rpc_done(rpc, Err(RpcError::built_in(1503, "Recipient disconnected")));
        }
    }

    fn rpc_done(&mut self, rpc: RpcId, result: Result<String, RpcError>) {
        if self.rpcs.calls.remove(&rpc).is_some() {
            self.timers.cancel(Timer::Rpc(rpc));
            self.out.push(Output::RpcDone { rpc, result: result.map_err(ApiError::from) });
        }
    }

    /// A random UUID (RFC 9562 version 4).
    fn new_uuid(&mut self) -> String {
        let mut bytes = [0; 16];
        self.rng.fill_bytes(&mut bytes);
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
        parts.join("-")
    }
}

fn answer(response: proto::RpcResponse) -> Result<String, RpcError> {
    match response.value {
        Some(rpc_response::Value::Payload(payload)) => Ok(payload),
        Some(rpc_response::Value::Error(error)) => {
            Err(RpcError { code: error.code, message: error.message, data: error.data })
        }
        _ => Err(RpcError::built_in(1500, "Application error in method handler")),
    }
}
