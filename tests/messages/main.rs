//! Is what goes on one message, the same to every reader, whatever came?
//!
//! The whole engine without sockets: [`gate`] takes bytes, cut as one likes, and gives what an upstream would receive or why not.
//! [`readers`] read that again, three of them that know nothing of ours. [`targets`] are what
//! chance feeds, here a few thousand times and in [`fuzz.rs`](fuzz.rs) for as long as one likes.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that fails should fail where it stands"
)]
#![allow(unreachable_pub, reason = "a test binary has no outside")]

mod cases;
mod gate;
mod guardian;
mod http2;
mod memory;
mod mutate;
mod nginx;
mod parsers;
mod readers;
mod requests;
mod responses;
mod script;
mod targets;
mod texts;
