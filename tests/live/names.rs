//! Rules by names of hosts: what the names stand for is refused or allowed, as it changes.

use std::fs;
use std::net::TcpListener;
use std::process::Output;
use std::time::Instant;

use agentwatch::control::policy::{PolicyRuleView, PolicyView, Standing};
use agentwatch::event::{Kind, Verdict};
use anyhow::{Context as _, Result, ensure};
use tests::compare::json_lines;
use tests::daemon::{Daemon, PATIENCE, Place, Shared};
use tests::dns::{Entry, NameServer};

use crate::enforcement::{judged, python, refused, session};

const POLICY: &str = "\
version: 1
agents:
  test: {owner: tests@example.com}
  strict: {owner: tests@example.com, mode: enforce}
  caged: {owner: tests@example.com, mode: enforce, default: {connect: deny}}
rules:
  - {name: db, agents: [strict], deny: {connect: ['DB.prod.test:5999']}}
  - {name: short, agents: [strict], deny: {connect: ['cache:5999']}}
  - {name: below, agents: [strict], deny: {connect: ['*.below.test:5999']}, unless: {connect: ['ok.below.test:*']}}
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
    ensure!(shown.status == Standing::Partly && shown.reasons.len() == 2, "{shown:?}");
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
