//! A scalable encoder for tests: frames of `LxTy`, `LxTy_KEY` with their dependencies, written as
//! real packets with dependency descriptors.

use std::time::Instant;

use sluice_rtp::codec::{Codec, PayloadInfo};
use sluice_rtp::dd::write::write;
use sluice_rtp::dd::{
    ChainDiffs, Custom, DependencyDescriptor, Dti, Dtis, FrameDiffs, MAX_DECODE_TARGETS, MAX_LEN,
    Mandatory, Structure, Template,
};
use sluice_rtp::packet::RtpView;

use crate::body::PacketBody;
use crate::descriptor::StructureTracker;
use crate::packet::{ByteRange, LayerSet, MediaPacket};
use crate::test_util::{RtpBytes, media_packet};

const DD_ID: u8 = 12;

/// RTP ticks from picture to picture.
pub(crate) const PICTURE_TICKS: u32 = 3_000;

/// Shape of a scalable stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mode {
    pub(crate) spatial: u8,
    pub(crate) temporal: u8,
    /// `_KEY`: a layer refers to the one below in key pictures only.
    pub(crate) key: bool,
}

/// A frame that was encoded.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) number: u64,
    pub(crate) picture: u32,
    pub(crate) spatial: u8,
    pub(crate) temporal: u8,
    /// Numbers of the frames that it refers to.
    pub(crate) refs: Vec<u64>,
}

/// A packet on the wire.
#[derive(Debug, Clone)]
pub(crate) struct WirePacket {
    pub(crate) frame: u64,
    pub(crate) ext_seq: u64,
    timestamp: u32,
    marker: bool,
    descriptor: Vec<u8>,
}

impl WirePacket {
    /// Its dependency descriptor.
    pub(crate) fn descriptor(&self) -> &[u8] {
        &self.descriptor
    }

    /// Changes its dependency descriptor.
    pub(crate) fn corrupt(&mut self, at: usize, by: u8) {
        let len = self.descriptor.len();
        self.descriptor[at % len] ^= by;
    }
}

#[derive(Debug)]
pub(crate) struct Encoder {
    pub(crate) mode: Mode,
    structure: Structure,
    /// Targets that are produced.
    pub(crate) active: u32,
    mask_pending: bool,
    next_number: u64,
    next_seq: u64,
    picture: u32,
    /// Position in the temporal pattern.
    position: usize,
    /// Last frame per spatial and temporal layer.
    last: [[u64; 3]; 3],
    /// Last frame of each chain.
    chains: [u64; 3],
    pub(crate) frames: Vec<Frame>,
}

impl Encoder {
    pub(crate) fn new(mode: Mode, first_number: u16) -> Self {
        let structure = structure(mode, 0);
        Self {
            mode,
            active: structure.all_targets(),
            mask_pending: false,
            structure,
            next_number: (1 << 16) + u64::from(first_number),
            next_seq: 100_000,
            picture: 0,
            position: 0,
            last: [[0; 3]; 3],
            chains: [0; 3],
            frames: Vec::new(),
        }
    }

    /// Produces only the spatial layers up to `highest`; the next key frame says so.
    pub(crate) fn limit_spatial(&mut self, highest: u8) {
        let targets = u32::from(highest + 1) * u32::from(self.mode.temporal);
        self.active = (1 << targets) - 1;
        self.mask_pending = true;
    }

    /// Encodes a picture, each frame of `packets_per_frame` packets.
    pub(crate) fn picture(&mut self, key: bool, packets_per_frame: usize) -> Vec<WirePacket> {
        let pattern: &[u8] = match self.mode.temporal {
            1 => &[0],
            2 => &[0, 1],
            _ => &[0, 2, 1, 2],
        };
        if key {
            self.position = 0;
            let offset = self.structure.template_id_offset + self.structure.templates.len() as u8;
            self.structure = structure(self.mode, offset % 64);
        }
        let temporal = pattern[self.position % pattern.len()];
        let second_half = self.position % 4 == 3;
        self.position += 1;
        self.picture += 1;
        let layers = (0..self.mode.spatial).filter(|s| self.is_active(*s)).collect::<Vec<_>>();
        let mut packets = Vec::new();
        for spatial in layers.iter().copied() {
            let is_last = layers.last() == Some(&spatial);
            self.frame(
                spatial,
                temporal,
                key,
                second_half,
                packets_per_frame,
                is_last,
                &mut packets,
            );
        }
        packets
    }

    fn is_active(&self, spatial: u8) -> bool {
        self.active & (1 << (spatial * self.mode.temporal)) != 0
    }

