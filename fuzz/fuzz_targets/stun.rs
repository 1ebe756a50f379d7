//! STUN messages: the parser, the ufrag that demultiplexing reads, and messages that are written
//! from what was read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_transport::stun::{
    BindingRequest, Class, IceRole, IntegrityKey, Message, peek_ufrag, write_success,
};

fuzz_target!(|datagram: &[u8]| {
    let ufrag = peek_ufrag(datagram);
    let Ok(message) = Message::parse(datagram) else { return };
    let key = IntegrityKey::new("0123456789abcdefghijklmn");
    message.verify(&key);
    if message.class == Class::Request && message.is_binding() {
        let local = message.username.and_then(|name| name.split_once(':'));
        // The peek reads behind MESSAGE-INTEGRITY, too; what it finds there fails later.
        assert!(local.is_none() || ufrag == local.map(|(local, _)| local));
    } else {
        assert_eq!(ufrag, None);
    }

    let mut out = Vec::new();
    if let Some(username) = message.username {
        let request = BindingRequest {
            transaction_id: message.transaction_id(),
            username,
            role: IceRole::Controlling(message.ice_controlling.unwrap_or(1)),
            priority: message.priority.unwrap_or(0),
            use_candidate: message.use_candidate,
        };
        request.write(&key, &mut out);
        let read = Message::parse(&out).expect("a written request");
        assert!(read.verify(&key) && read.is_binding());
        assert_eq!(read.username, Some(username));
        assert_eq!(read.use_candidate, message.use_candidate);
        assert_eq!(peek_ufrag(&out), username.split_once(':').map(|(local, _)| local));
    }
    if let Some(mapped) = message.mapped_address {
        write_success(&message.transaction_id(), mapped, &key, &mut out);
        let read = Message::parse(&out).expect("a written response").mapped_address;
        assert_eq!(read.map(|addr| addr.ip()), Some(mapped.ip().to_canonical()));
    }
});
