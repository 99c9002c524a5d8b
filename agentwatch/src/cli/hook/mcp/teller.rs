//! What a relay tells the daemon, and what it does where that does not answer: nothing.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::message::{self, Answer, Asked, Call};
use crate::cli::hook::sentence;
use crate::control::tool::{ToolBody, ToolCall, ToolView, digest};
use crate::control::{Client, required};
use crate::output::escape::escape;
use crate::paths::Paths;

/// Time for which a daemon that did not answer is not asked again: each question can take as long as its client waits.
const QUIET: Duration = Duration::from_secs(10);
/// Calls on their way. Past it none is told.
const PENDING_MAX: usize = 1024;
/// Ends that could not be told and will be with the next call. Past it they are not.
const UNTOLD_MAX: usize = 256;
/// Bytes of a request's id that go into a call's id. Of a longer one the digest does.
const ID_BYTES: usize = 64;

/// What a policy calls relays: see [`crate::policy::HARNESSES`].
const NAME: &str = "mcp";
/// What a client is answered where agentwatch cannot be told of a call that must not be made without.
const STOPPED: &str = "agentwatch stopped this, since nothing may be done here that it is not told of, and it cannot be told \
     now. Do not look for another way: tell your user, who can ask whoever is on call for agents on this host.";

/// Tells of the calls of one server.
#[derive(Debug)]
pub(super) struct Teller {
    client: Client,
    /// What all ids of calls begin with: other relays' begin otherwise.
    prefix: String,
    /// Where the daemon writes what a policy requires.
    run: PathBuf,
    /// The command line says that no call is to be made that is not told.
    pub(super) is_required: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What the server is called.
    server: String,
    /// That was said on the command line.
    is_named: bool,
    /// Ids of the calls on their way, by those of their requests.
    pending: HashMap<String, String>,
    untold: Vec<String>,
    quiet_until: Option<Instant>,
}

impl State {
    fn is_quiet(&self) -> bool {
        self.quiet_until.is_some_and(|until| Instant::now() < until)
    }

    /// Keeps an end that could not be told.
    fn keep_end(&mut self, id: String) {
        if self.untold.len() < UNTOLD_MAX {
            self.untold.push(id);
        }
    }
}

