//! RFC vectors, and `rtc-srtp` as an independent implementation of every profile.

use proptest::prelude::*;
use rtc_srtp::context::Context;
use rtc_srtp::protection_profile::ProtectionProfile;

use super::cipher::Cipher;
use super::kdf::{self, SessionKeys};
use super::*;

const PROFILES: [(SrtpProfile, ProtectionProfile); 3] = [
    (SrtpProfile::AeadAes256Gcm, ProtectionProfile::AeadAes256Gcm),
    (SrtpProfile::AeadAes128Gcm, ProtectionProfile::AeadAes128Gcm),
    (SrtpProfile::Aes128CmSha1_80, ProtectionProfile::Aes128CmHmacSha1_80),
];

const KEY: [u8; 32] = *b"0123456789abcdefghijklmnopqrstuv";
const SALT: [u8; 14] = *b"NaClNaClNaClNa";

fn master(profile: SrtpProfile) -> MasterKey<'static> {
    MasterKey { key: &KEY[..profile.key_len()], salt: &SALT[..profile.salt_len()] }
}

fn pair(profile: SrtpProfile) -> (SrtpSender, SrtpReceiver) {
    let master = master(profile);
    (SrtpSender::new(profile, &master).unwrap(), SrtpReceiver::new(profile, &master).unwrap())
}

fn oracle(profile: ProtectionProfile) -> Context {
    let crypto = rtc_srtp::crypto::default_provider().unwrap();
    let (key, salt) = (&KEY[..profile.key_len()], &SALT[..profile.salt_len()]);
    Context::new(key, salt, profile, None, None, crypto.crypto()).unwrap()
}

/// Version 2, one CSRC and an extension of one word: 12 + 4 + 8 bytes of header.
fn rtp(seq: u16, ssrc: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x91, 0x60];
    packet.extend_from_slice(&seq.to_be_bytes());
    packet.extend_from_slice(&0x0102_0304u32.to_be_bytes());
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(&[9, 9, 9, 9, 0xBE, 0xDE, 0, 1, 0x10, 0xAA, 0, 0]);
    packet.extend_from_slice(payload);
    packet
}

const HEADER_LEN: usize = 24;

fn seal(sender: &mut SrtpSender, packet: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut buf = packet.to_vec();
    buf.resize(packet.len() + 16, 0);
    let len = sender.seal_rtp(&mut StreamSlot::default(), &mut buf, HEADER_LEN, packet.len())?;
    buf.truncate(len);
    Ok(buf)
}

fn open(receiver: &mut SrtpReceiver, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
    let mut buf = sealed.to_vec();
    let len = receiver.open_rtp(&mut buf)?;
    buf.truncate(len);
    Ok(buf)
}

