//! Ways to reach an address that a rule keeps from being reached, by the numbers of the catalogue.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use agentwatch::event::{Event, Kind, Verdict};
use anyhow::{Context as _, Result, ensure};
use tests::compare::json_lines;
use tests::daemon::Daemon;
use tests::policy::with_policy;
use tests::tries::{all_refused, refusal, tried};

const SOCKET: &str = "/srv/aw-cat/run/db.sock";

const POLICY: &str = "\
version: 1
agents:
  strict: {owner: tests@example.com, mode: enforce}
  closed: {owner: tests@example.com, mode: enforce, default: {connect: deny, listen: deny}}
rules:
  - name: db
    agents: [strict]
    deny: {connect: ['127.0.0.1:54321', '[::1]:54321', /srv/aw-cat/run/db.sock], listen: ['*:54322']}
";

/// All that listens at the refused addresses.
struct Servers {
    tcp: [TcpListener; 2],
    udp: [UdpSocket; 2],
    unix: UnixListener,
}

impl Servers {
    fn start() -> Result<Self> {
        fs::create_dir_all("/srv/aw-cat/run")?;
        let _ = fs::remove_file(SOCKET);
        let (v4, v6) = ("127.0.0.1:54321", "[::1]:54321");
        let servers = Self {
            tcp: [TcpListener::bind(v4)?, TcpListener::bind(v6)?],
            udp: [UdpSocket::bind(v4)?, UdpSocket::bind(v6)?],
            unix: UnixListener::bind(SOCKET)?,
        };
        servers.tcp.iter().try_for_each(|tcp| tcp.set_nonblocking(true))?;
        servers.udp.iter().try_for_each(|udp| udp.set_nonblocking(true))?;
        servers.unix.set_nonblocking(true)?;
        Ok(servers)
    }

    /// Nothing arrived.
    fn are_alone(&self) -> Result<()> {
        let tcp = self.tcp.iter().any(|tcp| tcp.accept().is_ok());
        let udp = self.udp.iter().any(|udp| udp.recv(&mut [0]).is_ok());
        ensure!(!tcp && !udp && self.unix.accept().is_err(), "one of the servers was reached");
        Ok(())
    }
}

/// By shared memory, where the kernel has that: else it ends as TCP.
const SMC: &str = "s = call(libc.socket(43, 1, 0)); call(libc.connect(s, address(2), 16))";

/// Attempts to reach the addresses, each with what the event says of the address.
const REACHES: [(&str, Kind, &str); 19] = [
    ("inet().connect(DB)", Kind::NetConnect, "127.0.0.1 54321"),
    ("inet().connect(('0.0.0.0', 54321))", Kind::NetConnect, "0.0.0.0 54321"),
    // C02: the same address in IPv6.
    ("inet6().connect(('::ffff:127.0.0.1', 54321))", Kind::NetConnect, "127.0.0.1 54321"),
    ("inet6().connect(('::1', 54321))", Kind::NetConnect, "::1 54321"),
    ("inet6().connect(('::1', 54321, 7, 0))", Kind::NetConnect, "::1 54321"),
    // C05: datagrams, with and without a connection to somewhere else.
    ("udp().connect(DB)", Kind::NetConnect, "127.0.0.1 54321"),
    ("udp().sendto(b'x', DB)", Kind::NetSend, "127.0.0.1 54321"),
    ("udp().sendmsg([b'x'], [], 0, DB)", Kind::NetSend, "127.0.0.1 54321"),
    ("s = udp(); s.connect(('127.0.0.1', 9)); s.sendto(b'x', DB)", Kind::NetSend, "127.0.0.1 54321"),
    ("inet6(socket.SOCK_DGRAM).sendto(b'x', ('::ffff:127.0.0.1', 54321))", Kind::NetSend, "127.0.0.1 54321"),
    ("to(inet6(socket.SOCK_DGRAM), 2)", Kind::NetSend, "127.0.0.1 54321"),
    ("to(udp(), 0)", Kind::NetSend, "127.0.0.1 54321"),
    // C06: a connection by a send.
    ("inet().sendto(b'x', 0x20000000, DB)", Kind::NetSend, "127.0.0.1 54321"),
    ("inet6().sendto(b'x', 0x20000000, ('::ffff:127.0.0.1', 54321))", Kind::NetSend, "127.0.0.1 54321"),
    // C10: families and protocols that end as TCP, and that are not TCP.
    ("inet(262).connect(DB)", Kind::NetConnect, "127.0.0.1 54321"),
    (SMC, Kind::NetConnect, "127.0.0.1 54321"),
    ("inet(132).connect(DB)", Kind::NetConnect, "127.0.0.1 54321"),
    // C20: another network namespace.
    (
        "child(lambda: (call(libc.unshare(0x40000000)), inet().connect(DB)))",
        Kind::NetConnect,
        "127.0.0.1 54321",
    ),
    // C22: who asks to be reached.
    ("inet().bind(('0.0.0.0', 54322))", Kind::NetBind, "0.0.0.0 54322"),
];

const NAMES: &str = "\
DB, SOCK = ('127.0.0.1', 54321), '/srv/aw-cat/run/db.sock'
def inet(protocol=0): return socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
def inet6(kind=socket.SOCK_STREAM): return socket.socket(socket.AF_INET6, kind)
def udp(): return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def unix(): return socket.socket(socket.AF_UNIX)
def address(family): return struct.pack('=HH4s8x', family, socket.htons(54321), socket.inet_aton('127.0.0.1'))
def to(s, family): call(libc.sendto(s.fileno(), b'x', 1, 0, address(family), 16))
";

