//! The agent against a real registry and a simulated host.
