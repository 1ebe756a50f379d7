//! Dependency descriptors: structures, templates, custom fields and the rewritten mask.

use proptest::prelude::*;
use sluice_rtp::dd::write::write;
use sluice_rtp::dd::{
    ChainDiffs, Custom, DdError, DependencyDescriptor, Dti, Dtis, FrameDiffs, MAX_LEN, Mandatory,
    Resolution, Structure, Template, rewrite_active_targets,
};

use Dti::{Discardable as D, NotPresent as N, Required as R, Switch as S};

fn template(
    spatial_id: u8,
    temporal_id: u8,
    dtis: &[Dti],
    frame_diffs: &[u16],
    chain_diffs: &[u8],
) -> Template {
    Template {
        spatial_id,
        temporal_id,
        dtis: dtis.iter().copied().collect(),
        frame_diffs: diffs(frame_diffs),
        chain_diffs: chains(chain_diffs),
    }
}

fn diffs(values: &[u16]) -> FrameDiffs {
    let mut diffs = FrameDiffs::default();
    values.iter().for_each(|value| diffs.push(*value).unwrap());
    diffs
}

fn chains(values: &[u8]) -> ChainDiffs {
    let mut chains = ChainDiffs::default();
    values.iter().for_each(|value| chains.push(*value).unwrap());
    chains
}

/// L2T2: two spatial, two temporal layers, four decode targets, two chains.
fn l2t2() -> Structure {
    let mut protected_by = [0; 32];
    protected_by[..4].copy_from_slice(&[0, 0, 1, 1]);
    let mut resolutions = [Resolution::default(); 4];
    resolutions[0] = Resolution { width: 320, height: 180 };
    resolutions[1] = Resolution { width: 640, height: 360 };
    Structure {
        template_id_offset: 62,
        decode_targets: 4,
        templates: vec![
            template(0, 0, &[S, S, S, S], &[], &[0, 0]),
            template(0, 0, &[S, S, R, R], &[4], &[4, 3]),
            template(0, 1, &[N, D, N, R], &[2], &[2, 1]),
            template(1, 0, &[N, N, S, S], &[1], &[1, 1]),
            template(1, 0, &[N, N, S, S], &[4, 1], &[1, 1]),
            template(1, 1, &[N, N, N, D], &[2, 1], &[3, 2]),
        ],
        chains: 2,
        protected_by,
        resolutions: Some(resolutions),
    }
}

fn mandatory(template_id: u8) -> Mandatory {
    Mandatory { start_of_frame: true, end_of_frame: false, template_id, frame_number: 0x1234 }
}

fn key_frame(structure: &Structure) -> DependencyDescriptor {
    let mandatory = mandatory(structure.template_id_offset);
    let mut descriptor = DependencyDescriptor::from_template(mandatory, structure).unwrap();
    descriptor.has_structure = true;
    descriptor
}

fn bytes(descriptor: &DependencyDescriptor, structure: &Structure) -> Vec<u8> {
    let mut out = [0xFF; MAX_LEN];
    let len = write(descriptor, structure, &mut out).unwrap();
    out[..len].to_vec()
}

