//! What a bound session reaches, and where it is reached.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use agentwatch::event::{Event, Kind, Verdict};
use anyhow::{Context as _, Result, ensure};
use tests::compare::json_lines;
use tests::daemon::Shared;

use super::{bind, close, goes, is_refusal};
use crate::intents::{Setting, intent, said};

/// Programs that the tests start.
const PROGRAMS: [&str; 4] = ["--exec", "/usr/bin/*", "--exec", "/usr/local/bin/*"];

/// Whether a session does this with a socket of this family. Neither has a single quote.
fn does(setting: &mut Setting, family: &str, call: &str) -> Result<bool> {
    goes(setting, &format!("python3 -c 'from socket import *; s = socket({family}); s.{call}'"))
}

/// Somebody who listens on loopback, and where.
fn listener() -> Result<(TcpListener, u16)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

/// A port at which nobody listens.
fn free_port() -> Result<u16> {
    listener().map(|(_, port)| port)
}

/// Whether anybody came.
fn came(listener: &TcpListener) -> Result<bool> {
    match listener.accept() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn try_all(setting: &mut Setting, cases: &[(&str, String, bool)]) -> Result<()> {
    for (family, call, wanted) in cases {
        ensure!(does(setting, family, call)? == *wanted, "{family}: {call}: not {wanted}");
    }
    Ok(())
}

#[test]
fn addresses_outside_are_not_reached() -> Result<()> {
    Shared::with(|daemon| {
        let mut setting = Setting::new(daemon)?;
        let place = daemon.place().clone();
        let ((open, port), (shut, other)) = (listener()?, listener()?);
        let datagrams = [UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?];
        let [by_udp, not_by_udp] = datagrams.each_ref().map(UdpSocket::local_addr);
        let (by_udp, not_by_udp) = (by_udp?.port(), not_by_udp?.port());
        let (tcp, udp) = (format!("tcp:127.0.0.1:{port}"), format!("udp:127.0.0.0/8:{by_udp}"));
        let words = ["--connect", &*tcp, "--connect", &*udp];
        let id = bind(&place, &setting, &[&words[..], &PROGRAMS].concat())?;
        let (v4, v6) = ("AF_INET", "AF_INET6");
        try_all(
            &mut setting,
            &[
                (v4, format!("connect((\"127.0.0.1\", {port}))"), true),
                (v4, format!("connect((\"0.0.0.0\", {port}))"), true),
                (v6, format!("connect((\"::ffff:127.0.0.1\", {port}))"), true),
                (v4, format!("connect((\"127.0.0.1\", {other}))"), false),
                (v4, format!("connect((\"0.0.0.0\", {other}))"), false),
                (v6, format!("connect((\"::ffff:127.0.0.1\", {other}))"), false),
                (v6, format!("connect((\"::1\", {port}))"), false),
                (v4, format!("sendto(b\"x\", MSG_FASTOPEN, (\"127.0.0.1\", {other}))"), false),
                ("AF_INET, SOCK_DGRAM", format!("sendto(b\"x\", (\"127.0.0.1\", {by_udp}))"), true),
                ("AF_INET, SOCK_DGRAM", format!("sendto(b\"x\", (\"127.0.0.1\", {not_by_udp}))"), false),
                ("AF_INET, SOCK_DGRAM", format!("connect((\"127.0.0.1\", {port}))"), false),
                // What is no address is not held.
                (v4, "close(); a, b = socketpair(); a.send(b\"x\"); b.recv(1)".to_owned(), true),
                ("AF_NETLINK, SOCK_RAW", "bind((0, 0))".to_owned(), true),
            ],
        )?;
        ensure!(came(&open)? && !came(&shut)?, "nobody came, or somebody where nobody should");
        datagrams[1].set_nonblocking(true)?;
        ensure!(datagrams[1].recv(&mut [0; 8]).is_err(), "something was sent outside");
        let refused = |event: &Event| {
            let peer = event.network.as_ref().and_then(|network| network.peer_port);
            event.kind == Kind::NetConnect
                && peer == Some(other.into())
                && is_refusal(event, &id, Verdict::Denied)
        };
        let events = daemon.wait_for("the refusal", refused)?;
        let reason = events.last().and_then(|event| event.reason.clone()).unwrap_or_default();
        ensure!(reason.starts_with("connect is outside of the binding intent"), "{reason}");
        close(&place, &id)?;
        ensure!(
            does(&mut setting, v4, &format!("connect((\"127.0.0.1\", {other}))"))?,
            "it binds though closed"
        );
        setting.shell.end()
    })
}

#[test]
fn sockets_outside_are_not_reached() -> Result<()> {
    Shared::with(|daemon| {
        let mut setting = Setting::new(daemon)?;
        let place = daemon.place().clone();
        let (within, outside, link) = (setting.path("in/s"), setting.path("out/s"), setting.path("in/link"));
        let abstract_name = |end: &str| format!("aw-bound-{}-{end}", std::process::id());
        let (known, unknown) = (abstract_name("in"), abstract_name("out"));
        let kept = [
            UnixListener::bind(&within)?,
            UnixListener::bind(&outside)?,
            UnixListener::bind_addr(&SocketAddr::from_abstract_name(&known)?)?,
            UnixListener::bind_addr(&SocketAddr::from_abstract_name(&unknown)?)?,
        ];
        std::os::unix::fs::symlink(&outside, &link)?;
        let pattern = format!("unix:@{known}");
        let words = ["--connect", "@in", "--connect", &*pattern];
        let id = bind(&place, &setting, &[&words[..], &PROGRAMS].concat())?;
        try_all(
            &mut setting,
            &[
                ("AF_UNIX", format!("connect(\"{within}\")"), true),
                ("AF_UNIX", format!("connect(\"{outside}\")"), false),
                ("AF_UNIX", format!("connect(\"{link}\")"), false),
                ("AF_UNIX", format!("connect(\"\\0{known}\")"), true),
                ("AF_UNIX", format!("connect(\"\\0{unknown}\")"), false),
            ],
        )?;
        let refused = |event: &Event| {
            let peer = event.network.as_ref().and_then(|network| network.peer_address.clone());
            peer.is_some_and(|peer| peer.0 == outside) && is_refusal(event, &id, Verdict::Denied)
        };
        let events = daemon.wait_for("the refusal", refused)?;
        ensure!(events.last().is_some_and(|event| event.kind == Kind::NetConnect), "{}", json_lines(&events));
        // Whoever is bound can say what comes next.
        let answer = setting.shell.ask("agentwatch intent declare --read /etc 2>&1 | tail -n 1")?;
        ensure!(answer.starts_with("int-"), "{answer}");
        drop(kept);
        setting.shell.end()
    })
}

#[test]
fn nobody_is_reached_at_addresses_outside() -> Result<()> {
    Shared::with(|daemon| {
        let mut setting = Setting::new(daemon)?;
        let place = daemon.place().clone();
        let (port, other) = (free_port()?, free_port()?);
        let pattern = format!("127.0.0.1:{port}");
        bind(&place, &setting, &[&["--listen", &*pattern, "--write", "@in"][..], &PROGRAMS].concat())?;
        let listen = |host: &str, port: u16| format!("bind((\"{host}\", {port})); s.listen()");
        let path = setting.path("in/l");
        try_all(
            &mut setting,
            &[
                ("AF_INET", listen("127.0.0.1", port), true),
                ("AF_INET", listen("127.0.0.1", other), false),
                ("AF_INET", listen("0.0.0.0", port), false),
                ("AF_INET, SOCK_DGRAM", format!("bind((\"127.0.0.1\", {other}))"), false),
                // One that the kernel chooses is another one.
                ("AF_INET", listen("127.0.0.1", 0), false),
                ("AF_UNIX", format!("bind(\"{path}\"); s.listen()"), false),
                ("AF_UNIX", "bind(b\"\\0aw-bound\")".to_owned(), false),
            ],
        )?;
        setting.shell.end()
    })
}

#[test]
fn an_intent_that_does_not_speak_of_connections_allows_none() -> Result<()> {
    Shared::with(|daemon| {
        let mut setting = Setting::new(daemon)?;
        let place = daemon.place().clone();
        let (shut, port) = listener()?;
        let words = ["declare", "--session", &setting.session, "--binding", "--write", "/tmp"];
        let output = intent(&place, &[&words[..], &PROGRAMS].concat())?;
        let text = said(&output);
        ensure!(output.status.success() && text.contains("does not speak of `connect`"), "{text}");
        ensure!(
            !goes(&mut setting, &format!(": > /dev/tcp/127.0.0.1/{port}"))? && !came(&shut)?,
            "it was reached"
        );
        let id = String::from_utf8(output.stdout)?;
        close(&place, id.trim_end())?;
        ensure!(goes(&mut setting, &format!(": > /dev/tcp/127.0.0.1/{port}"))?, "it binds though closed");
        came(&shut)?.then_some(()).context("nobody came")?;
        setting.shell.end()
    })
}
