//! One call: from HTTP to a request for the owner, and its answer back.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_LENGTH;
use hyper::{Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use super::failure::{Failure, json};
use super::intent::{IntentBody, IntentCheckBody, IntentsView};
use super::limits;
use super::load::{Connections, LaunchRates, Rates};
use super::peer::{Peer, PeerError};
use super::policy::ApplyBody;
use super::request::{self, Apply, Caller, Launch, Mailbox, Reply};
use super::routes::{Action, Door, Found, find};
use super::state::{LaunchBody, LaunchView, SessionsView};
use super::tcp::Ends;
use super::tool::ToolBody;
use super::unheard::Word;

const OPENAPI: &[u8] = include_bytes!("openapi.json");

/// What all calls share.
#[derive(Debug)]
pub struct Shared {
    /// The way to the owner.
    pub mailbox: Mailbox,
    /// Launches so far.
    pub rates: RefCell<LaunchRates>,
    /// Declarations so far.
    pub declarations: RefCell<LaunchRates>,
    /// What harnesses told so far.
    pub tools: RefCell<LaunchRates>,
    /// Refusals that were told so far.
    pub refusals: RefCell<LaunchRates>,
    /// Requests with spans so far, by user.
    pub senders: RefCell<Rates>,
    /// Spans so far, by session.
    pub spans: RefCell<Rates>,
    /// One permit for each large answer.
    pub large: Arc<Semaphore>,
    /// One permit for what is done on another thread.
    pub aside: Arc<Semaphore>,
}

impl Shared {
    /// Nothing has been asked yet.
    pub fn new(mailbox: Mailbox) -> Self {
        let large = Arc::new(Semaphore::new(limits::LARGE_ANSWERS));
        let rates = || RefCell::new(LaunchRates::new());
        Self {
            mailbox,
            rates: rates(),
            declarations: rates(),
            tools: RefCell::new(LaunchRates::of_tools()),
            refusals: RefCell::new(LaunchRates::of_refusals()),
            senders: RefCell::new(Rates::new(limits::SENDERS_PER_USER)),
            spans: RefCell::new(Rates::new(limits::SPANS_PER_SESSION)),
            large,
            aside: Arc::new(Semaphore::new(1)),
        }
    }
}

/// One connection, which carries one call.
#[derive(Debug)]
pub struct Call {
    /// What all calls share.
    pub shared: Rc<Shared>,
    /// The socket that it came by.
    pub door: Door,
    /// Who calls.
    pub peer: Peer,
    /// The connection, to see whether it is open; only where callers are identified.
    pub connection: Option<OwnedFd>,
    /// Its two ends, where it came by TCP.
    pub ends: Option<Ends>,
    /// The open connections of this socket.
    pub connections: Rc<RefCell<Connections>>,
    /// Its number among them.
    pub id: u64,
    /// Kept until the answer is sent.
    pub permit: RefCell<Option<OwnedSemaphorePermit>>,
}

impl Call {
    /// Answers the call.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if self.door == Door::Otlp {
            return self.receive(request).await;
        }
        let word = Word::of(&find(self.door, request.method(), request.uri().path()));
        match self.dispatch(request).await {
            Ok(body) => json(StatusCode::OK, body),
            Err(failure) => {
                if let Some(word) = word {
                    self.tell_refusal(word, &failure).await;
                }
                tracing::debug!(door = ?self.door, uid = self.peer.uid, %failure, "a control call failed");
                failure.response()
            }
        }
    }

    async fn dispatch(&self, request: Request<Incoming>) -> Result<Vec<u8>, Failure> {
        // The mode of the socket keeps others out already; this does where the mode was changed.
        if !may_enter(self.door, self.peer.uid, rustix::process::geteuid().as_raw()) {
            return Err(Failure::NotRoot);
        }
        let (parts, body) = request.into_parts();
        let (action, parameter) = match find(self.door, &parts.method, parts.uri.path()) {
            Found::Action(action, parameter) => (action, parameter),
            Found::OtherMethod(method) => return Err(Failure::OtherMethod(method)),
            Found::OtherDoor => return Err(Failure::OtherSocket),
            Found::Nothing => return Err(Failure::NoSuchPath),
        };
        let all = wants_all(action, parts.uri.query())?;
        // Of what brings a body it counts as asked once that is there.
        if !matches!(action, Action::Launch | Action::Declare | Action::CheckIntent | Action::Tool) {
            self.has_asked();
        }
        let claimed = parts.headers.get(CONTENT_LENGTH).and_then(|bytes| bytes.to_str().ok()?.parse().ok());
        match action {
            Action::Launch => self.launch(body, claimed).await,
            Action::Declare => self.declare(body, claimed).await,
            Action::Intents => {
                self.large().await?;
                let intents = self.ask(|reply| request::Request::Intents { all, reply }).await?;
                write(&IntentsView { intents })
            }
            Action::Intent => {
                let id = named(parameter)?;
                write(&self.ask(|reply| request::Request::Intent { id, reply }).await?)
            }
            Action::CloseIntent => {
                let (id, caller) = (named(parameter)?, self.caller()?);
                write(&self.ask(|reply| request::Request::CloseIntent { id, caller, reply }).await?)
            }
            Action::Tool => self.tool(body, claimed).await,
            Action::CheckIntent => self.check(named(parameter)?, body, claimed).await,
            Action::OpenApi => Ok(OPENAPI.trim_ascii_end().to_vec()),
            Action::Status => write(&self.ask(|reply| request::Request::Status { reply }).await?),
            Action::Policy => write(&self.ask(|reply| request::Request::Policy { reply }).await?),
            Action::Apply => {
                // Policies in memory at once are bounded as large answers are.
                self.large().await?;
                self.apply(body, claimed).await
            }
            Action::SelfTest => {
                let patience = limits::SELF_TEST;
                write(&self.ask_within(patience, |reply| request::Request::SelfTest { reply }).await?)
            }
            Action::Sessions => {
                self.large().await?;
                let sessions = self.ask(|reply| request::Request::Sessions { all, reply }).await?;
                write(&SessionsView { sessions })
            }
            Action::Tree => {
                let session = named(parameter)?;
                self.large().await?;
                write(&self.ask(|reply| request::Request::Tree { session, reply }).await?)
            }
        }
    }

    pub(super) fn has_asked(&self) {
        self.connections.borrow_mut().has_asked(self.id);
    }

    /// Waits for leave to make a large answer, and keeps it until that is sent.
    async fn large(&self) -> Result<(), Failure> {
        let permit = timeout(limits::LARGE_ANSWER_TURN, Arc::clone(&self.shared.large).acquire_owned()).await;
        *self.permit.borrow_mut() = Some(permit.map_err(|_| Failure::Busy)?.map_err(|_| Failure::Busy)?);
        Ok(())
    }

    pub(super) async fn ask<T>(
        &self,
        question: impl FnOnce(Reply<T>) -> request::Request,
    ) -> Result<T, Failure> {
        self.ask_within(limits::OWNER, question).await
    }

    async fn ask_within<T>(
        &self,
        patience: Duration,
        question: impl FnOnce(Reply<T>) -> request::Request,
    ) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        self.shared.mailbox.post(question(reply));
        match timeout(patience, answer).await {
            Ok(Ok(answer)) => Ok(answer?),
            Ok(Err(_)) | Err(_) => Err(Failure::Silent(patience)),
        }
    }

    async fn apply(&self, body: Incoming, claimed: Option<u64>) -> Result<Vec<u8>, Failure> {
        let body = read(body, claimed, limits::POLICY_BYTES).await?;
        let ApplyBody { files } = serde_json::from_slice(&body).map_err(|error| Failure::BadBody {
            example: r#"{"files": [{"name": "policy.yaml", "text": "version: 1"}]}"#,
            problem: error.to_string(),
        })?;
        let apply = Apply { files, pid: self.peer.pid, uid: self.peer.uid };
        write(&self.ask_within(limits::APPLY, |reply| request::Request::Apply { apply, reply }).await?)
    }

    /// Who calls. On the socket that everybody may use it is certainly the process with this id.
    pub(super) fn caller(&self) -> Result<Caller, Failure> {
        let (pid, uid, by_control) = (self.peer.pid, self.peer.uid, self.door == Door::Control);
        if by_control {
            // Who is in a session is no operator, and of this one it is not known.
            pid.ok_or(PeerError::OutOfSight)?;
            return Ok(Caller { pid, start_ticks: None, uid, by_control });
        }
        let connection = self.connection.as_ref().ok_or(PeerError::OutOfSight)?;
        let caller = self.peer.identify(connection)?;
        Ok(Caller {
            pid: Some(caller.pid),
            start_ticks: Some(caller.start_ticks),
            uid: caller.uid,
            by_control,
        })
    }

    async fn declare(&self, body: Incoming, claimed: Option<u64>) -> Result<Vec<u8>, Failure> {
        let body = read(body, claimed, limits::BODY_BYTES).await?;
        self.has_asked();
        let body: IntentBody = serde_json::from_slice(&body).map_err(|error| Failure::BadBody {
            example: r#"{"task": "tidy up", "scope": {"write": ["/home/dev/work"]}, "expires": "10m"}"#,
            problem: error.to_string(),
        })?;
        let caller = self.caller()?;
        if let Some(pid) = caller.pid.filter(|_| !caller.by_control)
            && !self.shared.declarations.borrow_mut().allows(pid, caller.uid, Instant::now())
        {
            return Err(Failure::TooMany);
        }
        let body = Box::new(body);
        write(&self.ask(|reply| request::Request::Declare { body, caller, reply }).await?)
    }

    async fn check(&self, id: String, body: Incoming, claimed: Option<u64>) -> Result<Vec<u8>, Failure> {
        let body = read(body, claimed, limits::BODY_BYTES).await?;
        self.has_asked();
        let body: IntentCheckBody = serde_json::from_slice(&body).map_err(|error| Failure::BadBody {
            example: r#"{"passed": false, "note": "3 rows are missing"}"#,
            problem: error.to_string(),
        })?;
        let caller = self.caller()?;
        write(&self.ask(|reply| request::Request::CheckIntent { id, body, caller, reply }).await?)
    }

    async fn tool(&self, body: Incoming, claimed: Option<u64>) -> Result<Vec<u8>, Failure> {
        let body = read(body, claimed, limits::BODY_BYTES).await?;
        self.has_asked();
        let body: ToolBody = serde_json::from_slice(&body).map_err(|error| Failure::BadBody {
            example: r#"{"event": "begin", "tool": {"id": "1", "name": "Bash", "input": {"command": "ls"}}}"#,
            problem: error.to_string(),
        })?;
        let (caller, body) = (self.caller()?, Box::new(body));
        if let Some(pid) = caller.pid
            && !self.shared.tools.borrow_mut().allows(pid, caller.uid, Instant::now())
        {
            return Err(Failure::TooMany);
        }
        write(&self.ask(|reply| request::Request::Tool { body, caller, reply }).await?)
    }

    async fn launch(&self, body: Incoming, claimed: Option<u64>) -> Result<Vec<u8>, Failure> {
        let body = read(body, claimed, limits::BODY_BYTES).await?;
        self.has_asked();
        let LaunchBody { agent } = serde_json::from_slice(&body).map_err(|error| Failure::BadBody {
            example: r#"{"agent": "coding"}"#,
            problem: error.to_string(),
        })?;
        let connection = self.connection.as_ref().ok_or(PeerError::OutOfSight)?;
        let caller = self.peer.identify(connection)?;
        if !self.shared.rates.borrow_mut().allows(caller.pid, caller.uid, Instant::now()) {
            return Err(Failure::TooMany);
        }
        let launch = Launch { agent, pid: caller.pid, start_ticks: caller.start_ticks, uid: caller.uid };
        let view: LaunchView = self.ask(|reply| request::Request::Launch { launch, reply }).await?;
        write(&view)
    }
}

