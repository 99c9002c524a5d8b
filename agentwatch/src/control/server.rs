//! The two sockets and the thread that listens on them.

use std::cell::RefCell;
use std::convert::Infallible;
use std::fs;
use std::io;
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
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use super::limits;
use super::load::Connections;
use super::lock::{RunError, RunLock};
use super::peer::Peer;
use super::request::Mailbox;
use super::routes::Door;
use super::service::{Call, Shared};

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

/// Opens both sockets and answers on a thread of its own, until the [`Server`] is dropped.
///
/// # Errors
/// A socket or the thread cannot be made.
pub fn serve(lock: RunLock, mailbox: Mailbox) -> Result<Server, RunError> {
    let control = listen(&lock.paths().control_socket(), 0o600)?;
    let declare = listen(&lock.paths().declare_socket(), 0o666)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RunError::Thread)?;
    let (stop, stopped) = oneshot::channel();
    let run = move || {
        let shared = Rc::new(Shared::new(mailbox));
        let local = LocalSet::new();
        local.spawn_local(accept(Door::Control, control, Rc::clone(&shared)));
        local.spawn_local(accept(Door::Declare, declare, shared));
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

async fn accept(door: Door, listener: Listener, shared: Rc<Shared>) {
    let listener = match UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(?door, %error, "cannot listen: the socket stays silent"),
    };
    let (most, most_per_user) = match door {
        Door::Control => (limits::CONTROL_CONNECTIONS, limits::CONTROL_CONNECTIONS),
        Door::Declare => (limits::DECLARE_CONNECTIONS, limits::DECLARE_CONNECTIONS_PER_USER),
    };
    let connections = Rc::new(RefCell::new(Connections::new(most, most_per_user)));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => begin(door, stream, &shared, &connections).await,
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

async fn begin(door: Door, stream: UnixStream, shared: &Rc<Shared>, connections: &Rc<RefCell<Connections>>) {
    let made = Peer::of(&stream).and_then(|peer| Ok((peer, duplicate(door, &stream)?)));
    let (peer, connection) = match made {
        Ok(made) => made,
        Err(error) => return tracing::warn!(?door, %error, "cannot tell who connects"),
    };
    let Some(id) = connections.borrow_mut().admit(peer.uid) else {
        // One line into an empty buffer: this waits for nobody.
        let _ = stream.try_write(b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n\r\n");
        return tracing::warn!(?door, uid = peer.uid, "refused a connection: all others are being answered");
    };
    let call = Call {
        shared: Rc::clone(shared),
        door,
        peer,
        connection,
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
        Door::Control => Ok(None),
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

async fn converse(stream: UnixStream, call: Call) {
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
