//! The two sockets, the receiver of spans, and the thread that listens on them.

use std::cell::RefCell;
use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::TcpListener as InternetListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener as Listener;
use std::path::Path;
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use super::limits;
use super::load::Connections;
use super::lock::{RunError, RunLock};
use super::peer::Peer;
use super::request::Mailbox;
use super::routes::Door;
use super::service::{Call, Shared};
use super::tcp::Ends;

/// The running server. Dropping it ends its thread and removes the sockets.
#[derive(Debug)]
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    lock: RunLock,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Before the lock goes: these are still ours and not a successor's.
        for path in [self.lock.paths().control_socket(), self.lock.paths().declare_socket()] {
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove a socket");
            }
        }
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Its panic has been reported by the panic hook, and there is nobody else to tell.
            let _ = thread.join();
        }
    }
}

/// Opens both sockets and answers on a thread of its own, until the [`Server`] is dropped. With `spans` it takes spans there,
/// see [`super::listen_to_spans`].
///
/// # Errors
/// A socket or the thread cannot be made.
pub fn serve(lock: RunLock, mailbox: Mailbox, spans: Option<InternetListener>) -> Result<Server, RunError> {
    let control = listen(&lock.paths().control_socket(), 0o600)?;
    let declare = listen(&lock.paths().declare_socket(), 0o666)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RunError::Thread)?;
    let (stop, stopped) = oneshot::channel();
    let run = move || {
        let shared = Rc::new(Shared::new(mailbox));
        let local = LocalSet::new();
        local.spawn_local(accept(Door::Control, move || UnixListener::from_std(control), Rc::clone(&shared)));
        local.spawn_local(accept(Door::Declare, move || UnixListener::from_std(declare), Rc::clone(&shared)));
        if let Some(spans) = spans {
            local.spawn_local(accept(Door::Otlp, move || TcpListener::from_std(spans), shared));
        }
        // Ends when the sender is dropped, and all calls with it.
        let _ = local.block_on(&runtime, stopped);
    };
    let thread = std::thread::Builder::new().name("control".into()).spawn(run).map_err(RunError::Thread)?;
    Ok(Server { stop: Some(stop), thread: Some(thread), lock })
}

/// Opens a socket in the place of whatever a daemon that was killed left there: the lock is held.
fn listen(path: &Path, mode: u32) -> Result<Listener, RunError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(RunError::io("replace", path)(error));
        }
        _ => {}
    }
    let listener = Listener::bind(path).map_err(RunError::io("listen on", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(RunError::io("set the mode of", path))?;
    listener.set_nonblocking(true).map_err(RunError::io("listen on", path))?;
    Ok(listener)
}

/// A socket that is listened on.
trait Listening {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + 'static;

    /// Waits for the next one.
    async fn next(&self) -> io::Result<Self::Stream>;

    /// Who connects.
    fn caller(door: Door, stream: &Self::Stream) -> io::Result<Connected>;

    /// Writes to a new connection, and waits for nobody.
    fn say(stream: &Self::Stream, bytes: &[u8]);
}

/// Who connects, and by what that is known.
struct Connected {
    peer: Peer,
    connection: Option<OwnedFd>,
    ends: Option<Ends>,
}

impl Listening for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }

    fn caller(door: Door, stream: &UnixStream) -> io::Result<Connected> {
        Ok(Connected { peer: Peer::of(stream)?, connection: duplicate(door, stream)?, ends: None })
    }

    fn say(stream: &UnixStream, bytes: &[u8]) {
        let _ = stream.try_write(bytes);
    }
}

impl Listening for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        Ok(self.accept().await?.0)
    }

    fn caller(_: Door, stream: &TcpStream) -> io::Result<Connected> {
        let ends = Ends::new(stream.local_addr()?, stream.peer_addr()?);
        let socket = ends.other_socket()?.ok_or(io::ErrorKind::NotConnected)?;
        // Which process that is, is looked for once it asks.
        Ok(Connected { peer: Peer { pid: None, uid: socket.uid }, connection: None, ends: Some(ends) })
    }

    fn say(stream: &TcpStream, bytes: &[u8]) {
        let _ = stream.try_write(bytes);
    }
}

async fn accept<L: Listening>(door: Door, listener: impl FnOnce() -> io::Result<L>, shared: Rc<Shared>) {
    let listener = match listener() {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(?door, %error, "cannot listen: the socket stays silent"),
    };
    let (most, most_per_user) = match door {
        Door::Control => (limits::CONTROL_CONNECTIONS, limits::CONTROL_CONNECTIONS),
        Door::Declare => (limits::DECLARE_CONNECTIONS, limits::DECLARE_CONNECTIONS_PER_USER),
        Door::Otlp => (limits::OTLP_CONNECTIONS, limits::OTLP_CONNECTIONS_PER_USER),
    };
    let connections = Rc::new(RefCell::new(Connections::new(most, most_per_user)));
    loop {
        match listener.next().await {
            Ok(stream) => begin::<L>(door, stream, &shared, &connections),
            Err(error) => {
                tracing::warn!(?door, %error, "cannot accept a connection");
                // Most likely there are no descriptors left: others may give theirs back.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        // Closed connections give their descriptors back before the next one is taken.
        tokio::task::yield_now().await;
    }
}

fn begin<L: Listening>(
    door: Door,
    stream: L::Stream,
    shared: &Rc<Shared>,
    connections: &Rc<RefCell<Connections>>,
) {
    let Connected { peer, connection, ends } = match L::caller(door, &stream) {
        Ok(caller) => caller,
        // Whoever connects and is gone again.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => return,
        Err(error) => return tracing::warn!(?door, %error, "cannot tell who connects"),
    };
    let Some(id) = connections.borrow_mut().admit(peer.uid) else {
        // One line into an empty buffer: this waits for nobody.
        L::say(&stream, b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n\r\n");
        return tracing::warn!(?door, uid = peer.uid, "refused a connection: all others are being answered");
    };
    let call = Call {
        shared: Rc::clone(shared),
        door,
        peer,
        connection,
        ends,
        connections: Rc::clone(connections),
        id,
        permit: RefCell::default(),
    };
    let task = tokio::task::spawn_local(converse(stream, call));
    connections.borrow_mut().answered_by(id, task.abort_handle());
}

/// A second descriptor, by which the call sees whether its caller is still there.
fn duplicate(door: Door, stream: &UnixStream) -> io::Result<Option<OwnedFd>> {
    match door {
        Door::Control | Door::Otlp => Ok(None),
        Door::Declare => stream.as_fd().try_clone_to_owned().map(Some),
    }
}

/// Removes the connection from the open ones however its task ends.
struct Counted(Rc<Call>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.borrow_mut().remove(self.0.id);
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, call: Call) {
    let call = Rc::new(call);
    let counted = Counted(Rc::clone(&call));
    let service = service_fn(move |request| {
        let call = Rc::clone(&call);
        async move { Ok::<_, Infallible>(call.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEAD)
        .max_buf_size(limits::HEAD_BYTES)
        // One call a connection: every bound on a connection is then one on a call.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(limits::CONNECTION, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a control connection broke"),
        Err(_) => tracing::debug!("a control connection took too long"),
    }
    drop(counted);
}
