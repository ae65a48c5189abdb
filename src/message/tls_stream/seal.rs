//! How do the parts of one write become few records?

use super::block::{Block, RECORD, RECORDS};
use rustls::server::ServerConnectionData;
use rustls::unbuffered::{EncryptError, WriteTraffic};
use std::io::IoSlice;
use std::slice::Iter;

/// What rustls puts around a record, and what it may have to say before it (a key update), is far below that.
const SPARE: usize = 1024;

/// Makes records of the first bytes of the parts: of how many. They are behind what waits in `out`.
///
/// # Errors
/// The keys are used up.
pub(super) fn seal(
    traffic: &mut WriteTraffic<'_, ServerConnectionData>,
    parts: &[IoSlice<'_>],
    out: &mut Block,
) -> Result<usize, EncryptError> {
    let mut pieces = Pieces::of(parts);
    let mut taken = 0;
    for _ in 0..RECORDS {
        let piece = pieces.next();
        if piece.is_empty() {
            break;
        }
        let mut sealed = traffic.encrypt(piece, out.room(piece.len() + SPARE));
        if let Err(EncryptError::InsufficientSize(more)) = &sealed {
            sealed = traffic.encrypt(piece, out.room(more.required_size));
        }
        out.added(sealed?);
        taken += piece.len();
    }
    Ok(taken)
}

/// Pieces of one record each: a part that fills one is not copied, smaller ones are put together.
struct Pieces<'a> {
    front: &'a [u8],
    behind: Iter<'a, IoSlice<'a>>,
    gathered: Block,
}

impl<'a> Pieces<'a> {
    fn of(parts: &'a [IoSlice<'a>]) -> Self {
        let mut pieces = Self { front: &[], behind: parts.iter(), gathered: Block::default() };
        pieces.take(0);
        pieces
    }

    /// The next piece; nothing at the end.
    fn next(&mut self) -> &[u8] {
        if self.front.len() >= RECORD || self.behind.len() == 0 {
            return self.take(RECORD);
        }
        self.gathered.clear();
        self.gathered.lend();
        let mut room = RECORD;
        while room > 0 && !self.front.is_empty() {
            let part = self.take(room);
            self.gathered.put(part);
            room -= part.len();
        }
        self.gathered.bytes()
    }

    /// At most `n` bytes of the part at the front.
    fn take(&mut self, n: usize) -> &'a [u8] {
        let (now, later) = self.front.split_at_checked(n).unwrap_or((self.front, &[]));
        self.front = later;
        while self.front.is_empty() {
            let Some(next) = self.behind.next() else { break };
            self.front = next;
        }
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(lengths: &[usize]) -> Vec<usize> {
        let bytes: Vec<Vec<u8>> = (0..).zip(lengths).map(|(at, length)| vec![at; *length]).collect();
        let parts: Vec<_> = bytes.iter().map(|part| IoSlice::new(part)).collect();
        let (mut pieces, mut lengths, mut all) = (Pieces::of(&parts), Vec::new(), Vec::new());
        loop {
            let piece = pieces.next();
            if piece.is_empty() {
                assert!(all == bytes.concat());
                return lengths;
            }
            lengths.push(piece.len());
            all.extend_from_slice(piece);
        }
    }

    #[test]
    fn small_parts_share_a_record_and_large_ones_fill_theirs() {
        assert_eq!(pieces(&[]), [0; 0]);
        assert_eq!(pieces(&[0, 0]), [0; 0]);
        assert_eq!(pieces(&[200, 0, 64, 0]), [264]);
        assert_eq!(pieces(&[200, RECORD]), [RECORD, 200]);
        assert_eq!(pieces(&[0, 2 * RECORD + 1]), [RECORD, RECORD, 1]);
        assert_eq!(pieces(&[9, 3 * RECORD, 9, 5]), [RECORD, RECORD, RECORD, 23]);
        assert_eq!(pieces(&[1; 40]), [40]);
    }
}
