//! `cargo sim`: thousands of nodes in virtual time.

use std::process::ExitCode;

fn main() -> ExitCode {
    rootstock_sim::cli::main()
}
