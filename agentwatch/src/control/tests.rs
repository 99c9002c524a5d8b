//! The API over real sockets, with a thread that plays the owner.

use std::io::{Read, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::policy::PolicyFile;
use super::state::{LaunchView, SessionsView};
use super::*;
use crate::exit;
use crate::paths::Paths;

mod otlp;
pub mod samples;

/// How the owner behaves.
#[derive(Clone, Copy, PartialEq)]
pub enum Manner {
    Answers,
    KeepsSilent,
    /// Answers, and knows no process of a session.
    KnowsNobody,
}

/// A server with an owner behind it, in a folder of its own.
pub struct Daemon {
    pub paths: Paths,
    pub launches: mpsc::Receiver<Launch>,
    unheard: mpsc::Receiver<String>,
    /// Where it takes spans.
    spans: SocketAddr,
    server: Option<Server>,
    mailbox: Mailbox,
    owner: Option<JoinHandle<Vec<Request>>>,
    _folder: TempDir,
}

impl Daemon {
    pub fn start(manner: Manner) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths { state: folder.path().join("state"), run: folder.path().join("run") };
        let (mailbox, inbox) = mailbox().unwrap();
        let ((told, launches), (refused, unheard)) = (mpsc::channel(), mpsc::channel());
        let owner = Some(std::thread::spawn(move || own(manner, &inbox, &(told, refused))));
        let listener = listen_to_spans("127.0.0.1:0".parse().unwrap()).unwrap();
        let spans = listener.local_addr().unwrap();
        let server = Some(serve(RunLock::take(&paths).unwrap(), mailbox.clone(), Some(listener)).unwrap());
        Self { paths, launches, unheard, spans, server, mailbox, owner, _folder: folder }
    }

    pub fn client(&self) -> Client {
        Client::new(&self.paths)
    }

    /// Ends the owner; gives the requests that it never answered.
    fn end_owner(&mut self) -> Vec<Request> {
        let (reply, done) = oneshot::channel();
        self.mailbox.post(Request::Stop { reply });
        done.blocking_recv().unwrap().unwrap();
        self.owner.take().unwrap().join().unwrap()
    }

    fn control(&self, request: &str) -> (u16, Value) {
        raw(&self.paths.control_socket(), request.as_bytes())
    }

    fn declare(&self, body: &[u8]) -> (u16, Value) {
        let mut request =
            format!("POST /v1/launch HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
        let mut bytes = std::mem::take(&mut request).into_bytes();
        bytes.extend_from_slice(body);
        raw(&self.paths.declare_socket(), &bytes)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.owner.is_some() {
            self.end_owner();
        }
    }
}

fn own(manner: Manner, inbox: &Inbox, told: &(mpsc::Sender<Launch>, mpsc::Sender<String>)) -> Vec<Request> {
    let mut kept = Vec::new();
    loop {
        poll(&mut [PollFd::new(inbox, PollFlags::IN)], None).unwrap();
        for request in inbox.take() {
            match request {
                Request::Stop { reply } => {
                    reply.send(Ok(())).unwrap();
                    return kept;
                }
                request if manner == Manner::KeepsSilent => kept.push(request),
                request => answer(request, manner, told),
            }
        }
    }
}

fn answer(request: Request, manner: Manner, (told, unheard): &(mpsc::Sender<Launch>, mpsc::Sender<String>)) {
    let sessions = samples::sessions();
    // A caller that has given up meanwhile is no failure.
    match request {
        Request::Sessions { all, reply } => {
            let _ = reply.send(Ok(sessions.into_iter().filter(|one| all || one.ended.is_none()).collect()));
        }
        Request::Tree { session, reply } => {
            let found = resolve(sessions.iter().map(|one| &one.id), &session);
            let _ = reply.send(found.map(|id| samples::tree(id)));
        }
        Request::Status { reply } => {
            let _ = reply.send(Ok(samples::daemon()));
        }
        Request::Policy { reply } => {
            let _ = reply.send(Ok(Box::new(samples::policy())));
        }
        Request::Apply { apply, reply } => {
            let known = apply.files.iter().all(|file| file.text == "version: 1\n") && apply.uid == own_uid();
            let refusal = Refusal::BadPolicy("error[AW0105]: 2\n  --> x".into());
            let _ = reply.send(if known { Ok(samples::applied()) } else { Err(refusal) });
        }
        Request::SelfTest { reply } => {
            let _ = reply.send(Ok(samples::self_test()));
        }
        Request::Declare { body, caller, reply } => {
            let known = caller.pid.is_some() && body.session.is_none_or(|session| session == "coding-7f3k2q");
            let refusal = Refusal::NotYours { own: "aider-aaaaaa".into() };
            let _ = reply.send(if known { Ok(samples::intent()) } else { Err(refusal) });
        }
        Request::Members { reply } => {
            let own = Member { pid: std::process::id(), session: 7 };
            let _ = reply.send(Ok(if manner == Manner::KnowsNobody { Vec::new() } else { vec![own] }));
        }
        Request::Spans { export, caller, reply } => {
            let known = caller.pid == Some(std::process::id()) && caller.start_ticks.is_some();
            let _ = reply.send(if known { Ok(export.refused) } else { Err(Refusal::UnknownSender) });
        }
        Request::Tool { reply, .. } => {
            let _ = reply.send(Ok(samples::tool_view()));
        }
        Request::Intents { reply, .. } => {
            let _ = reply.send(Ok(vec![samples::intent()]));
        }
        Request::Intent { id, reply }
        | Request::CloseIntent { id, reply, .. }
        | Request::CheckIntent { id, reply, .. } => {
            let known = *samples::intent().id == *id;
            let _ = reply.send(if known { Ok(samples::intent()) } else { Err(Refusal::NoSuchIntent(id)) });
        }
        Request::Launch { launch, reply } if launch.agent == "coding" => {
            told.send(launch).unwrap();
            let _ = reply.send(Ok(LaunchView { session: "coding-7f3k2q".into() }));
        }
        Request::Launch { launch, reply } => {
            let known = vec!["aider".into(), "coding".into()];
            let _ = reply.send(Err(Refusal::UnknownAgent { agent: launch.agent, known }));
        }
        Request::Unheard { why, reply, .. } => {
            unheard.send(why).unwrap();
            let _ = reply.send(Ok(()));
        }
        Request::Stop { .. } => unreachable!("the caller handles it"),
    }
}

/// Sends bytes, reads to the end; status and body of the answer. A missing answer fails after 20 s.
fn raw(socket: &Path, bytes: &[u8]) -> (u16, Value) {
    let mut stream = UnixStream::connect(socket).unwrap();
    // The server may refuse before all is sent.
    let _ = stream.write_all(bytes);
    read_answer(&mut stream)
}

fn read_answer(stream: &mut UnixStream) -> (u16, Value) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (head, body) = read_whole(stream);
    let status = head.split(' ').nth(1).map_or(0, |status| status.parse().unwrap());
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// Head and body of an answer.
fn read_whole(stream: &mut impl Read) -> (String, Vec<u8>) {
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => answer.extend_from_slice(&chunk[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("no whole answer: {error}"),
        }
    }
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap_or(answer.len());
    let body = answer.get(end + 4..).unwrap_or_default().to_vec();
    answer.truncate(end);
    (String::from_utf8(answer).unwrap(), body)
}

fn code(answer: &(u16, Value)) -> (u16, &str) {
    assert!(answer.1["error"].as_str().is_some_and(|sentence| sentence.len() > 20), "{answer:?}");
    (answer.0, answer.1["code"].as_str().unwrap())
}

#[test]
fn every_question_is_answered() {
    let daemon = Daemon::start(Manner::Answers);
    let client = daemon.client();
    assert_eq!(client.status().unwrap(), samples::daemon());
    assert_eq!(client.sessions(true).unwrap(), SessionsView { sessions: samples::sessions() });
    let living = client.sessions(false).unwrap().sessions;
    assert!(living.iter().all(|one| one.ended.is_none()));
    assert_eq!(living.len() + 1, samples::sessions().len());
    assert_eq!(client.tree("coding-7").unwrap(), samples::tree("coding-7f3k2q"));
    let (status, document) = daemon.control("GET /v1/openapi.json HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!((status, &document["openapi"]), (200, &json!("3.1.0")));
}

#[test]
fn what_does_not_exist_is_refused_with_a_sentence() {
    let daemon = Daemon::start(Manner::Answers);
    let ask = |line: &str| daemon.control(&format!("{line} HTTP/1.1\r\nhost: x\r\n\r\n"));
    assert_eq!(code(&ask("GET /v1/nothing")), (404, "no_such_path"));
    assert_eq!(code(&ask("POST /v1/launch")), (404, "other_socket"));
    assert_eq!(code(&ask("DELETE /v1/status")), (405, "other_method"));
    assert_eq!(code(&ask("GET /v1/sessions?all=perhaps")), (400, "bad_query"));
    assert_eq!(code(&ask("GET /v1/sessions/%ff/tree")), (400, "bad_path"));
    assert_eq!(code(&ask("GET /v1/sessions/x/tree")), (404, "no_such_session"));
    assert_eq!(code(&ask("GET /v1/sessions/coding/tree")), (409, "ambiguous_session"));
    let status_on_declare =
        raw(&daemon.paths.declare_socket(), b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(code(&status_on_declare), (404, "other_socket"));
    let refused = daemon.client().tree("x/../y\u{1b}").unwrap_err();
    assert!(matches!(&refused, ClientError::Refused(view) if view.code == "no_such_session"));
    assert!(refused.to_string().contains("`x/../y\u{1b}`"), "the text arrives as it was given: {refused}");
    assert_eq!(refused.exit_code(), exit::USAGE);
}

#[test]
fn what_is_not_http_is_refused() {
    let daemon = Daemon::start(Manner::Answers);
    assert_eq!(daemon.control("\0\u{7f}ELF\r\n\r\n").0, 400);
    let long = format!(
        "GET /v1/status HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n",
        "x".repeat(limits::HEAD_BYTES * 4)
    );
    assert_eq!(daemon.control(&long).0, 431);
    assert!(daemon.client().status().is_ok());
}

#[test]
fn the_caller_becomes_a_session_by_what_the_kernel_says() {
    let daemon = Daemon::start(Manner::Answers);
    let view = daemon.client().launch("coding").unwrap();
    assert_eq!(&*view.session, "coding-7f3k2q");
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let start_ticks = stat.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap().parse().unwrap();
    let uid = rustix::process::geteuid().as_raw();
    let told = daemon.launches.try_recv().unwrap();
    assert_eq!(told, Launch { agent: "coding".into(), pid: std::process::id(), start_ticks, uid });
}

#[test]
fn bad_declarations_never_reach_the_owner() {
    let daemon = Daemon::start(Manner::Answers);
    assert_eq!(code(&daemon.declare(b"{\"agent\": \"cod")), (400, "bad_body"));
    assert_eq!(code(&daemon.declare(b"{\"agent\": \"\xff\xfe\"}")), (400, "bad_body"));
    assert_eq!(code(&daemon.declare(b"{\"agent\": \"coding\", \"pid\": 1}")), (400, "bad_body"));
    assert_eq!(code(&daemon.declare(b"")), (400, "bad_body"));
    assert_eq!(code(&daemon.declare(&vec![b'['; limits::BODY_BYTES])), (400, "bad_body"));
    let broken_off = UnixStream::connect(daemon.paths.declare_socket()).unwrap();
    (&broken_off).write_all(b"POST /v1/launch HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{").unwrap();
    drop(broken_off);
    assert_eq!(code(&daemon.declare(b"{\"agent\": \"nobody\"}")), (422, "unknown_agent"));
    assert!(daemon.launches.try_recv().is_err());
}

#[test]
fn a_body_of_100_mb_is_refused_early() {
    let daemon = Daemon::start(Manner::Answers);
    let chunk = vec![b' '; 1 << 20];
    for head in ["content-length: 104857600", "transfer-encoding: chunked"] {
        let mut stream = UnixStream::connect(daemon.paths.declare_socket()).unwrap();
        write!(stream, "POST /v1/launch HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n").unwrap();
        let sent = (0..100).take_while(|_| {
            write!(stream, "100000\r\n")
                .and_then(|()| stream.write_all(&chunk))
                .and_then(|()| write!(stream, "\r\n"))
                .is_ok()
        });
        assert!(sent.count() < 100, "the server hung up before it had all");
        assert_eq!(code(&read_answer(&mut stream)), (413, "too_large"));
    }
    assert!(daemon.client().launch("coding").is_ok());
}

#[test]
fn slow_writers_are_hung_up_on() {
    let daemon = Daemon::start(Manner::Answers);
    let begin = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(daemon.paths.declare_socket()).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    };
    let mut in_head = begin(b"POST /v1/laun");
    let mut in_body = begin(b"POST /v1/launch HTTP/1.1\r\nhost: x\r\ncontent-length: 20\r\n\r\n{");
    let mut silent = begin(b"");
    assert!(daemon.client().launch("coding").is_ok(), "others are served meanwhile");
    assert_eq!(read_answer(&mut in_head), (0, Value::Null));
    assert_eq!(read_answer(&mut silent), (0, Value::Null));
    assert_eq!(code(&read_answer(&mut in_body)), (408, "too_slow"));
}

#[test]
fn two_thousand_connections_keep_nobody_out() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let daemon = Daemon::start(Manner::Answers);
    let sockets = [
        (daemon.paths.declare_socket(), limits::DECLARE_CONNECTIONS_PER_USER),
        (daemon.paths.control_socket(), limits::CONTROL_CONNECTIONS),
    ];
    for (socket, most) in sockets {
        let held: Vec<_> = (0..2000).map(|_| UnixStream::connect(&socket).unwrap()).collect();
        assert_eq!(daemon.client().status().unwrap(), samples::daemon());
        assert!(daemon.client().launch("coding").is_ok());
        let open = held.iter().filter(|stream| {
            stream.set_nonblocking(true).unwrap();
            (&mut &**stream).read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
        });
        let open = open.count();
        assert!(open <= most, "{open} of 2000 connections are open");
    }
}

#[test]
fn one_process_cannot_launch_without_end() {
    let daemon = Daemon::start(Manner::Answers);
    let (burst, _) = limits::LAUNCHES_PER_PROCESS;
    let mut refused = None;
    for _ in 0..burst * 20 {
        refused = daemon.client().launch("coding").err();
        if refused.is_some() {
            break;
        }
    }
    let refused = refused.expect("a launch is refused in the end");
    assert!(matches!(&refused, ClientError::Refused(view) if view.code == "too_many_launches"), "{refused}");
    assert!(daemon.launches.try_iter().count() >= burst as usize);
}

#[test]
fn an_owner_that_keeps_silent_or_is_gone_is_a_503() {
    let mut daemon = Daemon::start(Manner::KeepsSilent);
    let ask = |daemon: &Daemon, path| daemon.control(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"));
    assert_eq!(code(&ask(&daemon, "/v1/status")), (503, "silent"));
    let refused = daemon.client().launch("coding").unwrap_err();
    assert!(matches!(refused, ClientError::Silent { .. }), "{refused}");
    assert_eq!(refused.exit_code(), exit::UNREACHABLE);
    let unanswered = daemon.end_owner();
    assert_eq!(unanswered.len(), 2);
    assert!(unanswered.iter().all(Request::is_abandoned), "a launch that was refused must not happen");
    drop(unanswered);
    assert_eq!(code(&ask(&daemon, "/v1/sessions")), (503, "silent"));
    assert_eq!(ask(&daemon, "/v1/openapi.json").0, 200);
}

#[test]
fn the_sockets_are_for_whom_they_should_be_and_go_with_the_server() {
    let mut daemon = Daemon::start(Manner::Answers);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(&daemon.paths.control_socket()), 0o600);
    assert_eq!(mode(&daemon.paths.declare_socket()), 0o666);
    let second = RunLock::take(&daemon.paths).unwrap_err();
    assert!(matches!(second, RunError::AnotherRuns { pid: Some(pid) } if pid == std::process::id()));
    drop(daemon.server.take());
    assert!(!daemon.paths.control_socket().exists() && !daemon.paths.declare_socket().exists());
    let gone = daemon.client().status().unwrap_err();
    assert_eq!(gone.exit_code(), exit::UNREACHABLE);
    assert!(gone.to_string().contains("start it with `agentwatch run`"), "{gone}");
    RunLock::take(&daemon.paths).unwrap();
}

#[test]
fn sockets_that_a_killed_daemon_left_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths { state: folder.path().join("state"), run: folder.path().to_owned() };
    drop(UnixListener::bind(paths.control_socket()).unwrap());
    drop(UnixListener::bind(paths.declare_socket()).unwrap());
    assert!(matches!(Client::new(&paths).status(), Err(ClientError::NotRunning { .. })));
    let (mailbox, _inbox) = mailbox().unwrap();
    let _server = serve(RunLock::take(&paths).unwrap(), mailbox, None).unwrap();
    assert!(
        matches!(Client::new(&paths).status(), Err(ClientError::Silent { .. })),
        "it answers, without an owner"
    );
}

