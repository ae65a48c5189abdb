//! How is the chunked coding read? (RFC 9112 section 7.1)
//!
//! Byte by byte over framing, whole slices over data, the same for input split anywhere. Sizes are bare hexadecimal, extensions
//! are bounded and dropped, line ends are CRLF alone (CVE-2025-55315, CVE-2025-22871), trailers are bounded.

use crate::message::{ByteSet, Fields};
use smallvec::SmallVec;

/// Extension bytes taken in one message, all chunks together; more is an attack, not a feature.
const MAX_EXTENSIONS: u32 = 16 * 1024;

/// Bytes of the trailer section.
const MAX_TRAILERS: usize = 8 * 1024;

/// Fields of the trailer section.
const MAX_TRAILER_FIELDS: usize = 32;

/// Why a chunked body cannot be read on.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ChunkError {
    /// Not `size [extensions] CRLF`.
    #[error("malformed chunk size")]
    Size,
    /// Extensions that are no extensions, or too long.
    #[error("malformed or oversized chunk extension")]
    Extension,
    /// Data not followed by CRLF.
    #[error("chunk data does not end where its size says")]
    End,
    /// Trailers that are malformed or too large.
    #[error("malformed or oversized trailers")]
    Trailers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Digits read so far.
    Size(u8),
    /// Blanks after the size, before an extension.
    Blank,
    Extension(Extension),
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailers,
    End,
}

/// A place in `; name [= value]`, with blanks where RFC 9112 section 7.1.1 has them. Whatever else comes is refused although
/// extensions are dropped: another reader might not see the end of the line where it stands (an open quote).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    Start,
    Name,
    NameEnd,
    ValueStart,
    Value,
    Quoted,
    Escaped,
    QuotedEnd,
    ValueEnd,
}

/// RFC 9110 section 5.6.2.
static TOKEN: ByteSet = ByteSet::alphanumeric_and(b"!#$%&'*+-.^_`|~");

impl Extension {
    /// `None`: not an extension.
    fn next(self, byte: u8) -> Option<State> {
        let token = TOKEN.has(byte);
        let text = matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
        let to = match (self, byte) {
            (Self::Name | Self::Value | Self::QuotedEnd, b'\r') => return Some(State::SizeLf),
            (Self::Quoted, b'"') => Self::QuotedEnd,
            (Self::Quoted, b'\\') => Self::Escaped,
            (Self::Quoted | Self::Escaped, _) if text => Self::Quoted,
            (Self::Start | Self::ValueStart | Self::NameEnd | Self::ValueEnd, b' ' | b'\t') => self,
            (Self::Name, b' ' | b'\t') => Self::NameEnd,
            (Self::Value | Self::QuotedEnd, b' ' | b'\t') => Self::ValueEnd,
            (Self::Name | Self::NameEnd, b'=') => Self::ValueStart,
            (Self::Name | Self::NameEnd | Self::Value | Self::QuotedEnd | Self::ValueEnd, b';') => Self::Start,
            (Self::ValueStart, b'"') => Self::Quoted,
            (Self::Start | Self::Name, _) if token => Self::Name,
            (Self::ValueStart | Self::Value, _) if token => Self::Value,
            _ => return None,
        };
        Some(State::Extension(to))
    }
}

/// Reads one chunked body.
#[derive(Clone, Debug)]
pub struct Decoder {
    state: State,
    left: u64,
    extensions: u32,
    /// Mostly the empty line alone, for which nothing is allocated.
    trailers: SmallVec<[u8; 16]>,
}

/// What the front of the input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// After `skip` bytes of framing, `len` bytes of data.
    Data {
        /// Framing bytes to drop.
        skip: usize,
        /// Data bytes that follow them.
        len: usize,
    },
    /// `skip` bytes of framing, then nothing: more input is needed.
    More {
        /// Framing bytes to drop.
        skip: usize,
    },
    /// `skip` bytes of framing, then the end of the message.
    End {
        /// Framing bytes to drop.
        skip: usize,
    },
}

impl Default for Decoder {
    fn default() -> Self {
        Self { state: State::Size(0), left: 0, extensions: 0, trailers: SmallVec::new() }
    }
}

impl Decoder {
    /// Looks at the front of the input. Data that is reported must be told back by [`Self::took`].
    pub fn step(&mut self, input: &[u8]) -> Result<Step, ChunkError> {
        for (skip, byte) in input.iter().copied().enumerate() {
            if self.state == State::Data {
                let have = input.len() - skip;
                return Ok(Step::Data { skip, len: usize::try_from(self.left).map_or(have, |left| left.min(have)) });
            }
            if self.state == State::End {
                return Ok(Step::End { skip });
            }
            self.state = self.next(byte)?;
        }
        let skip = input.len();
        Ok(if self.state == State::End { Step::End { skip } } else { Step::More { skip } })
    }

