//! How does a Kubernetes cluster become fragments, and how does it learn what became of its objects?
//!
//! The only room that names kube types. `watch` keeps compact [`objects`], `translate` (pure) makes a fragment of them,
//! `endpoints` is the fast road of EndpointSlices (no translation, no compile), `status` and `lease` write back.
//!
//! ```text
//! API server ─► watch ─► Objects ─► hold-off ─► translate ─► Feed            (routes, clusters, certificates)
//!                   └─► slices ─► endpoints ─► Memberships                   (who answers, at once)
//!  Report, Translation ─► status: Events, annotations, Ingress addresses     (leader only where one writes)
//! ```

pub mod audit;
mod backoff;
mod calls;
pub mod client;
pub mod convert;
mod desk;
mod endpoints;
mod hold;
mod keep;
mod kinds;
mod lease;
mod names;
pub mod objects;
mod own;
mod road;
mod secrets;
mod source;
pub mod status;
mod store;
pub mod translate;
mod watch;

pub use client::Connection;
pub use source::{KubernetesSource, Learnt, SOURCE, Translated};
