//! The intents of all sessions, and what events are beside them.

use std::{collections::HashMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::scope::{self, Acts, ScopeError, Stated};
use crate::{
    control::intent::{DeclaredBy, IntentCheckView, IntentState, IntentTool, IntentView, PlanStepView},
    event::{Alignment, Event, IntentRef, time::format_time},
    policy::{Policy, Scope},
};

/// Intents of one session that are in force at once. Past it a further one is refused.
pub const IN_FORCE_MAX: usize = 32;
/// Intents of one session that are kept, those that are over included: the oldest of these are forgotten first. Each event
/// of the session is held against them.
const KEPT_MAX: usize = 64;
/// Bytes of all that was declared. Past it what is over is forgotten, the oldest first; where that is not enough, a
/// further intent is refused.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// Checks of one intent that are kept: all are in the log.
const CHECKS_MAX: usize = 16;
/// Seconds for which an intent counts that says nothing of it.
pub const EXPIRES_S: u64 = 3_600;
/// The longest that one counts.
pub const EXPIRES_S_MAX: u64 = 7 * 24 * 3_600;

/// What is to be declared.
#[derive(Clone, Debug, PartialEq)]
pub struct Declaration {
    /// Number of the session.
    pub session: u64,
    /// Who declares.
    pub by: DeclaredBy,
    /// User id of the caller.
    pub uid: u32,
    /// Process id of the caller, where it is in sight.
    pub pid: Option<u32>,
    /// The prompt that led to it.
    pub prompt: Option<String>,
    /// The task.
    pub task: Option<String>,
    /// The tool.
    pub tool: Option<IntentTool>,
    /// What was retrieved for it.
    pub context: Vec<String>,
    /// What will be done.
    pub scope: Stated,
    /// Step by step, judged.
    pub plan: Vec<PlanStepView>,
    /// Nanoseconds since 1970 at which it is over.
    pub expires_ns: u64,
    /// What it does not cover is to be refused.
    pub binding: bool,
}

/// What was declared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of `Declaration`, and what came of it")]
pub struct Declared {
    pub id: Arc<str>,
    pub session: u64,
    pub by: DeclaredBy,
    pub uid: u32,
    pub pid: Option<u32>,
    pub prompt: Option<String>,
    pub task: Option<String>,
    pub tool: Option<IntentTool>,
    pub context: Vec<String>,
    pub scope: Stated,
    #[serde(default)]
    pub plan: Vec<PlanStepView>,
    pub declared_ns: u64,
    pub expires_ns: u64,
    /// Its number for the kernel where it binds, by which events name it. No other has it in this boot.
    #[serde(default)]
    pub binding: Option<u32>,
    pub closed_ns: Option<u64>,
    pub aligned: u64,
    pub outside: u64,
    #[serde(default)]
    pub checks: Vec<IntentCheckView>,
}

impl Declared {
    /// Whether it counts at this moment, nanoseconds since 1970.
    #[must_use]
    pub fn is_in_force(&self, now_ns: u64) -> bool {
        self.declared_ns <= now_ns && now_ns < self.over_ns()
    }

    /// When it is over or was closed.
    fn over_ns(&self) -> u64 {
        self.closed_ns.map_or(self.expires_ns, |closed| closed.min(self.expires_ns))
    }

    fn bytes(&self) -> usize {
        let scope: usize = self.scope.values().flatten().map(String::len).sum();
        let texts = [&self.prompt, &self.task].into_iter().flatten().map(String::len).sum::<usize>();
        let tool = self.tool.as_ref().map_or(0, IntentTool::bytes);
        let context = self.context.iter().map(String::len).sum::<usize>();
        let plan: usize = self.plan.iter().map(|one| one.step.len() + one.reason.len()).sum();
        let checks = self.checks.iter().map(bytes_of_check).sum::<usize>();
        scope + texts + tool + context + plan + checks + size_of::<Self>()
    }

    /// As the control API gives it, of the session with this id.
    #[must_use]
    pub fn view(&self, session: &Arc<str>, now_ns: u64) -> IntentView {
        let state = match self.closed_ns {
            _ if self.is_in_force(now_ns) => IntentState::InForce,
            Some(closed) if closed <= self.expires_ns => IntentState::Closed,
            _ => IntentState::Expired,
        };
        IntentView {
            id: Arc::clone(&self.id),
            session: Arc::clone(session),
            state,
            declared_by: self.by,
            binding: self.binding.is_some(),
            declared: format_time(self.declared_ns),
            expires: format_time(self.expires_ns),
            closed: self.closed_ns.map(format_time),
            uid: self.uid,
            pid: self.pid,
            prompt: self.prompt.clone(),
            task: self.task.clone(),
            tool: self.tool.clone(),
            context: self.context.clone(),
            scope: self.scope.clone(),
            plan: self.plan.clone(),
            aligned: self.aligned,
            outside: self.outside,
            checks: self.checks.clone(),
        }
    }
}

fn bytes_of_check(check: &IntentCheckView) -> usize {
    check.note.as_ref().map_or(0, String::len) + size_of::<IntentCheckView>()
}

/// Why nothing was declared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeclareError {
    /// Its scope.
    #[error(transparent)]
    Scope(#[from] ScopeError),
    /// Too many of the session are in force.
    #[error(
        "the session has {IN_FORCE_MAX} intents in force, and more are not kept: close some with `agentwatch intent close`"
    )]
    TooMany,
    /// All sessions together have too much.
    #[error("there is no room for more intents: close some with `agentwatch intent close`")]
    NoRoom,
}

