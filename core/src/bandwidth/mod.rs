//! Who may pull how fast from the registry.

mod budgets;
mod rate;

pub use budgets::Budgets;
pub use rate::{InvalidRate, Limit, Rate};