#[test]
fn something_else_behind_the_socket_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths { state: folder.path().join("state"), run: folder.path().to_owned() };
    let listener = UnixListener::bind(paths.control_socket()).unwrap();
    let answers = [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        "SSH-2.0-OpenSSH\r\n",
        "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
    ];
    let other = std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    for _ in answers {
        let error = Client::new(&paths).status().unwrap_err();
        assert!(matches!(error, ClientError::Strange { .. }), "{error}");
        assert_eq!(error.exit_code(), exit::FAILED);
    }
    other.join().unwrap();
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[test]
fn a_policy_is_handed_over_and_its_problems_come_back() {
    let daemon = Daemon::start(Manner::Answers);
    assert_eq!(daemon.client().policy().unwrap(), samples::policy());
    assert_eq!(daemon.client().self_test().unwrap(), samples::self_test());
    let file = |text: &str| PolicyFile { name: "p.yaml".into(), text: text.to_owned() };
    let applied = daemon.client().apply(vec![file("version: 1\n"), file("version: 1\n")]).unwrap();
    assert_eq!(applied, samples::applied());
    let refused = daemon.client().apply(vec![file("version: 2\n")]).unwrap_err();
    assert_eq!(refused.exit_code(), exit::BAD_POLICY);
    assert!(refused.to_string().contains("\n  --> x"), "{refused}");
}

