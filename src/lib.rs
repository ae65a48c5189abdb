//! Tidegate, the front door of a bare-metal Kubernetes cluster: the rooms, from the bottom up.
//!
//! Arrows point down only: 0 `model`, `message`, `lifecycle`; 1 `config`, `telemetry`, `tls`, `http1`; 2 `upstream`, `source`;
//! 3 `filter`, `kubernetes`; 4 `route`; 5 `snapshot`; 6 `proxy`, `admin`; 7 `listener`; 8 `app`, `cli`.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::panic,
        reason = "a test that fails should fail where it stands"
    )
)]

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod filter;
pub mod http1;
pub mod kubernetes;
pub mod lifecycle;
pub mod listener;
pub mod message;
pub mod model;
pub mod proxy;
pub mod route;
pub mod snapshot;
pub mod source;
pub mod telemetry;
pub mod tls;
pub mod upstream;
