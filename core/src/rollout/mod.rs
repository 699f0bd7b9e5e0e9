//! Which node may have which bundle, and may activate it when.

mod amount;
pub mod progress;
pub mod record;
pub mod rings;
mod step;
pub mod strategy;
#[cfg(test)]
mod tests;
pub mod view;
pub mod window;

pub use amount::{Amount, InvalidAmount, MAX_TIME};
pub use progress::Progress;
pub use step::{Give, NodeStep, Permit, RuntimeStep, Step, step};
