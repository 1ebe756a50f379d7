//! Which media section, simulcast layer and role an SSRC of a peer has.
//!
//! SSRCs that the SDP announced are known from the start; others are learned from the `mid`,
//! `rtp-stream-id` and `repaired-rtp-stream-id` header extensions (RFC 8843 §15, RFC 8852), and, for
//! senders without them, from a payload type that only one section uses. Once an SSRC is known,
//! a packet costs one look-up.

use rustc_hash::FxHashMap;
use sluice_rtp::ext::{ExtensionKind, ExtensionMap};
use sluice_rtp::packet::RtpView;

use crate::drop_reason::DropReason;
use crate::packet::MAX_LAYERS;

/// SSRCs that one peer can have bound by header extensions. Firefox and `replaceTrack` bring new
/// ones now and then; a peer that invents them endlessly evicts only its own.
const MAX_LEARNED: usize = 128;

/// One section on which the peer may send.
#[derive(Debug, Clone, Default)]
pub struct BinderSection {
    /// `a=mid`.
    pub mid: String,
    /// Simulcast rids, lowest layer first; empty without rids.
    pub rids: Vec<String>,
    /// Announced `(media, rtx)` SSRCs, lowest layer first.
    pub ssrcs: Vec<(u32, Option<u32>)>,
    /// Payload types of media.
    pub media_pts: Vec<u8>,
    /// Payload types of RTX.
    pub rtx_pts: Vec<u8>,
    /// Negotiated header extension ids.
    pub extensions: ExtensionMap,
}

/// What an SSRC carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamBinding {
    /// Index of the section in the list given to [`StreamBinder::configure`].
    pub section: u16,
    /// Simulcast layer, 0 = lowest.
    pub layer: u8,
    /// Whether it is the retransmission stream of the layer.
    pub rtx: bool,
}

/// The SSRCs of one peer.
#[derive(Debug, Default)]
pub struct StreamBinder {
    sections: Vec<BinderSection>,
    bound: FxHashMap<u32, StreamBinding>,
    learned: Vec<u32>,
}

impl StreamBinder {
    /// Sets the sections after a negotiation. What was learned stays for sections whose `mid` is
    /// still there, under their new index.
    pub fn configure(&mut self, sections: Vec<BinderSection>) {
        let old = std::mem::replace(&mut self.sections, sections);
        let new = &self.sections;
        self.bound.retain(|_, binding| {
            let mid = old.get(usize::from(binding.section)).map(|s| s.mid.as_str());
            let index = new.iter().position(|s| Some(s.mid.as_str()) == mid);
            index.is_some_and(|index| {
                binding.section = index as u16;
                true
            })
        });
        for (index, section) in self.sections.iter().enumerate() {
            for (layer, (ssrc, rtx)) in section.ssrcs.iter().take(MAX_LAYERS).enumerate() {
                let binding =
                    StreamBinding { section: index as u16, layer: layer as u8, rtx: false };
                // With rids the order of SSRCs says nothing; the extension decides.
                if section.rids.len() > 1 {
                    continue;
                }
                self.bound.insert(*ssrc, binding);
                if let Some(rtx) = rtx {
                    self.bound.insert(*rtx, StreamBinding { rtx: true, ..binding });
                }
            }
        }
        let bound = &self.bound;
        self.learned.retain(|ssrc| bound.contains_key(ssrc));
    }

    /// The sections, as configured.
    pub fn sections(&self) -> &[BinderSection] {
        &self.sections
    }

    /// Finds what a packet belongs to, learning from its extensions.
    ///
    /// # Errors
    /// [`DropReason::UnknownSsrc`] if nothing tells where it belongs (yet).
    pub fn resolve(&mut self, view: &RtpView<'_>) -> Result<StreamBinding, DropReason> {
        if let Some(binding) = self.bound.get(&view.ssrc()) {
            return Ok(*binding);
        }
        let binding = self.learn(view).ok_or(DropReason::UnknownSsrc)?;
        self.bind(view.ssrc(), binding);
        Ok(binding)
    }

