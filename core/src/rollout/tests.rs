//! Each rule of a rollout as a table, and the laws that hold over all of them.

mod basics;
mod commands;
mod model;
mod rings;
mod rules;
mod silent;
mod stops;
mod strategy;
mod target;
mod together;
mod window;
mod world;
