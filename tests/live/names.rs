//! Rules by names of hosts: what the names stand for is refused or allowed, as it changes.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::Output;
use std::time::Instant;

use agentwatch::control::policy::{PolicyRuleView, PolicyView, Standing};
use agentwatch::event::{Kind, Verdict};
use anyhow::{Context as _, Result, ensure};
use tests::compare::json_lines;
use tests::daemon::{Daemon, PATIENCE, Place, Shared};
use tests::dns::{Entry, NameServer};
use tests::log::LogFollower;
use tests::session::work_dir;

use crate::enforcement::{judged, python, refused, session};
use crate::restarts::Shell;

const POLICY: &str = "\
version: 1
agents:
  test: {owner: tests@example.com}
  strict: {owner: tests@example.com, mode: enforce}
  caged: {owner: tests@example.com, mode: enforce, default: {connect: deny}}
  free: {owner: tests@example.com, mode: enforce}
  told: {owner: tests@example.com, mode: recommend}
rules:
  - {name: db, agents: [strict], deny: {connect: ['DB.prod.test:5999']}}
  - {name: short, agents: [strict], deny: {connect: ['cache:5999']}}
  - {name: below, agents: [strict, told], deny: {connect: ['*.below.test:5999']}, unless: {connect: ['ok.below.test:*']}}
  - {name: many, agents: [strict], deny: {connect: ['1.many.test:5999', '2.many.test:5999', '3.many.test:5999', '4.many.test:5999', '5.many.test:5999']}}
  - {name: may, agents: [caged], allow: {connect: ['api.test:5998', '*.wild.test:5998', '127.0.0.1:53']}}
";

fn start() -> Result<Daemon> {
    let place = Place::new()?;
    fs::write(place.policy(), POLICY)?;
    Daemon::start(&place)
}

fn show(place: &Place) -> Result<PolicyView> {
    let Output { status, stdout, stderr } = place.agentwatch(["policy", "show", "-o", "json"]).output()?;
    ensure!(status.success(), "not shown: {}", String::from_utf8_lossy(&stderr));
    serde_json::from_slice(&stdout).context("no answer")
}

/// Waits until `policy show` says this of a rule.
fn until_known(daemon: &Daemon, rule: &str, said: &str) -> Result<PolicyRuleView> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let shown =
            show(daemon.place())?.rules.into_iter().find(|one| one.name == rule).context("no rule")?;
        if shown.reasons.iter().any(|reason| reason.contains(said)) {
            return Ok(shown);
        }
        ensure!(Instant::now() < deadline, "`{said}` is not said: {shown:?}");
    }
}

