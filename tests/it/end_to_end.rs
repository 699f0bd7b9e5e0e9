//! The demo's world, and what goes wrong in it.