impl Teller {
    /// Of a server that is called so, or else by its program.
    pub(super) fn new(paths: &Paths, name: Option<&str>, program: &str) -> Self {
        let base = program.rsplit('/').next().unwrap_or_default();
        let state = State {
            server: name.unwrap_or(base).to_owned(),
            is_named: name.is_some(),
            pending: HashMap::new(),
            untold: Vec::new(),
            quiet_until: None,
        };
        // Process ids come again.
        let began = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().subsec_millis();
        let prefix = format!("mcp-{}.{began}-", std::process::id());
        let (client, run) = (Client::new(paths), paths.run.clone());
        Self { client, prefix, run, is_required: false, state: Mutex::new(state) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no call is to be made that is not told.
    pub(super) fn is_required(&self) -> bool {
        self.is_required || required::is_required(&self.run, NAME)
    }

    /// Tells what a line of the client asks, before the server gets it. Gives what the client is answered in its place, where
    /// it must not get there.
    pub(super) fn asked(&self, line: &[u8]) -> Option<Vec<u8>> {
        let mut untold = Vec::new();
        for one in message::asked(line) {
            match one {
                Asked::Call(call) if self.begin(&call) => {}
                Asked::Call(call) => untold.push(call.id),
                Asked::Cancel(id) => drop(self.end(&id)),
            }
        }
        if untold.is_empty() || !self.is_required() {
            return None;
        }
        // None of a batch gets there, and so what was told of it is over.
        for one in message::asked(line) {
            if let Asked::Call(call) = one {
                drop(self.end(&call.id));
            }
        }
        message::refusals(line, STOPPED)
    }

    /// Tells of a call; says whether that is known now.
    fn begin(&self, call: &Call) -> bool {
        let id = self.call_id(&call.id);
        let is_required = self.is_required();
        let (server, ended) = {
            let mut state = self.state();
            if is_required {
                // What is not told is not done, so it is asked each time.
                state.quiet_until = None;
            }
            if state.pending.len() >= PENDING_MAX || state.is_quiet() {
                return false;
            }
            (state.server.clone(), std::mem::take(&mut state.untold))
        };
        let tool = ToolCall {
            id: id.clone(),
            name: format!("mcp__{server}__{}", call.tool),
            input: message::told(&call.arguments),
            digest: Some(digest(&call.arguments)),
            ..ToolCall::default()
        };
        let body = ToolBody::RelayBegin { tool, harness_id: call.harness_id.clone(), ended: ended.clone() };
        let told = self.tell(&body);
        let mut state = self.state();
        if told.is_some() {
            state.pending.insert(call.id.clone(), id);
            return true;
        }
        // It may have heard all the same, and would wait for the end.
        state.untold = ended;
        state.keep_end(id);
        false
    }

    fn call_id(&self, request: &str) -> String {
        if request.len() <= ID_BYTES {
            return format!("{}{request}", self.prefix);
        }
        format!("{}{}", self.prefix, digest(&serde_json::Value::from(request)))
    }

    /// Tells that a call is over.
    fn end(&self, request: &str) -> Option<ToolView> {
        let id = self.state().pending.remove(request)?;
        let view = self.tell(&ToolBody::RelayEnd { id: id.clone() });
        if view.is_none() {
            self.state().keep_end(id);
        }
        view
    }

    /// What a line of the server becomes that answers calls to which something was refused. Nothing where it stays.
    pub(super) fn answered(&self, line: &[u8]) -> Option<Vec<u8>> {
        if !self.awaits() {
            return None;
        }
        let mut sentences = Vec::new();
        for answer in message::answers(line) {
            self.learn(&answer);
            if let Some(text) = self.end(&answer.id).as_ref().and_then(sentence) {
                sentences.push((answer, text));
            }
        }
        message::with_sentences(line, &sentences)
    }

    /// Whether an answer is awaited, the server's name among them.
    fn awaits(&self) -> bool {
        let state = self.state();
        !state.pending.is_empty() || !state.is_named
    }

    fn learn(&self, answer: &Answer) {
        let Some(name) = &answer.server else { return };
        let mut state = self.state();
        if !state.is_named {
            (state.server, state.is_named) = (name.clone(), true);
        }
    }

    /// Asks the daemon, unless it has just not answered.
    fn tell(&self, body: &ToolBody) -> Option<ToolView> {
        if self.state().is_quiet() {
            return None;
        }
        let (told, is_required) = (self.client.tool(body), self.is_required());
        let mut state = self.state();
        match told {
            Ok(view) => {
                state.quiet_until = None;
                Some(view)
            }
            Err(error) => {
                // Once for as long as it lasts.
                if state.quiet_until.is_none() {
                    eprintln!(
                        "agentwatch: tool calls are not told for now, and {}: {}",
                        if is_required { "are not made" } else { "go on" },
                        escape(&error.to_string())
                    );
                }
                state.quiet_until = Some(Instant::now() + QUIET);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::{Daemon, Manner};

    const CALL: &[u8] = br#"{"id":1,"method":"tools/call","params":{"name":"write","arguments":{}}}"#;
    const ANSWER: &[u8] = br#"{"id":1,"result":{"content":[]}}"#;

    #[test]
    fn what_was_refused_gets_into_the_answer_of_its_call_alone() {
        let daemon = Daemon::start(Manner::Answers);
        let teller = Teller::new(&daemon.paths, Some("toy"), "/usr/bin/toy");
        assert_eq!(teller.answered(ANSWER), None, "nobody asked");
        assert_eq!(teller.asked(CALL), None);
        assert_eq!(teller.answered(br#"{"id":2,"result":{"content":[]}}"#), None);
        let told = String::from_utf8(teller.answered(ANSWER).unwrap()).unwrap();
        assert!(told.contains("agentwatch refused 1 of what this tool call tried: delete /srv/db"), "{told}");
        assert_eq!(teller.answered(ANSWER), None, "once");
    }

    #[test]
    fn a_dead_daemon_is_asked_once_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths { state: folder.path().join("s"), run: folder.path().join("r") };
        let teller = Teller::new(&paths, None, "/usr/bin/toy");
        assert_eq!(teller.asked(CALL), None);
        assert!(teller.state().quiet_until.is_some() && teller.state().pending.is_empty());
        assert_eq!(teller.answered(ANSWER), None);
    }

    #[test]
    fn what_must_be_told_and_cannot_is_answered_and_not_asked() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths { state: folder.path().join("s"), run: folder.path().into() };
        let mut teller = Teller::new(&paths, None, "/usr/bin/toy");
        assert_eq!(teller.asked(CALL), None);
        required::write(folder.path(), &["mcp"].into()).unwrap();
        for _ in 0..2 {
            let answer: serde_json::Value = serde_json::from_slice(&teller.asked(CALL).unwrap()).unwrap();
            assert_eq!((&answer["id"], &answer["result"]["isError"]), (&1.into(), &true.into()), "{answer}");
        }
        let batch = br#"[{"id":"a","method":"tools/call","params":{"name":"x"}},{"id":2,"method":"ping"},{"method":"n"}]"#;
        let answers: serde_json::Value = serde_json::from_slice(&teller.asked(batch).unwrap()).unwrap();
        assert_eq!(answers.as_array().unwrap().len(), 2, "{answers}");
        assert_eq!(teller.asked(br#"{"id":1,"method":"tools/list"}"#), None, "no call");
        required::remove(folder.path()).unwrap();
        assert_eq!(teller.asked(CALL), None);
        teller.is_required = true;
        assert!(teller.asked(CALL).is_some());
    }

    #[test]
    fn a_silent_daemon_delays_one_message() {
        let daemon = Daemon::start(Manner::KeepsSilent);
        let teller = Teller::new(&daemon.paths, None, "/usr/bin/toy");
        let began = Instant::now();
        for _ in 0..10 {
            assert_eq!(teller.asked(CALL), None);
        }
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }

    #[test]
    fn ids_are_of_one_relay_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths { state: folder.path().join("s"), run: folder.path().join("r") };
        let teller = Teller::new(&paths, None, "/usr/bin/toy");
        assert_eq!(teller.call_id("7"), format!("{}7", teller.prefix));
        assert!(teller.call_id(&"x".repeat(1000)).len() < 100);
        assert_eq!(teller.state().server, "toy");
        teller.answered(br#"{"id":0,"result":{"serverInfo":{"name":"real"}}}"#);
        assert_eq!(teller.state().server, "real");
    }
}
