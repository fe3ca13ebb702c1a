//! Compiles the messages of both dialects, and those between nodes, with a protobuf compiler in Rust; no system `protoc` is needed.

use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    println!("cargo::rerun-if-changed={}", protos.display());
    let mut compiler = protox::Compiler::new([&protos])?;
    // Source information carries the comments, which become the documentation of the generated types.
    compiler.include_source_info(true).open_files(["cluster.proto", "seed.proto", "sessions.proto"])?;
    prost_build::Config::new()
        // Ordered maps, so that the same message always serializes to the same bytes.
        .btree_map(["."])
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
