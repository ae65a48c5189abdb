//! Is an address one of this machine's own, whether the settings name it or not?
//!
//! Only to its own addresses does the kernel let a socket be bound, on whichever interface they are. It says nothing where sockets may
//! be bound to any address (`ip_nonlocal_bind`), nor where kube-proxy works by IPVS: that puts the address of every Service on an
//! interface of each node, and names of other Services are what external names are mostly used for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::Path;

/// Where an interface of this name is in our network namespace, kube-proxy works by IPVS.
const IPVS: &str = "/proc/sys/net/ipv4/conf/kube-ipvs0";
/// Reserved (RFC 1112, section 4) and for what is to be thrown away (RFC 6666): on no machine.
const NOBODY: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(240, 0, 0, 1), Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1));

/// Asks the kernel; `false` where it cannot be known.
pub(super) fn is_own(address: IpAddr) -> bool {
    !Path::new(IPVS).exists() && binds_alone(address.to_canonical(), &|address| UdpSocket::bind((address, 0)).is_ok())
}

/// Whether a socket can be bound to it, and not to any address.
fn binds_alone(address: IpAddr, binds: &dyn Fn(IpAddr) -> bool) -> bool {
    let nobody = if address.is_ipv4() { NOBODY.0.into() } else { NOBODY.1.into() };
    binds(address) && !binds(nobody)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_own_where_a_socket_can_be_bound_to_it_and_not_to_any() {
        for own in ["192.0.2.7", "2001:db8::7"] {
            let own: IpAddr = own.parse().unwrap();
            assert!(binds_alone(own, &|address| address == own));
            assert!(!binds_alone(own, &|_| false));
            assert!(!binds_alone(own, &|_| true), "then it says nothing");
        }
    }

    #[test]
    fn the_kernel_knows_its_own_addresses() {
        let anything = UdpSocket::bind((NOBODY.0, 0)).is_ok() || Path::new(IPVS).exists();
        assert_eq!(is_own([127, 0, 0, 1].into()), !anything);
        assert!(!is_own([198, 51, 100, 1].into()), "of documentation (RFC 5737)");
    }
}
