//! Intents: who may declare what for whom, and the events that tell of it.

use std::sync::Arc;

use super::Daemon;
use crate::{
    attribution::Session,
    control::{
        Caller, Refusal, Word,
        intent::{DeclaredBy, IntentBody, IntentCheckBody, IntentCheckView, IntentState, IntentView},
        resolve,
    },
    event::{
        Check, Event, IntentRef, Kind,
        time::{format_time, parse_time},
    },
    intent::{Declaration, DeclareError, EXPIRES_S, EXPIRES_S_MAX, PlanError, judge_plan},
    policy::seconds,
};

const NS_PER_S: u64 = 1_000_000_000;
/// Nanoseconds between two looks at how many refusals were not told one by one.
const UNTOLD_NS: u64 = 10 * NS_PER_S;
/// Characters of a task that the event of its declaration tells; `agentwatch intent show` tells all.
const TASK_CHARS: usize = 200;
/// Characters of the note of a check. Past it the check is refused.
const NOTE_CHARS_MAX: usize = 1_000;

impl Daemon {
    /// Takes up what a caller declares. That it was refused is told by [`Self::tell_unheard`].
    pub(super) fn declare(
        &mut self,
        body: IntentBody,
        caller: &Caller,
        now: u64,
    ) -> Result<IntentView, Refusal> {
        let own = self.session_of(caller);
        self.tell_repeats();
        let declared = self.take_declaration(body, caller, own, now);
        if let Ok(view) = &declared {
            let task = |task: &str| format!(": {}", task.chars().take(TASK_CHARS).collect::<String>());
            let what = view.task.as_deref().map(task).unwrap_or_default();
            let binds = if view.binding { ", binding" } else { "" };
            let reason = format!("declared by {}{binds}{what}", view.declared_by.word());
            self.tell_intent(Kind::IntentDeclared, &view.session, Some(&view.id), reason, now);
        }
        declared
    }

    /// Tells that somebody's word was refused, where the caller is in a session, or is root.
    pub(super) fn tell_unheard(&mut self, caller: &Caller, word: Word, why: String, now: u64) {
        let own = self.session_of(caller);
        if own.is_none() && !caller.by_control {
            return self.inbox.untold().count();
        }
        let session = own.and_then(|own| self.state.sessions.get(own)).map(|one| Arc::clone(&one.id));
        let kind = match word {
            Word::OfIntent => Kind::IntentRefused,
            Word::OfTool => Kind::ToolRefused,
        };
        self.tell_intent(kind, &session.unwrap_or_default(), None, why, now);
    }

    /// Tells how many were refused that nobody told one by one: those of a flood, and of callers that are nobody.
    pub(super) fn tell_untold(&mut self, now: u64) {
        if now.saturating_sub(self.looked_at_untold_ns) < UNTOLD_NS {
            return;
        }
        self.looked_at_untold_ns = now;
        let count = self.inbox.untold().take();
        if count > 0 {
            let reason = "that many declarations and tool calls more were refused: of callers outside of all sessions, or too many at once";
            let mut event = self.state.host_event(Kind::IntentRefused, now, Some(reason.to_owned()));
            event.count = count;
            self.log.append(&mut event);
        }
    }

    fn take_declaration(
        &mut self,
        body: IntentBody,
        caller: &Caller,
        own: Option<u64>,
        now: u64,
    ) -> Result<IntentView, Refusal> {
        let now_ns = self.state.host.unix_ns(now);
        let by = self.declarer(caller, own);
        if body.binding && by != DeclaredBy::Operator {
            return Err(Refusal::NotBinding);
        }
        let session = self.session_for(body.session.as_deref(), caller, own)?;
        let expires_ns = expiry(body.expires.as_deref(), now_ns).map_err(Refusal::BadIntent)?;
        let agent = self.state.sessions.get(session.0).map(|one| Arc::clone(&one.began.agent));
        let agent = agent.unwrap_or_default();
        let (plan, of_plan) = judge_plan(&body.plan, &self.policy, &agent, now_ns)?;
        let mut scope = body.scope;
        for (op, patterns) in of_plan {
            scope.entry(op).or_default().extend(patterns);
        }
        let declaration = Declaration {
            session: session.0,
            by,
            uid: caller.uid,
            pid: caller.pid,
            prompt: body.prompt,
            task: body.task,
            tool: body.tool,
            context: body.context,
            scope,
            plan,
            expires_ns,
            binding: body.binding,
        };
        let boot_id = Arc::clone(&self.state.host.boot_id);
        let declared =
            self.state.intents.declare(declaration, &boot_id, now_ns, &self.policy).map_err(|error| {
                match &error {
                    DeclareError::Scope(_) => Refusal::BadIntent(error.to_string()),
                    DeclareError::TooMany | DeclareError::NoRoom => {
                        Refusal::TooManyIntents(error.to_string())
                    }
                }
            })?;
        if declared.binding.is_some() {
            self.bind(&declared, now)?;
        }
        Ok(declared.view(&session.1, now_ns))
    }

