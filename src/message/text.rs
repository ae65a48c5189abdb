//! How are short values put together without the heap?

use std::fmt::{self, Write};
use std::net::{IpAddr, SocketAddr};

/// Text of at most `N` bytes on the stack.
#[derive(Debug)]
pub struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self { bytes: [0; N], len: 0 }
    }
}

impl<const N: usize> Text<N> {
    /// What was written.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// The same, which is text: nothing else can be written.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// An address, bare. IPv4 by hand: the formatter of the standard library pads.
    pub fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => {
                let [first, rest @ ..] = address.octets();
                self.octet(first);
                for octet in rest {
                    self.push(b'.');
                    self.octet(octet);
                }
            }
            IpAddr::V6(address) => {
                let written = write!(self, "{address}");
                debug_assert!(written.is_ok(), "an address has 39 bytes at most");
            }
        }
    }

    /// An address and a port, as `a:p` or `[a]:p`.
    pub fn socket_address(&mut self, address: SocketAddr) {
        let bracket = address.is_ipv6();
        if bracket {
            self.push(b'[');
        }
        self.address(address.ip());
        if bracket {
            self.push(b']');
        }
        self.push(b':');
        self.decimal(address.port());
    }

    /// A number without leading zeros.
    pub fn decimal(&mut self, number: u16) {
        let digits = [number / 10_000, number / 1000 % 10, number / 100 % 10, number / 10 % 10, number % 10];
        let first = digits.iter().position(|digit| *digit != 0).unwrap_or(digits.len() - 1);
        digits.iter().skip(first).for_each(|digit| self.push(b'0' + *digit as u8));
    }

    /// One byte of ASCII.
    pub fn push(&mut self, byte: u8) {
        let place = self.bytes.get_mut(self.len);
        debug_assert!(place.is_some(), "texts are given room for what comes into them");
        if let Some(place) = place {
            *place = byte;
            self.len += 1;
        }
    }

    fn octet(&mut self, number: u8) {
        if number >= 100 {
            self.push(b'0' + number / 100);
        }
        if number >= 10 {
            self.push(b'0' + number / 10 % 10);
        }
        self.push(b'0' + number % 10);
    }

    /// Sixteen hexadecimal digits.
    pub fn hex(&mut self, number: u64) {
        let mut digits = [0; 16];
        for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(number.to_be_bytes()) {
            *pair = [byte >> 4, byte & 15].map(|nibble| *HEX.get(usize::from(nibble)).unwrap_or(&b'0'));
        }
        let place = self.bytes.get_mut(self.len..self.len + 16);
        debug_assert!(place.is_some(), "texts are given room for what comes into them");
        if let Some(place) = place {
            place.copy_from_slice(&digits);
            self.len += 16;
        }
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

impl<const N: usize> Write for Text<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn addresses_and_numbers_read_as_the_standard_library_writes_them(ip: IpAddr, port: u16, number: u64) {
            let mut text = Text::<80>::default();
            text.socket_address(SocketAddr::new(ip, port));
            prop_assert_eq!(text.as_str(), SocketAddr::new(ip, port).to_string());
            let mut text = Text::<64>::default();
            text.address(ip);
            text.decimal(port);
            text.hex(number);
            prop_assert_eq!(text.as_str(), format!("{ip}{port}{number:016x}"));
        }
    }

    #[test]
    fn what_is_too_long_is_refused_whole() {
        let mut text = Text::<4>::default();
        assert!(text.write_str("abc").is_ok() && text.write_str("de").is_err());
        assert_eq!(text.as_str(), "abc");
        for (number, digits) in [(0, "0"), (7, "7"), (10, "10"), (65_535, "65535")] {
            let mut text = Text::<5>::default();
            text.decimal(number);
            assert_eq!(text.as_str(), digits);
        }
    }
}
