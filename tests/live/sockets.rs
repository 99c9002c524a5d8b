//! Sockets without a path: abstract Unix sockets and vsock.

use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};

use agentwatch::event::{Kind, Verdict};
use anyhow::{Result, ensure};
use tests::compare::json_lines;
use tests::daemon::Shared;

use crate::enforcement::{judged, python, refused, session};

/// Names that one rule is about, and one that none is about, as Python writes them.
const NAMES: [(&[u8], &str); 3] =
    [(b"aw-prod", "aw-prod"), (b"aw-prod/\xff\0\n.x", r"aw-prod/\xff\0\n.x"), (b"aw-prod\0", r"aw-prod\0")];

#[test]
fn a_refused_abstract_name_is_not_reached() -> Result<()> {
    Shared::with(|daemon| {
        for (name, written) in NAMES {
            let stream = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
            stream.set_nonblocking(true)?;
            let call = format!(r#"connect(b"\0{written}")"#);
            let event = refused(daemon, &python("AF_UNIX", &call), "sockets")?;
            ensure!(event.kind == Kind::NetConnect, "{event:?}");
            ensure!(
                stream.accept().is_err_and(|error| error.kind() == ErrorKind::WouldBlock),
                "{call} arrived"
            );
            drop(stream);
            let datagrams = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
            datagrams.set_nonblocking(true)?;
            for call in [format!(r#"connect(b"\0{written}")"#), format!(r#"sendto(b"x", b"\0{written}")"#)] {
                refused(daemon, &python("AF_UNIX, socket.SOCK_DGRAM", &call), "sockets")?;
                ensure!(datagrams.recv(&mut [0; 8]).is_err(), "{call} arrived");
            }
        }
        let broker = UnixListener::bind_addr(&SocketAddr::from_abstract_name("aw-broker")?)?;
        refused(daemon, &python("AF_UNIX", r#"connect(b"\0aw-broker")"#), "guard: delegate")?;
        drop(broker);
        // Others are reached: a shorter name, and one with something before.
        for name in ["aw-pro", "x-aw-prod"] {
            let free = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
            free.set_nonblocking(true)?;
            let script = python("AF_UNIX", &format!(r#"connect("\0{name}")"#));
            let run = session(daemon, "strict", &script)?;
            ensure!(run.status.success() && free.accept().is_ok(), "{name}: {}", run.stderr);
            ensure!(judged(&run, Verdict::Denied).is_empty(), "{}", json_lines(&run.events));
        }
        Ok(())
    })
}

#[test]
fn a_refused_abstract_name_is_not_taken() -> Result<()> {
    Shared::with(|daemon| {
        for family in ["AF_UNIX", "AF_UNIX, socket.SOCK_DGRAM", "AF_UNIX, socket.SOCK_SEQPACKET"] {
            let event = refused(daemon, &python(family, r#"bind(b"\0aw-own-1")"#), "sockets")?;
            ensure!(event.kind == Kind::NetBind, "{event:?}");
        }
        // One that the kernel chooses, and another one.
        for call in [r#"bind("")"#, r#"bind("\0aw-other"); s.listen()"#] {
            let run = session(daemon, "strict", &python("AF_UNIX", call))?;
            ensure!(run.status.success(), "{call}: {}", run.stderr);
            ensure!(judged(&run, Verdict::Denied).is_empty(), "{}", json_lines(&run.events));
        }
        Ok(())
    })
}

#[test]
fn a_refused_vsock_port_is_not_reached_and_not_taken() -> Result<()> {
    Shared::with(|daemon| {
        for call in ["connect((1, 54323))", "connect((2, 54324))", "bind((0xffffffff, 54325))"] {
            let event = refused(daemon, &python("AF_VSOCK", call), "sockets")?;
            let bound = call.starts_with("bind");
            ensure!(event.kind == if bound { Kind::NetBind } else { Kind::NetConnect }, "{event:?}");
            let network = event.network.as_ref();
            let port = network.and_then(|one| if bound { one.local_port } else { one.peer_port });
            ensure!(port.is_some_and(|port| call.contains(&port.to_string())), "{event:?}");
        }
        // Nobody listens there, and that is what is said.
        for call in ["connect_ex((1, 54322)) != 1 or sys.exit(9)", "bind((0xffffffff, 54326)); s.listen()"] {
            let script = python("AF_VSOCK", call).replace("import socket;", "import socket, sys;");
            let run = session(daemon, "strict", &script)?;
            ensure!(run.status.success(), "{call}: {}", run.stderr);
            ensure!(judged(&run, Verdict::Denied).is_empty(), "{}", json_lines(&run.events));
        }
        let run = session(daemon, "soft", &python("AF_VSOCK", "bind((0xffffffff, 54325))"))?;
        ensure!(run.status.success() && judged(&run, Verdict::WouldDeny).len() == 1, "{}", run.stderr);
        Ok(())
    })
}
