//! Bundles made of real files where the machine has them.
