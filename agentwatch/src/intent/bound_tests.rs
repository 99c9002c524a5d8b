//! What the kernel decides by the tables of a binding is what an event is held to.

use std::net::IpAddr;

use agentwatch_common::bound::{BOUND_STATES, BOUND_STEPS, Binding, HELD_MOST, LINES_SHIFT};
use agentwatch_common::rules::{SOCKET_IPV4, SOCKET_IPV6};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    Stated,
    scope::{self, Acts},
    tests::{event, exec, open, stated},
};
use crate::{
    event::{Event, Op},
    kernel::{bound::empty, maps::Shared},
    matcher::{Alias, command_text},
    places::{Places, Root},
    policy::{
        Address, Policy, Scope,
        address::{Transport, Unix},
        compile::{
            bound::{Bound, BoundError},
            op_number,
            texts::socket_text,
        },
    },
};

/// The tables, read as the kernel reads them.
struct Tables(Box<Shared<Binding>>);

impl Tables {
    fn of(stated: &[&Stated]) -> Result<Self, BoundError> {
        let mut binding = empty();
        // Over what another one left.
        let other = read(&self::stated(json!({"write": ["/left/**"], "run": ["left *"]})));
        Bound::new(&[&other], &Places::default()).unwrap().write(&mut binding.0);
        let scopes: Vec<Scope> = stated.iter().map(|one| read(one)).collect();
        let scopes: Vec<&Scope> = scopes.iter().collect();
        Bound::new(&scopes, &Places::default())?.write(&mut binding.0);
        Ok(Self(binding))
    }

    fn read(&self, start: u32, text: &[u8]) -> u32 {
        let Binding { head, states, steps, .. } = &self.0.0;
        let place = |state: u32| states[(state & (BOUND_STATES - 1)) as usize];
        let step = |state: u32, byte: &u8| {
            let here = place(state);
            let at = here.base.wrapping_add(head.class[usize::from(*byte)].into());
            let step = steps[(at & (BOUND_STEPS - 1)) as usize];
            if step.owner == state { step.next } else { here.default }
        };
        place(text.iter().fold(start, step)).accept
    }

    fn narrows(&self, op: Op) -> bool {
        self.0.0.narrowed >> op_number(op) & 1 == 1
    }

    fn path(&self, op: Op, path: &[u8]) -> bool {
        let path = if path == b"/" { b"" } else { path };
        self.read(self.0.0.head.start_path, path) >> op_number(op) & 1 == 1
    }

    /// Whether an act on a path is let through.
    fn lets(&self, op: Op, path: &[u8]) -> bool {
        !self.narrows(op) || self.path(op, path)
    }

    /// Whether an address is let through.
    fn reaches(&self, op: Op, address: &Address) -> bool {
        let Some(text) = text_of(&address.canonical(op)) else { panic!("{address}") };
        self.narrows(op) && self.read(self.0.0.head.start_socket, &text) >> op_number(op) & 1 == 1
    }

    /// Whether a program is let through, by its path at first and then by its command line.
    fn starts(&self, program: &[u8], line: &[u8]) -> bool {
        let lines = self.0.0.narrowed >> LINES_SHIFT << LINES_SHIFT;
        let by_path = self.read(self.0.0.head.start_path, program);
        let by_line = self.read(self.0.0.head.start_command, line);
        self.lets(Op::Exec, program) && lines & !(by_path | by_line) == 0
    }
}

/// The text of a socket without a path, as the kernel makes it.
fn text_of(address: &Address) -> Option<Vec<u8>> {
    let Address::Ip { transport, ip: Some(ip), port, .. } = address else { return socket_text(address) };
    let (family, ip) = match ip {
        IpAddr::V4(v4) => (SOCKET_IPV4, v4.octets().to_vec()),
        IpAddr::V6(v6) => (SOCKET_IPV6, v6.octets().to_vec()),
    };
    Some([&[family, *transport as u8], ip.as_slice(), &u32::from(*port).to_be_bytes()].concat())
}

fn read(stated: &Stated) -> Scope {
    scope::read(stated, &Policy::default()).unwrap().1
}

fn aligned(stated: &[&Stated], event: &Event) -> bool {
    // What is no operation that counts is let through.
    Acts::of(event).is_none_or(|acts| stated.iter().all(|one| acts.are_within(&read(one))))
}

fn path() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "b", "ab", "c", ".env", "pts"]);
    let head = prop::sample::select(vec!["", "", "/w", "/w/x", "/dev", "/dev/null", "/dev/pts"]);
    (head, prop::collection::vec(name, 0..4)).prop_map(|(head, names)| {
        let text = names.iter().fold(head.to_owned(), |text, name| format!("{text}/{name}"));
        if text.is_empty() { "/".to_owned() } else { text }
    })
}

