//! What is an HTTP message, seen from either side and in any version?
//!
//! The decision (normalize, match, filters, pick) sees these types and never bytes; exchanges make them from bytes and back.

pub mod byte_set;
pub mod context;
pub mod fields;
pub mod forwarded;
pub mod head;
pub mod hop;
pub mod io;
pub mod names;
pub mod normalize;
pub mod path;
pub mod random;
pub mod text;
pub mod tls_stream;

pub use byte_set::ByteSet;
pub use context::{Audit, RequestContext, TlsInfo};
pub use fields::{Field, Fields};
pub use head::{RequestHead, ResponseHead, Scheme, Version};
pub use io::Io;
pub use names::{FieldId, Name};
pub use text::Text;
