//! How are HTTP/2 connections served and used, on either side? The `h2` library moves the frames; streams, limits and bodies
//! are ours.

mod body;
mod connection;
mod convert;
mod downstream;
mod duplex;
mod inbound;
mod lanes;
mod line;
mod pulse;
mod pump;
mod response;
mod rewind;
mod upstream;

pub use connection::serve;
pub use upstream::{H2Wire, Lines, Stream, send, stream_to};
