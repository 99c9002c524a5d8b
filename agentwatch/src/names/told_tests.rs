//! What the kernel program makes of answers: the same code as there, beside another one that reads them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use agentwatch_common::answer::{ANSWER_BYTES, ANSWER_STEPS, Answer, Step, name_number};
use proptest::prelude::*;
use simple_dns::rdata::{A, AAAA, CNAME, RData, TXT};
use simple_dns::{CLASS, Name, Packet, QCLASS, QTYPE, Question, ResourceRecord, TYPE};

/// What was read of a message.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    /// Addresses, each with the names of rules that it stands for.
    addresses: Vec<(IpAddr, BTreeSet<u64>)>,
    lacks_some: bool,
}

/// Reads a message as the kernel program does, where these are the names of rules. Nothing where it is no answer.
fn told(message: &[u8], rules: &[&str]) -> Option<Told> {
    // SAFETY: integers and arrays of integers, for all of which zero is a value.
    let mut answer: Box<Answer> = unsafe { Box::new_zeroed().assume_init() };
    let len = message.len().min(ANSWER_BYTES as usize);
    answer.message[..len].copy_from_slice(&message[..len]);
    if !answer.begin(len as u32) {
        return None;
    }
    let known: BTreeSet<u64> = rules.iter().map(|name| name_number(name)).collect();
    let mut addresses = Vec::new();
    let mut is_whole = false;
    for _ in 0..ANSWER_STEPS {
        match answer.step() {
            Step::More => {}
            Step::Name if known.contains(&answer.candidate) => answer.is_known(),
            Step::Name => {}
            Step::Address => {
                let [a, b, c, d, ..] = answer.address;
                let address = match answer.family {
                    4 => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
                    _ => IpAddr::from(answer.address),
                };
                let names = answer.names().into_iter().filter(|name| *name != 0);
                addresses.push((address, names.collect()));
            }
            Step::End => {
                is_whole = true;
                break;
            }
            Step::Broken => break,
        }
    }
    Some(Told { addresses, lacks_some: answer.lacks_some(is_whole && len == message.len()) })
}

fn record<'a>(name: &'a str, data: RData<'a>) -> ResourceRecord<'a> {
    ResourceRecord::new(Name::new_unchecked(name), CLASS::IN, 60, data)
}

fn v4(name: &str, last: u8) -> ResourceRecord<'_> {
    record(name, RData::A(A { address: Ipv4Addr::new(10, 0, 0, last).into() }))
}

fn packet<'a>(asked: &'a str, answers: Vec<ResourceRecord<'a>>) -> Packet<'a> {
    let mut packet = Packet::new_reply(7);
    let name = Name::new_unchecked(asked);
    packet.questions.push(Question::new(name, QTYPE::TYPE(TYPE::A), QCLASS::CLASS(CLASS::IN), false));
    packet.answers = answers;
    packet
}

fn alias<'a>(name: &'a str, to: &'a str) -> ResourceRecord<'a> {
    record(name, RData::CNAME(CNAME(Name::new_unchecked(to))))
}

