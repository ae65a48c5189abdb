//! Are endpoints taken from slices as Kubernetes means them, and how much do they cost?

use super::*;
use serde_json::{Value, json};

fn slices(settings: &Settings) -> Slices {
    Slices::new(settings)
}

fn on_node(node: &str) -> Settings {
    Settings { node: Some(node.into()), ..Settings::default() }
}

fn slice(name: &str, family: &str, ports: Value, endpoints: Value) -> api::EndpointSlice {
    serde_json::from_value(json!({
        "metadata": { "namespace": "shop", "name": name, "labels": { SERVICE: "web" } },
        "addressType": family, "ports": ports, "endpoints": endpoints,
    }))
    .unwrap()
}

fn unnamed() -> Value {
    json!([{ "port": 8080, "protocol": "TCP" }])
}

fn web() -> Key {
    Key::new("shop", "web")
}

impl Slices {
    fn add(&mut self, name: &str, endpoints: Value) -> Vec<Key> {
        self.add_as(name, "IPv4", unnamed(), endpoints)
    }

    fn add_as(&mut self, name: &str, family: &str, ports: Value, endpoints: Value) -> Vec<Key> {
        let read = self.read(slice(name, family, ports, endpoints));
        self.put(read)
    }

    fn of(&self, port: &str) -> Vec<String> {
        self.members(&web(), port).iter().map(|e| e.address.to_string()).collect()
    }

    fn near_of(&self) -> Vec<(String, Nearness)> {
        self.members(&web(), "").iter().map(|e| (e.address.ip().to_string(), e.near)).collect()
    }
}

fn at(address: &str) -> Value {
    json!({ "addresses": [address] })
}

fn with(address: &str, ready: bool, serving: bool, terminating: bool) -> Value {
    json!({ "addresses": [address], "conditions": { "ready": ready, "serving": serving, "terminating": terminating } })
}

