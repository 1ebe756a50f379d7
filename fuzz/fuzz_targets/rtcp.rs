//! RTCP compound: every packet and every list inside is walked to its end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_rtp::{Rtcp, RtcpIter};

fuzz_target!(|compound: &[u8]| {
    let mut packets = 0;
    for packet in RtcpIter::new(compound) {
        packets += 1;
        let Ok(packet) = packet else { continue };
        walk(packet);
    }
    assert!(packets <= compound.len() / 4 + 1);
});

fn walk(packet: Rtcp<'_>) {
    match packet {
        Rtcp::SenderReport(report) => {
            report.info.ntp.to_unix();
            assert_eq!(report.blocks.iter().count(), report.blocks.len());
        }
        Rtcp::ReceiverReport(report) => {
            assert_eq!(report.blocks.iter().count(), report.blocks.len());
        }
        Rtcp::Sdes(sdes) => {
            for chunk in sdes.chunks() {
                chunk.items().count();
                chunk.cname();
            }
        }
        Rtcp::Bye(bye) => {
            bye.ssrcs().count();
            bye.reason();
        }
        Rtcp::Nack(nack) => {
            nack.seqs().count();
        }
        Rtcp::TransportCc(feedback) => {
            assert_eq!(feedback.statuses().count(), usize::from(feedback.status_count));
        }
        Rtcp::Fir(fir) => {
            fir.entries().count();
        }
        Rtcp::Remb(remb) => {
            remb.ssrcs().count();
        }
        Rtcp::ExtendedReport(report) => {
            report.blocks().count();
        }
        Rtcp::Pli(_) | Rtcp::Other { .. } => {}
    }
}