/// A one-layer structure written bit by bit after the specification's syntax tables.
#[test]
fn structure_bits_follow_the_specification() {
    let bits = concat!(
        "1",
        "1",
        "000001",
        "0000000000000101", // start, end, template 1, frame 5
        "1",
        "0",
        "0",
        "0",
        "0", // structure present, nothing else
        "000000",
        "00001", // offset 0, two decode targets
        "00",
        "01",
        "11", // template 1: same layer; template 2: next temporal; end
        "10",
        "10", // template 0: switch, switch
        "11",
        "10", // template 1: required, switch
        "00",
        "01", // template 2: not present, discardable
        "0",
        "1",
        "0001",
        "0",
        "1",
        "0000",
        "1",
        "0010",
        "0",  // differences: none; 2; 1 and 3
        "10", // one chain: ns(3) of 1
        // protected by: ns(1) takes no bits
        "0000",
        "0010",
        "0001", // chain differences of the templates
        "1",
        "0000001001111111",
        "0000000010110011", // 640 x 180
    );
    let data: Vec<u8> = bits
        .as_bytes()
        .chunks(8)
        .map(|byte| byte.iter().enumerate().fold(0, |v, (i, b)| v | ((b - b'0') << (7 - i))))
        .collect();
    let (descriptor, structure) = DependencyDescriptor::parse(&data, None).unwrap();
    let structure = structure.unwrap();
    assert_eq!(structure.decode_targets, 2);
    assert_eq!(
        structure.templates,
        [
            template(0, 0, &[S, S], &[], &[0]),
            template(0, 0, &[R, S], &[2], &[2]),
            template(0, 1, &[N, D], &[1, 3], &[1]),
        ]
    );
    assert_eq!(structure.resolutions.unwrap()[0], Resolution { width: 640, height: 180 });
    assert_eq!(structure.target_layers(0), Some((0, 0)));
    assert_eq!(structure.target_layers(1), Some((0, 1)));
    assert_eq!(descriptor.mandatory.frame_number, 5);
    assert_eq!(descriptor.frame_diffs.as_slice(), [2]);
    assert_eq!(descriptor.active_targets, Some(0b11));

    let mut out = [0; MAX_LEN];
    let len = write(&descriptor, &structure, &mut out).unwrap();
    assert_eq!(out[..len], data);
}

#[test]
fn a_structure_is_read_back_and_then_known() {
    let structure = l2t2();
    let data = bytes(&key_frame(&structure), &structure);
    let (descriptor, received) = DependencyDescriptor::parse(&data, None).unwrap();
    assert_eq!(received.as_ref(), Some(&structure));
    assert!(descriptor.has_structure);
    assert_eq!(descriptor.active_targets, Some(0b1111));

    // Template ids wrap at 64: offset 62, so template 5 has id 3.
    let delta = DependencyDescriptor::from_template(mandatory(3), &structure).unwrap();
    let data = bytes(&delta, &structure);
    assert_eq!(data.len(), 3);
    let (descriptor, received) = DependencyDescriptor::parse(&data, Some(&structure)).unwrap();
    assert_eq!(received, None);
    assert_eq!((descriptor.spatial_id, descriptor.temporal_id), (1, 1));
    assert_eq!(descriptor.dtis.iter().collect::<Vec<_>>(), [N, N, N, D]);
    assert_eq!(descriptor.chain_diffs.as_slice(), [3, 2]);
    assert_eq!(descriptor.active_targets, None);
}

#[test]
fn decode_targets_know_their_layers() {
    let structure = l2t2();
    let layers: Vec<_> = (0..5).map(|target| structure.target_layers(target)).collect();
    assert_eq!(layers, [Some((0, 0)), Some((0, 1)), Some((1, 0)), Some((1, 1)), None]);
    assert_eq!(structure.spatial_layers(), 2);
}

#[test]
fn without_a_structure_only_the_mandatory_fields_are_read() {
    let data = [0x80 | 7, 0x12, 0x34];
    assert_eq!(DependencyDescriptor::parse(&data, None).unwrap_err(), DdError::NoStructure);
    let mandatory = Mandatory::parse(&data).unwrap();
    assert_eq!((mandatory.template_id, mandatory.frame_number), (7, 0x1234));
    assert_eq!(Mandatory::parse(&data[..2]), None);
}

#[test]
fn unknown_templates_are_refused() {
    let structure = l2t2();
    for template_id in [4, 61] {
        let data = [template_id, 0, 0];
        let error = DependencyDescriptor::parse(&data, Some(&structure)).unwrap_err();
        assert_eq!(error, DdError::UnknownTemplate(template_id));
    }
}

#[test]
fn every_cut_of_a_structure_is_an_error() {
    let structure = l2t2();
    let data = bytes(&key_frame(&structure), &structure);
    for len in 0..data.len() {
        assert!(DependencyDescriptor::parse(&data[..len], None).is_err(), "{len}");
    }
}

