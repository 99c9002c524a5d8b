//! What a message of the domain name system says of a name.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use simple_dns::{Name, Packet, PacketFlag, QTYPE, RCODE, TYPE, rdata::RData};

/// Seconds after which is asked again where a server says no time.
const NOTHING_TTL_S: u32 = 30;

/// What an answer gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The name that was asked for and those that it leads to, in lower case without a dot at the end.
    pub names: Vec<String>,
    /// Its addresses of the kind that was asked for. None where there are none.
    pub addresses: Vec<IpAddr>,
    /// Seconds for which that holds.
    pub ttl_s: u32,
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer, perhaps that there is no such name or no such address.
    Answer(Answer),
    /// It did not fit: to be asked again by TCP.
    Truncated,
    /// No answer, or one that says nothing.
    Failed(String),
}

/// The number of the question that a message answers.
#[must_use]
pub fn id_of(message: &[u8]) -> Option<u16> {
    message.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// Reads an answer to this question; nothing where it is none.
#[must_use]
pub fn read(message: &[u8], name: &str, kind: TYPE) -> Option<Outcome> {
    let packet = Packet::parse(message).ok()?;
    let [question] = packet.questions.as_slice() else { return None };
    let same = text_of(&question.qname) == name && question.qtype == QTYPE::TYPE(kind);
    if !same || !packet.has_flags(PacketFlag::RESPONSE) {
        return None;
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Some(Outcome::Truncated);
    }
    Some(match packet.rcode() {
        RCODE::NoError | RCODE::NameError => Outcome::Answer(answer(&packet, name)),
        code => Outcome::Failed(format!("the server answered {code:?}")),
    })
}

/// The addresses of a name and of the names that it is an alias of.
fn answer(packet: &Packet<'_>, name: &str) -> Answer {
    let mut names = vec![name.to_owned()];
    let mut addresses = BTreeSet::new();
    let mut ttl_s = u32::MAX;
    // An alias stands before what it leads to, nearly always; at most so many rounds otherwise.
    for _ in 0..8 {
        let before = names.len();
        for record in &packet.answers {
            if !names.contains(&text_of(&record.name)) {
                continue;
            }
            match &record.rdata {
                RData::CNAME(alias) => {
                    let alias = text_of(&alias.0);
                    if !names.contains(&alias) {
                        names.push(alias);
                    }
                }
                RData::A(a) => {
                    addresses.insert(IpAddr::from(Ipv4Addr::from(a.address)));
                }
                RData::AAAA(a) => {
                    addresses.insert(IpAddr::from(Ipv6Addr::from(a.address)).to_canonical());
                }
                _ => continue,
            }
            ttl_s = ttl_s.min(record.ttl);
        }
        if names.len() == before {
            break;
        }
    }
    // Who connects to no address reaches this very host: no name stands for that.
    addresses.retain(|address| !address.is_unspecified());
    if ttl_s == u32::MAX {
        let of_zone = packet.name_servers.iter().find_map(|record| match &record.rdata {
            RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
            _ => None,
        });
        ttl_s = of_zone.unwrap_or(NOTHING_TTL_S).min(NOTHING_TTL_S);
    }
    Answer { names, addresses: addresses.into_iter().collect(), ttl_s }
}

/// A name in lower case, without a dot at the end. A byte that no name has can not make it another one.
fn text_of(name: &Name<'_>) -> String {
    let mut text = String::new();
    for label in name.as_bytes() {
        if !text.is_empty() {
            text.push('.');
        }
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        text.extend(
            label.iter().map(|byte| if plain(byte) { char::from(byte.to_ascii_lowercase()) } else { '?' }),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::{
        CLASS, QCLASS, Question, ResourceRecord,
        rdata::{A, AAAA, CNAME},
    };

    fn name(text: &str) -> Name<'_> {
        Name::new(text).unwrap()
    }

    fn message(asked: &'static str, answers: Vec<(&'static str, u32, RData<'static>)>) -> Vec<u8> {
        let mut packet = Packet::new_reply(7);
        packet.questions.push(Question::new(name(asked), TYPE::A.into(), QCLASS::CLASS(CLASS::IN), false));
        packet.answers.extend(
            answers
                .into_iter()
                .map(|(owner, ttl, rdata)| ResourceRecord::new(name(owner), CLASS::IN, ttl, rdata)),
        );
        packet.build_bytes_vec_compressed().unwrap()
    }

    fn a(text: &str) -> RData<'static> {
        RData::A(A { address: text.parse::<Ipv4Addr>().unwrap().into() })
    }

    #[test]
    fn aliases_lead_to_addresses_and_others_do_not_count() {
        let bytes = message(
            "DB.Prod.test",
            vec![
                ("db.prod.test", 300, RData::CNAME(CNAME(name("x.Cloud.test")))),
                ("x.cloud.test", 20, a("10.0.0.1")),
                ("x.cloud.test", 60, a("10.0.0.2")),
                ("x.cloud.test", 60, a("0.0.0.0")),
                ("evil.test", 1, a("10.0.0.3")),
            ],
        );
        let Some(Outcome::Answer(found)) = read(&bytes, "db.prod.test", TYPE::A) else { panic!() };
        assert_eq!(found.names, ["db.prod.test", "x.cloud.test"]);
        assert_eq!(found.addresses, ["10.0.0.1", "10.0.0.2"].map(|text| text.parse::<IpAddr>().unwrap()));
        assert_eq!(found.ttl_s, 20);
        assert_eq!(id_of(&bytes), Some(7));
        assert_eq!(read(&bytes, "db.prod.test", TYPE::AAAA), None, "another question");
        assert_eq!(read(&bytes, "other.test", TYPE::A), None);
        for end in 0..bytes.len() {
            let _ = read(&bytes[..end], "db.prod.test", TYPE::A);
        }
    }

    #[test]
    fn a_mapped_address_is_the_one_that_is_meant() {
        let mapped: Ipv6Addr = "::ffff:10.0.0.9".parse().unwrap();
        let bytes = message("a.test", vec![("a.test", 5, RData::AAAA(AAAA { address: mapped.into() }))]);
        let Some(Outcome::Answer(found)) = read(&bytes, "a.test", TYPE::A) else { panic!() };
        assert_eq!(found.addresses, ["10.0.0.9".parse::<IpAddr>().unwrap()]);
        let Some(Outcome::Answer(none)) = read(&message("a.test", Vec::new()), "a.test", TYPE::A) else {
            panic!()
        };
        assert_eq!((none.addresses.len(), none.ttl_s), (0, NOTHING_TTL_S));
    }
}
