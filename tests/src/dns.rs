//! A scripted name server on loopback, and what makes this machine ask it.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use simple_dns::rdata::{A, AAAA, CNAME, RData};
use simple_dns::{CLASS, Name, Packet, QTYPE, RCODE, ResourceRecord, TYPE};

const RESOLV: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";

/// What a name stands for, in lower case.
#[derive(Clone, Debug)]
pub enum Entry {
    /// These addresses, for so many seconds.
    Addresses(Vec<IpAddr>, u32),
    /// Another name.
    Alias(String),
    /// These bytes behind the number of the question, and after that datagram one with [`END`] behind it.
    Bytes(Vec<u8>),
}

/// What tells that the bytes of [`Entry::Bytes`] came before, or never come.
pub const END: &[u8] = b"end";

type Zone = BTreeMap<String, Entry>;

/// The server. `/etc/resolv.conf` and `/etc/hosts` are as they were when it is dropped.
pub struct NameServer {
    zone: Arc<Mutex<Zone>>,
    asked: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    before: Vec<(&'static str, Option<Vec<u8>>)>,
}

impl NameServer {
    /// Begins to answer on 127.0.0.1, and has this machine ask there.
    ///
    /// # Errors
    /// The port is taken, or the files cannot be written.
    pub fn start(search: &str) -> Result<Self> {
        let mut server = Self::at("127.0.0.1")?;
        server.before = [RESOLV, HOSTS].map(|path| (path, fs::read(path).ok())).into();
        let _ = fs::remove_file(RESOLV);
        fs::write(RESOLV, format!("nameserver 127.0.0.1\nsearch {search}\noptions timeout:1\n"))?;
        Ok(server)
    }

    /// Begins to answer on this address, which nobody is told of.
    ///
    /// # Errors
    /// The port is taken.
    pub fn at(address: &str) -> Result<Self> {
        let socket = UdpSocket::bind((address, 53)).context("no name server can listen")?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        let (zone, ended) = (Arc::new(Mutex::new(Zone::new())), Arc::new(AtomicBool::new(false)));
        let asked = Arc::new(AtomicU64::new(0));
        let mut server = Self { zone, asked, ended, thread: None, before: Vec::new() };
        let (zone, ended, asked) =
            (Arc::clone(&server.zone), Arc::clone(&server.ended), Arc::clone(&server.asked));
        server.thread = Some(std::thread::spawn(move || {
            let mut buffer = [0; 1024];
            while !ended.load(Ordering::Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
                asked.fetch_add(1, Ordering::Relaxed);
                let zone = zone.lock().unwrap_or_else(PoisonError::into_inner).clone();
                for reply in
                    buffer.get(..len).and_then(|question| replies(&zone, question)).into_iter().flatten()
                {
                    let _ = socket.send_to(&reply, from);
                }
            }
        }));
        Ok(server)
    }

    /// Says what a name stands for from now on.
    pub fn set(&self, name: &str, entry: Entry) {
        self.zone.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), entry);
    }

    /// Says that a name stands for these addresses for a second each.
    pub fn addresses(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().filter_map(|text| text.parse().ok()).collect();
        self.set(name, Entry::Addresses(addresses, 1));
    }

    /// Adds a line to `/etc/hosts`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn host(&self, line: &str) -> Result<()> {
        let mut text = fs::read_to_string(HOSTS).unwrap_or_default();
        text.push_str(&format!("\n{line}\n"));
        fs::write(HOSTS, text).context("cannot write the hosts")
    }

    /// How many questions came.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for (path, text) in &self.before {
            let _ = match text {
                Some(text) => fs::write(path, text),
                None => fs::remove_file(path),
            };
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn replies(zone: &Zone, question: &[u8]) -> Option<Vec<Vec<u8>>> {
    let asked = Packet::parse(question).ok()?;
    let mut reply = Packet::new_reply(asked.id());
    let first = asked.questions.first()?.clone();
    let mut name = first.qname.to_string().to_ascii_lowercase();
    let kind = first.qtype;
    let mut owner = first.qname.clone();
    reply.questions.push(first);
    let mut steps = 0;
    loop {
        match zone.get(&name) {
            Some(Entry::Alias(to)) if steps < 8 => {
                let alias = Name::new(to).ok()?.into_owned();
                let rdata = RData::CNAME(CNAME(alias.clone()));
                reply.answers.push(ResourceRecord::new(owner, CLASS::IN, 1, rdata));
                (name, owner) = (to.clone(), alias);
                steps += 1;
            }
            Some(Entry::Bytes(bytes)) => {
                let number = question.get(..2)?;
                return Some([bytes.as_slice(), END].map(|bytes| [number, bytes].concat()).into());
            }
            Some(Entry::Addresses(addresses, ttl)) => {
                for address in addresses {
                    let rdata = match address {
                        IpAddr::V4(v4) if kind == QTYPE::TYPE(TYPE::A) => {
                            RData::A(A { address: (*v4).into() })
                        }
                        IpAddr::V6(v6) if kind == QTYPE::TYPE(TYPE::AAAA) => {
                            RData::AAAA(AAAA { address: (*v6).into() })
                        }
                        _ => continue,
                    };
                    reply.answers.push(ResourceRecord::new(owner.clone(), CLASS::IN, *ttl, rdata));
                }
                break;
            }
            _ => {
                *reply.rcode_mut() = RCODE::NameError;
                break;
            }
        }
    }
    Some(vec![reply.build_bytes_vec_compressed().ok()?])
}
