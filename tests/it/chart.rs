//! The Helm chart and the manifests that register it.
//!
//! ```text
//!  plain     what can be said of the files without Helm
//!  rendered  what Helm makes of them: lint, typed objects, the controller's flags
//!  refused   values that the schema and the templates refuse
//!  real      the rendered objects at a real API server, strictly validated
//! ```
//! Without `helm` (in `KUBEBUILDER_ASSETS` or PATH) only the first is tested.

mod plain;
mod real;
mod refused;
mod rendered;
mod support;