#[test]
fn layers_and_templates_beyond_the_format_are_refused() {
    // Flags, offset 0, one decode target, then `next spatial` four times.
    let spatial = [0x00, 0, 0, 0b1000_0000, 0b0000_0000, 0b1010_1010, 0, 0, 0, 0];
    assert_eq!(DependencyDescriptor::parse(&spatial, None).unwrap_err(), DdError::Limits);
    // `same layer` without end.
    let mut same = vec![0x00, 0, 0, 0x80];
    same.extend_from_slice(&[0; 60]);
    assert_eq!(DependencyDescriptor::parse(&same, None).unwrap_err(), DdError::Limits);
    assert_eq!(DependencyDescriptor::parse(&[0; 256], None).unwrap_err(), DdError::Limits);
}

#[test]
fn rewriting_adds_a_mask_where_there_was_none() {
    let structure = l2t2();
    let data =
        bytes(&DependencyDescriptor::from_template(mandatory(62), &structure).unwrap(), &structure);
    let (descriptor, _) = DependencyDescriptor::parse(&data, Some(&structure)).unwrap();
    let mut out = [0; MAX_LEN];
    let len = rewrite_active_targets(&data, &descriptor, 0b0011, &mut out).unwrap();
    assert_eq!(len, 5);
    let (rewritten, _) = DependencyDescriptor::parse(&out[..len], Some(&structure)).unwrap();
    assert_eq!(rewritten.active_targets, Some(0b0011));
    assert_eq!(rewritten.mandatory, descriptor.mandatory);
}

#[test]
fn rewriting_keeps_structure_and_custom_fields() {
    let structure = l2t2();
    let mut original = key_frame(&structure);
    original.custom = Custom { dtis: true, frame_diffs: true, chain_diffs: true };
    original.dtis = [R, D, N, S].into_iter().collect();
    original.frame_diffs = diffs(&[1, 16, 17, 256, 257, 4096]);
    original.chain_diffs = chains(&[255, 0]);
    for mask in [None, Some(0b0111)] {
        original.active_targets = mask;
        let data = bytes(&original, &structure);
        let (descriptor, _) = DependencyDescriptor::parse(&data, None).unwrap();
        let mut out = [0; MAX_LEN];
        let len = rewrite_active_targets(&data, &descriptor, 0b0001, &mut out).unwrap();
        let (rewritten, received) = DependencyDescriptor::parse(&out[..len], None).unwrap();
        assert_eq!(received.as_ref(), Some(&structure));
        assert_eq!(rewritten.active_targets, Some(0b0001));
        assert_eq!(rewritten.dtis, original.dtis);
        assert_eq!(rewritten.frame_diffs, original.frame_diffs);
        assert_eq!(rewritten.chain_diffs, original.chain_diffs);
    }
}

#[test]
fn a_short_buffer_is_an_error() {
    let structure = l2t2();
    let original = key_frame(&structure);
    let data = bytes(&original, &structure);
    let (descriptor, _) = DependencyDescriptor::parse(&data, None).unwrap();
    let mut out = vec![0; data.len() - 1];
    assert_eq!(write(&original, &structure, &mut out), Err(DdError::Unwritable));
    let rewritten = rewrite_active_targets(&data, &descriptor, 1, &mut out);
    assert_eq!(rewritten, Err(DdError::Unwritable));
}

fn any_dti() -> impl Strategy<Value = Dti> {
    prop_oneof![Just(N), Just(D), Just(S), Just(R)]
}

