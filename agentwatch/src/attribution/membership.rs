//! Who belongs to which session: sessions begin and end, processes come and go.

use std::sync::Arc;

use agentwatch_common::{kind::Attribution as By, record::RecordHeader};

use super::{Attribution, Beginning, Process, Saved, Session, cause, describe, exec};
use crate::{
    agents::{Match, Origin},
    control::state::{Recognised, RecognisedBy},
    event::{Event, How, Kind},
};

impl Attribution {
    /// Adds a process; one with the same number whose end was not seen has ended by now.
    pub fn add_process(&mut self, pid: u32, mut process: Process, time_ns: u64, out: &mut Vec<Event>) {
        self.recall(pid, &mut process);
        self.entered(process.session, pid);
        let start_ns = process.start_ns;
        if let Some(old) = self.processes.add(pid, process) {
            // The same process again went on to another session, and did not end.
            if !old.began_at(start_ns) {
                out.push(self.unseen_end(pid, &old, time_ns));
            }
            self.replaced(pid, old, time_ns, out);
        }
    }

    /// A process is not the one with this number any more.
    fn replaced(&mut self, pid: u32, mut old: Process, time_ns: u64, out: &mut Vec<Event>) {
        old.ended_ns = Some(time_ns);
        let session = old.session;
        self.processes.keep_ended(pid, old);
        self.left(session, time_ns, out);
    }

    /// A process came into a session, which is made up from what the kernel kept where its beginning was lost.
    pub(super) fn entered(&mut self, number: u64, pid: u32) {
        if self.sessions.get(number).is_none() {
            let entry = self.facts.session(number).unwrap_or_default();
            let by = By::from_raw(entry.attribution);
            let parent = (entry.parent != 0).then_some(entry.parent);
            let agent = self.table.with_number(entry.agent);
            self.begin(number, pid, entry.since_ns, agent, by, parent, None);
        }
        if let Some(session) = self.sessions.get_mut(number) {
            session.living += 1;
            session.total += 1;
            session.ended_ns = None;
        }
    }

    /// Begins a session.
    #[expect(clippy::too_many_arguments, reason = "the facts of a beginning, once")]
    pub fn begin(
        &mut self,
        number: u64,
        pid: u32,
        time_ns: u64,
        agent: u32,
        by: By,
        parent: Option<u64>,
        why: Option<Recognised>,
    ) {
        let spec = self.table.get(agent);
        let (how, recognised_by) = match by {
            By::Launched => (How::Launched, RecognisedBy::Launcher),
            By::Adopted => (How::Adopted, RecognisedBy::Exec),
            By::MatchedCgroup => (How::Matched, RecognisedBy::Cgroup),
            By::MatchedUser => (How::Matched, RecognisedBy::User),
            By::Caused => (How::Caused, RecognisedBy::Cause),
            By::MatchedExec | By::Unknown(_) => (How::Matched, RecognisedBy::Exec),
        };
        let declared = spec.is_some_and(|spec| spec.origin == Origin::Policy);
        let recognised = why.unwrap_or(Recognised { by: recognised_by, pattern: None, declared });
        let began = Beginning {
            agent: Arc::from(spec.map_or("unknown", |spec| spec.name.as_str())),
            owner: spec.and_then(|spec| spec.owner.as_deref()).map(Arc::from),
            mode: Arc::from(match spec {
                Some(spec) if how != How::Caused => spec.mode.as_str(),
                _ => "observe",
            }),
            parent,
            since_ns: self.host.unix_ns(time_ns),
            how,
            recognised,
            root_pid: pid,
        };
        self.sessions.begin(number, began);
    }

    /// An event about a session that began without a record of the kernel (launched, adopted).
    #[must_use]
    pub fn session_started(&self, number: u64, time_ns: u64) -> Option<Event> {
        let session = self.sessions.get(number)?;
        let mut event = describe::event(&self.host, time_ns, Kind::SessionStart, None);
        describe::name_session(&mut event, session);
        event.reason = Some(why(session));
        Some(event)
    }

