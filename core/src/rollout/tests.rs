//! Each rule of a rollout as a table, and the laws that hold over all of them.

mod basics;
mod model;
mod rings;
mod rules;
mod silent;
mod stops;
mod strategy;
mod window;
mod world;
