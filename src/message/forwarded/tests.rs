//! Can an untrusted client choose who it is, and do upstreams hear the truth?

use super::*;
use crate::message::{Name, Scheme, TlsInfo};
use crate::model::{EncodedSlash, Limits, ListenerProtocol, Origin, TimeoutSpec};
use http::Method;
use proptest::prelude::*;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::time::Instant;

fn listener(trusted: &[&str]) -> ListenerSpec {
    ListenerSpec {
        name: "http".into(),
        origin: Origin::default(),
        address: "127.0.0.1:0".parse().unwrap(),
        protocol: ListenerProtocol::Http,
        proxy_protocol_from: vec![],
        trusted_proxies: trusted.iter().map(|net| net.parse().unwrap()).collect(),
        https_redirect: None,
        encoded_slash: EncodedSlash::default(),
        policies: vec![],
        headers: ProxyHeaders::default(),
        limits: Limits::default(),
        timeouts: TimeoutSpec::default(),
    }
}

fn context(peer: &str) -> RequestContext {
    let peer = SocketAddr::new(peer.parse().unwrap(), 4000);
    RequestContext::new(Instant::now(), peer, "127.0.0.1:80".parse().unwrap(), Scheme::Http, None)
}

fn head(fields: &[(&str, &str)]) -> RequestHead {
    let mut head = RequestHead::sample(Method::GET, "a.test", "/");
    for (name, value) in fields {
        head.fields.push(name.as_bytes(), value.as_bytes());
    }
    head
}

/// Client and scheme as resolved behind proxies of 10.0.0.0/8.
fn resolved(peer: &str, fields: &[(&str, &str)]) -> (String, &'static str) {
    let mut ctx = context(peer);
    resolve(&mut head(fields), &mut ctx, &listener(&["10.0.0.0/8", "2001:db8::/32"]));
    (ctx.client.to_string(), ctx.client_scheme.as_str())
}

fn get<'a>(head: &'a RequestHead, name: &str) -> Vec<&'a str> {
    let name = Name::new(name);
    let values: Vec<&[u8]> =
        head.fields.iter().filter(|f| f.name.eq_ignore_ascii_case(name.as_str().as_bytes())).map(|f| f.value).collect();
    values.into_iter().map(|v| std::str::from_utf8(v).unwrap()).collect()
}

#[test]
fn an_untrusted_peer_is_the_client_whatever_it_says() {
    let said =
        [("X-Forwarded-For", "10.0.0.9"), ("Forwarded", "for=10.0.0.8;proto=https"), ("X-Forwarded-Proto", "https")];
    assert_eq!(resolved("192.0.2.1", &said), ("192.0.2.1".into(), "http"));
    assert_eq!(resolved("::ffff:192.0.2.1", &said).0, "192.0.2.1");
}