    #[allow(clippy::too_many_arguments, reason = "one call")]
    fn frame(
        &mut self,
        spatial: u8,
        temporal: u8,
        key: bool,
        second_half: bool,
        count: usize,
        is_last: bool,
        out: &mut Vec<WirePacket>,
    ) {
        let number = self.next_number;
        self.next_number += 1;
        let (s, t) = (usize::from(spatial), usize::from(temporal));
        let mut refs = Vec::new();
        if !key {
            refs.push(match (temporal, second_half) {
                (2, true) => self.last[s][1],
                _ => self.last[s][0],
            });
        }
        if spatial > 0 && (key || !self.mode.key) {
            refs.push(number - 1);
        }
        let chain_diffs = (0..self.mode.spatial).map(|c| match key && spatial == 0 {
            true => 0,
            false => (number - self.chains[usize::from(c)]) as u8,
        });
        let mut chains = ChainDiffs::default();
        chain_diffs.for_each(|diff| chains.push(diff).expect("three chains"));
        let mut diffs = FrameDiffs::default();
        refs.iter().for_each(|r| diffs.push((number - r) as u16).expect("two references"));

        let template = template_index(self.mode, spatial, temporal, key);
        let template_id = (template as u8 + self.structure.template_id_offset) % 64;
        for index in 0..count {
            let mandatory = Mandatory {
                start_of_frame: index == 0,
                end_of_frame: index + 1 == count,
                template_id,
                frame_number: number as u16,
            };
            let mut dd = DependencyDescriptor::from_template(mandatory, &self.structure)
                .expect("the template exists");
            dd.frame_diffs = diffs;
            dd.chain_diffs = chains;
            dd.custom = Custom { dtis: false, frame_diffs: true, chain_diffs: true };
            dd.has_structure = key && spatial == 0 && index == 0;
            if dd.has_structure || (self.mask_pending && index == 0) {
                dd.active_targets = Some(self.active);
                self.mask_pending = false;
            }
            let mut bytes = [0; MAX_LEN];
            let len = write(&dd, &self.structure, &mut bytes).expect("it can be written");
            out.push(WirePacket {
                frame: number,
                ext_seq: self.next_seq,
                timestamp: self.picture * PICTURE_TICKS,
                marker: is_last && index + 1 == count,
                descriptor: bytes[..len].to_vec(),
            });
            self.next_seq += 1;
        }
        self.frames.push(Frame { number, picture: self.picture, spatial, temporal, refs });
        self.last[s][t] = number;
        if key {
            self.last[s] = [number; 3];
        }
        for chain in 0..self.mode.spatial {
            let belongs = if key || !self.mode.key { spatial <= chain } else { spatial == chain };
            if temporal == 0 && belongs {
                self.chains[usize::from(chain)] = number;
            }
        }
    }
}

/// Receives packets as a `TrackReceiver` does.
#[derive(Debug, Default)]
pub(crate) struct Ingress {
    structures: StructureTracker,
    highest: u64,
}

impl Ingress {
    pub(crate) fn receive(&mut self, now: Instant, wire: &WirePacket) -> MediaPacket {
        let described = self.structures.parse(&wire.descriptor);
        let header = RtpBytes {
            seq: wire.ext_seq as u16,
            timestamp: wire.timestamp,
            marker: wire.marker,
            ..RtpBytes::default()
        };
        let bytes = header.build(&[(DD_ID, &wire.descriptor)], &[0x55; 20]);
        let view = RtpView::parse(&bytes).expect("the test wrote a valid packet");
        let range = view.extension_range(DD_ID).map(ByteRange::from);
        let payload = ByteRange::from(view.payload_range());
        let mandatory = Mandatory::parse(&wire.descriptor).expect("three bytes");
        let newer = self.highest.saturating_sub(wire.ext_seq) as u16;
        self.highest = self.highest.max(wire.ext_seq);
        let info = PayloadInfo {
            key_frame: wire.descriptor.get(3).is_some_and(|flags| flags & 0x80 != 0),
            start_of_frame: mandatory.start_of_frame,
            end_of_frame: mandatory.end_of_frame,
            ..PayloadInfo::default()
        };
        MediaPacket {
            body: PacketBody::from_slice(&bytes),
            codec: Codec::Av1,
            newer,
            marker: wire.marker,
            payload,
            info,
            dependency_descriptor: range,
            described,
            live_layers: LayerSet::single(0),
            ..media_packet(now, 0, wire.ext_seq, wire.timestamp)
        }
    }
}

fn template_index(mode: Mode, spatial: u8, temporal: u8, key: bool) -> usize {
    let per_layer = usize::from(mode.temporal) + 1;
    usize::from(spatial) * per_layer + if key { 0 } else { usize::from(temporal) + 1 }
}

/// Templates per spatial layer: its key frame, then its frame of each temporal layer.
fn structure(mode: Mode, template_id_offset: u8) -> Structure {
    let Mode { spatial, temporal, .. } = mode;
    let mut templates = Vec::new();
    for s in 0..spatial {
        templates.push(template(mode, s, 0, true));
        templates.extend((0..temporal).map(|t| template(mode, s, t, false)));
    }
    let mut protected_by = [0; MAX_DECODE_TARGETS];
    for target in 0..spatial * temporal {
        protected_by[usize::from(target)] = target / temporal;
    }
    Structure {
        template_id_offset,
        decode_targets: spatial * temporal,
        templates,
        chains: spatial,
        protected_by,
        resolutions: None,
    }
}

fn template(mode: Mode, spatial: u8, temporal: u8, key: bool) -> Template {
    let mut dtis = Dtis::default();
    for target_spatial in 0..mode.spatial {
        for target_temporal in 0..mode.temporal {
            let below = spatial < target_spatial;
            let belongs = spatial == target_spatial || (below && (key || !mode.key));
            dtis.push(match temporal {
                _ if !belongs || temporal > target_temporal => Dti::NotPresent,
                _ if key => Dti::Switch,
                _ if below => Dti::Required,
                0 => Dti::Switch,
                _ if temporal == target_temporal => Dti::Discardable,
                _ => Dti::Switch,
            });
        }
    }
    let mut chain_diffs = ChainDiffs::default();
    (0..mode.spatial).for_each(|_| chain_diffs.push(0).expect("three chains"));
    Template {
        spatial_id: spatial,
        temporal_id: temporal,
        dtis,
        frame_diffs: FrameDiffs::default(),
        chain_diffs,
    }
}
