//! The server over real mutual TLS on loopback, before a small directory.

mod access;
mod attacks;
mod clock;
mod floods;
mod frames;
mod messages;
mod pulls;
mod rotation;
mod setup;
mod streams;
