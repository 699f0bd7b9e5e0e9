//! The other processes of the bench: a server, and agents that only install.

pub(crate) mod install;
pub(crate) mod serve;
