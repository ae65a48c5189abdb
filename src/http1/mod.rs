//! How are HTTP/1 messages read from and written to a connection, on either side?
//!
//! Our own engine, for two reasons that hyper cannot give: it sees what request smuggling lives on (a Content-Length beside a
//! Transfer-Encoding, duplicated lengths, raw names), and it costs less: one task per client connection, no channel, no
//! allocation in the steady state. It knows no route and no cluster and works on any `AsyncRead + AsyncWrite`.

pub mod buffer;
pub mod chunked;
pub mod compose;
pub mod conn;
pub mod deadline;
pub mod framing;
pub mod head;
pub mod read;
pub mod relay;
pub mod write;

pub use buffer::Buffer;
pub use chunked::check_trailers;
pub use conn::Conn;
pub use conn::ReadHeadError;
pub use deadline::Deadline;
pub use framing::{BodyKind, FramingError};
pub use head::{HeadError, HeadLimits, parse_request, parse_response};
pub use read::{BodyError, BodyReader, BodySource, Limited, Pieces};
pub use relay::{RelayError, poll_relay};
pub use write::BodyWriter;
