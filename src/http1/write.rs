//! How is a body framed when it is written?

use super::framing::BodyKind;
use crate::message::Fields;
use std::io::{self, IoSlice};

/// Where a body that is being written stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyWriter {
    /// Nothing more to write.
    #[default]
    Done,
    /// So many bytes are owed.
    Length(u64),
    /// Chunks; so many bytes of the open chunk are owed.
    Chunked(u64),
    /// Until the connection is closed.
    UntilClose,
    /// A tunnel: the end of the source is a half-close.
    Tunnel,
}

impl BodyWriter {
    /// A writer for a body that ends like this.
    pub fn new(kind: BodyKind) -> Self {
        match kind {
            BodyKind::None | BodyKind::Length(0) => Self::Done,
            BodyKind::Length(n) => Self::Length(n),
            BodyKind::Chunked => Self::Chunked(0),
            BodyKind::UntilClose => Self::UntilClose,
            BodyKind::Tunnel => Self::Tunnel,
        }
    }

    /// How many of `n` bytes at hand belong into the next write, after writing the framing before them to `out`.
    pub(crate) fn before(&mut self, n: usize, out: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::Done => Err(io::Error::other("more body than was announced")),
            Self::Length(left) if n as u64 > *left => Err(io::Error::other("more body than was announced")),
            Self::Length(_) | Self::UntilClose | Self::Tunnel => Ok(n),
            Self::Chunked(open) => {
                if *open == 0 {
                    *open = n as u64;
                    push_hex(out, n);
                }
                Ok(usize::try_from(*open).map_or(n, |open| open.min(n)))
            }
        }
    }

    /// `n` bytes were written; writes the framing after them to `out`.
    pub(crate) fn after(&mut self, n: usize, out: &mut Vec<u8>) {
        match self {
            Self::Length(left) => {
                *left = left.saturating_sub(n as u64);
                if *left == 0 {
                    *self = Self::Done;
                }
            }
            Self::Chunked(open) if n > 0 => {
                *open = open.saturating_sub(n as u64);
                if *open == 0 {
                    out.extend_from_slice(b"\r\n");
                }
            }
            Self::Chunked(_) | Self::Done | Self::UntilClose | Self::Tunnel => {}
        }
    }

    /// Ends the body. Trailers are written with chunks only. A body shorter than announced is an error.
    pub(crate) fn finish(&mut self, trailers: Option<&Fields>, out: &mut Vec<u8>) -> io::Result<()> {
        match std::mem::take(self) {
            Self::Length(_) => Err(io::Error::other("less body than was announced")),
            Self::Chunked(_) => {
                out.extend_from_slice(b"0\r\n");
                if let Some(fields) = trailers {
                    fields.write_to(out);
                }
                out.extend_from_slice(b"\r\n");
                Ok(())
            }
            Self::Done | Self::UntilClose | Self::Tunnel => Ok(()),
        }
    }
}

/// A chunk's size line.
fn push_hex(out: &mut Vec<u8>, n: usize) {
    let digits = (usize::BITS - n.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        let digit = (n >> (place * 4)) & 0xf;
        out.extend(b"0123456789abcdef".get(digit));
    }
    out.extend_from_slice(b"\r\n");
}

/// The head and the first `n` bytes of the pieces, as one write takes them.
pub(crate) fn gather<'s, 'a>(
    slices: &'s mut [IoSlice<'a>],
    head: &'a [u8],
    pieces: &[&'a [u8]],
    n: usize,
) -> &'s [IoSlice<'a>] {
    let mut left = n;
    let cut = pieces.iter().map(|piece| {
        let piece = piece.get(..left).unwrap_or(piece);
        left -= piece.len();
        piece
    });
    let mut count = 0;
    for (slice, bytes) in slices.iter_mut().zip(std::iter::once(head).chain(cut)) {
        *slice = IoSlice::new(bytes);
        count += 1;
    }
    slices.get(..count).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_carry_their_size_in_hexadecimal() {
        for n in [1usize, 9, 10, 15, 16, 255, 256, 65_535, 1 << 20] {
            let mut out = Vec::new();
            push_hex(&mut out, n);
            assert_eq!(out, format!("{n:x}\r\n").into_bytes());
        }
    }

    #[test]
    fn a_chunk_may_be_written_in_parts() {
        let (mut writer, mut out) = (BodyWriter::new(BodyKind::Chunked), Vec::new());
        assert_eq!(writer.before(5, &mut out).unwrap(), 5);
        writer.after(2, &mut out);
        assert_eq!(writer.before(9, &mut out).unwrap(), 3);
        writer.after(3, &mut out);
        writer.finish(None, &mut out).unwrap();
        assert_eq!(out, b"5\r\n\r\n0\r\n\r\n");
    }

    #[test]
    fn a_length_is_kept_exactly() {
        let (mut writer, mut out) = (BodyWriter::new(BodyKind::Length(3)), Vec::new());
        assert!(writer.before(4, &mut out).is_err());
        assert_eq!(writer.before(2, &mut out).unwrap(), 2);
        writer.after(2, &mut out);
        assert!(writer.finish(None, &mut out).is_err());
        assert!(out.is_empty());
    }
}