    /// What an SSRC is known as, for RTCP.
    pub fn lookup(&self, ssrc: u32) -> Option<StreamBinding> {
        self.bound.get(&ssrc).copied()
    }

    fn learn(&self, view: &RtpView<'_>) -> Option<StreamBinding> {
        let (index, section) = self.find_section(view)?;
        let rtx = section.rtx_pts.contains(&view.payload_type());
        let layer = if section.rids.is_empty() {
            // A second stream of a section with announced layers cannot be placed without a rid.
            let placed = section.ssrcs.len() <= 1;
            placed.then_some(0)
        } else {
            let kind = if rtx { ExtensionKind::RepairedRid } else { ExtensionKind::Rid };
            match text(view, &section.extensions, kind) {
                Some(rid) => section.rids.iter().position(|r| r == rid),
                None => (section.rids.len() == 1).then_some(0),
            }
        }?;
        if layer >= MAX_LAYERS {
            return None;
        }
        Some(StreamBinding { section: index as u16, layer: layer as u8, rtx })
    }

    fn find_section(&self, view: &RtpView<'_>) -> Option<(usize, &BinderSection)> {
        let pt = view.payload_type();
        let takes = |s: &BinderSection| s.media_pts.contains(&pt) || s.rtx_pts.contains(&pt);
        let sections = || self.sections.iter().enumerate();
        let by_mid = sections().find(|(_, section)| {
            text(view, &section.extensions, ExtensionKind::Mid) == Some(section.mid.as_str())
        });
        if by_mid.is_some() {
            return by_mid.filter(|(_, section)| takes(section));
        }
        let mid_sent = sections()
            .any(|(_, section)| text(view, &section.extensions, ExtensionKind::Mid).is_some());
        if mid_sent {
            return None;
        }
        let mut candidates = sections().filter(|(_, section)| takes(section));
        candidates.next().filter(|_| candidates.next().is_none())
    }

    fn bind(&mut self, ssrc: u32, binding: StreamBinding) {
        // A new SSRC of a layer replaces the learned one that it had.
        let replaced = self.learned.iter().position(|old| self.bound.get(old) == Some(&binding));
        let evicted = replaced.or_else(|| (self.learned.len() >= MAX_LEARNED).then_some(0));
        if let Some(index) = evicted {
            let old = self.learned.remove(index);
            self.bound.remove(&old);
        }
        self.learned.push(ssrc);
        self.bound.insert(ssrc, binding);
    }
}

