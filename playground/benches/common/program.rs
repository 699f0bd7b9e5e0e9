//! The program that benches measure.

use std::path::Path;
use std::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_rootstock-playground");

/// The controller's own program, built as seeds run it: the bench's own build
/// has another profile, and cargo tells a bench only of its own package's programs.
pub(crate) fn controller() -> String {
    if let Ok(program) = std::env::var("ROOTSTOCK_CONTROLLER") {
        return program;
    }
    eprintln!("building the controller as seeds run it; a first build takes minutes");
    // Both profiles have their folders side by side.
    let target = Path::new(PROGRAM).ancestors().nth(2).expect("a folder of targets");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--profile", "controller"])
        .args(["--package", "rootstock-controller"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("CARGO_TARGET_DIR", target)
        .status()
        .expect("cargo runs");
    assert!(built.success(), "the controller is not built");
    target.join("controller/rootstock-controller").display().to_string()
}