/// Connects in a session; gives whether it got there.
fn reaches(daemon: &mut Daemon, agent: &str, address: &str, port: u16) -> Result<bool> {
    let listener = TcpListener::bind((address.strip_prefix("::ffff:").unwrap_or(address), port))?;
    listener.set_nonblocking(true)?;
    let family = if address.contains(':') { "AF_INET6" } else { "AF_INET" };
    let run = session(daemon, agent, &python(family, &format!(r#"connect(("{address}", {port}))"#)))?;
    let arrived = listener.accept().is_ok();
    let denied = judged(&run, Verdict::Denied).len();
    ensure!(
        arrived == run.status.success() && denied == usize::from(!arrived),
        "{}",
        json_lines(&run.events)
    );
    Ok(arrived)
}

/// A connection is refused by this rule, and its event tells the name.
fn is_refused(daemon: &mut Daemon, address: &str, rule: &str, name: &str) -> Result<()> {
    let family = if address.contains(':') { "AF_INET6" } else { "AF_INET" };
    let event = refused(daemon, &python(family, &format!(r#"connect(("{address}", 5999))"#)), rule)?;
    ensure!(event.kind == Kind::NetConnect, "{event:?}");
    let network = event.network.context("no network")?;
    ensure!(network.peer_name.as_deref() == Some(name), "{network:?}");
    Ok(())
}

#[test]
fn a_refused_name_is_refused_by_all_its_addresses() -> Result<()> {
    let machine = Shared::apart()?;
    let dns = NameServer::start("corp.test")?;
    dns.set("db.prod.test", Entry::Alias("x.cloud.test".into()));
    dns.addresses("x.cloud.test", &["127.0.1.1", "127.0.1.2", "::1"]);
    dns.addresses("cache.corp.test", &["127.0.1.9"]);
    let mut daemon = start()?;
    // Known from the first moment of the policy.
    for address in ["127.0.1.1", "127.0.1.2", "::ffff:127.0.1.1", "::1"] {
        is_refused(&mut daemon, address, "db", "db.prod.test")?;
    }
    is_refused(&mut daemon, "127.0.1.9", "short", "cache")?;
    ensure!(
        reaches(&mut daemon, "strict", "127.0.1.3", 5999)?
            && reaches(&mut daemon, "strict", "127.0.1.1", 6000)?
    );
    let shown = until_known(&daemon, "db", "127.0.1.1, 127.0.1.2")?;
    ensure!(shown.status == Standing::Partly && shown.reasons.len() == 3, "{shown:?}");
    // Other addresses are followed, and those before count for a while.
    dns.addresses("x.cloud.test", &["127.0.1.3"]);
    until_known(&daemon, "db", "127.0.1.3")?;
    for address in ["127.0.1.3", "127.0.1.1", "::ffff:127.0.1.3"] {
        is_refused(&mut daemon, address, "db", "db.prod.test")?;
    }
    dns.host("127.0.1.4 db.prod.test a.below.test\n127.0.1.5 ok.below.test")?;
    until_known(&daemon, "db", "and 1 more")?;
    is_refused(&mut daemon, "127.0.1.4", "db", "db.prod.test")?;
    until_known(&daemon, "below", "`ok.below.test` stands for 127.0.1.5")?;
    ensure!(reaches(&mut daemon, "strict", "127.0.1.5", 5999)?);
    // Without a server what was known goes on to count, under another policy too.
    let asked = dns.asked();
    ensure!(asked > 0, "nobody asked");
    drop(dns);
    daemon.reload()?;
    daemon.wait_for("the policy again", |event| event.kind == Kind::PolicyApplied)?;
    is_refused(&mut daemon, "127.0.1.3", "db", "db.prod.test")?;
    until_known(&daemon, "db", "could not be asked for")?;
    daemon.stop()?;
    drop(machine);
    Ok(())
}

#[test]
fn an_allowed_name_allows_its_addresses_and_no_more() -> Result<()> {
    let machine = Shared::apart()?;
    let dns = NameServer::start("corp.test")?;
    dns.addresses("api.test", &["127.0.1.5"]);
    let mut daemon = start()?;
    ensure!(reaches(&mut daemon, "caged", "127.0.1.5", 5998)?);
    ensure!(
        !reaches(&mut daemon, "caged", "127.0.1.5", 5997)?
            && !reaches(&mut daemon, "caged", "127.0.1.6", 5998)?
    );
    dns.host("127.0.1.6 a.wild.test")?;
    until_known(&daemon, "may", "`*.wild.test` stands for 127.0.1.6")?;
    ensure!(
        reaches(&mut daemon, "caged", "127.0.1.6", 5998)?
            && !reaches(&mut daemon, "caged", "127.0.1.7", 5998)?
    );
    daemon.stop()?;
    drop(machine);
    Ok(())
}

/// A script that asks a name server of its choice, and then does this.
fn asks(server: &str, name: &str, kind: &str, then: &str) -> String {
    format!(
        r#"exec python3 -c '
import socket, struct

def question(name, kind):
    labels = b"".join(bytes([len(label)]) + label for label in name.encode().split(b"."))
    return struct.pack("!6H", 7, 256, 1, 0, 0, 0) + labels + struct.pack("!B2H", 0, kind, 1)

def ask(server, name, kind):
    s = socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM)
    s.sendto(question(name, {{"A": 1, "AAAA": 28}}[kind]), (server, 53))
    return s.recv(65536)

def connect(address, port):
    socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET).connect((address, port))

said = ask("{server}", "{name}", "{kind}")
{then}'"#
    )
}

/// What a session is told by a server of its choice is refused to it from then on, by this rule.
fn is_learned(daemon: &mut Daemon, (name, kind): (&str, &str), address: &str, rule: &str) -> Result<()> {
    let server = if address.contains(':') { "::1" } else { "127.0.0.2" };
    let script = asks(server, name, kind, &format!(r#"connect("{address}", 5999)"#));
    let event = refused(daemon, &script, rule).with_context(|| format!("{name} {kind} {address}"))?;
    ensure!(event.kind == Kind::NetConnect, "{event:?}");
    Ok(())
}

/// Servers that only sessions ask.
fn others() -> Result<[NameServer; 2]> {
    let others = [NameServer::at("127.0.0.2")?, NameServer::at("::1")?];
    for other in &others {
        other.addresses("x.below.test", &["127.0.2.1", "127.0.2.2", "fd00::7", "::ffff:127.0.2.4"]);
        other.addresses("db.prod.test", &["127.0.2.3", "fd00::8"]);
        other.addresses("ok.below.test", &["127.0.2.1"]);
        other.addresses("free.test", &["127.0.2.1"]);
        other.set("y.below.test", Entry::Alias("y.cloud.test".into()));
        other.addresses("y.cloud.test", &["127.0.2.5"]);
        other.set("alias.test", Entry::Alias("z.below.test".into()));
        other.addresses("z.below.test", &["127.0.2.6"]);
    }
    Ok(others)
}

/// Runs this as a session, which connects there; gives whether it got there.
fn reaches_by(daemon: &mut Daemon, agent: &str, script: &str, (address, port): (&str, u16)) -> Result<bool> {
    let listener = TcpListener::bind((address, port))?;
    listener.set_nonblocking(true)?;
    let run = session(daemon, agent, script)?;
    let arrived = listener.accept().is_ok();
    ensure!(arrived == run.status.success(), "{} {}", run.stderr, json_lines(&run.events));
    Ok(arrived)
}

/// Asks in a session, and connects there; gives whether it got there.
fn reaches_after(daemon: &mut Daemon, server: &str, name: &str, to: (&str, u16)) -> Result<bool> {
    let script = asks(server, name, "A", &format!(r#"connect("{}", {})"#, to.0, to.1));
    reaches_by(daemon, "strict", &script, to)
}

/// Case C17.
#[test]
fn what_a_session_is_told_is_learned_before_it_can_use_it() -> Result<()> {
    let machine = Shared::apart()?;
    let (dns, others) = (NameServer::start("corp.test")?, others()?);
    let mut daemon = start()?;
    for (asked, address, rule) in [
        (("x.below.test", "A"), "127.0.2.1", "below"),
        (("x.below.test", "A"), "127.0.2.2", "below"),
        (("X.bElOw.TEST", "A"), "127.0.2.1", "below"),
        (("x.below.test", "A"), "::ffff:127.0.2.1", "below"),
        (("x.below.test", "AAAA"), "fd00::7", "below"),
        (("x.below.test", "AAAA"), "127.0.2.4", "below"),
        (("db.prod.test", "A"), "127.0.2.3", "db"),
        (("db.prod.test", "AAAA"), "fd00::8", "db"),
        // By the name that was asked for, and by the one that it leads to.
        (("y.below.test", "A"), "127.0.2.5", "below"),
        (("alias.test", "A"), "127.0.2.6", "below"),
    ] {
        is_learned(&mut daemon, asked, address, rule)?;
    }
    // By a connected socket, and to others than that session, by other names and ports as before.
    let by_connect = asks(
        "127.0.0.2",
        "free.test",
        "A",
        r#"
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(("127.0.0.2", 53))
s.send(question("x.below.test", 1))
s.recv(65536)
connect("127.0.2.2", 5999)"#,
    );
    refused(&mut daemon, &by_connect, "below")?;
    ensure!(reaches(&mut daemon, "strict", "127.0.2.1", 5999)?, "another session");
    ensure!(reaches_after(&mut daemon, "127.0.0.2", "x.below.test", ("127.0.2.1", 6000))?, "another port");
    ensure!(reaches_after(&mut daemon, "127.0.0.2", "ok.below.test", ("127.0.2.1", 5999))?, "an exception");
    ensure!(reaches_after(&mut daemon, "127.0.0.2", "free.test", ("127.0.2.1", 5999))?, "nobody's name");
    let listener = TcpListener::bind("127.0.2.1:5999")?;
    TcpStream::connect("127.0.2.1:5999").context("an outsider")?;
    drop(listener);
    let shown = until_known(&daemon, "below", "is refused to it before it can use it")?;
    ensure!(shown.status == Standing::Partly, "{shown:?}");
    daemon.stop()?;
    drop((machine, dns, others));
    Ok(())
}

/// A session that was told before goes on to be refused.
fn step(shell: &mut Shell, what: &str) -> Result<()> {
    let said = shell.ask(what)?;
    ensure!(said == "refused", "{said}");
    Ok(())
}

#[test]
fn what_was_learned_outlives_daemon_and_policy() -> Result<()> {
    let machine = Shared::apart()?;
    let (dns, others) = (NameServer::start("corp.test")?, others()?);
    let mut daemon = start()?;
    let connect = |address: &str| {
        let script = format!(
            r#"python3 -c "import socket; socket.socket().connect((\"{address}\", 5999))" 2>&1 | grep -q "not permitted" && echo refused || echo reached"#
        );
        script
    };
    let ask = |name: &str| asks("127.0.0.2", name, "A", "").replace("exec python3", "python3");
    let file = work_dir()?;
    let script = |name: &str| -> Result<String> {
        let path = file.path().join(name);
        fs::write(&path, ask(name))?;
        Ok(format!("sh {}", path.display()))
    };
    let mut shell = Shell::start_as(&daemon, "strict")?;
    step(&mut shell, &format!("{}; {}", script("x.below.test")?, connect("127.0.2.1")))?;
    daemon.reload()?;
    daemon.wait_for("the policy again", |event| event.kind == Kind::PolicyApplied)?;
    step(&mut shell, &connect("127.0.2.1"))?;
    let place = daemon.place().clone();
    daemon.kill()?;
    step(&mut shell, &connect("127.0.2.1"))?;
    step(&mut shell, &format!("{}; {}", script("y.below.test")?, connect("127.0.2.5")))?;
    let daemon = Daemon::start(&place)?;
    step(&mut shell, &connect("127.0.2.5"))?;
    shell.end()?;
    daemon.stop()?;
    drop((machine, dns, others));
    Ok(())
}

#[test]
fn answers_open_nothing_and_harm_nothing() -> Result<()> {
    let machine = Shared::apart()?;
    let dns = NameServer::start("corp.test")?;
    let mut daemon = start()?;
    // What a session is told opens nothing to it.
    dns.addresses("any.wild.test", &["127.0.2.1"]);
    let _listener = TcpListener::bind("127.0.2.1:5998")?;
    let script = asks("127.0.0.1", "any.wild.test", "A", r#"connect("127.0.2.1", 5998)"#);
    let run = session(&mut daemon, "caged", &script)?;
    ensure!(!run.status.success() && judged(&run, Verdict::Denied).len() == 1, "{}", json_lines(&run.events));
    // Of more names than are kept for an address it cannot be said what is refused.
    let names: Vec<String> = (1..=5).map(|number| format!("{number}.many.test")).collect();
    for name in &names {
        dns.addresses(name, &["127.0.2.2"]);
    }
    for (count, is_known) in [(4, true), (5, false)] {
        let (last, before) = names[..count].split_last().context("no name")?;
        let before: String =
            before.iter().map(|name| format!("ask(\"127.0.0.1\", \"{name}\", \"A\")\n")).collect();
        let script = asks("127.0.0.1", last, "A", &format!("{before}connect(\"127.0.2.2\", 6000)"));
        if is_known {
            ensure!(reaches_by(&mut daemon, "strict", &script, ("127.0.2.2", 6000))?);
        } else {
            refused(&mut daemon, &script, "undecided")?;
        }
    }
    // An answer that is cut, and is about a name of rules, is counted.
    let question = b"\x01x\x05below\x04test\0\0\x01\0\x01";
    let head = |records: u8| [&[0x81, 0x80, 0, 1, 0, records, 0, 0, 0, 0][..], question].concat();
    let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 2, 1];
    // A name that is said to be found where it stands.
    let circle = |at: u8| [0xc0, at, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 2, 1];
    let long = [&head(1)[..], &[1, b'a'].repeat(3000)].concat();
    for (bytes, is_learned, arrives) in [
        ([&head(1)[..], &record].concat(), true, true),
        ([&head(9)[..], &record].concat(), true, false),
        ([&head(2)[..], &record, &circle(46)].concat(), true, false),
        ([&head(1)[..], &circle(30)].concat(), false, false),
        (long, false, false),
        (vec![0x81; 3], false, true),
        ([&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0][..], &[1, b'a'].repeat(600)].concat(), false, true),
        (vec![0xc0; 700], false, true),
    ] {
        dns.set("x.below.test", Entry::Bytes(bytes.clone()));
        let compare = if arrives { "!=" } else { "==" };
        let then = format!(r#"assert said[2:] {compare} b"end"; connect("127.0.2.1", 5999)"#);
        let script = asks("127.0.0.1", "x.below.test", "A", &then);
        if is_learned {
            refused(&mut daemon, &script, "below").with_context(|| format!("{bytes:?}"))?;
        } else {
            ensure!(reaches_by(&mut daemon, "strict", &script, ("127.0.2.1", 5999))?, "{bytes:?}");
        }
    }
    // To whom no rule refuses anything of the name it comes as it is, and where rules only tell.
    dns.set("x.below.test", Entry::Bytes([&head(9)[..], &record].concat()));
    for agent in ["free", "told"] {
        let then = r#"assert said[2:] != b"end"; connect("127.0.2.1", 5998)"#;
        let script = asks("127.0.0.1", "x.below.test", "A", then);
        ensure!(session(&mut daemon, agent, &script)?.status.success(), "{agent}");
    }
    let mut unread = 0;
    LogFollower::new(&daemon.place().state())?.until("what was not read", PATIENCE, |event| {
        let losses = event.loss.iter().filter(|loss| loss.reason == "answer_unread");
        unread += losses.map(|loss| loss.count).sum::<u64>();
        Ok(unread == 6)
    })?;
    daemon.stop()?;
    drop((machine, dns));
    Ok(())
}
