//! `rootstock`: see `--help`.

use std::process::ExitCode;

use clap::Parser as _;
use rootstock_ctl::Args;

fn main() -> ExitCode {
    rootstock_ctl::main(&Args::parse())
}
