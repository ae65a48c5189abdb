//! When does a client see a change that asks all the time, and when does one that watches the API server?

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, WatchEvent, WatchParams};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// Between two questions: what a time is sure to.
const PACE: Duration = Duration::from_micros(200);

/// What was seen first at which time; each text once, in order.
pub struct Seen(Receiver<(String, Instant)>);

impl Seen {
    /// When this was first seen; it may have been passed over by a later one.
    pub fn time_of(&self, text: &str) -> Option<Instant> {
        let end = Instant::now() + Duration::from_secs(10);
        while let Ok((seen, at)) = self.0.recv_timeout(end.saturating_duration_since(Instant::now())) {
            if seen == text {
                return Some(at);
            }
        }
        None
    }
}

/// Asks a gate on a kept connection, on a thread of its own, until nobody looks any more. What is seen is a part of the body.
pub fn ask(to: SocketAddr, host: &str, part: fn(&str) -> String) -> Seen {
    let (sender, seen) = channel();
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    std::thread::spawn(move || ask_on(to, &request, part, &sender));
    Seen(seen)
}

fn ask_on(to: SocketAddr, request: &str, part: fn(&str) -> String, seen: &Sender<(String, Instant)>) {
    let mut last = String::new();
    loop {
        let Ok(mut stream) = TcpStream::connect(to) else {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        let _ = stream.set_nodelay(true);
        let mut buffer = [0; 16 * 1024];
        loop {
            if stream.write_all(request.as_bytes()).is_err() {
                break;
            }
            let Some(body) = answer(&mut stream, &mut buffer) else { break };
            let now = Instant::now();
            let text = part(&body);
            if text != last {
                last.clone_from(&text);
                if seen.send((text, now)).is_err() {
                    return;
                }
            }
            std::thread::sleep(PACE);
        }
    }
}

/// The body of a response with a length.
fn answer(stream: &mut TcpStream, buffer: &mut [u8]) -> Option<String> {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).ok().filter(|n| *n > 0)?;
        filled += read;
        let text = std::str::from_utf8(&buffer[..filled]).ok()?;
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        if body.len() >= length? {
            return Some(body.to_owned());
        }
    }
}

/// Watches the ConfigMaps of a namespace as barely as can be, on a thread of its own. What is seen is the annotation `change`.
pub fn watch(client: kube::Config, namespace: &str) -> Seen {
    let (sender, seen) = channel();
    let namespace = namespace.to_owned();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            use futures_util::StreamExt;
            let api: Api<ConfigMap> = Api::namespaced(kube::Client::try_from(client).unwrap(), &namespace);
            let mut events = api.watch(&WatchParams::default(), "0").await.unwrap().boxed();
            while let Some(Ok(event)) = events.next().await {
                let now = Instant::now();
                let (WatchEvent::Added(map) | WatchEvent::Modified(map)) = event else { continue };
                let change = map.metadata.annotations.unwrap_or_default().remove("change");
                if change.is_some_and(|change| sender.send((change, now)).is_err()) {
                    return;
                }
            }
        });
    });
    Seen(seen)
}
