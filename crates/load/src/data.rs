//! Data packets that carry a send time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sluice_proto::{DataPacket, Message, UserPacket, data_packet};

use crate::stamp::{self, STAMP_LEN};

/// A user packet of about `bytes` bytes, stamped now.
pub(crate) fn message(bytes: usize, reliable: bool) -> Vec<u8> {
    let now: Duration = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut payload = vec![0xA5; bytes.max(STAMP_LEN)];
    stamp::write(&mut payload, 0, now.as_micros() as u64);
    let user = UserPacket { payload: payload.into(), ..UserPacket::default() };
    let kind = i32::from(!reliable);
    let value = Some(data_packet::Value::User(user));
    #[allow(deprecated, reason = "clients still send it")]
    DataPacket { kind, value, ..DataPacket::default() }.encode_to_vec()
}
