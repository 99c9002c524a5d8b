//! Who used an address.

use std::{net::IpAddr, path::Path};

use serde::Serialize;

use super::{Latest, LookedThrough, in_json, look_through};
use crate::{
    event::{Encoding, Event, Network, ObservedText, bytes},
    log::LogError,
};

/// An address that is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An IP address, a port, or both.
    Ip(Option<IpAddr>, Option<u16>),
    /// Path of a Unix socket, or `@name` of an abstract one.
    Unix(ObservedText, Option<Encoding>),
}

/// Who used an address, the latest first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SocketBlame {
    /// What sessions did with it.
    pub acts: Vec<Event>,
    /// How much more they did.
    pub more_acts: u64,
    /// What this rests on.
    pub looked_through: LookedThrough,
}

impl Address {
    /// Reads `127.0.0.1`, `127.0.0.1:5432`, `[::1]:5432`, `::1`, `:5432`, `/run/x.sock` or `@name`.
    ///
    /// # Errors
    /// It is none of these: a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with(['/', '@']) {
            let (name, encoded) = bytes::encode(text.as_bytes());
            return Ok(Self::Unix(name, encoded.then_some(Encoding::Percent)));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(Some(plain(address)), None));
        }
        let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let host = |host: &str| host.trim_start_matches('[').trim_end_matches(']').parse().map(plain);
        match parts {
            Some(("", port)) => Ok(Self::Ip(None, Some(port))),
            Some((name, port)) if host(name).is_ok() => Ok(Self::Ip(host(name).ok(), Some(port))),
            _ => Err(format!(
                "`{text}` is no address: write `10.0.0.5`, `10.0.0.5:5432`, `[::1]:5432`, `:5432`, the path of a Unix \
                 socket, or `@name` of an abstract one"
            )),
        }
    }

    fn is_of(&self, network: &Network) -> bool {
        let ends = [
            (network.peer_address.as_ref(), network.peer_address_encoding, network.peer_port),
            (network.local_address.as_ref(), network.local_address_encoding, network.local_port),
        ];
        ends.into_iter().any(|(address, encoding, port)| match self {
            Self::Unix(name, encoded) => address == Some(name) && encoding == *encoded,
            Self::Ip(ip, wanted) => {
                let found = address.and_then(|address| address.0.parse().ok()).map(plain);
                found.is_some()
                    && ip.is_none_or(|ip| found == Some(ip))
                    && wanted.is_none_or(|wanted| port == Some(u32::from(wanted)))
            }
        })
    }
}

/// An address in the form that the log has: the mapped form of an IPv4 address is that.
fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Who used an address.
///
/// # Errors
/// The log cannot be read.
pub fn of_socket(state: &Path, address: &Address, most: usize) -> Result<SocketBlame, LogError> {
    let needle = match address {
        Address::Ip(Some(ip), _) => format!("\"{ip}\""),
        Address::Ip(None, port) => format!("port\":{}", port.unwrap_or(0)),
        Address::Unix(name, _) => in_json(name),
    };
    let mut acts = Latest::new(most);
    let looked_through = look_through(
        state,
        |line| line.contains(&needle),
        |event| {
            if event.network.as_ref().is_some_and(|network| address.is_of(network)) {
                acts.push(event);
            }
        },
    )?;
    let (acts, more_acts) = acts.newest_first();
    Ok(SocketBlame { acts, more_acts, looked_through })
}
