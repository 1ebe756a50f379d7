//! Rewriting of data packets: whatever comes out of a valid packet is a valid packet from the
//! sender that the server knows. The first byte chooses reliability and kind of sender.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use prost::Message;
use sluice_proto::DataPacket;
use sluice_room::packet::{Sender, rewrite};

fuzz_target!(|input: &[u8]| {
    let Some((&choice, packet)) = input.split_first() else { return };
    let sender = Sender { sid: "PA_sender", identity: "sender", agent: choice & 2 != 0 };
    let Ok(rewritten) = rewrite(&Bytes::copy_from_slice(packet), choice & 1 != 0, &sender) else {
        return;
    };
    if DataPacket::decode(packet).is_err() {
        return;
    }
    let decoded = DataPacket::decode(rewritten.payload).expect("a valid packet stays valid");
    assert_eq!(decoded.participant_sid, "PA_sender");
    assert_eq!(decoded.sequence, rewritten.sequence);
    if !sender.agent {
        assert_eq!(decoded.participant_identity, "sender");
    }
});
