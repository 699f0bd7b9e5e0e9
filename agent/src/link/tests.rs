//! The link over real TLS on loopback, before a controller that means ill.

mod answers;
mod controller;
mod impostor;
mod pulls;
mod slots;
