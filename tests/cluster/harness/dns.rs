//! Who tells a gate which addresses a name has? A name server of one test, on the network of the nodes.

use super::network::Place;
use super::test::Test;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use tokio::net::UdpSocket;

/// A name server that runs as long as the test.
pub struct Names {
    place: Place,
    told: Rc<RefCell<Told>>,
}

#[derive(Default)]
struct Told {
    names: BTreeMap<String, Vec<IpAddr>>,
    asked: BTreeSet<String>,
}

/// What is asked for (RFC 1035 section 3.2.2, RFC 3596).
const A: u16 = 1;
const AAAA: u16 = 28;

impl Names {
    /// Starts one that knows no name.
    pub fn start(test: &Test) -> Self {
        let place = super::network::settle(&test.cluster.nodes).unwrap();
        let socket = place.bind_udp(53).unwrap();
        socket.set_nonblocking(true).unwrap();
        let socket = UdpSocket::from_std(socket).unwrap();
        let told = Rc::<RefCell<Told>>::default();
        tokio::task::spawn_local(serve(socket, Rc::clone(&told)));
        Self { place, told }
    }

    /// Where it is asked.
    pub fn address(&self) -> Ipv4Addr {
        self.place.v4
    }

    /// A name has these addresses from now on.
    pub fn say(&self, name: &str, addresses: &[IpAddr]) {
        self.told.borrow_mut().names.insert(name.into(), addresses.to_vec());
    }

    /// Whether anybody has asked for a name.
    pub fn was_asked(&self, name: &str) -> bool {
        self.told.borrow().asked.contains(name)
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        // It goes with the sandbox at the latest.
        let _ = self.place.remove();
    }
}

async fn serve(socket: UdpSocket, told: Rc<RefCell<Told>>) {
    let mut packet = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut packet).await {
        if let Some(answer) = answer(&packet[..length], &mut told.borrow_mut()) {
            // A question that is not answered is asked again.
            let _ = socket.try_send_to(&answer, from);
        }
    }
}

/// The answer to a packet with one question; a name that nobody told of does not exist.
fn answer(packet: &[u8], told: &mut Told) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    let (mut labels, mut at) = (Vec::new(), HEADER);
    while let length @ 1.. = usize::from(*packet.get(at)?) {
        labels.push(String::from_utf8_lossy(packet.get(at + 1..=at + length)?).to_ascii_lowercase());
        at += 1 + length;
    }
    let name = labels.join(".");
    let kind = u16::from_be_bytes([*packet.get(at + 1)?, *packet.get(at + 2)?]);
    let question = packet.get(HEADER..at + 5)?;
    let known = told.names.get(&name);
    let fits = |address: &&IpAddr| kind == if address.is_ipv4() { A } else { AAAA };
    let found: Vec<&IpAddr> = known.into_iter().flatten().filter(fits).collect();
    let count = u8::try_from(found.len()).ok()?;
    let missing = if known.is_some() { 0 } else { 3 };
    // An answer, authoritative, to one question.
    let mut text = vec![packet[0], packet[1], 0x84, missing, 0, 1, 0, count, 0, 0, 0, 0];
    text.extend(question);
    for address in found {
        let octets = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        // The name of the question, class IN, good for no time.
        text.extend([0xc0, 0x0c]);
        text.extend(kind.to_be_bytes());
        text.extend([0, 1, 0, 0, 0, 0, 0, u8::try_from(octets.len()).ok()?]);
        text.extend(octets);
    }
    told.asked.insert(name);
    Some(text)
}
