//! Does the whole program do what its documents say? One binary, a module for each subject, real sockets on the loopback.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that fails should fail where it stands"
)]
#![allow(unreachable_pub, reason = "a test binary has no outside")]

mod harness;

mod access_log;
mod accounting;
mod admin;
mod balancing;
mod bodies;
mod browser;
mod commands;
mod config_reload;
mod drain;
mod early;
mod errors;
mod filters;
mod forwarded;
mod grpc;
mod h2spec;
mod haproxy;
mod health;
mod http1;
mod http2;
mod http2_limits;
mod large;
mod limits;
mod listeners;
mod malformed;
mod peers;
mod real_peers;
mod resting;
mod retries;
mod routing;
mod strictness;
mod surge;
mod timeouts;
mod tls;
mod websocket;