fn path_pattern() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "b", "*", "a*", "**", "?", "{a,ab}", "[ab]", ".env"]);
    let head = prop::sample::select(vec!["", "/w", "/w/x", "**"]);
    (head, prop::collection::vec(name, 1..4)).prop_map(|(head, names)| format!("{head}/{}", names.join("/")))
}

fn addresses() -> impl Strategy<Value = Vec<String>> {
    let host = prop::sample::select(vec![
        "*",
        "10.0.0.0/8",
        "10.0.0.1",
        "10.0.0.128/25",
        "0.0.0.0/0",
        "127.0.0.1",
        "[::1]",
        "[2001:db8::]/29",
        "[::]/0",
        "[::ffff:10.0.0.0]/104",
    ]);
    let ports = prop::sample::select(vec!["*", "443", "400-500", "0-1", "22,443", "255-256", "1024-65535"]);
    let transport = prop::sample::select(vec!["", "tcp:", "udp:"]);
    let of_ip = (transport, host, ports).prop_map(|(by, host, ports)| format!("{by}{host}:{ports}"));
    let other = prop::sample::select(vec![
        "unix:@a*",
        "unix:@*",
        "vsock:2:1024",
        "vsock:*:1000-2000",
        "/w/a",
        "/dev/**",
    ]);
    let one = prop_oneof![4 => of_ip, 1 => other.prop_map(str::to_owned)];
    prop::collection::vec(one, 0..4)
}

/// An address, and the event of reaching it, or of being reached at it.
fn address() -> impl Strategy<Value = Address> {
    let host = prop::sample::select(vec![
        "10.0.0.1",
        "10.0.0.200",
        "11.0.0.1",
        "127.0.0.1",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[2001:db8::5]",
        "[2001:dc0::5]",
        "[::ffff:10.0.0.1]",
        "[::ffff:0.0.0.0]",
    ]);
    let port = prop::sample::select(vec![0, 1, 22, 255, 256, 257, 400, 443, 500, 501, 1_024, 65_535]);
    let by = prop::sample::select(vec!["tcp:", "udp:"]);
    let of_ip = (by, host, port).prop_map(|(by, host, port)| format!("{by}{host}:{port}"));
    let other = prop::sample::select(vec![
        "unix:@a",
        "unix:@ab",
        "unix:@b",
        "vsock:2:1024",
        "vsock:3:1500",
        "vsock:3:1",
    ]);
    let text = prop_oneof![4 => of_ip, 1 => other.prop_map(str::to_owned)];
    (text, prop::bool::weighted(0.1)).prop_map(|(text, raw)| match Address::parse(&text).unwrap() {
        Address::Ip { ip, port, names, .. } if raw => {
            Address::Ip { transport: Transport::Other, ip, port, names }
        }
        other => other,
    })
}

fn reaching(op: Op, address: &Address) -> Event {
    let (transport, text, port) = match address {
        Address::Ip { transport, ip, port, .. } => {
            (transport.as_str(), ip.unwrap().to_string(), u32::from(*port))
        }
        Address::Unix(Unix::Abstract(name)) => ("unix", format!("@{}", String::from_utf8_lossy(name)), 0),
        Address::Unix(Unix::Path(path)) => ("unix", String::from_utf8_lossy(path).into_owned(), 0),
        Address::Vsock { cid, port } => ("vsock", cid.to_string(), *port),
    };
    match op {
        Op::Listen => event(
            "net.listen",
            json!({"op": "listen", "network": {"type": "ipv4", "transport": transport, "local.address": text, "local.port": port}}),
        ),
        _ => event(
            "net.connect",
            json!({"op": "connect", "network": {"type": "ipv4", "transport": transport, "peer.address": text, "peer.port": port}}),
        ),
    }
}

fn command_pattern() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "a *", "a -x*", "ab *b", "b a b", "*"]).prop_map(str::to_owned)
}

