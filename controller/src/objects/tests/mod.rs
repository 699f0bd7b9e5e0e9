//! The rendered objects, and the requests that write them.

mod races;
mod recent;
mod rendered;
mod rotation;
mod route;
mod seed;
mod withdrawn;
mod written;