/// Structures with up to 12 templates over layers in order, and values that fit their fields.
fn any_structure() -> impl Strategy<Value = Structure> {
    (1u8..=8, 0u8..64, prop::collection::vec(0u8..3, 0..12), any::<bool>()).prop_flat_map(
        |(targets, offset, steps, sized)| {
            let mut layers = vec![(0u8, 0u8)];
            for step in steps {
                let (spatial, temporal) = layers[layers.len() - 1];
                layers.push(match step {
                    1 if temporal < 7 => (spatial, temporal + 1),
                    2 if spatial < 3 => (spatial + 1, 0),
                    _ => (spatial, temporal),
                });
            }
            let count = usize::from(targets);
            (0..=targets).prop_flat_map(move |chain_count| {
                let chain_len = usize::from(chain_count);
                let layers = layers.clone();
                let fields = (
                    prop::collection::vec(any_dti(), count),
                    prop::collection::vec(1u16..=16, 0..=4),
                    prop::collection::vec(0u8..16, chain_len),
                );
                let protected = prop::collection::vec(0..chain_count.max(1), count);
                let templates = prop::collection::vec(fields, layers.len());
                (templates, protected).prop_map(move |(templates, protected)| {
                    let templates: Vec<_> = layers
                        .iter()
                        .zip(&templates)
                        .map(|((spatial, temporal), (dtis, refs, chain_diffs))| {
                            template(*spatial, *temporal, dtis, refs, chain_diffs)
                        })
                        .collect();
                    let mut protected_by = [0; 32];
                    if chain_count > 0 {
                        protected_by[..count].copy_from_slice(&protected);
                    }
                    let mut structure = Structure {
                        template_id_offset: offset,
                        decode_targets: targets,
                        templates,
                        chains: chain_count,
                        protected_by,
                        resolutions: None,
                    };
                    if sized {
                        let mut sizes = [Resolution::default(); 4];
                        for (index, size) in
                            sizes.iter_mut().take(structure.spatial_layers()).enumerate()
                        {
                            *size = Resolution { width: 65_536 >> index, height: 1 << index };
                        }
                        structure.resolutions = Some(sizes);
                    }
                    structure
                })
            })
        },
    )
}

proptest! {
    #[test]
    fn any_bytes_parse_or_fail(
        data in prop::collection::vec(any::<u8>(), 0..80), known in any::<bool>(),
    ) {
        let structure = l2t2();
        let parsed = DependencyDescriptor::parse(&data, known.then_some(&structure));
        if let Ok((descriptor, received)) = parsed {
            let used = received.as_ref().unwrap_or(&structure);
            let mut out = [0; MAX_LEN];
            let mask = used.all_targets() & 0x5555_5555;
            let len = rewrite_active_targets(&data, &descriptor, mask, &mut out).unwrap();
            let known = (!descriptor.has_structure).then_some(&structure);
            let (rewritten, again) = DependencyDescriptor::parse(&out[..len], known).unwrap();
            prop_assert_eq!(rewritten.active_targets, Some(mask));
            prop_assert_eq!(rewritten.dtis, descriptor.dtis);
            prop_assert_eq!(rewritten.frame_diffs, descriptor.frame_diffs);
            prop_assert_eq!(rewritten.chain_diffs, descriptor.chain_diffs);
            prop_assert_eq!(again, received);
        }
    }

    #[test]
    fn written_structures_are_read_back(structure in any_structure()) {
        let descriptor = key_frame(&structure);
        let mut out = [0xFF; MAX_LEN];
        let len = write(&descriptor, &structure, &mut out).unwrap();
        let (read, received) = DependencyDescriptor::parse(&out[..len], None).unwrap();
        prop_assert_eq!(received.as_ref(), Some(&structure));
        prop_assert_eq!(read.dtis, descriptor.dtis);
    }

    #[test]
    fn written_custom_fields_are_read_back(
        structure in any_structure(), seed in prop::collection::vec(any_dti(), 8),
        refs in prop::collection::vec(1u16..=4096, 0..=8), chain in any::<u8>(),
        mask in any::<u32>(), flags in any::<(bool, bool, bool)>(),
    ) {
        let mut descriptor = DependencyDescriptor::from_template(
            mandatory(structure.template_id_offset), &structure).unwrap();
        descriptor.custom = Custom { dtis: flags.0, frame_diffs: flags.1, chain_diffs: flags.2 };
        if flags.0 {
            descriptor.dtis =
                seed.into_iter().take(usize::from(structure.decode_targets)).collect::<Dtis>();
        }
        if flags.1 {
            descriptor.frame_diffs = diffs(&refs);
        }
        if flags.2 {
            descriptor.chain_diffs = chains(&vec![chain; usize::from(structure.chains)]);
        }
        descriptor.active_targets = Some(mask & structure.all_targets());
        let data = bytes(&descriptor, &structure);
        let (read, _) = DependencyDescriptor::parse(&data, Some(&structure)).unwrap();
        prop_assert_eq!(read.dtis, descriptor.dtis);
        prop_assert_eq!(read.frame_diffs, descriptor.frame_diffs);
        prop_assert_eq!(read.chain_diffs, descriptor.chain_diffs);
        prop_assert_eq!(read.active_targets, descriptor.active_targets);
    }
}
