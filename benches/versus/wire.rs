//! What little HTTP/1 do the generator and the upstream need to read?

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After this many bytes.
    Length(u64),
    /// After the last chunk.
    Chunked,
}

/// Where the head ends, its empty line included.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

/// A field's first value. `name` in lower case.
pub fn field<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    head.split(|&byte| byte == b'\n').skip(1).find_map(|line| {
        let (field, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?;
        field.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
    })
}

/// How the body after this head ends; `None` where the head does not say.
pub fn framing(head: &[u8]) -> Option<Framing> {
    if field(head, b"transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case(b"chunked")) {
        return Some(Framing::Chunked);
    }
    let length = std::str::from_utf8(field(head, b"content-length")?).ok()?;
    length.parse().ok().map(Framing::Length)
}

/// The status of a response's head.
pub fn status(head: &[u8]) -> Option<u16> {
    let digits = head.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Counts the bytes of a body's content as pieces of it arrive.
pub struct BodyCounter {
    framing: Framing,
    content: u64,
    state: Chunk,
}

enum Chunk {
    Size { value: u64, digits: usize },
    Extension(u64),
    Content(u64),
    Trailer { line: usize },
}

impl Chunk {
    const START: Self = Self::Size { value: 0, digits: 0 };
}

impl BodyCounter {
    /// Starts before the first byte of the body.
    pub fn new(framing: Framing) -> Self {
        Self { framing, content: 0, state: Chunk::START }
    }

    /// Bytes of content so far.
    pub fn bytes(&self) -> u64 {
        self.content
    }

    /// Takes the next piece; true at the end of the body, `None` where it is malformed.
    pub fn take(&mut self, mut piece: &[u8]) -> Option<bool> {
        if let Framing::Length(length) = self.framing {
            self.content += piece.len() as u64;
            return Some(self.content >= length);
        }
        while let Some((&byte, rest)) = piece.split_first() {
            match &mut self.state {
                // The line that ends a chunk's content is an empty size line.
                Chunk::Size { digits: 0, .. } if matches!(byte, b'\r' | b'\n') => {}
                Chunk::Size { value, .. } if matches!(byte, b'\r' | b';') => self.state = Chunk::Extension(*value),
                Chunk::Size { value, digits } => {
                    *value = *value * 16 + u64::from((byte as char).to_digit(16)?);
                    *digits += 1;
                }
                Chunk::Extension(0) if byte == b'\n' => self.state = Chunk::Trailer { line: 0 },
                Chunk::Extension(size) if byte == b'\n' => self.state = Chunk::Content(*size),
                Chunk::Extension(_) => {}
                Chunk::Content(left) => {
                    let count = piece.len().min(usize::try_from(*left).ok()?);
                    self.content += count as u64;
                    *left -= count as u64;
                    if *left == 0 {
                        self.state = Chunk::START;
                    }
                    piece = &piece[count..];
                    continue;
                }
                Chunk::Trailer { line } => match (byte, *line) {
                    (b'\n', 0) => return Some(true),
                    (b'\n', _) => *line = 0,
                    (b'\r', _) => {}
                    _ => *line += 1,
                },
            }
            piece = rest;
        }
        Some(false)
    }
}
