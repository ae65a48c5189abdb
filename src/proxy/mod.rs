//! What happens to a request, from its head to the last byte of the response?
//!
//! ```text
//! exchange reads a head ─► pipeline::decide: normalize 400 ─► misdirected 421 ─► https redirect ─► listener's filters
//!   ─► table.find 404 ─► route's filters 4xx ─► respond | redirect | forward
//! forward: loop { pick ─► admit ─► checkout or connect ─► send ─► head of the response | retry | fail }
//!   ─► filters on the response ─► hop-by-hop fields out ─► exchange relays the bodies ─► metrics, access record
//! ```
//!
//! The decision sees heads and knows no bytes; the exchanges ([`h1`], [`h2`]) move bytes and know no route. What failed is a line
//! in the table of [`error`].

pub mod error;
pub mod forward;
pub mod h1;
pub mod h2;
mod pace;
pub mod pipeline;
mod push;
pub mod remote;
pub mod request;
pub mod respond;
pub mod rest;
pub mod retry;
pub mod tunnel;
mod websocket;
pub mod worker;

pub use error::ProxyError;
pub use request::{Downstream, Request};
pub use worker::{Connection, Parts, Worker};
