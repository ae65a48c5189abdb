//! What is fed by chance, from which seeds, and what must hold of it?

use crate::{http2, parsers, requests, responses, texts};

/// Something that takes bytes from outside.
pub struct Target {
    /// As `make fuzz TARGET=` calls it, and its file in `found`.
    pub name: &'static str,
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Panics where something does not hold.
    pub holds: fn(&[u8]),
}

pub const ALL: &[Target] = &[
    Target { name: "requests", seeds: requests::seeds, holds: requests::holds },
    Target { name: "responses", seeds: responses::seeds, holds: responses::holds },
    Target { name: "http2", seeds: http2::seeds, holds: http2::holds_for_text },
    Target { name: "chunked", seeds: parsers::chunked, holds: parsers::chunks_hold },
    Target { name: "paths", seeds: parsers::paths, holds: parsers::a_path_holds },
    Target { name: "hosts", seeds: parsers::hosts, holds: parsers::a_host_holds },
    Target { name: "proxy", seeds: parsers::proxy_headers, holds: parsers::a_proxy_header_holds },
    Target { name: "hello", seeds: parsers::hellos, holds: parsers::a_hello_holds },
    Target { name: "routes", seeds: texts::routes, holds: texts::routes_hold },
    Target { name: "install", seeds: texts::installs, holds: texts::an_install_holds },
];

#[test]
fn every_seed_and_all_that_was_found_holds() {
    for target in ALL {
        (target.seeds)().iter().for_each(|bytes| (target.holds)(bytes));
    }
}

#[test]
fn what_was_found_belongs_to_a_target() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/messages/found");
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(ALL.iter().any(|target| name == target.name), "{} is nobody's", name.display());
    }
}
