//! Compiles the wire contract without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/rootstock");
    let files = ["enrollment", "desired", "fleet"].map(|name| format!("rootstock/v1/{name}.proto"));
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        // Order reaches the wire and the content hash.
        .btree_map(".")
        .build_transport(false)
        .codec_path("crate::codec::SmallCodec")
        .compile_fds(descriptors)?;
    Ok(())
}
