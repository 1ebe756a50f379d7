//! SRTP and SRTCP. The first byte chooses profile and protocol, the second a byte to damage, the
//! rest is a packet: it must not open as it is, must open once after sealing, and not when damaged.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_transport::srtp::{
    OpenError, SrtpProfile, SrtpReceiver, SrtpSender, StreamSlot, split_keying_material,
};

const PROFILES: [SrtpProfile; 3] =
    [SrtpProfile::AeadAes256Gcm, SrtpProfile::AeadAes128Gcm, SrtpProfile::Aes128CmSha1_80];

fuzz_target!(|input: &[u8]| {
    let [choice, damage, packet @ ..] = input else { return };
    let profile = PROFILES[usize::from(choice >> 1) % PROFILES.len()];
    let material: Vec<u8> = (0..profile.keying_material_len() as u8).collect();
    let (master, _) = split_keying_material(profile, &material).expect("the right length");
    let mut sender = SrtpSender::new(profile, &master).expect("valid keys");
    let mut receiver = SrtpReceiver::new(profile, &master).expect("valid keys");
    if choice & 1 == 0 {
        rtp(&mut sender, &mut receiver, packet, usize::from(*damage));
    } else {
        rtcp(&mut sender, &mut receiver, packet, usize::from(*damage));
    }
});

fn rtp(sender: &mut SrtpSender, receiver: &mut SrtpReceiver, packet: &[u8], damage: usize) {
    let plain = receiver.open_rtp(&mut packet.to_vec());
    assert!(plain.is_err());
    if plain == Err(OpenError::Malformed) {
        return;
    }
    // The header parses, so its length is one of these.
    let mut header_len = 12 + 4 * usize::from(packet[0] & 0x0F);
    if packet[0] & 0x10 != 0 {
        let words = u16::from_be_bytes([packet[header_len + 2], packet[header_len + 3]]);
        header_len += 4 + 4 * usize::from(words);
    }
    let mut sealed = packet.to_vec();
    sealed.resize(packet.len() + 16, 0);
    let mut slot = StreamSlot::default();
    let sealing = sender.seal_rtp(&mut slot, &mut sealed, header_len, packet.len());
    let len = sealing.expect("a first index");
    sealed.truncate(len);

    let mut damaged = sealed.clone();
    let at = damage % damaged.len();
    damaged[at] ^= 0x10;
    assert!(receiver.open_rtp(&mut damaged).is_err());
    let mut opened = sealed.clone();
    let len = receiver.open_rtp(&mut opened).expect("our own packet");
    assert_eq!(&opened[..len], packet);
    assert_eq!(receiver.open_rtp(&mut sealed), Err(OpenError::Replay));
}

fn rtcp(sender: &mut SrtpSender, receiver: &mut SrtpReceiver, packet: &[u8], damage: usize) {
    assert!(receiver.open_rtcp(&mut packet.to_vec()).is_err());
    let mut sealed = packet.to_vec();
    if sender.seal_rtcp(&mut sealed).is_err() {
        return;
    }
    let mut damaged = sealed.clone();
    let at = damage % damaged.len();
    damaged[at] ^= 0x10;
    assert!(receiver.open_rtcp(&mut damaged).is_err());
    let mut opened = sealed.clone();
    let len = receiver.open_rtcp(&mut opened).expect("our own packet");
    assert_eq!(&opened[..len], packet);
    assert_eq!(receiver.open_rtcp(&mut sealed), Err(OpenError::Replay));
}
