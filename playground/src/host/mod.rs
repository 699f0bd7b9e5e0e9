//! A node's service manager and containerd, simulated at the agent's edge.
