//! Each rule of a rollout as a table, and the laws that hold over all of them.

mod strategy;
mod window;