#[test]
fn a_policy_may_be_larger_than_what_is_declared_and_has_a_bound() {
    let daemon = Daemon::start(Manner::Answers);
    let large = |bytes: usize| vec![PolicyFile { name: "p.yaml".into(), text: "#".repeat(bytes) }];
    let refused = daemon.client().apply(large(limits::BODY_BYTES * 4)).unwrap_err();
    assert_eq!(refused.exit_code(), exit::BAD_POLICY, "it arrived: {refused}");
    let bytes = limits::POLICY_BYTES + 1;
    let (status, body) = daemon
        .control(&format!("POST /v1/policy/apply HTTP/1.1\r\nhost: x\r\ncontent-length: {bytes}\r\n\r\n"));
    assert_eq!((status, body["code"].as_str()), (413, Some("too_large")));
    let (status, body) =
        daemon.control("POST /v1/policy/apply HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}");
    assert_eq!((status, body["code"].as_str()), (400, Some("bad_body")));
}

/// Sends a body to a path of `declare.sock`.
fn say(daemon: &Daemon, path: &str, body: &str) -> (u16, Value) {
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    raw(&daemon.paths.declare_socket(), [head.as_bytes(), body.as_bytes()].concat().as_slice())
}

#[test]
fn a_word_that_is_refused_is_told_and_of_a_flood_it_is_counted() {
    let daemon = Daemon::start(Manner::Answers);
    let heard = || daemon.unheard.try_recv().ok();
    assert_eq!(say(&daemon, "/v1/tool", "{").0, 400);
    assert!(heard().unwrap().starts_with("the body must be JSON such as"));
    assert_eq!(say(&daemon, "/v1/declare", r#"{"declared_by": "operator"}"#).0, 400);
    assert!(heard().unwrap().contains("unknown field `declared_by`"));
    let head = "POST /v1/declare HTTP/1.1\r\nhost: x\r\ncontent-length: 104857600\r\n\r\n";
    assert_eq!(raw(&daemon.paths.declare_socket(), head.as_bytes()).0, 413);
    assert_eq!(heard().unwrap(), "the body is larger than 64 KiB");
    // What is no word of anybody is not.
    assert_eq!(say(&daemon, "/v1/launch", "{").0, 400);
    assert_eq!((heard(), daemon.mailbox.untold().take()), (None, 0));

    let all = 3 * limits::REFUSALS_PER_PROCESS.0;
    for _ in 0..all {
        assert_eq!(say(&daemon, "/v1/tool", "[]").0, 400);
    }
    let told = std::iter::from_fn(heard).count() as u64;
    assert_eq!(told + daemon.mailbox.untold().take(), u64::from(all));
    assert!(told < u64::from(all), "a flood is told one by one");
}