#[derive(Clone, Debug)]
struct Intent {
    declared: Declared,
    scope: Scope,
}

/// The intents of all sessions.
#[derive(Debug, Default)]
pub struct Intents {
    by_session: HashMap<u64, Vec<Intent>>,
    bytes: usize,
    /// The last number that was given to a binding.
    last_number: u32,
    /// Set when something changed that a restart must know.
    pub changed: bool,
}

impl Intents {
    /// Takes up what was declared.
    ///
    /// # Errors
    /// See [`DeclareError`].
    pub fn declare(
        &mut self,
        declaration: Declaration,
        boot_id: &str,
        now_ns: u64,
        policy: &Policy,
    ) -> Result<Declared, DeclareError> {
        let (stated, scope) = scope::read(&declaration.scope, policy)?;
        let of_session = self.by_session.get(&declaration.session).map_or(&[][..], Vec::as_slice);
        let in_force = of_session.iter().filter(|one| one.declared.is_in_force(now_ns)).count();
        // A session's own words must not keep an operator from binding it, and one alone binds.
        if in_force >= IN_FORCE_MAX && !declaration.binding {
            return Err(DeclareError::TooMany);
        }
        let declared = Declared {
            id: self.new_id(boot_id, now_ns),
            session: declaration.session,
            by: declaration.by,
            uid: declaration.uid,
            pid: declaration.pid,
            prompt: declaration.prompt,
            task: declaration.task,
            tool: declaration.tool,
            context: declaration.context,
            scope: stated,
            plan: declaration.plan,
            declared_ns: now_ns,
            expires_ns: declaration.expires_ns,
            binding: declaration.binding.then(|| self.new_number()),
            closed_ns: None,
            aligned: 0,
            outside: 0,
            checks: Vec::new(),
        };
        self.make_room(declared.session, declared.bytes(), now_ns)?;
        self.go_on_behind(declared.binding.unwrap_or(0));
        self.add(Intent { declared: declared.clone(), scope });
        Ok(declared)
    }

    fn add(&mut self, intent: Intent) {
        self.bytes += intent.declared.bytes();
        self.changed = true;
        self.by_session.entry(intent.declared.session).or_default().push(intent);
    }

    /// An id that none has.
    fn new_id(&self, boot_id: &str, now_ns: u64) -> Arc<str> {
        let mut number = now_ns;
        loop {
            let id = crate::attribution::session_id("int", boot_id, number);
            if self.get(&id).is_none() {
                return id;
            }
            number += 1;
        }
    }