/// Text of a header extension.
fn text<'a>(view: &RtpView<'a>, map: &ExtensionMap, kind: ExtensionKind) -> Option<&'a str> {
    sluice_rtp::ext::parse_text(view.extension(map.id(kind)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::RtpBytes;

    const MID: u8 = 1;
    const RID: u8 = 2;
    const RRID: u8 = 3;

    fn extensions() -> ExtensionMap {
        [(ExtensionKind::Mid, MID), (ExtensionKind::Rid, RID), (ExtensionKind::RepairedRid, RRID)]
            .into_iter()
            .collect()
    }

    fn video(mid: &str, rids: &[&str]) -> BinderSection {
        BinderSection {
            mid: mid.into(),
            rids: rids.iter().map(|r| (*r).to_owned()).collect(),
            media_pts: vec![96],
            rtx_pts: vec![97],
            extensions: extensions(),
            ..BinderSection::default()
        }
    }

    fn audio(mid: &str) -> BinderSection {
        BinderSection {
            mid: mid.into(),
            media_pts: vec![111],
            extensions: extensions(),
            ..BinderSection::default()
        }
    }

    fn resolve(
        binder: &mut StreamBinder,
        ssrc: u32,
        pt: u8,
        extensions: &[(u8, &[u8])],
    ) -> Option<(u16, u8, bool)> {
        let bytes = RtpBytes { pt, ssrc, ..RtpBytes::default() }.build(extensions, b"x");
        let view = RtpView::parse(&bytes).expect("the test wrote a valid packet");
        binder.resolve(&view).ok().map(|b| (b.section, b.layer, b.rtx))
    }

    #[test]
    fn rids_are_layers_in_the_order_of_the_config() {
        for rids in [["q", "h", "f"], ["2", "1", "0"]] {
            let mut binder = StreamBinder::default();
            binder.configure(vec![audio("0"), video("1", &rids)]);
            for (layer, rid) in rids.iter().enumerate() {
                let ssrc = 100 + layer as u32;
                let media = [(MID, &b"1"[..]), (RID, rid.as_bytes())];
                let rtx = [(MID, &b"1"[..]), (RRID, rid.as_bytes())];
                assert_eq!(resolve(&mut binder, ssrc, 96, &media), Some((1, layer as u8, false)));
                assert_eq!(resolve(&mut binder, ssrc + 50, 97, &rtx), Some((1, layer as u8, true)));
                // Known from now on without extensions.
                assert_eq!(resolve(&mut binder, ssrc, 96, &[]), Some((1, layer as u8, false)));
            }
        }
    }

    #[test]
    fn announced_ssrcs_need_no_extension_and_are_layers_in_order() {
        let mut binder = StreamBinder::default();
        let ssrcs = vec![(1, Some(11)), (2, Some(12)), (3, None)];
        binder.configure(vec![BinderSection { ssrcs, ..video("0", &[]) }]);
        assert_eq!(resolve(&mut binder, 2, 96, &[]), Some((0, 1, false)));
        assert_eq!(resolve(&mut binder, 12, 97, &[]), Some((0, 1, true)));
        assert_eq!(resolve(&mut binder, 99, 96, &[]), None);
    }

    #[test]
    fn a_payload_type_of_one_section_only_is_enough() {
        let mut binder = StreamBinder::default();
        binder.configure(vec![audio("0"), video("1", &[])]);
        assert_eq!(resolve(&mut binder, 5, 111, &[]), Some((0, 0, false)));
        binder.configure(vec![audio("0"), audio("1")]);
        assert_eq!(resolve(&mut binder, 6, 111, &[]), None);
    }

    #[test]
    fn an_unknown_mid_or_rid_binds_nothing() {
        let mut binder = StreamBinder::default();
        binder.configure(vec![video("1", &["q", "h"])]);
        assert_eq!(resolve(&mut binder, 5, 96, &[(MID, b"7")]), None);
        assert_eq!(resolve(&mut binder, 5, 96, &[(MID, b"1"), (RID, b"zz")]), None);
        assert_eq!(resolve(&mut binder, 5, 96, &[(MID, b"1")]), None);
        assert_eq!(resolve(&mut binder, 5, 50, &[(MID, b"1"), (RID, b"q")]), None);
    }

    #[test]
    fn a_new_ssrc_replaces_the_learned_one_of_its_layer() {
        let mut binder = StreamBinder::default();
        binder.configure(vec![video("1", &["q", "h"])]);
        for ssrc in 0..10_000 {
            let bound = resolve(&mut binder, ssrc, 96, &[(MID, b"1"), (RID, b"q")]);
            assert_eq!(bound, Some((0, 0, false)));
        }
        assert_eq!(binder.bound.len(), 1);
    }

    #[test]
    fn what_was_learned_survives_a_negotiation_that_keeps_the_section() {
        let mut binder = StreamBinder::default();
        binder.configure(vec![audio("0"), video("1", &["q"])]);
        resolve(&mut binder, 5, 96, &[(MID, b"1"), (RID, b"q")]);
        resolve(&mut binder, 6, 111, &[(MID, b"0")]);
        binder.configure(vec![video("1", &["q"])]);
        assert_eq!(binder.lookup(5).map(|b| b.section), Some(0));
        assert_eq!(binder.lookup(6), None);
    }
}
