//! How this host finds names: `/etc/resolv.conf` and `/etc/hosts`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

/// Servers that are asked: as many as the C library asks.
const SERVERS_MAX: usize = 3;
/// Domains of the search list.
const SEARCH_MAX: usize = 16;
/// Bytes of a file that are read. What follows is not seen, which is told.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// The port of name servers.
const PORT: u16 = 53;

/// `/etc/resolv.conf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolv {
    /// Whom to ask, in this order.
    pub servers: Vec<SocketAddr>,
    /// Domains that are tried behind a name.
    pub search: Vec<String>,
    /// Dots that a name has at least to be tried as it is first.
    pub ndots: usize,
    /// How long a server has for its answer.
    pub timeout: Duration,
}

impl Resolv {
    /// Reads the text of the file. What it does not say, and what cannot be read, is as the C library has it.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut read =
            Self { servers: Vec::new(), search: Vec::new(), ndots: 1, timeout: Duration::from_secs(2) };
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => read.servers.extend(words.next().and_then(server)),
                Some("search" | "domain") => {
                    read.search = words.take(SEARCH_MAX).map(plain).filter(|one| !one.is_empty()).collect();
                }
                Some("options") => words.for_each(|word| read.option(word)),
                _ => {}
            }
        }
        read.servers.truncate(SERVERS_MAX);
        if read.servers.is_empty() {
            read.servers.push(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT));
        }
        read
    }

    fn option(&mut self, word: &str) {
        if let Some(dots) = word.strip_prefix("ndots:").and_then(|dots| dots.parse::<usize>().ok()) {
            self.ndots = dots.min(15);
        }
        if let Some(seconds) = word.strip_prefix("timeout:").and_then(|seconds| seconds.parse().ok()) {
            self.timeout =
                Duration::from_secs(seconds).clamp(Duration::from_millis(500), Duration::from_secs(5));
        }
    }

    /// What is asked for a name, in this order, until there is an address.
    #[must_use]
    pub fn candidates(&self, name: &str) -> Vec<String> {
        let longer =
            self.search.iter().map(|domain| format!("{name}.{domain}")).filter(|name| name.len() <= 253);
        let own = std::iter::once(name.to_owned());
        if name.matches('.').count() >= self.ndots {
            own.chain(longer).collect()
        } else {
            longer.chain(own).collect()
        }
    }
}

fn server(text: &str) -> Option<SocketAddr> {
    let address: IpAddr = text.split('%').next()?.parse().ok()?;
    Some(SocketAddr::new(address, PORT))
}

/// In lower case, without a dot at the end.
fn plain(text: &str) -> String {
    text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase()
}

/// `/etc/hosts`: names with their addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts(pub BTreeMap<String, Vec<IpAddr>>);

impl Hosts {
    /// Reads the text of the file; lines that cannot be read say nothing.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut hosts: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
            let Some(address) = words.next().and_then(|word| word.split('%').next()?.parse::<IpAddr>().ok())
            else {
                continue;
            };
            let address = address.to_canonical();
            if !address.is_unspecified() {
                words.for_each(|name| hosts.entry(plain(name)).or_default().push(address));
            }
        }
        Self(hosts)
    }
}

/// The text of a file, as far as it is text; empty where there is none.
#[must_use]
pub fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => {
            if let Err(error) = file.take(FILE_BYTES_MAX).read_to_end(&mut bytes) {
                tracing::warn!("cannot read `{}`: {error}", path.display());
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!("cannot read `{}`: {error}", path.display()),
    }
    if bytes.len() as u64 == FILE_BYTES_MAX {
        tracing::warn!("of `{}` only the first {FILE_BYTES_MAX} bytes are read", path.display());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_search_list_and_options() {
        let text = "# c\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver x\n\
                    domain old.test\nsearch A.test. b.test\noptions edns0 ndots:2 timeout:1\n";
        let read = Resolv::parse(text);
        assert_eq!(
            read.servers,
            ["127.0.0.53:53", "[fe80::1]:53"].map(|text| text.parse::<SocketAddr>().unwrap())
        );
        assert_eq!(read.timeout, Duration::from_secs(1));
        assert_eq!(read.candidates("db.x"), ["db.x.a.test", "db.x.b.test", "db.x"]);
        assert_eq!(read.candidates("db.x.y"), ["db.x.y", "db.x.y.a.test", "db.x.y.b.test"]);
        let none = Resolv::parse("");
        assert_eq!(none.servers, ["127.0.0.1:53".parse::<SocketAddr>().unwrap()]);
        assert_eq!(none.candidates("db"), ["db"]);
    }

    #[test]
    fn hosts_have_several_names_and_addresses() {
        let hosts = Hosts::parse(
            "10.0.0.1 DB.test db # the db\n10.0.0.2\tdb.test.\n::ffff:10.0.0.3 m\n0.0.0.0 no\nx y\n",
        );
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(hosts.0.get("db.test"), Some(&vec![ip("10.0.0.1"), ip("10.0.0.2")]));
        assert_eq!(hosts.0.get("m"), Some(&vec![ip("10.0.0.3")]));
        assert_eq!(hosts.0.len(), 3, "{hosts:?}");
    }
}