fn scope() -> impl Strategy<Value = Stated> {
    let paths = || prop::collection::vec(path_pattern(), 0..3);
    let files = (paths(), paths(), paths(), paths());
    let all = (files, prop::collection::vec(command_pattern(), 0..3), addresses(), addresses());
    all.prop_map(|((exec, read, write, delete), run, connect, listen)| {
        let files = [(Op::Exec, exec), (Op::Read, read), (Op::Write, write), (Op::Delete, delete)];
        let all = files.into_iter().chain([(Op::Run, run), (Op::Connect, connect), (Op::Listen, listen)]);
        let mut stated: Stated = all.filter(|(_, patterns)| !patterns.is_empty()).collect();
        if stated.is_empty() {
            stated.insert(Op::Write, vec!["/w".into()]);
        }
        stated
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_binding_lets_through_what_is_aligned(
        stated in prop::collection::vec(scope(), 1..4),
        paths in prop::collection::vec(path(), 8),
        addresses in prop::collection::vec(address(), 8),
        lines in prop::collection::vec((path(), prop::sample::select(vec!["", "-x", "b", "a b", "-xb"])), 6),
    ) {
        let stated: Vec<&Stated> = stated.iter().collect();
        let tables = Tables::of(&stated).unwrap();
        for path in &paths {
            let bytes = path.as_bytes();
            let [read, write, delete] = [Op::Read, Op::Write, Op::Delete].map(|op| tables.lets(op, bytes));
            for (flags, lets) in [("O_RDONLY", read), ("O_WRONLY|O_CREAT", write), ("O_RDWR", read && write)] {
                prop_assert_eq!(lets, aligned(&stated, &open(path, flags)), "{} {}", flags, path);
            }
            let deleted = event("file.delete", json!({"op": "delete", "file": {"path": path}}));
            prop_assert_eq!(delete, aligned(&stated, &deleted), "delete {}", path);
            for op in [Op::Connect, Op::Listen] {
                let socket = Address::Unix(Unix::Path(bytes.to_vec()));
                prop_assert_eq!(tables.lets(op, bytes), aligned(&stated, &reaching(op, &socket)), "{:?} {}", op, path);
            }
        }
        for address in &addresses {
            for op in [Op::Connect, Op::Listen] {
                let event = reaching(op, address);
                prop_assert_eq!(tables.reaches(op, address), aligned(&stated, &event), "{:?} {}", op, address);
            }
        }
        for (program, rest) in &lines {
            let args: Vec<&str> = std::iter::once("x").chain(rest.split(' ').filter(|arg| !arg.is_empty())).collect();
            let line = command_text(program.as_bytes(), args.iter().map(|arg| arg.as_bytes()));
            prop_assert_eq!(
                tables.starts(program.as_bytes(), &line),
                aligned(&stated, &exec(program, &args)),
                "{} {:?}", program, args
            );
        }
    }
}

#[test]
fn a_scope_that_is_too_large_cannot_bind() {
    let of = |scope: Value| Tables::of(&[&stated(scope)]).map(|_| ()).unwrap_err().to_string();
    // Names that have nothing in common.
    let name = |n: u64| -> String {
        let next = |seed: &u64| {
            Some(seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
        };
        let letters = std::iter::successors(Some(n), next).skip(3).take(40);
        letters.map(|seed| char::from(b'a' + (seed >> 33) as u8 % 26)).collect()
    };
    let many: Vec<String> = (0..64).map(|n| format!("/{}", name(n))).collect();
    assert!(of(json!({"write": many})).contains("name folders"));
    // What people write fits by far.
    let usual: Vec<String> = (0..24).map(|n| format!("/srv/tenant-{n}/logs/*.log")).collect();
    let hosts: Vec<String> = (0..16).map(|n| format!("10.{n}.0.{}:5432", n * 7)).collect();
    let usual = stated(json!({"write": usual, "delete": usual, "connect": hosts}));
    assert!(Tables::of(&[&usual]).is_ok());
    // With what holds the sessions around it.
    assert!(Tables::of(&[&usual; HELD_MOST]).is_ok());
    assert_eq!(Tables::of(&[&usual; HELD_MOST + 1]).map(|_| ()), Err(BoundError::TooMany));
}

#[test]
fn a_place_is_covered_by_what_the_host_calls_it() {
    let root = Root { dev: 8 << 20 | 1, text: Vec::new(), mount: 21 };
    let data = Root { dev: 25, text: b"/data".to_vec(), mount: 30 };
    let part = Root { dev: 40, text: b"\x000:40".to_vec(), mount: 0 };
    let alias =
        |from: &str, to: &str| Alias { from: from.into(), to: to.into(), trusted: true, is_mount: true };
    let places = Places {
        devices: vec![root, data, part],
        aliases: vec![alias("/w/logs", "/var/logs"), alias("/home", "\x000:40/@home")],
        ..Places::default()
    };
    let scope = read(&stated(json!({"write": ["/w", "/home/ada"]})));
    let bound = Bound::new(&[&scope], &places).unwrap();
    let mut tables = Tables(empty());
    bound.write(&mut tables.0.0);
    let covered = |dev: u32, within: &str| {
        let (_, device) = bound.devices.iter().find(|(other, _)| *other == dev).unwrap();
        tables.read(device.start, within.as_bytes()) >> op_number(Op::Write) & 1 == 1
    };
    let root = 8 << 20 | 1;
    assert!(covered(root, "/w/a") && covered(root, "/var/logs/a"), "what is mounted there is meant");
    assert!(!covered(root, "/etc/passwd") && !covered(root, "/var/lib"));
    assert!(!covered(25, "/w/a"), "another file system");
    assert!(covered(40, "/@home/ada/x") && !covered(40, "/@home/bob/x"));
}