/// The text of a path's `{…}`.
fn named(parameter: &str) -> Result<String, Failure> {
    Ok(percent_decode_str(parameter).decode_utf8().map_err(|_| Failure::BadPath)?.into_owned())
}

const fn may_enter(door: Door, uid: u32, own: u32) -> bool {
    matches!(door, Door::Declare) || uid == 0 || uid == own
}

fn wants_all(action: Action, query: Option<&str>) -> Result<bool, Failure> {
    match query {
        None | Some("") => Ok(false),
        Some("all=false" | "all=0") if matches!(action, Action::Sessions | Action::Intents) => Ok(false),
        Some("all=true" | "all=1" | "all") if matches!(action, Action::Sessions | Action::Intents) => {
            Ok(true)
        }
        Some(_) => Err(Failure::BadQuery),
    }
}

/// Reads a whole body, within its bounds.
pub(super) async fn read(body: Incoming, claimed: Option<u64>, most: usize) -> Result<Bytes, Failure> {
    if claimed.is_some_and(|bytes| bytes > most as u64) {
        return Err(Failure::TooLarge(most));
    }
    match timeout(limits::BODY, Limited::new(body, most).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Failure::TooLarge(most)),
        Ok(Err(_)) => Err(Failure::BrokenBody),
        Err(_) => Err(Failure::TooSlow),
    }
}