fn numbers(names: &[&str]) -> BTreeSet<u64> {
    names.iter().map(|name| name_number(name)).collect()
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

#[test]
fn an_address_stands_for_what_was_asked_for_and_for_its_own_name() {
    let answers = || {
        vec![
            alias("Www.Prod.Test", "x.cdn.test"),
            alias("x.cdn.test", "y.cdn.test"),
            record("y.cdn.test", RData::TXT(TXT::new())),
            v4("y.cdn.test", 1),
            v4("y.cdn.test", 2),
            record("y.cdn.test", RData::AAAA(AAAA { address: 1 })),
        ]
    };
    let message = packet("Www.Prod.Test", answers());
    for bytes in [message.build_bytes_vec_compressed().unwrap(), message.build_bytes_vec().unwrap()] {
        for (rules, found) in [
            (&["www.prod.test", "*.prod.test"][..], &["www.prod.test"][..]),
            (&["*.prod.test", "*.test"], &["*.prod.test", "*.test"]),
            (&["*.test", "prod.test", "*.www.prod.test", "test"], &["*.test"]),
            (&["y.cdn.test"], &["y.cdn.test"]),
            (&["www.prod.test", "*.cdn.test"], &["www.prod.test", "*.cdn.test"]),
        ] {
            let told = told(&bytes, rules).unwrap();
            let names = numbers(found);
            let all = [ip(1), ip(2), "::1".parse().unwrap()].map(|address| (address, names.clone()));
            assert_eq!(told, Told { addresses: all.into(), lacks_some: false }, "{rules:?}");
        }
        let nothing = Told { addresses: Vec::new(), lacks_some: false };
        for rules in
            [&["prod.test", "x.cdn.test", "*.y.cdn.test", "*.www.prod.test", "ww.prod.test"][..], &[]]
        {
            assert_eq!(told(&bytes, rules), Some(Told { addresses: Vec::new(), ..nothing }));
        }
    }
}

#[test]
fn what_is_cut_long_or_broken_is_told() {
    let many: Vec<_> = (0..255).map(|last| v4("a.test", last)).collect();
    let bytes = packet("a.test", many).build_bytes_vec_compressed().unwrap();
    assert!(bytes.len() > ANSWER_BYTES as usize);
    let first = told(&bytes, &["a.test"]).unwrap();
    assert_eq!((first.addresses.len(), first.lacks_some), ((ANSWER_BYTES as usize - 24) / 16, true));
    for len in 0..200 {
        let part = told(&bytes[..len], &["a.test"]);
        let count = part.as_ref().map_or(0, |part| part.addresses.len());
        assert_eq!(count, len.saturating_sub(24) / 16, "{len}");
        assert_eq!(part.is_some_and(|part| part.lacks_some), len >= 20, "{len}");
    }
    assert!(!told(&bytes[..100], &["b.test"]).unwrap().lacks_some, "nobody's name");
    let mut cut = packet("a.test", vec![v4("a.test", 1)]).build_bytes_vec_compressed().unwrap();
    cut[2] |= 2;
    assert!(told(&cut, &["a.test"]).unwrap().lacks_some, "the server says so");
    cut[2] &= 0x7f;
    assert_eq!(told(&cut, &["a.test"]), None, "a question");
}

#[test]
fn circles_and_names_that_are_too_long_end() {
    let mut circle = packet("a.test", vec![v4("b.test", 1)]).build_bytes_vec().unwrap();
    let owner = 12 + 8 + 4;
    circle[owner..owner + 2].copy_from_slice(&[0xc0, owner as u8]);
    assert_eq!(told(&circle, &["a.test"]), Some(Told { addresses: Vec::new(), lacks_some: true }));
    let mut long = packet("a.test", Vec::new()).build_bytes_vec().unwrap();
    long.truncate(12);
    long.extend(b"\x01a".repeat(500));
    assert_eq!(told(&long, &["a.test", "*.a"]), Some(Told { addresses: Vec::new(), lacks_some: false }));
    let longest = [&*"a.".repeat(120), "below.test"].concat();
    let bytes = packet(&longest, vec![v4(&longest, 1)]).build_bytes_vec_compressed().unwrap();
    assert_eq!(told(&bytes, &["*.below.test"]).unwrap().addresses.len(), 1);
}

proptest! {
    #[test]
    fn whatever_comes_is_read_to_an_end(
        mut bytes in prop::collection::vec(any::<u8>(), 0..600),
        records in 0_u8..40,
        is_answer in any::<bool>(),
    ) {
        for (index, byte) in [0, 7, if is_answer { 0x81 } else { bytes.len() as u8 }, 0, 0, 1, 0, records].into_iter().enumerate() {
            if let Some(place) = bytes.get_mut(index) {
                *place = byte;
            }
        }
        let _ = told(&bytes, &["a", "*.a", "*.test"]);
    }
}
