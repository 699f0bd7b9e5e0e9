//! A Kubernetes API: embedded, or the real server.