fn has_module(name: &str) -> Result<bool> {
    Ok(Command::new("modprobe").arg("-q").arg(name).status()?.success())
}

/// C02, C05, C06, C10, C19, C20, C22: in whatever form the address is given, by whatever call and protocol.
#[test]
fn an_address_is_reached_by_no_other_call() -> Result<()> {
    ensure!(has_module("sctp")?, "no module sctp");
    // Not every kernel has it.
    let has_smc = has_module("smc")?;
    let servers = Servers::start()?;
    with_policy(POLICY, |daemon| {
        let tries: Vec<_> = REACHES
            .iter()
            .filter(|(piece, ..)| has_smc || *piece != SMC)
            .map(|(piece, kind, target)| refusal(format!("{NAMES}{piece}"), *kind, *target))
            .collect();
        all_refused(daemon, "strict", "db", &tries)?;
        servers.are_alone()
    })
}

/// C11, C12, D21: whatever the socket is called, also when it is made anew; its own name stays.
#[test]
fn a_socket_is_refused_by_every_name_and_when_made_anew() -> Result<()> {
    let mut servers = Servers::start()?;
    with_policy(POLICY, |daemon| {
        let dir = tests::session::work_dir()?;
        let work = dir.path().display();
        for turn in 0..2 {
            let pieces = [
                "unix().connect(SOCK)".to_owned(),
                "unix().connect('/proc/self/root' + SOCK)".to_owned(),
                format!("os.symlink(SOCK, '{work}/link{turn}'); unix().connect('{work}/link{turn}')"),
                format!("os.link(SOCK, '{work}/hard{turn}'); unix().connect('{work}/hard{turn}')"),
                "os.chdir('/srv/aw-cat/run'); unix().connect('db.sock')".to_owned(),
                "d = os.open('/srv/aw-cat/run', os.O_PATH); unix().connect('/proc/self/fd/%d/db.sock' % d)"
                    .to_owned(),
                "d = os.open(SOCK, os.O_PATH); unix().connect('/proc/self/fd/%d' % d)".to_owned(),
            ];
            let connects =
                pieces.iter().map(|piece| refusal(format!("{NAMES}{piece}"), Kind::NetConnect, SOCKET));
            let renames = refusal(
                format!("{NAMES}os.rename(SOCK, '{work}/away')"),
                Kind::FileRename,
                format!("{SOCKET} -> {work}/away"),
            );
            let tries: Vec<_> = connects.chain([renames]).collect();
            all_refused(daemon, "strict", "db", &tries)?;
            servers.are_alone()?;
            ensure!(Path::new(SOCKET).exists(), "it was renamed");
            // As a service does that starts anew.
            fs::remove_file(SOCKET)?;
            servers.unix = UnixListener::bind(SOCKET)?;
            servers.unix.set_nonblocking(true)?;
        }
        Ok(())
    })
}

/// C10, C13, C22: where nothing is allowed, other families are not either, nor to listen without having said where.
#[test]
fn what_is_not_allowed_is_refused_in_every_family() -> Result<()> {
    with_policy(POLICY, |daemon| {
        let pieces = [
            ("inet().connect(('192.0.2.1', 80))", Kind::NetConnect),
            ("socket.socket(socket.AF_VSOCK).connect((1, 1024))", Kind::NetConnect),
            ("unix().connect('\\0aw-nobody')", Kind::NetConnect),
            ("inet().listen()", Kind::NetListen),
            ("inet6().listen()", Kind::NetListen),
        ];
        // Where nobody listens at an abstract name, nobody is asked.
        let _listener = abstract_listener()?;
        let codes: Vec<String> = pieces.iter().map(|(piece, _)| format!("{NAMES}{piece}")).collect();
        let (errors, run) = tried(daemon, "closed", &codes)?;
        let denied: Vec<&Event> = run.own().filter(|event| event.verdict == Verdict::Denied).collect();
        ensure!(errors.iter().all(|errno| *errno == 1), "{errors:?} {}", json_lines(denied));
        let kinds: Vec<Kind> = denied.iter().map(|event| event.kind).collect();
        ensure!(kinds == pieces.map(|(_, kind)| kind), "{}", json_lines(denied));
        works_elsewhere(daemon)
    })
}

fn abstract_listener() -> Result<UnixListener> {
    use std::os::linux::net::SocketAddrExt as _;
    let address = std::os::unix::net::SocketAddr::from_abstract_name("aw-nobody")?;
    UnixListener::bind_addr(&address).context("no abstract socket")
}

/// What no rule is about goes through: the attempts fail by the rules alone.
fn works_elsewhere(daemon: &mut Daemon) -> Result<()> {
    let server = TcpListener::bind("127.0.0.1:0")?;
    let at = server.local_addr()?.port();
    let pieces = [
        format!("inet().connect(('127.0.0.1', {at}))"),
        format!("inet().sendto(b'x', 0x20000000, ('127.0.0.1', {at}))"),
        "inet().listen()".to_owned(),
        "udp().sendto(b'x', ('127.0.0.1', 54320))".to_owned(),
    ];
    let codes: Vec<String> = pieces.iter().map(|piece| format!("{NAMES}{piece}")).collect();
    let (errors, run) = tried(daemon, "strict", &codes)?;
    ensure!(errors == [0; 4], "{errors:?} {}", json_lines(run.own()));
    Ok(())
}
