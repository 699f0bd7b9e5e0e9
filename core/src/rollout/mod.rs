//! Which node may have which bundle, and may activate it when.

mod amount;
pub mod record;
pub mod strategy;
#[cfg(test)]
mod tests;
pub mod window;

pub use amount::{Amount, InvalidAmount, MAX_TIME};
