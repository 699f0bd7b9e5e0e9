//! `rootstock-playground`: a seed and two shoots on this machine.

fn main() {}
