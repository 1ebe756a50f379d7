//! Our .proto files against the ones that LiveKit's Rust crate ships: for every message and enum of
//! ours, the same fields and values, each with the same name, number, type and label, none missing.

use std::path::PathBuf;
use std::process::Command;

use prost_reflect::{DescriptorPool, FieldDescriptor, Kind};

#[test]
fn every_field_has_the_name_number_type_and_label_of_livekit() {
    let (ours, theirs) = (sluice_proto::descriptors(), livekit_descriptors());
    let mut wrong = Vec::new();
    for message in ours.all_messages().filter(|m| m.package_name() == sluice_proto::PACKAGE) {
        let Some(other) = theirs.get_message_by_name(message.full_name()) else {
            wrong.push(format!("{} is not LiveKit's", message.full_name()));
            continue;
        };
        let (mine, other) = (facts(message.fields()), facts(other.fields()));
        wrong.extend(difference(message.full_name(), &mine, &other));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_enum_has_the_values_of_livekit() {
    let (ours, theirs) = (sluice_proto::descriptors(), livekit_descriptors());
    let mut wrong = Vec::new();
    for mine in ours.all_enums().filter(|e| e.package_name() == sluice_proto::PACKAGE) {
        let Some(other) = theirs.get_enum_by_name(mine.full_name()) else {
            wrong.push(format!("{} is not LiveKit's", mine.full_name()));
            continue;
        };
        let values = |e: &prost_reflect::EnumDescriptor| {
            let mut values: Vec<_> =
                e.values().map(|v| format!("{} = {}", v.name(), v.number())).collect();
            values.sort();
            values
        };
        wrong.extend(difference(mine.full_name(), &values(&mine), &values(&other)));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_api_method_takes_and_returns_what_livekit_does() {
    let (ours, theirs) = (sluice_proto::descriptors(), livekit_descriptors());
    assert!(ours.services().len() >= 2);
    for service in ours.services() {
        let methods = |service: &prost_reflect::ServiceDescriptor| {
            let mut methods: Vec<_> = service
                .methods()
                .map(|m| {
                    let (input, output) = (m.input(), m.output());
                    format!("{}({}) -> {}", m.name(), input.full_name(), output.full_name())
                })
                .collect();
            methods.sort();
            methods
        };
        let name = service.full_name();
        let other = theirs.services().find(|s| s.full_name() == name);
        let other = other.unwrap_or_else(|| panic!("{name} is not LiveKit's"));
        assert_eq!(methods(&service), methods(&other), "{name}");
    }
}

/// One line per field: everything that both sides of the wire must agree on.
fn facts(fields: impl Iterator<Item = FieldDescriptor>) -> Vec<String> {
    let mut facts: Vec<String> = fields
        .map(|field| {
            let kind = match field.kind() {
                Kind::Message(message) => message.full_name().to_owned(),
                Kind::Enum(values) => values.full_name().to_owned(),
                scalar => format!("{scalar:?}"),
            };
            let oneof = field.containing_oneof().map(|oneof| oneof.name().to_owned());
            let (name, number) = (field.name(), field.number());
            let (label, json) = (field.cardinality(), field.json_name());
            let (presence, packed) = (field.supports_presence(), field.is_packed());
            format!("{number}: {name} ({json}) {label:?} {kind} {oneof:?} {presence} {packed}")
        })
        .collect();
    facts.sort();
    facts
}

fn difference(name: &str, ours: &[String], theirs: &[String]) -> Vec<String> {
    let extra = ours.iter().filter(|f| !theirs.contains(f)).map(|f| format!("{name}: ours {f}"));
    let missing =
        theirs.iter().filter(|f| !ours.contains(f)).map(|f| format!("{name}: theirs {f}"));
    extra.chain(missing).collect()
}

fn livekit_descriptors() -> DescriptorPool {
    let root = livekit_protocol_folder().join("protocol/protobufs");
    let files = [
        "livekit_models.proto",
        "livekit_rtc.proto",
        "livekit_room.proto",
        "livekit_agent.proto",
        "livekit_agent_dispatch.proto",
        "livekit_webhook.proto",
        "livekit_token_source.proto",
        "livekit_metrics.proto",
        "livekit_egress.proto",
        "livekit_ingress.proto",
    ];
    let files = files.map(|file| root.join(file));
    let set = protox::compile(files, [root]).expect("LiveKit's .proto files compile");
    DescriptorPool::from_file_descriptor_set(set).expect("LiveKit's descriptors are valid")
}

/// Where cargo keeps the sources of the `livekit-protocol` that these tests are built with. Only what
/// is built here need be there: packages for other systems may never have been fetched.
fn livekit_protocol_folder() -> PathBuf {
    let version = cargo(&["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host");
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let output = cargo(&[
        "metadata",
        "--format-version=1",
        "--offline",
        "--filter-platform",
        host,
        "--manifest-path",
        manifest,
    ]);
    let metadata: serde_json::Value =
        serde_json::from_str(&output).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let package = packages.iter().find(|package| package["name"] == "livekit-protocol");
    let manifest = package.and_then(|package| package["manifest_path"].as_str());
    PathBuf::from(manifest.expect("a dev-dependency")).with_file_name("")
}

/// What cargo says.
fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}
