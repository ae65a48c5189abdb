//! Which bytes may stand here?

/// A set of bytes: whether one is in it is a look into a table, however odd the set.
#[derive(Debug)]
pub struct ByteSet([bool; 256]);

impl ByteSet {
    /// Of tokens (RFC 9110 section 5.6.2) those that no reader takes for another: CGI reads `_` as `-`.
    pub const PLAIN_NAME: &'static Self = {
        static SET: ByteSet = ByteSet::alphanumeric_and(b"-");
        &SET
    };

    /// ASCII letters and digits, and these.
    #[allow(clippy::indexing_slicing, reason = "at compile time, where a place outside is an error")]
    pub const fn alphanumeric_and(others: &[u8]) -> Self {
        let mut all = [false; 256];
        let mut byte = 0;
        while byte < all.len() {
            all[byte] = (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        let mut at = 0;
        while at < others.len() {
            all[others[at] as usize] = true;
            at += 1;
        }
        Self(all)
    }

    /// Whether the byte is in the set.
    pub fn has(&self, byte: u8) -> bool {
        self.0.get(usize::from(byte)).is_some_and(|has| *has)
    }

    /// Whether every byte of the text is.
    pub fn has_all(&self, text: &[u8]) -> bool {
        text.iter().all(|byte| self.has(*byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_letters_and_digits_and_what_was_named() {
        static SET: ByteSet = ByteSet::alphanumeric_and(b"-\xff");
        let has: Vec<u8> = (0..=255).filter(|byte| SET.has(*byte)).collect();
        assert_eq!(has, b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz\xff");
        assert!(SET.has_all(b"a-Z") && SET.has_all(b"") && !SET.has_all(b"a_Z"));
    }
}
