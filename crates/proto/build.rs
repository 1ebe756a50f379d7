//! Compiles `/proto/livekit/*.proto` without protoc: protox parses, prost-build generates, and the
//! descriptor set is embedded for reflection (JSON, Twirp routing, schema tests).

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use prost_types::FileDescriptorSet;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());

    let descriptors = protox::compile(proto_files(&root.join("livekit"))?, [&root])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("livekit.fds"), encode_without_sources(descriptors.clone()))?;

    prost_build::Config::new()
        .enable_type_names()
        // Packet payloads are cut out of the received buffer instead of being copied.
        .bytes(["."])
        // The same message always encodes to the same bytes: tests and simulations are repeatable.
        .btree_map(["."])
        .compile_fds(descriptors)?;
    Ok(())
}

/// Every .proto file of the folder, in name order.
fn proto_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Comments and source positions are of no use at run time.
fn encode_without_sources(mut descriptors: FileDescriptorSet) -> Vec<u8> {
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    prost::Message::encode_to_vec(&descriptors)
}