    /// `n` bytes of data were used.
    pub fn took(&mut self, n: usize) {
        self.left = self.left.saturating_sub(n as u64);
        if self.left == 0 && self.state == State::Data {
            self.state = State::DataCr;
        }
    }

    /// Looks for more data behind the first `n` bytes, which are data, without taking anything, as long as `more` wants some. What is
    /// wrong there is found when it is at the front.
    pub fn ahead<'a>(&self, n: usize, input: &'a [u8], mut more: impl FnMut(&'a [u8]) -> bool) {
        let mut ahead = self.clone();
        let (mut at, mut used) = (0, n);
        loop {
            ahead.took(used);
            at += used;
            let rest = input.get(at..).unwrap_or_default();
            let Ok(Step::Data { skip, len }) = ahead.step(rest) else { return };
            if !more(rest.get(skip..skip + len).unwrap_or_default()) {
                return;
            }
            (at, used) = (at + skip, len);
        }
    }

    fn next(&mut self, byte: u8) -> Result<State, ChunkError> {
        match (self.state, byte) {
            (State::Size(digits), _) => self.size(digits, byte),
            (State::Blank, b' ' | b'\t') => self.count(State::Blank),
            (State::Blank, b';') => self.count(State::Extension(Extension::Start)),
            (State::Blank, _) => Err(ChunkError::Size),
            (State::Extension(at), _) => at.next(byte).ok_or(ChunkError::Extension).and_then(|next| self.count(next)),
            (State::SizeLf, b'\n') if self.left == 0 => Ok(State::Trailers),
            (State::SizeLf, b'\n') => Ok(State::Data),
            (State::SizeLf, _) => Err(ChunkError::Size),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size(0)),
            (State::DataCr | State::DataLf, _) => Err(ChunkError::End),
            (State::Trailers, _) => self.trailer(byte),
            (State::Data | State::End, _) => Ok(self.state),
        }
    }

    fn size(&mut self, digits: u8, byte: u8) -> Result<State, ChunkError> {
        if let Some(value) = (byte as char).to_digit(16) {
            // 15 digits keep every sum below 2^60.
            if digits >= 15 {
                return Err(ChunkError::Size);
            }
            self.left = (if digits == 0 { 0 } else { self.left << 4 }) | u64::from(value);
            return Ok(State::Size(digits + 1));
        }
        match byte {
            _ if digits == 0 => Err(ChunkError::Size),
            b'\r' => Ok(State::SizeLf),
            b';' => self.count(State::Extension(Extension::Start)),
            b' ' | b'\t' => self.count(State::Blank),
            _ => Err(ChunkError::Size),
        }
    }

    fn count(&mut self, next: State) -> Result<State, ChunkError> {
        self.extensions += 1;
        if self.extensions > MAX_EXTENSIONS { Err(ChunkError::Extension) } else { Ok(next) }
    }

    fn trailer(&mut self, byte: u8) -> Result<State, ChunkError> {
        let last = self.trailers.last().copied();
        if (byte == b'\n') != (last == Some(b'\r')) || self.trailers.len() >= MAX_TRAILERS {
            return Err(ChunkError::Trailers);
        }
        self.trailers.push(byte);
        let ended = self.trailers.as_slice() == b"\r\n" || self.trailers.ends_with(b"\r\n\r\n");
        Ok(if ended { State::End } else { State::Trailers })
    }

    /// The trailers, once the end was reached; empty where there were none.
    pub fn take_trailers(&mut self) -> Result<Option<Fields>, ChunkError> {
        if self.trailers.len() <= 2 {
            return Ok(None);
        }
        let mut parsed = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
        let Ok(httparse::Status::Complete((_, list))) = httparse::parse_headers(&self.trailers, &mut parsed) else {
            return Err(ChunkError::Trailers);
        };
        let mut fields = Fields::default();
        for line in list {
            fields.push(line.name.as_bytes(), line.value);
        }
        self.trailers.clear();
        Ok(Some(fields))
    }
}

