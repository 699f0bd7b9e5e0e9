//! `rootstock-playground`: a seed and two shoots on this machine.

use std::process::ExitCode;

fn main() -> ExitCode {
    rootstock_playground::up::main()
}