    /// A number that no binding has.
    fn new_number(&self) -> u32 {
        self.last_number.max(self.all().iter().filter_map(|one| one.binding).max().unwrap_or(0)) + 1
    }

    /// Numbers up to this one are taken.
    pub fn go_on_behind(&mut self, number: u32) {
        self.last_number = self.last_number.max(number);
    }

    /// The intents that bind now, each with its scope.
    pub fn binding(&self, now_ns: u64) -> impl Iterator<Item = (&Declared, &Scope)> {
        let all = self.by_session.values().flatten();
        all.filter(move |one| one.declared.binding.is_some() && one.declared.is_in_force(now_ns))
            .map(|one| (&one.declared, &one.scope))
    }

    /// The one that binds by this number.
    #[must_use]
    pub fn by_number(&self, number: u32) -> Option<&Declared> {
        let mut all = self.by_session.values().flatten().map(|one| &one.declared);
        all.find(|one| one.binding == Some(number))
    }

    /// Forgets one, as if it had never been declared.
    pub fn take_back(&mut self, id: &str) {
        for all in self.by_session.values_mut() {
            let given_up = all.iter().filter(|one| *one.declared.id == *id);
            self.bytes -= given_up.map(|one| one.declared.bytes()).sum::<usize>();
            all.retain(|one| *one.declared.id != *id);
        }
    }

    /// Forgets what is over, where room is needed.
    fn make_room(&mut self, session: u64, bytes: usize, now_ns: u64) -> Result<(), DeclareError> {
        if self.by_session.get(&session).is_some_and(|all| all.len() >= KEPT_MAX) {
            self.forget_oldest(now_ns, Some(session));
        }
        while self.bytes + bytes > BYTES_MAX {
            if !self.forget_oldest(now_ns, None) {
                return Err(DeclareError::NoRoom);
            }
        }
        Ok(())
    }

    /// Forgets the one that was declared first of those that are over. Gives whether there was one.
    fn forget_oldest(&mut self, now_ns: u64, of: Option<u64>) -> bool {
        let over = self.by_session.iter().filter(|(session, _)| of.is_none_or(|of| of == **session));
        let over = over.flat_map(|(session, all)| {
            let over = all.iter().filter(|one| !one.declared.is_in_force(now_ns));
            over.map(|one| (one.declared.declared_ns, *session, Arc::clone(&one.declared.id)))
        });
        let Some((_, session, id)) = over.min() else { return false };
        if let Some(all) = self.by_session.get_mut(&session) {
            all.retain(|one| {
                one.declared.id != id || {
                    self.bytes -= one.declared.bytes();
                    false
                }
            });
        }
        true
    }

    /// All, in the order in which they were declared.
    pub fn all(&self) -> Vec<&Declared> {
        let mut all: Vec<&Declared> = self.by_session.values().flatten().map(|one| &one.declared).collect();
        all.sort_by(|one, other| (one.declared_ns, &one.id).cmp(&(other.declared_ns, &other.id)));
        all
    }