fn rtcp(ssrc: u32, words: usize) -> Vec<u8> {
    let mut packet = vec![0x80, 201, 0, (words + 1) as u8];
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.resize(8 + 4 * words, 0x5A);
    packet
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| b.is_ascii_hexdigit()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn rfc_3711_b3_key_derivation() {
    let key = hex("E1F97A0D3E018BE0D64FA32C06DE4139");
    let salt = hex("0EC675AD498AFEEBB6960B3AABE6");
    let master = MasterKey { key: &key, salt: &salt };
    let keys = kdf::rtp_keys(SrtpProfile::Aes128CmSha1_80, &master).unwrap();
    assert_eq!(keys.key(), hex("C61E7A93744F39EE10734AFE3FF7A087"));
    assert_eq!(keys.salt().as_slice(), hex("30CBBC08863D8C85D49DB34A9AE1"));
    assert_eq!(keys.auth.as_slice(), hex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4"));
}

#[test]
fn rfc_7714_16_1_aes_128_gcm_packet() {
    let keys = SessionKeys::from_parts(
        &hex("000102030405060708090a0b0c0d0e0f"),
        &hex("517569642070726f2071756f"),
        [0; 20],
    );
    let cipher = Cipher::new(SrtpProfile::AeadAes128Gcm, &keys).unwrap();
    let mut packet = hex("8040f17b 8041f8d3 5501a0b2");
    packet.extend_from_slice(b"Gallia est omnis divisa in partes tres");
    let len = packet.len();
    packet.resize(len + 16, 0);
    let sealed_len = cipher.seal_rtp(0x5501_a0b2, 0xf17b, 12, len, &mut packet).unwrap();
    assert_eq!(
        packet[12..sealed_len],
        hex("f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f 42a5f47a 51c7d19b
             36de3adf 8833899d 7f27beb1 6a9152cf 765ee439 0cce")
    );
}

#[test]
fn packets_match_an_independent_implementation_both_ways() {
    for (profile, oracle_profile) in PROFILES {
        let (mut sender, mut receiver) = pair(profile);
        let (mut their_sender, mut their_receiver) =
            (oracle(oracle_profile), oracle(oracle_profile));
        // Crosses the rollover.
        for step in 0..40u16 {
            let packet =
                rtp(65_520u16.wrapping_add(step), 77, &vec![step as u8; step as usize * 31]);
            let sealed = seal(&mut sender, &packet).unwrap();
            assert_eq!(their_receiver.decrypt_rtp(&sealed).unwrap(), packet, "{profile:?}");
            let theirs = their_sender.encrypt_rtp(&packet).unwrap();
            assert_eq!(theirs, sealed, "{profile:?}");
            assert_eq!(open(&mut receiver, &theirs).unwrap(), packet);
        }
        for words in 0..30 {
            let packet = rtcp(99, words);
            let mut sealed = packet.clone();
            sender.seal_rtcp(&mut sealed).unwrap();
            assert_eq!(their_receiver.decrypt_rtcp(&sealed).unwrap(), packet, "{profile:?}");
            let mut theirs = their_sender.encrypt_rtcp(&packet).unwrap().to_vec();
            let len = receiver.open_rtcp(&mut theirs).unwrap();
            assert_eq!(theirs[..len], packet);
        }
    }
}

#[test]
fn keying_material_splits_into_client_and_server_keys() {
    let material: Vec<u8> = (0..56).collect();
    let (client, server) = split_keying_material(SrtpProfile::AeadAes128Gcm, &material).unwrap();
    assert_eq!((client.key[0], server.key[0], client.salt[0], server.salt[0]), (0, 16, 32, 44));
    assert!(split_keying_material(SrtpProfile::AeadAes256Gcm, &material).is_err());
}

#[test]
fn replayed_packets_are_refused_and_change_nothing() {
    for (profile, _) in PROFILES {
        let (mut sender, mut receiver) = pair(profile);
        let sealed = seal(&mut sender, &rtp(1, 5, b"once")).unwrap();
        assert!(open(&mut receiver, &sealed).is_ok());
        assert_eq!(open(&mut receiver, &sealed), Err(OpenError::Replay));
        let mut report = rtcp(5, 6);
        sender.seal_rtcp(&mut report).unwrap();
        assert!(receiver.open_rtcp(&mut report.clone()).is_ok());
        assert_eq!(receiver.open_rtcp(&mut report.clone()), Err(OpenError::Replay));
        let next = seal(&mut sender, &rtp(2, 5, b"next")).unwrap();
        assert!(open(&mut receiver, &next).is_ok());
    }
}

#[test]
fn tampered_packets_fail_and_do_not_move_the_rollover_counter() {
    for (profile, _) in PROFILES {
        let (mut sender, mut receiver) = pair(profile);
        let first = seal(&mut sender, &rtp(30_000, 5, b"first")).unwrap();
        let second = seal(&mut sender, &rtp(30_001, 5, b"second")).unwrap();
        open(&mut receiver, &first).unwrap();
        for at in 0..second.len() {
            let mut bad = second.clone();
            bad[at] ^= 0x04;
            assert!(open(&mut receiver, &bad).is_err(), "{profile:?} byte {at}");
        }
        assert!(open(&mut receiver, &second).is_ok(), "{profile:?}");

        let mut report = rtcp(5, 6);
        sender.seal_rtcp(&mut report).unwrap();
        for at in 0..report.len() {
            let mut bad = report.clone();
            bad[at] ^= 0x80;
            assert!(receiver.open_rtcp(&mut bad).is_err(), "{profile:?} rtcp byte {at}");
        }
        assert!(receiver.open_rtcp(&mut report).is_ok());
    }
}

#[test]
fn late_packets_around_the_rollover_are_opened_once() {
    for (profile, _) in PROFILES {
        let (mut sender, mut receiver) = pair(profile);
        let sealed: Vec<_> = (0..20u16)
            .map(|step| seal(&mut sender, &rtp(65_526u16.wrapping_add(step), 5, &[1])).unwrap())
            .collect();
        // 65526, then from behind the wrap, then the late ones from before it.
        let order = [0, 15, 19, 3, 9, 10, 4, 1, 18];
        for &at in &order {
            assert!(open(&mut receiver, &sealed[at]).is_ok(), "{profile:?} {at}");
        }
        for &at in &order {
            assert_eq!(open(&mut receiver, &sealed[at]), Err(OpenError::Replay));
        }
    }
}

#[test]
fn an_outgoing_index_is_never_used_twice() {
    let (mut sender, _) = pair(SrtpProfile::AeadAes128Gcm);
    seal(&mut sender, &rtp(10, 5, b"a")).unwrap();
    seal(&mut sender, &rtp(12, 5, b"c")).unwrap();
    assert!(seal(&mut sender, &rtp(11, 5, b"late but new")).is_ok());
    assert_eq!(seal(&mut sender, &rtp(11, 5, b"again")), Err(SealError::IndexReused));
    assert_eq!(seal(&mut sender, &rtp(12, 5, b"c")), Err(SealError::IndexReused));
    assert!(seal(&mut sender, &rtp(12, 6, b"another ssrc")).is_ok());
    seal(&mut sender, &rtp(5_000, 5, b"jump")).unwrap();
    assert_eq!(seal(&mut sender, &rtp(13, 5, b"too old to know")), Err(SealError::IndexReused));
}

#[test]
fn an_exhausted_rtcp_key_seals_nothing_more() {
    let (mut sender, mut receiver) = pair(SrtpProfile::AeadAes128Gcm);
    sender.set_next_rtcp_index(SRTCP_INDEX_END - 1);
    let mut last = rtcp(1, 2);
    sender.seal_rtcp(&mut last).unwrap();
    assert!(receiver.open_rtcp(&mut last).is_ok());
    assert_eq!(sender.seal_rtcp(&mut rtcp(1, 2)), Err(SealError::KeyExhausted));
}

#[test]
fn unencrypted_but_authenticated_rtcp_is_accepted() {
    for (profile, _) in PROFILES {
        let (_, mut receiver) = pair(profile);
        let keys = kdf::rtcp_keys(profile, &master(profile)).unwrap();
        let cipher = Cipher::new(profile, &keys).unwrap();
        let packet = rtcp(3, 4);
        let mut sealed = cipher.seal_rtcp_in_the_clear(3, 7, &packet);
        let len = receiver.open_rtcp(&mut sealed).unwrap();
        assert_eq!(sealed[..len], packet, "{profile:?}");
    }
}

#[test]
fn too_many_ssrcs_are_refused_without_harm_to_the_known_ones() {
    let (mut sender, mut receiver) = pair(SrtpProfile::AeadAes128Gcm);
    for ssrc in 0..MAX_INCOMING_STREAMS as u32 {
        let sealed = seal(&mut sender, &rtp(1, ssrc, b"x")).unwrap();
        open(&mut receiver, &sealed).unwrap();
    }
    let extra = seal(&mut sender, &rtp(1, 1_000_000, b"x")).unwrap();
    assert_eq!(open(&mut receiver, &extra), Err(OpenError::TooManyStreams));
    let known = seal(&mut sender, &rtp(2, 0, b"x")).unwrap();
    assert!(open(&mut receiver, &known).is_ok());
}

#[test]
fn a_buffer_without_room_for_the_tag_is_refused() {
    let (mut sender, _) = pair(SrtpProfile::AeadAes128Gcm);
    let mut packet = rtp(1, 5, b"x");
    let len = packet.len();
    for header_len in [HEADER_LEN, len + 1] {
        let sealed = sender.seal_rtp(&mut StreamSlot::default(), &mut packet, header_len, len);
        assert_eq!(sealed, Err(SealError::Malformed));
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_open(mut packet in prop::collection::vec(any::<u8>(), 0..80)) {
        for (profile, _) in PROFILES {
            let (_, mut receiver) = pair(profile);
            if let Some(first) = packet.first_mut() {
                *first = *first & 0x3F | 0x80;
            }
            prop_assert!(receiver.open_rtp(&mut packet.clone()).is_err());
            prop_assert!(receiver.open_rtcp(&mut packet.clone()).is_err());
        }
    }
}
