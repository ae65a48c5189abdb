//! What is spoken behind a port? A guess, with the reason for it.

use super::inventory::Port;
use serde::Serialize;

/// What is spoken behind a port, and how that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Speaks {
    /// What.
    pub protocol: Protocol,
    /// What it is called where it is none of HTTP, such as `PostgreSQL`.
    pub called: Option<String>,
    /// How that is known.
    pub because: String,
}

/// What is spoken behind a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1, WebSocket included.
    Http,
    /// HTTP/2 in cleartext with prior knowledge, gRPC included.
    Http2,
    /// HTTP inside of TLS, or anything else inside of TLS.
    Tls,
    /// Something that is no HTTP.
    Other,
    /// Nothing tells.
    #[default]
    Unknown,
}

impl Speaks {
    pub(super) fn new(protocol: Protocol, because: impl Into<String>) -> Self {
        Self { protocol, called: None, because: because.into() }
    }

    pub(super) fn other(called: &str, because: impl Into<String>) -> Self {
        Self { protocol: Protocol::Other, called: Some(called.into()), because: because.into() }
    }

    /// A word for tables.
    pub fn word(&self) -> &str {
        match (self.protocol, &self.called) {
            (_, Some(called)) => called,
            (Protocol::Http, _) => "HTTP",
            (Protocol::Http2, _) => "HTTP/2",
            (Protocol::Tls, _) => "TLS",
            (Protocol::Other, _) => "no HTTP",
            (Protocol::Unknown, _) => "unknown",
        }
    }
}

/// Guesses by transport, appProtocol, name and number, in this order.
pub(super) fn guess(port: &Port) -> Speaks {
    if port.transport != "TCP" {
        return Speaks::other(&port.transport, "by its protocol");
    }
    by_app_protocol(port)
        .or_else(|| by_name(&port.name, "the port is called"))
        .or_else(|| by_name(&port.target, "the port of the pods is called"))
        .or_else(|| by_number(port.port, "it is port"))
        .or_else(|| port.target.parse().ok().and_then(|n| by_number(n, "the pods listen on")))
        .unwrap_or_else(|| Speaks::new(Protocol::Unknown, "neither appProtocol nor name nor number tells"))
}

fn by_app_protocol(port: &Port) -> Option<Speaks> {
    let written = port.app_protocol.as_deref()?;
    let because = format!("appProtocol is {written}");
    let word = written.rsplit('/').next().unwrap_or(written).to_ascii_lowercase();
    known_word(&word, &because)
}

/// The first word that says something: `tcp-redis` is Redis, `http-metrics` is HTTP.
fn by_name(name: &str, because: &str) -> Option<Speaks> {
    let words = name.split(['-', '_', '.']);
    words.into_iter().find_map(|word| {
        let word = word.to_ascii_lowercase();
        known_word(&word, &format!("{because} {name}"))
    })
}

fn known_word(word: &str, because: &str) -> Option<Speaks> {
    if let Some((_, protocol)) = WORDS.iter().find(|(words, _)| words.contains(&word)) {
        return Some(Speaks::new(*protocol, because));
    }
    OTHERS.iter().find(|(_, words, _)| words.contains(&word)).map(|(called, ..)| Speaks::other(called, because))
}

fn by_number(number: u16, because: &str) -> Option<Speaks> {
    let because = format!("{because} {number}");
    if let Some((_, protocol)) = NUMBERS.iter().find(|(numbers, _)| numbers.contains(&number)) {
        return Some(Speaks::new(*protocol, because));
    }
    OTHERS.iter().find(|(.., ports)| ports.contains(&number)).map(|(called, ..)| Speaks::other(called, because))
}

/// Words of names that mean HTTP or TLS; those of appProtocol are among them.
const WORDS: &[(&[&str], Protocol)] = &[
    (
        &[
            "http",
            "http1",
            "ws",
            "websocket",
            "web",
            "www",
            "ui",
            "dashboard",
            "console",
            "rest",
            "metrics",
            "prometheus",
            "graphql",
            "webhook",
            "frontend",
        ],
        Protocol::Http,
    ),
    (&["h2c", "grpc", "http2"], Protocol::Http2),
    (&["https", "websecure", "wss", "tls", "ssl", "grpcs"], Protocol::Tls),
];

/// Ports that mean HTTP or TLS by custom.
const NUMBERS: &[(&[u16], Protocol)] = &[
    (
        &[
            80, 591, 3000, 4200, 5000, 5173, 5601, 7001, 8000, 8008, 8080, 8081, 8082, 8083, 8088, 8090, 8888, 9090,
            9091, 9093, 9100, 9200, 15672, 16686,
        ],
        Protocol::Http,
    ),
    (&[50051], Protocol::Http2),
    (&[443, 6443, 8443, 9443, 10250], Protocol::Tls),
];