#[test]
fn several_slices_make_one_service_and_an_endpoint_in_two_of_them_counts_once() {
    let mut slices = slices(&Settings::default());
    assert_eq!(slices.add("a", json!([at("10.0.0.2"), at("10.0.0.1")])), [web()]);
    assert_eq!(slices.add("b", json!([at("10.0.0.2"), at("10.0.0.3")])), [web()]);
    assert_eq!(slices.of(""), ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080"]);
    assert_eq!((slices.len(), slices.endpoints()), (2, 4));
}

#[test]
fn what_is_not_said_is_ready() {
    let mut slices = slices(&Settings::default());
    slices.add("a", json!([at("10.0.0.1"), { "addresses": ["10.0.0.2"], "conditions": {} }]));
    assert_eq!(slices.of("").len(), 2);
}

#[test]
fn ending_endpoints_take_requests_only_where_no_ready_one_is_left() {
    let mut slices = slices(&Settings::default());
    let ending = with("10.0.0.2", false, true, true);
    let ended = with("10.0.0.3", false, false, true);
    let not_yet = with("10.0.0.4", false, false, false);
    slices.add("a", json!([with("10.0.0.1", true, true, false), ending, ended, not_yet]));
    assert_eq!(slices.of(""), ["10.0.0.1:8080"]);
    slices.add("a", json!([with("10.0.0.1", false, false, false), ending, ended, not_yet]));
    assert_eq!(slices.of(""), ["10.0.0.2:8080"]);
    slices.add("a", json!([ended, not_yet]));
    assert!(slices.of("").is_empty());
}

#[test]
fn a_ready_endpoint_in_one_slice_keeps_ending_ones_of_another_out() {
    let mut slices = slices(&Settings::default());
    slices.add("a", json!([with("10.0.0.1", false, true, true)]));
    slices.add("b", json!([at("10.0.0.2")]));
    assert_eq!(slices.of(""), ["10.0.0.2:8080"]);
}

#[test]
fn an_unready_address_that_is_to_be_published_comes_as_ready() {
    let mut slices = slices(&Settings::default());
    slices.add("a", json!([with("10.0.0.1", true, false, true)]));
    assert_eq!(slices.of(""), ["10.0.0.1:8080"]);
}

#[test]
fn ports_are_found_by_their_name_and_only_tcp_ones() {
    let mut slices = slices(&Settings::default());
    let ports =
        json!([{ "name": "http", "port": 80 }, { "name": "dns", "port": 53, "protocol": "UDP" }, { "name": "any" }]);
    slices.add_as("a", "IPv4", ports, json!([at("10.0.0.1")]));
    let other = json!([{ "name": "http", "port": 8080 }]);
    slices.add_as("b", "IPv4", other, json!([at("10.0.0.2")]));
    assert_eq!(slices.of("http"), ["10.0.0.1:80", "10.0.0.2:8080"], "a named target port may differ from pod to pod");
    assert!(slices.of("").is_empty() && slices.of("dns").is_empty() && slices.of("any").is_empty());
}

#[test]
fn an_endpoint_of_both_families_counts_once_by_ipv4() {
    let pod = |address: &str, uid: &str| json!({ "addresses": [address], "targetRef": { "kind": "Pod", "uid": uid } });
    let mut slices = slices(&Settings::default());
    slices.add_as("six", "IPv6", unnamed(), json!([pod("fd00::1", "1"), pod("fd00::3", "3")]));
    assert_eq!(slices.of(""), ["[fd00::1]:8080", "[fd00::3]:8080"]);
    slices.add("four", json!([pod("10.0.0.1", "1"), pod("10.0.0.2", "2")]));
    assert_eq!(slices.of(""), ["10.0.0.1:8080", "10.0.0.2:8080", "[fd00::3]:8080"], "a pod with IPv6 alone is kept");
}

#[test]
fn a_node_that_has_ipv6_alone_takes_ipv6() {
    let settings = Settings { addresses: vec!["fd00::9".parse().unwrap()], ..Settings::default() };
    let mut slices = slices(&settings);
    slices.add_as("six", "IPv6", unnamed(), json!([at("fd00::1")]));
    slices.add("four", json!([at("10.0.0.1")]));
    assert_eq!(slices.of(""), ["[fd00::1]:8080"]);
}

#[test]
fn nearness_is_the_node_then_the_zone_then_anywhere() {
    let mut slices = slices(&Settings { zone: Some("z1".into()), ..on_node("n1") });
    let endpoint = |address: &str, node: &str, zone: &str, hints: Value| json!({ "addresses": [address], "nodeName": node, "zone": zone, "hints": hints });
    slices.add(
        "a",
        json!([
            endpoint("10.0.0.1", "n1", "z1", json!({})),
            endpoint("10.0.0.2", "n2", "z1", json!({})),
            endpoint("10.0.0.3", "n3", "z2", json!({})),
            endpoint("10.0.0.4", "n3", "z2", json!({ "forZones": [{ "name": "z2" }, { "name": "z1" }] })),
            endpoint("10.0.0.5", "n3", "z2", json!({ "forNodes": [{ "name": "n1" }] })),
            endpoint("10.0.0.6", "n3", "z2", json!({ "forZones": [{ "name": "z11" }] })),
        ]),
    );
    use Nearness::{Anywhere, Node, Zone};
    let near: Vec<Nearness> = slices.near_of().into_iter().map(|(_, near)| near).collect();
    assert_eq!(near, [Node, Zone, Anywhere, Zone, Node, Anywhere]);
    slices.here.locality = false;
    assert!(slices.near_of().iter().all(|(_, near)| *near == Anywhere));
}

#[test]
fn the_zone_is_learnt_from_an_endpoint_on_this_node() {
    let mut slices = slices(&on_node("n1"));
    slices.add("a", json!([{ "addresses": ["10.0.0.1"], "nodeName": "n2", "zone": "z1" }]));
    assert_eq!((slices.zone(), slices.near_of()[0].1), (None, Nearness::Anywhere));
    slices.add("b", json!([{ "addresses": ["10.0.0.9"], "nodeName": "n1", "zone": "z1" }]));
    assert_eq!((slices.zone(), slices.near_of()[0].1), (Some("z1"), Nearness::Zone));
}

#[test]
fn a_slice_that_did_not_change_touches_no_service() {
    let mut slices = slices(&Settings::default());
    slices.add("a", json!([at("10.0.0.1")]));
    assert!(slices.add("a", json!([at("10.0.0.1")])).is_empty());
    assert_eq!(slices.add("a", json!([at("10.0.0.2")])), [web()]);
    assert_eq!(slices.remove(&Key::new("shop", "a")), [web()]);
    assert!(slices.remove(&Key::new("shop", "a")).is_empty());
    assert!(slices.of("").is_empty() && slices.services.is_empty());
}

#[test]
fn names_instead_of_addresses_and_slices_of_no_service_are_left_out() {
    let mut slices = slices(&Settings::default());
    assert!(slices.add_as("a", "FQDN", unnamed(), json!([at("a.test")])).is_empty());
    let mut of_nobody = slice("b", "IPv4", unnamed(), json!([at("10.0.0.1")]));
    of_nobody.metadata.labels = None;
    let read = slices.read(of_nobody);
    assert!(slices.put(read).is_empty());
    slices.add("c", json!([at("not an address"), at("10.0.0.1")]));
    assert_eq!(slices.of(""), ["10.0.0.1:8080"]);
    let mut orphan = slice("c", "IPv4", unnamed(), json!([at("10.0.0.1")]));
    orphan.metadata.labels = None;
    let read = slices.read(orphan);
    assert_eq!(slices.put(read), [web()], "a slice that loses its Service is gone");
    assert_eq!(slices.len(), 0);
}

#[test]
fn a_new_list_removes_what_it_does_not_hold_in_its_namespace_alone() {
    let mut slices = slices(&Settings::default());
    for name in ["a", "b", "c"] {
        slices.add(name, json!([at("10.0.0.1")]));
    }
    let keep = BTreeSet::from([Key::new("shop", "c")]);
    let all = vec![slices.read(slice("a", "IPv4", unnamed(), json!([at("10.0.0.1")])))];
    assert!(slices.replace(Some("other"), vec![], &keep).is_empty());
    assert_eq!(slices.replace(Some("shop"), all, &keep), [web()]);
    assert_eq!(slices.len(), 2);
    assert_eq!(slices.replace(None, vec![], &BTreeSet::new()), [web()]);
    assert_eq!((slices.len(), slices.endpoints()), (0, 0));
}

#[test]
fn a_hundred_thousand_endpoints_in_a_thousand_slices_cost_less_than_ten_megabytes() {
    assert_eq!((size_of::<Member<Ipv4Addr>>(), size_of::<Member<Ipv6Addr>>()), (16, 28));
    for (family, start, limit) in [("IPv4", "10", 2_500_000), ("IPv6", "fd00::", 3_700_000)] {
        let mut slices = slices(&on_node("n1"));
        for n in 0..1000 {
            let address = |m: usize| {
                if start == "10" { format!("10.{}.{}.{m}", n / 250, n % 250) } else { format!("fd00::{n:x}:{m:x}") }
            };
            let endpoints: Vec<Value> = (0..100)
                .map(|m| {
                    json!({
                        "addresses": [address(m)], "nodeName": format!("node-{m}"), "zone": format!("zone-{}", m % 3),
                        "conditions": { "ready": true, "serving": true, "terminating": false },
                        "targetRef": { "kind": "Pod", "name": format!("web-{n}-{m}"), "uid": format!("{n}-{m}") },
                    })
                })
                .collect();
            slices.add_as(&format!("web-{n}"), family, unnamed(), endpoints.into());
        }
        assert_eq!((slices.len(), slices.endpoints()), (1000, 100_000));
        let bytes = slices.bytes();
        assert!(bytes < limit, "{family}: {bytes} bytes");
    }
}

impl Slices {
    /// What the store holds on the heap, tables and names included; two words for each allocation that is not counted.
    fn bytes(&self) -> usize {
        let text = |text: &str| text.len() + 32;
        let key = |key: &Key| size_of::<Key>() + text(&key.name) + text(&key.namespace);
        let members = |members: &Members| match members {
            Members::V4(members) => size_of_val(&**members),
            Members::V6(members) => size_of_val(&**members),
        };
        let slice = |(name, slice): (&Key, &Slice)| {
            key(name) + size_of::<Slice>() + size_of_val(&*slice.ports) + members(&slice.members) + 64
        };
        let slices: usize = self.slices.iter().map(slice).sum();
        let services: usize =
            self.services.iter().map(|(name, all)| key(name) + all.capacity() * size_of::<Key>()).sum();
        // A table is at most 8/7 of a power of two, and may just have grown.
        slices + services + self.slices.capacity() * (size_of::<Key>() + size_of::<Slice>())
    }
}