    /// Who a caller counts as. A session's first process is what its agent runs in: what the model has it start is another one.
    fn declarer(&self, caller: &Caller, own: Option<u64>) -> DeclaredBy {
        let Some(session) = own.and_then(|own| self.state.sessions.get(own)) else {
            return if caller.by_control { DeclaredBy::Operator } else { DeclaredBy::Agent };
        };
        let pid = caller.pid.filter(|&pid| pid == session.began.root_pid);
        let process = pid.and_then(|pid| self.state.processes.living(pid));
        // Its number can be another's by now.
        let is_first =
            process.is_some_and(|one| self.state.host.unix_ns(one.start_ns) <= session.began.since_ns);
        if is_first { DeclaredBy::Harness } else { DeclaredBy::Agent }
    }

    /// The session that a caller may declare for: its own, or as an operator the one that it names.
    fn session_for(
        &self,
        wanted: Option<&str>,
        caller: &Caller,
        own: Option<u64>,
    ) -> Result<(u64, Arc<str>), Refusal> {
        let named = |wanted: &str| {
            let ids: Vec<Arc<str>> = self.state.sessions.all().map(|one| Arc::clone(&one.id)).collect();
            let id = resolve(&ids, wanted)?;
            let session = self.state.sessions.all().find(|one| one.id == *id);
            session.ok_or_else(|| Refusal::NoSuchSession(wanted.to_owned()))
        };
        let of = |session: &Session| (session.number, Arc::clone(&session.id));
        if let Some(own) = own.and_then(|own| self.state.sessions.get(own)) {
            return match wanted {
                // Which others there are is nothing to it.
                Some(wanted) if *own.id != *wanted => Err(Refusal::NotYours { own: Arc::clone(&own.id) }),
                _ => Ok(of(own)),
            };
        }
        match wanted {
            _ if !caller.by_control => Err(Refusal::NotInSession),
            None => Err(Refusal::WhichSession),
            Some(wanted) => match named(wanted)? {
                session if session.ended_ns.is_some() => Err(Refusal::SessionOver(Arc::clone(&session.id))),
                session => Ok(of(session)),
            },
        }
    }

    /// The session that a caller's process is in, as the kernel's table says.
    pub(super) fn session_of(&self, caller: &Caller) -> Option<u64> {
        let pid = caller.pid?;
        let entry = self.maps.processes.get(pid)?;
        let began = entry_ticks(entry.start_ns, entry.start_ticks);
        caller.start_ticks.is_none_or(|ticks| ticks == began).then_some(entry.session)
    }

    /// What was declared.
    pub(super) fn intents_view(&self, all: bool, now: u64) -> Vec<IntentView> {
        let now_ns = self.state.host.unix_ns(now);
        let views =
            self.state.intents.all().into_iter().map(|one| one.view(&self.session_id(one.session), now_ns));
        views.filter(|view| all || view.state == IntentState::InForce).collect()
    }

    /// One intent.
    pub(super) fn intent_view(&self, id: &str, now: u64) -> Result<IntentView, Refusal> {
        let found = self.state.intents.get(id).ok_or_else(|| Refusal::NoSuchIntent(id.to_owned()))?;
        Ok(found.view(&self.session_id(found.session), self.state.host.unix_ns(now)))
    }

    /// Has one count no longer.
    pub(super) fn close_intent(
        &mut self,
        id: &str,
        caller: &Caller,
        now: u64,
    ) -> Result<IntentView, Refusal> {
        let own = self.session_of(caller);
        let before = self.intent_view(id, now)?;
        let by = self.declarer(caller, own);
        if let Some(own) = own.map(|own| self.session_id(own)).filter(|own| *own != before.session) {
            return Err(Refusal::NotYours { own });
        }
        if by > before.declared_by {
            return Err(Refusal::NotYourIntent { by: before.declared_by.word() });
        }
        let now_ns = self.state.host.unix_ns(now);
        self.tell_repeats();
        if before.state == IntentState::InForce {
            self.release(id)?;
        }
        let closed = self.state.intents.close(id, now_ns).map(|one| one.view(&before.session, now_ns));
        let view = closed.ok_or_else(|| Refusal::NoSuchIntent(id.to_owned()))?;
        if before.state == IntentState::InForce {
            let reason = format!("closed by {}", by.word());
            self.tell_intent(Kind::IntentClosed, &view.session, Some(&view.id), reason, now);
        }
        Ok(view)
    }

