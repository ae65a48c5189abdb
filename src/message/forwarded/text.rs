//! How are short values put together without the heap?

use std::fmt::{self, Write};
use std::net::IpAddr;

/// Text of at most `N` bytes on the stack.
pub(super) struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self { bytes: [0; N], len: 0 }
    }
}

impl<const N: usize> Text<N> {
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// An address, bare. IPv4 by hand: the formatter of the standard library pads.
    pub(super) fn address(&mut self, address: IpAddr) {
        let written = match address {
            IpAddr::V4(address) => {
                let [a, b, c, d] = address.octets();
                self.number(a).and_then(|()| self.dotted(b)).and_then(|()| self.dotted(c)).and_then(|()| self.dotted(d))
            }
            IpAddr::V6(address) => write!(self, "{address}"),
        };
        debug_assert!(written.is_ok(), "an address has 39 bytes at most");
    }

    fn dotted(&mut self, octet: u8) -> fmt::Result {
        self.write_str(".")?;
        self.number(octet)
    }

    fn number(&mut self, octet: u8) -> fmt::Result {
        self.write_str(itoa::Buffer::new().format(octet))
    }

    pub(super) fn decimal(&mut self, number: u16) {
        let written = self.write_str(itoa::Buffer::new().format(number));
        debug_assert!(written.is_ok(), "a port has 5 digits at most");
    }

    /// Sixteen hexadecimal digits.
    pub(super) fn hex(&mut self, number: u64) {
        let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
        let mut digits = [0; 16];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(number.to_be_bytes()) {
            pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
        let written = self.write_str(std::str::from_utf8(&digits).unwrap_or_default());
        debug_assert!(written.is_ok(), "identifiers are made for their size");
    }
}

impl<const N: usize> Write for Text<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}
