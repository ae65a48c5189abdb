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
        for nibble in (0..16).rev() {
            let digit = u8::try_from((number >> (nibble * 4)) & 15).unwrap_or(0);
            self.push(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 });
        }
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
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