fn write(view: &impl Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(view).map_err(Failure::Unwritable)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::super::{routes, tests::samples};
    use super::*;

    /// What callers give, and need not give whole.
    const OPTIONAL: [&str; 5] =
        ["IntentRequest", "IntentTool", "IntentCheckRequest", "ToolRequest", "ToolCall"];

    fn document() -> Value {
        serde_json::from_slice(OPENAPI).unwrap()
    }

    #[test]
    fn the_document_names_exactly_the_routes() {
        let document = document();
        let described: BTreeSet<String> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| {
                let methods = item.as_object().unwrap().keys().filter(|key| *key != "servers");
                methods.map(move |method| format!("{} {path}", method.to_uppercase()))
            })
            .collect();
        let real = routes::ROUTES.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
        assert_eq!(described, real);
    }

    #[test]
    fn the_document_names_exactly_the_fields() {
        let document = document();
        for (name, sample) in samples::each_schema() {
            let schema = &document["components"]["schemas"][name];
            let described: BTreeSet<&String> = schema["properties"].as_object().expect(name).keys().collect();
            let real: BTreeSet<&String> = sample.as_object().unwrap().keys().collect();
            assert_eq!(described, real, "fields of {name}");
            let required = schema["required"].as_array().expect(name);
            let is_whole = required.len() == described.len();
            assert!(is_whole || OPTIONAL.contains(&name), "every field of {name} is always there");
        }
        let named = document["components"]["schemas"].as_object().unwrap().len();
        assert_eq!(named, samples::each_schema().len());
    }

    #[test]
    fn every_reference_in_the_document_leads_somewhere() {
        fn walk(value: &Value, document: &Value) {
            if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
                assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
            }
            match value {
                Value::Object(fields) => fields.values().for_each(|inner| walk(inner, document)),
                Value::Array(items) => items.iter().for_each(|inner| walk(inner, document)),
                _ => {}
            }
        }
        let document = document();
        assert_eq!(document["openapi"], json!("3.1.0"));
        walk(&document, &document);
    }

    #[test]
    fn only_root_and_the_daemons_own_user_may_ask() {
        assert!(
            may_enter(Door::Control, 0, 0)
                && may_enter(Door::Control, 0, 7)
                && may_enter(Door::Control, 7, 7)
        );
        assert!(!may_enter(Door::Control, 1, 0) && !may_enter(Door::Control, 1, 7));
        assert!(may_enter(Door::Declare, 1, 0));
        assert_eq!(Failure::NotRoot.response().status(), StatusCode::FORBIDDEN);
    }

    #[test]
    fn the_query_is_read_strictly() {
        assert!(!wants_all(Action::Sessions, None).unwrap());
        assert!(wants_all(Action::Sessions, Some("all=true")).unwrap());
        assert!(!wants_all(Action::Sessions, Some("all=false")).unwrap());
        assert!(matches!(wants_all(Action::Sessions, Some("al=true")), Err(Failure::BadQuery)));
        assert!(matches!(wants_all(Action::Status, Some("all=true")), Err(Failure::BadQuery)));
    }
}