#[test]
fn the_walk_goes_from_right_to_left_and_ends_at_the_first_untrusted_address() {
    for (said, client) in [
        ("198.51.100.7", "198.51.100.7"),
        ("1.1.1.1, 198.51.100.7", "198.51.100.7"),
        ("1.1.1.1, 198.51.100.7, 10.0.0.2 , 10.0.0.3", "198.51.100.7"),
        ("10.0.0.1, 10.0.0.2", "10.0.0.1"),
        ("198.51.100.7:5555, 10.0.0.2:80", "198.51.100.7"),
        ("[2001:db9::1]:443, 2001:db8::2", "2001:db9::1"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("1.1.1.1, unknown, 10.0.0.2", "10.0.0.2"),
        ("garbage", "10.0.0.1"),
        ("", "10.0.0.1"),
    ] {
        assert_eq!(resolved("10.0.0.1", &[("x-forwarded-for", said)]).0, client, "{said}");
    }
    let two = [("x-forwarded-for", "1.1.1.1"), ("host", "a"), ("X-Forwarded-For", "198.51.100.7, 10.0.0.2")];
    assert_eq!(resolved("10.0.0.1", &two).0, "198.51.100.7");
    assert_eq!(resolved("::ffff:10.0.0.1", &two).0, "198.51.100.7", "a mapped peer is trusted as its IPv4 address");
}

#[test]
fn forwarded_is_walked_where_there_is_no_x_forwarded_for() {
    for (said, client, scheme) in [
        ("for=198.51.100.7;proto=https", "198.51.100.7", "https"),
        (
            "for=1.1.1.1;proto=https, For=\"198.51.100.7:99\" ; Proto=HTTPS, for=10.0.0.2;proto=http",
            "198.51.100.7",
            "https",
        ),
        ("for=\"[2001:db9::1]\"", "2001:db9::1", "http"),
        ("for=_hidden", "10.0.0.1", "http"),
        ("for=1.1.1.1;for=2.2.2.2", "10.0.0.1", "http"),
        ("for=\"a, for=1.1.1.1;proto=https, for=198.51.100.7", "198.51.100.7", "http"),
    ] {
        assert_eq!(resolved("10.0.0.1", &[("forwarded", said)]), (client.into(), scheme), "{said}");
    }
    let both = [("forwarded", "for=1.1.1.1"), ("x-forwarded-for", "198.51.100.7")];
    assert_eq!(resolved("10.0.0.1", &both).0, "198.51.100.7");
}

#[test]
fn the_scheme_is_the_one_of_the_clients_own_hop() {
    for (addresses, said, scheme) in [
        ("198.51.100.7", "https", "https"),
        ("198.51.100.7, 10.0.0.2", "https, http", "https"),
        ("198.51.100.7, 10.0.0.2", "https", "https"),
        ("198.51.100.7", "https, http", "http"),
        ("198.51.100.7", "gopher", "http"),
        ("198.51.100.7", "wss", "https"),
    ] {
        let fields = [("x-forwarded-for", addresses), ("x-forwarded-proto", said)];
        assert_eq!(resolved("10.0.0.1", &fields).1, scheme, "{addresses} {said}");
    }
}

#[test]
fn what_an_untrusted_client_says_about_itself_is_gone() {
    let said = [
        "X-Forwarded-For",
        "x-forwarded-host",
        "X-Forwarded-Prefix",
        "Forwarded",
        "X-Real-IP",
        "X_Forwarded_For",
        "x-forwarded_proto",
        "X_Real-Ip",
        "Client-Cert",
        "client_cert",
        "Client-Cert-Chain",
        "X-Request-Id",
        "X-Original-URL",
        "x-rewrite-url",
        "True-Client-IP",
        "CF-Connecting-IP",
    ];
    let fields: Vec<_> =
        said.iter().map(|name| (*name, "forged")).chain([("x-other", "kept"), ("x_y", "kept")]).collect();
    let mut untrusted = head(&fields);
    resolve(&mut untrusted, &mut context("192.0.2.1"), &listener(&[]));
    let left: Vec<_> = untrusted.fields.iter().filter(|f| f.value == b"forged").collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!((get(&untrusted, "x-other"), get(&untrusted, "x_y")), (vec!["kept"], vec!["kept"]));
    let mut trusted = head(&fields);
    resolve(&mut trusted, &mut context("10.0.0.1"), &listener(&["10.0.0.0/8"]));
    for gone in ["client-cert", "client-cert-chain", "x_forwarded_for", "client_cert"] {
        assert!(get(&trusted, gone).is_empty(), "{gone}");
    }
    for kept in ["x-forwarded-prefix", "x-real-ip", "forwarded", "x-request-id", "x-original-url", "true-client-ip"] {
        assert_eq!(get(&trusted, kept), ["forged"]);
    }
}

#[test]
fn a_request_id_is_kept_from_trusted_proxies_where_it_can_be_logged() {
    let id = |peer: &str, said: &[(&str, &str)]| {
        let mut head = head(said);
        resolve(&mut head, &mut context(peer), &listener(&["10.0.0.0/8"]));
        assert_eq!(get(&head, "x-request-id").len(), 1);
        get(&head, "x-request-id")[0].to_owned()
    };
    assert_eq!(id("10.0.0.1", &[("x-request-id", "abc-1")]), "abc-1");
    let made = |id: &str| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    assert!(made(&id("192.0.2.1", &[("x-request-id", "abc-1")])));
    assert!(made(&id("10.0.0.1", &[("x-request-id", "a\"b")])));
    assert!(made(&id("10.0.0.1", &[("x-request-id", "a"), ("x-request-id", "b")])));
    assert!(made(&id("10.0.0.1", &[("x-request-id", &"a".repeat(129))])));
    assert_ne!(id("192.0.2.1", &[]), id("192.0.2.1", &[]));
    let mut off = listener(&[]);
    off.headers.request_id = false;
    let mut own = head(&[("x-request-id", "own")]);
    resolve(&mut own, &mut context("192.0.2.1"), &off);
    assert_eq!(get(&own, "x-request-id"), ["own"]);
}

#[test]
fn the_identity_of_the_handshake_replaces_what_a_client_claims() {
    let mut ctx = context("192.0.2.1");
    ctx.tls = Some(Arc::new(TlsInfo { client_certificate: Some(":QQ==:".into()), ..TlsInfo::default() }));
    let mut head = head(&[("client-cert", ":forged:")]);
    resolve(&mut head, &mut ctx, &listener(&[]));
    assert_eq!(get(&head, "client-cert"), [":QQ==:"]);
}

fn written(peer: &str, fields: &[(&str, &str)], says: ProxyHeaders) -> RequestHead {
    let listener = ListenerSpec { headers: says, ..listener(&["10.0.0.0/8"]) };
    let (mut head, mut ctx) = (head(fields), context(peer));
    head.port = Some(8080);
    resolve(&mut head, &mut ctx, &listener);
    write(&mut head, &ctx, &listener);
    head
}

#[test]
fn the_upstream_hears_about_the_client() {
    let head = written("192.0.2.1", &[("x-forwarded-for", "9.9.9.9")], ProxyHeaders::default());
    for (name, value) in [("for", "192.0.2.1"), ("proto", "http"), ("host", "a.test:8080"), ("port", "80")] {
        assert_eq!(get(&head, &format!("x-forwarded-{name}")), [value]);
    }
    assert!(get(&head, "forwarded").is_empty() && get(&head, "via").is_empty());
    let said = [
        ("x-forwarded-for", "198.51.100.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "b.test"),
        ("x-forwarded-for", "10.1.1.1"),
    ];
    let head = written("10.0.0.1", &said, ProxyHeaders::default());
    assert_eq!(get(&head, "x-forwarded-for"), ["198.51.100.7, 10.1.1.1, 10.0.0.1"]);
    assert_eq!((get(&head, "x-forwarded-proto"), get(&head, "x-forwarded-host")), (vec!["https"], vec!["b.test"]));
}

#[test]
fn forwarded_quotes_what_needs_it() {
    let says = || ProxyHeaders { x_forwarded: false, forwarded: true, via: true, ..ProxyHeaders::default() };
    let head = written("2001:db8::1", &[], says());
    assert_eq!(get(&head, "forwarded"), ["for=\"[2001:db8::1]\";host=\"a.test:8080\";proto=http"]);
    assert_eq!(get(&head, "via"), ["1.1 tidegate"]);
    assert!(get(&head, "x-forwarded-for").is_empty());
    let head = written("10.0.0.1", &[("forwarded", "for=198.51.100.7"), ("via", "1.0 a")], says());
    assert_eq!(get(&head, "forwarded"), ["for=198.51.100.7, for=10.0.0.1;host=\"a.test:8080\";proto=http"]);
    assert_eq!(get(&head, "via"), ["1.0 a, 1.1 tidegate"]);
}

#[test]
fn the_server_header_is_kept_removed_or_set() {
    let server = |server: ServerHeader| {
        let mut head = ResponseHead::default();
        head.fields.push(b"Server", b"nginx");
        response(&mut head, &ProxyHeaders { server, ..ProxyHeaders::default() });
        head.fields.get(FieldId::Server).map(|v| String::from_utf8(v.to_vec()).unwrap())
    };
    assert_eq!(server(ServerHeader::Keep).as_deref(), Some("nginx"));
    assert_eq!(server(ServerHeader::Remove), None);
    assert_eq!(server(ServerHeader::Set("gate".into())).as_deref(), Some("gate"));
}

fn claim() -> impl Strategy<Value = String> {
    let address = prop_oneof![
        any::<std::net::Ipv4Addr>().prop_map(|a| a.to_string()),
        any::<std::net::Ipv6Addr>().prop_map(|a| a.to_string()),
        Just("10.0.0.7".to_owned()),
        Just("unknown".to_owned()),
        "[ -~]{0,20}",
    ];
    prop::collection::vec(address, 0..5).prop_map(|list| list.join(", "))
}

proptest! {
    #[test]
    fn an_untrusted_client_never_chooses_its_address(
        claims in prop::collection::vec((prop::sample::select(vec!["X-Forwarded-For", "Forwarded", "X-Real-IP"]), claim()), 0..4),
        proxies in 0usize..4,
        by_forwarded in any::<bool>(),
    ) {
        // The client speaks to the first of so many trusted proxies; each appends who it heard from. The last is our peer.
        let client: IpAddr = "198.51.100.7".parse().unwrap();
        let mut fields: Vec<(String, String)> = claims.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect();
        let own = if by_forwarded { "Forwarded" } else { "X-Forwarded-For" };
        let mut heard_from = client;
        for hop in 0..proxies {
            // A proxy that writes Forwarded alone must drop X-Forwarded-For.
            fields.retain(|(name, _)| !by_forwarded || name != "X-Forwarded-For");
            let element = if by_forwarded { format!("for={heard_from}") } else { heard_from.to_string() };
            match fields.iter_mut().rev().find(|(name, _)| name == own) {
                Some((_, value)) => *value = format!("{value}, {element}"),
                None => fields.push((own.to_owned(), element)),
            }
            heard_from = IpAddr::from([10, 0, 0, u8::try_from(hop).unwrap()]);
        }
        let borrowed: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        prop_assert_eq!(resolved(&heard_from.to_string(), &borrowed).0, client.to_string());
    }
}