    /// An event about a session that began with what a record of the kernel is about.
    pub(super) fn session_begun(&mut self, header: &RecordHeader) -> Event {
        let mut event = self.event(header, Kind::SessionStart, None, &mut Vec::new());
        event.reason = self.sessions.get(header.session).map(why);
        event
    }

    /// A process left a session; the last one ends it.
    pub(super) fn left(&mut self, number: u64, time_ns: u64, out: &mut Vec<Event>) {
        let unix_ns = self.host.unix_ns(time_ns);
        let Some(session) = self.sessions.get_mut(number) else { return };
        session.living = session.living.saturating_sub(1);
        if session.living == 0 && !self.settling {
            session.ended_ns = Some(unix_ns);
            self.calls.forget(number);
            if session.began.how == How::Caused {
                self.caused_over.push(number);
            }
            let mut event = describe::event(&self.host, time_ns, Kind::SessionEnd, None);
            describe::name_session(&mut event, session);
            out.push(event);
            self.sessions.changed = true;
        }
    }

    /// Takes up the sessions of an earlier daemon. Which of their processes live is not known yet, so that none of
    /// them ends before [`Attribution::settle`].
    pub fn take_over(&mut self, sessions: Vec<Saved>) {
        self.settling = true;
        self.sessions.restore(sessions);
    }

    /// From here on all living processes are known: ends the sessions that have none any more.
    pub fn settle(&mut self, now_ns: u64, out: &mut Vec<Event>) {
        self.settling = false;
        self.kept_processes.clear();
        // Those of a cgroup into which nobody came yet go on to wait.
        let over = |one: &&Session| one.living == 0 && one.total > 0 && one.ended_ns.is_none();
        let over: Vec<u64> = self.sessions.all().filter(over).map(|one| one.number).collect();
        for number in over {
            self.left(number, now_ns, out);
        }
    }

    pub(super) fn why_exec(&self, agent: u32, program: &[u8], args: &[u8]) -> Option<Recognised> {
        self.table.why_program(agent, program, exec::split(args)).map(|found| self.recognised(agent, found))
    }

    /// A match in the words of the control API.
    #[must_use]
    pub fn recognised(&self, agent: u32, found: &Match) -> Recognised {
        let declared = self.table.get(agent).is_some_and(|agent| agent.origin == Origin::Policy);
        let (by, pattern) = match found {
            Match::Exec(glob) => (RecognisedBy::Exec, glob.text()),
            Match::Run(glob) => (RecognisedBy::Run, glob.text()),
            Match::Script(glob) => (RecognisedBy::Run, glob.text()),
            Match::Unit(glob) => (RecognisedBy::Unit, glob.text()),
            Match::Cgroup(glob) => (RecognisedBy::Cgroup, glob.text()),
            Match::User { name, .. } => (RecognisedBy::User, name.as_str()),
        };
        Recognised { by, pattern: Some(Arc::from(pattern)), declared }
    }
}

/// Which process a session began with, and what made that an agent.
fn why(session: &Session) -> String {
    let (pid, recognised) = (session.began.root_pid, &session.began.recognised);
    if recognised.by == RecognisedBy::Launcher {
        return format!("process {pid} was started by `agentwatch exec`");
    }
    if let Some(cause) = &session.cause {
        return format!("process {pid} {}", cause::sentence(cause));
    }
    if session.began.how == How::Caused {
        return format!(
            "process {pid} uses a file that another session left behind; which is not known any more"
        );
    }
    let pattern = recognised.pattern.as_deref().map(|pattern| format!(" `{pattern}`")).unwrap_or_default();
    let list = if recognised.declared { "the policy" } else { "the built-in list" };
    format!("process {pid} was recognised by `{}`{pattern} of {list}", recognised.by.word())
}