/// Protocols that are no HTTP: what each is called, words of names, ports by custom.
const OTHERS: &[(&str, &[&str], &[u16])] = &[
    ("PostgreSQL", &["postgres", "postgresql", "pgsql", "pg", "psql"], &[5432]),
    ("MySQL", &["mysql", "mariadb", "mysqlx"], &[3306, 33060]),
    ("SQL Server", &["mssql", "sqlserver", "tds"], &[1433]),
    ("Oracle", &["oracle"], &[1521]),
    ("MongoDB", &["mongo", "mongodb"], &[27017]),
    ("Redis", &["redis", "valkey", "sentinel"], &[6379, 6380, 26379]),
    ("Memcached", &["memcache", "memcached"], &[11211]),
    ("Cassandra", &["cassandra", "cql"], &[9042]),
    ("ZooKeeper", &["zookeeper", "zk"], &[2181]),
    ("Kafka", &["kafka"], &[9092, 9094]),
    ("AMQP", &["amqp", "amqps", "rabbitmq"], &[5671, 5672]),
    ("MQTT", &["mqtt", "mqtts"], &[1883, 8883]),
    ("NATS", &["nats"], &[4222]),
    ("etcd", &["etcd"], &[2379, 2380]),
    ("LDAP", &["ldap", "ldaps"], &[389, 636]),
    ("SSH", &["ssh", "sftp"], &[22, 2222]),
    ("FTP", &["ftp"], &[21]),
    ("SMTP", &["smtp", "smtps", "submission"], &[25, 465, 587]),
    ("IMAP", &["imap", "imaps"], &[143, 993]),
    ("DNS", &["dns", "domain"], &[53]),
    ("syslog", &["syslog"], &[514, 6514]),
    ("RTMP", &["rtmp"], &[1935]),
    ("RTSP", &["rtsp"], &[554, 8554]),
    ("SIP", &["sip", "sips"], &[5060, 5061]),
    ("RDP", &["rdp"], &[3389]),
    ("VNC", &["vnc"], &[5900]),
    ("NFS", &["nfs"], &[2049]),
    ("SMB", &["smb", "cifs"], &[139, 445]),
    ("Minecraft", &["minecraft"], &[25565]),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, number: u16, target: &str, app: Option<&str>) -> Port {
        let app_protocol = app.map(str::to_owned);
        let (name, target) = (name.to_owned(), target.to_owned());
        Port { name, transport: "TCP".into(), port: number, target, app_protocol, node_port: None }
    }

    #[test]
    fn app_protocol_goes_before_name_and_name_before_number() {
        let says = |name: &str, number, app: Option<&str>| guess(&port(name, number, "", app)).protocol;
        assert_eq!(says("postgres", 5432, Some("http")), Protocol::Http);
        assert_eq!(says("", 80, Some("kubernetes.io/h2c")), Protocol::Http2);
        assert_eq!(says("", 80, Some("kubernetes.io/ws")), Protocol::Http);
        assert_eq!(says("", 80, Some("kubernetes.io/wss")), Protocol::Tls);
        assert_eq!(says("http-api", 5432, None), Protocol::Http);
        assert_eq!(says("https", 80, None), Protocol::Tls);
        assert_eq!(says("x", 443, None), Protocol::Tls);
        assert_eq!(says("x", 4711, None), Protocol::Unknown);
    }

    #[test]
    fn a_generic_word_does_not_hide_the_one_that_tells() {
        assert_eq!(guess(&port("tcp-redis", 1, "", None)).word(), "Redis");
        assert_eq!(guess(&port("", 7000, "5432", None)).word(), "PostgreSQL");
        assert_eq!(guess(&port("", 7000, "http", None)).word(), "HTTP");
        assert_eq!(guess(&port("", 7000, "8080", Some("tcp"))).word(), "HTTP", "appProtocol tcp says nothing more");
    }

    #[test]
    fn what_is_no_tcp_is_no_http_whatever_it_is_called() {
        let udp = Port { transport: "UDP".into(), ..port("http", 80, "", Some("http")) };
        assert_eq!((guess(&udp).protocol, guess(&udp).word()), (Protocol::Other, "UDP"));
    }

    #[test]
    fn no_word_and_no_number_stands_twice() {
        let words = OTHERS.iter().flat_map(|(_, words, _)| *words).chain(WORDS.iter().flat_map(|(w, _)| *w));
        let mut words: Vec<&&str> = words.collect();
        let ports = OTHERS.iter().flat_map(|(.., ports)| *ports).chain(NUMBERS.iter().flat_map(|(n, _)| *n));
        let mut ports: Vec<&u16> = ports.collect();
        let (all_words, all_ports) = (words.len(), ports.len());
        words.sort();
        words.dedup();
        ports.sort();
        ports.dedup();
        assert_eq!((words.len(), ports.len()), (all_words, all_ports));
    }
}