/// Holds trailers that came another way to the same bounds; their values are to be as a line gives them, without blanks around.
///
/// # Errors
/// [`ChunkError::Trailers`].
pub fn check_trailers(fields: &Fields) -> Result<(), ChunkError> {
    let (mut count, mut bytes) = (0, 2);
    let fits = fields.iter().all(|field| {
        count += 1;
        bytes += field.name.len() + field.value.len() + 4;
        field.value.trim_ascii() == field.value
    });
    if fits && count <= MAX_TRAILER_FIELDS && bytes <= MAX_TRAILERS { Ok(()) } else { Err(ChunkError::Trailers) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes input given in pieces; the data, and what was left after the end.
    fn decode(pieces: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>, bool), ChunkError> {
        let (mut decoder, mut data, mut rest, mut ended) = (Decoder::default(), Vec::new(), Vec::new(), false);
        for piece in pieces {
            let mut input: &[u8] = piece;
            loop {
                match decoder.step(input)? {
                    Step::Data { skip, len } => {
                        data.extend_from_slice(&input[skip..skip + len]);
                        decoder.took(len);
                        input = &input[skip + len..];
                    }
                    Step::More { skip } => {
                        assert_eq!(skip, input.len());
                        break;
                    }
                    Step::End { skip } => {
                        ended = true;
                        rest.extend_from_slice(&input[skip..]);
                        break;
                    }
                }
            }
        }
        if ended {
            decoder.take_trailers()?;
        }
        Ok((data, rest, ended))
    }

    #[test]
    fn a_body_reads_the_same_however_it_is_split() {
        let text = b"4;a=b\r\nWiki\r\n6 ; x\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\nx-t: 1\r\n\r\nNEXT";
        let whole = decode(&[text]).unwrap();
        assert_eq!(whole.0, b"Wikipedia in \r\n\r\nchunks.");
        assert_eq!((whole.1.as_slice(), whole.2), (&b"NEXT"[..], true));
        for at in 0..text.len() - 4 {
            let (front, back) = text.split_at(at);
            assert_eq!(decode(&[front, back]).unwrap().0, whole.0, "split at {at}");
        }
        let single: Vec<&[u8]> = text[..text.len() - 4].chunks(1).collect();
        assert_eq!(decode(&single).unwrap().0, whole.0);
    }

    #[test]
    fn sizes_are_bare_hexadecimal() {
        for wrong in [
            "+4\r\n",
            "0x4\r\n",
            "-1\r\n",
            "_4\r\n",
            " 4\r\n",
            "\r\n",
            ";\r\n",
            "4 \r\n",
            "g\r\n",
            "1234567890abcdef\r\n",
        ] {
            assert_eq!(decode(&[wrong.as_bytes()]), Err(ChunkError::Size), "{wrong:?}");
        }
    }

    #[test]
    fn line_ends_are_crlf_alone() {
        for wrong in
            ["4\nWiki\r\n0\r\n\r\n", "4\r\nWiki\n0\r\n\r\n", "4\r\nWikiX\r\n", "4\rx", "0\r\n\n", "0\r\na: b\n\r\n"]
        {
            assert!(decode(&[wrong.as_bytes()]).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn extensions_are_bounded_and_hold_no_control_characters() {
        let long = format!("1;{}\r\n", "a".repeat(20_000));
        assert_eq!(decode(&[long.as_bytes()]), Err(ChunkError::Extension));
        assert_eq!(decode(&[b"1;a\nb\r\n"]), Err(ChunkError::Extension));
        assert_eq!(decode(&[b"1;a\x00b\r\n"]), Err(ChunkError::Extension));
    }

    #[test]
    fn extensions_have_names_and_their_quotes_are_closed() {
        for extension in [";a", ";a=b", " ; a = b", ";a;b=\"c\\\"; ä\" ;d", "\t;\ta\t=\tb;c", ";a=\"\""] {
            let text = [b"1", extension.as_bytes(), b"\r\nx\r\n0", extension.as_bytes(), b"\r\n\r\n"].concat();
            assert_eq!(decode(&[&text]).map(|d| (d.0, d.2)), Ok((b"x".to_vec(), true)), "{extension:?}");
        }
        for wrong in [
            ";",
            ";;",
            ";a;",
            ";=b",
            ";a=",
            "; ",
            ";a ",
            ";a=b ",
            ";a b",
            ";a=\"b",
            ";a=\"b\\\"",
            ";a=\"b\"c",
            ";a=b=c",
            ";\"a\"",
        ] {
            let text = [b"1", wrong.as_bytes(), b"\r\nx\r\n0\r\n\r\n"].concat();
            assert_eq!(decode(&[&text]), Err(ChunkError::Extension), "{wrong:?}");
        }
    }

    #[test]
    fn trailers_are_parsed_and_bounded() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.step(b"0\r\nGrpc-Status: 0\r\nx: y\r\n\r\n"), Ok(Step::End { skip: 27 }));
        assert_eq!(decoder.take_trailers().unwrap().unwrap().len(), 2);
        let long = format!("0\r\na: {}\r\n\r\n", "b".repeat(9000));
        assert_eq!(decode(&[long.as_bytes()]), Err(ChunkError::Trailers));
        assert_eq!(decode(&[b"0\r\nbad line\r\n\r\n"]), Err(ChunkError::Trailers));
    }
}
