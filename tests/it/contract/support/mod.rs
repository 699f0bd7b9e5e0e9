//! What the contract's scenarios, and its bench, stand on.

pub(crate) mod gardenlet;
pub(crate) mod health;
pub(crate) mod record;
pub(crate) mod shoot;
pub(crate) mod suite;