    /// The one with this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Declared> {
        self.by_session.values().flatten().map(|one| &one.declared).find(|one| *one.id == *id)
    }

    /// Closes one, where it is in force still. Gives it.
    pub fn close(&mut self, id: &str, now_ns: u64) -> Option<&Declared> {
        let one = self.by_session.values_mut().flatten().find(|one| *one.declared.id == *id)?;
        if one.declared.is_in_force(now_ns) {
            one.declared.closed_ns = Some(now_ns);
            self.changed = true;
        }
        Some(&one.declared)
    }

    /// Keeps what was found when what was done was looked at; the oldest gives way. Gives the intent, where it is there.
    pub fn check(&mut self, id: &str, check: IntentCheckView) -> Option<&Declared> {
        let one = self.by_session.values_mut().flatten().find(|one| *one.declared.id == *id)?;
        let checks = &mut one.declared.checks;
        self.bytes += bytes_of_check(&check);
        if checks.len() == CHECKS_MAX {
            self.bytes -= bytes_of_check(&checks.remove(0));
        }
        checks.push(check);
        self.changed = true;
        Some(&one.declared)
    }

    /// What an event is beside what was declared for its session: nothing where nothing ever was, or it is no operation.
    pub fn align(&mut self, session: u64, event: &Event, now_ns: u64) -> Option<IntentRef> {
        let all = self.by_session.get_mut(&session).filter(|all| !all.is_empty())?;
        let acts = Acts::of(event)?;
        let mut latest_in_force = None;
        let mut would_have = None;
        for one in all.iter_mut().rev() {
            let in_force = one.declared.is_in_force(now_ns);
            if one.declared.declared_ns > now_ns || !in_force && would_have.is_some() {
                continue;
            }
            match (in_force, acts.are_within(&one.scope)) {
                (true, true) => {
                    one.declared.aligned += event.count;
                    return Some(IntentRef::of(&one.declared.id, Alignment::Aligned));
                }
                (true, false) if latest_in_force.is_none() => {
                    latest_in_force = Some(Arc::clone(&one.declared.id))
                }
                (false, true) => would_have = Some(Arc::clone(&one.declared.id)),
                _ => {}
            }
        }
        if let Some(id) = would_have {
            return Some(IntentRef::of(&id, Alignment::Expired));
        }
        let Some(id) = latest_in_force else {
            return Some(IntentRef { id: None, alignment: Some(Alignment::Undeclared), check: None });
        };
        if let Some(one) = all.iter_mut().find(|one| one.declared.id == id) {
            one.declared.outside += event.count;
        }
        Some(IntentRef::of(&id, Alignment::Outside))
    }

    /// Of the intents that bind these sessions, the innermost first, the number of the one that does not cover an event.
    #[must_use]
    pub fn refusing(&self, sessions: impl Iterator<Item = u64>, event: &Event, now_ns: u64) -> Option<u32> {
        let acts = Acts::of(event)?;
        let of_sessions = sessions.filter_map(|session| self.by_session.get(&session)).flatten();
        let mut binding =
            of_sessions.filter(|one| one.declared.binding.is_some() && one.declared.is_in_force(now_ns));
        binding.find(|one| !acts.are_within(&one.scope)).and_then(|one| one.declared.binding)
    }

    /// Counts what the intent refused that binds by this number.
    pub fn count_refused(&mut self, number: u32, count: u64) {
        let mut all = self.by_session.values_mut().flatten();
        if let Some(one) = all.find(|one| one.declared.binding == Some(number)) {
            one.declared.outside += count;
        }
    }

    /// Counts repeats of an event that was aligned.
    pub fn count_more(&mut self, session: u64, intent: &IntentRef, more: u64) {
        let is_meant = |one: &Intent| intent.id.as_ref() == Some(&one.declared.id);
        // What binds a session can be an intent of one around it.
        let own = self.by_session.get(&session).is_some_and(|all| all.iter().any(is_meant));
        let sessions = self.by_session.iter_mut().filter(|(number, _)| !own || **number == session);
        let mut all = sessions.flat_map(|(_, all)| all);
        let Some(one) = all.find(|one| is_meant(one)).map(|one| &mut one.declared) else { return };
        match intent.alignment {
            Some(Alignment::Aligned) => one.aligned += more,
            Some(Alignment::Outside) => one.outside += more,
            _ => {}
        }
    }

    /// What a restart must know.
    #[must_use]
    pub fn saved(&self) -> Vec<Declared> {
        self.all().into_iter().cloned().collect()
    }

    /// Takes up what an earlier daemon saved. What cannot be read any more is given up: its number is given.
    pub fn restore(&mut self, saved: Vec<Declared>, policy: &Policy) -> usize {
        let mut lost = 0;
        for declared in saved {
            match scope::read(&declared.scope, policy) {
                Ok((_, scope)) => self.add(Intent { declared, scope }),
                Err(_) => lost += 1,
            }
        }
        lost
    }
}