    /// Keeps what somebody found who looked at what was done.
    pub(super) fn check_intent(
        &mut self,
        id: &str,
        body: IntentCheckBody,
        caller: &Caller,
        now: u64,
    ) -> Result<IntentView, Refusal> {
        let by = self.declarer(caller, self.session_of(caller));
        let own = self.session_of(caller).map(|own| self.session_id(own));
        let before = self.intent_view(id, now)?;
        if let Some(own) = own.as_ref().filter(|own| **own != before.session) {
            return Err(Refusal::NotYours { own: Arc::clone(own) });
        }
        if body.note.as_ref().is_some_and(|note| note.chars().count() > NOTE_CHARS_MAX) {
            let problem = format!("a note has at most {NOTE_CHARS_MAX} characters: say where the rest is");
            return Err(Refusal::BadIntent(problem));
        }
        let found = if body.passed { Check::Passed } else { Check::Failed };
        let note = body.note.as_deref().map(|note| format!(": {note}")).unwrap_or_default();
        let reason = format!("{}, by {}{note}", found.name(), by.word());
        let now_ns = self.state.host.unix_ns(now);
        let check = IntentCheckView {
            passed: body.passed,
            note: body.note,
            checked_by: by,
            uid: caller.uid,
            time: format_time(now_ns),
        };
        let view = self.state.intents.check(id, check).map(|one| one.view(&before.session, now_ns));
        let view = view.ok_or_else(|| Refusal::NoSuchIntent(id.to_owned()))?;
        let about = IntentRef { id: Some(Arc::clone(&view.id)), alignment: None, check: Some(found) };
        self.tell_about_intent(Kind::IntentChecked, &view.session, Some(about), reason, now);
        Ok(view)
    }

    /// Tells what was counted: repeats before and after a change are not one event.
    fn tell_repeats(&mut self) {
        self.pipeline.flush(&mut self.state, &mut self.log);
    }

    pub(super) fn session_id(&self, number: u64) -> Arc<str> {
        self.state.sessions.get(number).map(|one| Arc::clone(&one.id)).unwrap_or_default()
    }

    /// Says in the log what became of an intent, or of a declaration.
    pub(super) fn tell_intent(
        &mut self,
        kind: Kind,
        session: &Arc<str>,
        id: Option<&Arc<str>>,
        reason: String,
        now: u64,
    ) {
        let about = id.map(|id| IntentRef { id: Some(Arc::clone(id)), alignment: None, check: None });
        self.tell_about_intent(kind, session, about, reason, now);
    }

    fn tell_about_intent(
        &mut self,
        kind: Kind,
        session: &Arc<str>,
        about: Option<IntentRef>,
        reason: String,
        now: u64,
    ) {
        let mut event: Event = self.state.host_event(kind, now, Some(reason));
        if let Some(session) = self.state.sessions.all().find(|one| one.id == *session) {
            crate::attribution::name_session(&mut event, session);
        }
        event.intent = about;
        self.log.append(&mut event);
    }
}

impl From<PlanError> for Refusal {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Forbidden { .. } => Self::ForbiddenPlan(error.to_string()),
            PlanError::TooMany(_) | PlanError::Bad { .. } => Self::BadIntent(error.to_string()),
        }
    }
}

/// When a process began, in clock ticks, as its entry has it.
const fn entry_ticks(start_ns: u64, start_ticks: u64) -> u64 {
    if start_ns == 0 { start_ticks } else { start_ns / 10_000_000 }
}

/// When an intent is over: a duration from now, or a time.
fn expiry(text: Option<&str>, now_ns: u64) -> Result<u64, String> {
    let Some(text) = text else { return Ok(now_ns.saturating_add(EXPIRES_S * NS_PER_S)) };
    let after = seconds(text)
        .filter(|_| !text.is_empty())
        .map(|seconds| now_ns.saturating_add(seconds.saturating_mul(NS_PER_S)));
    let over = after.or_else(|| parse_time(text)).ok_or_else(|| {
        format!(
            "`{text}` is no time at which an intent is over: write `10m`, `1h30m` or 2026-12-20T00:00:00Z"
        )
    })?;
    if over <= now_ns {
        return Err(format!("the intent is over before it begins: `{text}` is not in the future"));
    }
    if over - now_ns > EXPIRES_S_MAX * NS_PER_S {
        return Err(format!("`{text}` is too far away: an intent counts for a week at most"));
    }
    Ok(over)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_intent_is_over_within_a_week() {
        let now = 1_800_000_000 * NS_PER_S;
        assert_eq!(expiry(None, now), Ok(now + 3_600 * NS_PER_S));
        assert_eq!(expiry(Some("10m"), now), Ok(now + 600 * NS_PER_S));
        assert_eq!(expiry(Some("2027-01-15T08:00:01Z"), now), Ok(now + NS_PER_S));
        for (text, said) in [
            ("2027-01-15T08:00:00Z", "not in the future"),
            ("2001-01-01T00:00:00Z", "not in the future"),
            ("2199-01-01T00:00:00Z", "a week at most"),
            ("8d", "a week at most"),
            ("soon", "is no time"),
            ("", "is no time"),
        ] {
            assert!(expiry(Some(text), now).unwrap_err().contains(said), "{text}");
        }
    }
}
