//! The server over real mutual TLS on loopback, before a small directory.

mod access;
mod attacks;
mod setup;
mod streams;
