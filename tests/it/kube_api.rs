//! The embedded Kubernetes API and the real one, held to the same answers.
