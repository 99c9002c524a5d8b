//! Intents that bind: what the kernel is told of them.
//!
//! It is told anew what holds which session whenever something changes, and each second while anything is bound: what it
//! has already is left as it is.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

use agentwatch_common::{
    bound::{BINDINGS, BINDINGS_MOST, BoundEntry},
    kind::Attribution as By,
    maps::{SESSION_BY_DAEMON, SESSION_OF_PAST, control},
};

use super::{Daemon, boot_ns, surroundings};
use crate::{
    attribution::Attribution,
    control::Refusal,
    event::{How, Kind},
    intent::Declared,
    kernel::{
        KernelError,
        bound::{BoundMaps, empty},
        maps::{Maps, Shared},
        rules::wait_for_programs,
    },
    places::Places,
    policy::{
        Mode, Scope,
        compile::bound::{Bound, BoundError},
    },
};

/// Why an intent does not bind.
#[derive(Debug, thiserror::Error)]
pub(super) enum BindError {
    /// Its scope.
    #[error("the intent cannot be binding: {0}")]
    Scope(#[from] BoundError),
    /// Too many bind at once.
    #[error(
        "{BINDINGS_MOST} intents are binding on this host, and more cannot be at once: close some with \
         `agentwatch intent close`"
    )]
    TooMany,
    /// The mounts.
    #[error("the intent cannot be binding, as what is mounted here is not known: {0}")]
    Places(String),
    /// The kernel.
    #[error("the intent cannot be binding: {0}")]
    Kernel(#[from] KernelError),
}

/// The numbers of the intents that hold a session, the innermost first.
pub(super) type Numbers = Vec<u32>;

/// What is to hold sessions.
#[derive(Debug)]
pub(super) struct Held<'a> {
    /// What each of the intents covers.
    pub scopes: Vec<&'a Scope>,
    /// When the last of them is over, nanoseconds since boot: one that is over before is taken out by the daemon, and
    /// without a daemon it goes on.
    pub until_ns: u64,
    /// The sessions' numbers.
    pub sessions: Vec<u64>,
}

/// What binds sessions.
pub(super) struct Bindings {
    maps: BoundMaps,
    /// Values of the table that are in force.
    in_force: BTreeMap<Numbers, u32>,
    /// Values of the table that no program reads.
    free: Vec<u32>,
    /// See [`control::BOUND`].
    changes: u64,
    /// What things were called when bindings were compiled last.
    places: Option<Places>,
}

impl Bindings {
    /// Takes up what an earlier daemon left in the kernel, which goes on until it is told anew.
    ///
    /// # Errors
    /// The tables are not there.
    pub fn take_up(maps: &Maps) -> Result<Self, KernelError> {
        let changes = maps.word(control::BOUND)?;
        let mut this =
            Self { maps: maps.bound()?, in_force: BTreeMap::new(), free: Vec::new(), changes, places: None };
        this.rest()?;
        Ok(this)
    }

    /// The numbers of intents that bind in the kernel.
    pub fn numbers(&self) -> Vec<u32> {
        self.maps.bound().into_iter().map(|(_, entry)| entry.number).collect()
    }

    /// Whether anything is bound in the kernel.
    fn is_any(&self) -> bool {
        !self.in_force.is_empty() || !self.maps.bound().is_empty()
    }

    /// Has sessions held so, and the others of `known` not at all; what is held already as it is to be stays. When this
    /// returns, the kernel refuses what is not covered. True where something had to be changed.
    ///
    /// # Errors
    /// See [`BindError`]; where it is the scopes, nothing was changed.
    pub fn hold(
        &mut self,
        maps: &mut Maps,
        wanted: &BTreeMap<Numbers, Held<'_>>,
        known: &BTreeSet<u64>,
    ) -> Result<bool, BindError> {
        if wanted.len() > BINDINGS_MOST as usize {
            return Err(BindError::TooMany);
        }
        let mut new = Vec::new();
        for (numbers, held) in wanted {
            if !self.in_force.contains_key(numbers) {
                new.push((numbers, self.compile(held)?));
            }
        }
        let mut changed = !new.is_empty();
        for (numbers, bound) in new {
            let slot = self.fill(&bound)?;
            self.in_force.insert(numbers.clone(), slot);
            // So that the value before it is read no more.
            self.put(maps, wanted, numbers)?;
        }
        for numbers in wanted.keys() {
            changed |= self.put(maps, wanted, numbers)?;
        }
        changed |= self.let_go(wanted, known)?;
        if changed {
            self.tell(maps, self.is_any())?;
        }
        Ok(changed)
    }

    /// Forgets how what is in force was compiled, where things are called otherwise now: it is to be compiled anew.
    ///
    /// # Errors
    /// It is not known what is mounted.
    pub fn look_around(&mut self) -> Result<(), BindError> {
        if !self.in_force.is_empty() {
            let places = look()?;
            if self.places.as_ref() != Some(&places) {
                self.in_force.clear();
                self.places = Some(places);
            }
        }
        Ok(())
    }

    fn compile(&mut self, held: &Held<'_>) -> Result<Bound, BindError> {
        // While nothing is bound nobody looks whether they are called otherwise.
        let places = match self.places.take() {
            Some(known) if !self.in_force.is_empty() => known,
            _ => look()?,
        };
        Ok(Bound::new(&held.scopes, self.places.insert(places))?)
    }

    /// Puts what was compiled into a value that no program reads.
    fn fill(&mut self, bound: &Bound) -> Result<u32, BindError> {
        if self.free.is_empty() {
            self.rest()?;
        }
        let slot = self.free.pop().ok_or(BindError::TooMany)?;
        let mut binding = empty();
        bound.write(&mut binding.0);
        self.maps.fill(slot, &binding, &bound.devices)?;
        Ok(slot)
    }

    /// Has the sessions of one value held by it. True where some were not.
    fn put(
        &mut self,
        maps: &mut Maps,
        wanted: &BTreeMap<Numbers, Held<'_>>,
        numbers: &Numbers,
    ) -> Result<bool, BindError> {
        let (Some(held), Some(&slot)) = (wanted.get(numbers), self.in_force.get(numbers)) else {
            return Ok(false);
        };
        let number = numbers.first().copied().unwrap_or_default();
        let entry = BoundEntry { until_ns: held.until_ns, slot, number };
        let mut changed = false;
        for &session in &held.sessions {
            if self.maps.entry(session) != Some(entry) {
                if !changed {
                    // Before the first, so that nobody passes by it.
                    self.tell(maps, true)?;
                }
                self.maps.bind(session, entry)?;
                changed = true;
            }
        }
        Ok(changed)
    }

    /// Has nothing hold the sessions that are not to be held. One that is not known began a moment ago inside another and
    /// took with it what held that one, or is held by what an earlier daemon knew: it stays until that is over.
    fn let_go(
        &mut self,
        wanted: &BTreeMap<Numbers, Held<'_>>,
        known: &BTreeSet<u64>,
    ) -> Result<bool, BindError> {
        self.in_force.retain(|numbers, _| wanted.contains_key(numbers));
        let is_held = |session: &u64| wanted.values().any(|held| held.sessions.contains(session));
        let mut changed = false;
        let now = boot_ns();
        for (session, entry) in self.maps.bound() {
            if (known.contains(&session) || entry.until_ns <= now) && !is_held(&session) {
                self.maps.release(session)?;
                changed = true;
            }
        }
        Ok(changed)
    }

    /// Waits until no program reads what is in force no more.
    fn rest(&mut self) -> Result<(), KernelError> {
        wait_for_programs();
        // Only now, as a session that began meanwhile took with it what held the one around it.
        let used: BTreeSet<u32> = self.maps.bound().into_iter().map(|(_, entry)| entry.slot).collect();
        let is_free = |slot: &u32| !used.contains(slot) && !self.in_force.values().any(|other| other == slot);
        let free: Vec<u32> = (0..BINDINGS).rev().filter(is_free).collect();
        self.free = free;
        Ok(())
    }

    /// Says to the kernel that something changed, and whether anything is bound.
    fn tell(&mut self, maps: &mut Maps, any: bool) -> Result<(), KernelError> {
        self.changes += 1;
        maps.set_word(control::BOUND, if any { self.changes } else { 0 })
    }
}

/// What is mounted. Symbolic links are not followed: a scope covers what is written, as events tell it.
fn look() -> Result<Places, BindError> {
    let mounts = surroundings::mounts().map_err(|error| BindError::Places(error.to_string()))?;
    Ok(Places::new(&mounts, crate::places::Found::default()))
}

/// Rounds in which sessions are looked for that began inside bound ones meanwhile. Later ones took with them what holds those.
const ROUNDS: u32 = 4;

/// What is to hold which sessions, without the intent `without`, and all sessions that this daemon decides about.
fn wanted<'a>(
    state: &'a Attribution,
    maps: &Maps,
    bindings: &Bindings,
    without: Option<&str>,
) -> (BTreeMap<Numbers, Held<'a>>, BTreeSet<u64>) {
    let now_ns = state.host.unix_ns(boot_ns());
    let mut own: HashMap<u64, (u32, &Declared, &Scope)> = HashMap::new();
    for (declared, scope) in state.intents.binding(now_ns).filter(|(one, _)| without != Some(&*one.id)) {
        let number = declared.binding.unwrap_or_default();
        // Of several of one session the last counts.
        let latest = own.entry(declared.session).or_insert((number, declared, scope));
        if latest.0 < number {
            *latest = (number, declared, scope);
        }
    }
    if own.is_empty() && !bindings.is_any() {
        return Default::default();
    }
    let all = AllSessions::of(state, maps);
    let bound: HashMap<u64, u32> =
        bindings.maps.bound().into_iter().map(|(session, entry)| (session, entry.number)).collect();
    let is_ours =
        |session: &u64| bound.get(session).is_none_or(|number| state.intents.by_number(*number).is_some());
    let mut known: BTreeSet<u64> = all.parents.keys().copied().filter(is_ours).collect();
    let mut wanted: BTreeMap<Numbers, Held<'_>> = BTreeMap::new();
    for &session in &all.living {
        let (chain, is_whole) = all.around(session, |number| in_kernel(maps, number));
        let holding: Vec<_> = chain.iter().filter_map(|session| own.get(session)).collect();
        let innermost = holding.first().map(|(number, ..)| *number);
        if !is_whole && (innermost.is_none() || innermost == bound.get(&session).copied()) {
            // What is around it is not known any more: it stays as it is in the kernel.
            known.remove(&session);
            continue;
        }
        if holding.is_empty() {
            continue;
        }
        let numbers = holding.iter().map(|(number, ..)| *number).collect();
        let held = wanted.entry(numbers).or_insert_with(|| Held {
            scopes: holding.iter().map(|(.., scope)| *scope).collect(),
            until_ns: holding.iter().map(|(_, one, _)| one.expires_ns).max().unwrap_or_default(),
            sessions: Vec::new(),
        });
        held.sessions.push(session);
    }
    wanted
        .values_mut()
        .for_each(|held| held.until_ns = held.until_ns.saturating_sub(state.host.boot_unix_ns));
    (wanted, known)
}

/// Numbers that are looked at once more behind the last session that is known: records need not come in their order.
const LOOKED_BACK: u64 = 64;

/// Sessions that the kernel began and the daemon has not read of yet, at most.
const NEWS_MOST: u64 = 4_096;

/// All sessions that are remembered.
#[derive(Debug, Default)]
struct AllSessions {
    /// Of each the one by whose intents it is held as well. What only uses what a session left behind is not held by what
    /// that was told.
    parents: BTreeMap<u64, Option<u64>>,
    /// Those that did not end.
    living: BTreeSet<u64>,
}

impl AllSessions {
    fn of(state: &Attribution, maps: &Maps) -> Self {
        let mut all = Self::default();
        for one in state.sessions.all() {
            all.parents.insert(one.number, one.began.parent.filter(|_| one.began.how != How::Caused));
            if one.ended_ns.is_none() {
                all.living.insert(one.number);
            }
        }
        // Some began a moment ago, and only the kernel knows of them. It has all of this boot: not each is read every time.
        let is_kernels = |number: &u64| number & (SESSION_BY_DAEMON | SESSION_OF_PAST) == 0;
        let last = all.parents.keys().copied().filter(is_kernels).max().unwrap_or(0);
        let next = maps.word(control::NEXT_SESSION).unwrap_or(0);
        let first = last.saturating_sub(LOOKED_BACK).max(next.saturating_sub(NEWS_MOST));
        for number in first..next {
            if !all.parents.contains_key(&number)
                && let Some(around) = in_kernel(maps, number)
            {
                all.parents.insert(number, around);
                all.living.insert(number);
            }
        }
        all
    }

    /// A session and those around it, the innermost first, ended ones too: what is inside them goes on. `more` says what is
    /// around one that is not remembered. False where nobody knows.
    fn around(&self, session: u64, more: impl Fn(u64) -> Option<Option<u64>>) -> (Vec<u64>, bool) {
        let mut chain = vec![session];
        let mut here = session;
        while chain.len() <= AROUND_MOST {
            match self.parents.get(&here).copied().or_else(|| more(here)) {
                Some(Some(parent)) => here = parent,
                Some(None) => return (chain, true),
                None => return (chain, false),
            }
            chain.push(here);
        }
        (chain, false)
    }
}

/// Sessions around one another that are looked at.
const AROUND_MOST: usize = 1_024;

/// What is around a session by the kernel's table; nothing where it is not there.
fn in_kernel(maps: &Maps, number: u64) -> Option<Option<u64>> {
    let Shared(entry) = maps.sessions.get(&number, 0).ok()?;
    let is_inside = entry.parent != 0 && entry.attribution != By::Caused.raw();
    Some(is_inside.then_some(entry.parent))
}

impl Daemon {
    /// Has the kernel refuse what an intent does not cover. What bound the session before is closed.
    pub(super) fn bind(&mut self, declared: &Declared, now: u64) -> Result<(), Refusal> {
        let began = Instant::now();
        let lacking = self.abilities.lacking_for_mode(Mode::Enforce, &[]);
        let bound = match lacking {
            None => self.hold(None).map_err(Refusal::from),
            Some(lacking) => Err(Refusal::CannotEnforce(format!(
                "an intent cannot be binding here, as this kernel refuses nothing: {lacking}"
            ))),
        };
        if let Err(refusal) = bound {
            self.tend_without(&declared.id);
            self.state.intents.take_back(&declared.id);
            return Err(refusal);
        }
        tracing::debug!(intent = %declared.id, took = ?began.elapsed(), "an intent binds");
        let now_ns = self.state.host.unix_ns(now);
        let before: Vec<Arc<str>> = (self.state.intents.binding(now_ns))
            .filter(|(one, _)| one.session == declared.session && one.id != declared.id)
            .map(|(one, _)| Arc::clone(&one.id))
            .collect();
        let session = self.session_id(declared.session);
        for id in before {
            self.state.intents.close(&id, now_ns);
            let reason = format!("closed: the binding intent {} took its place", declared.id);
            self.tell_intent(Kind::IntentClosed, &session, Some(&id), reason, now);
        }
        // A daemon that is killed now is to go on with it.
        self.save_sessions();
        Ok(())
    }

    /// Has an intent bind no longer, if it does.
    pub(super) fn release(&mut self, id: &str) -> Result<(), Refusal> {
        if self.state.intents.get(id).is_none_or(|one| one.binding.is_none()) {
            return Ok(());
        }
        self.hold(Some(id)).map_err(|error| Refusal::Unable(format!("the intent binds still: {error}")))
    }

    /// Has the kernel hold sessions by the intents that bind now, without this one.
    fn hold(&mut self, without: Option<&str>) -> Result<(), BindError> {
        for _ in 0..ROUNDS {
            let (wanted, known) = wanted(&self.state, &self.maps, &self.bindings, without);
            if !self.bindings.hold(&mut self.maps, &wanted, &known)? {
                break;
            }
        }
        Ok(())
    }

    /// Gives up what is over, and has sessions held that began meanwhile by the daemon's doing.
    pub(super) fn tend_bindings(&mut self) {
        let held = self.hold(None);
        self.tell_of_bindings(held);
    }

    fn tend_without(&mut self, id: &str) {
        let held = self.hold(Some(id));
        self.tell_of_bindings(held);
    }

    /// Compiles what binds anew where things are called otherwise now.
    pub(super) fn look_at_bindings(&mut self) {
        let looked = self.bindings.look_around();
        self.tell_of_bindings(looked);
        self.tend_bindings();
    }

    fn tell_of_bindings(&mut self, done: Result<(), BindError>) {
        if let Err(error) = done {
            self.pipeline.warn_once(&format!("what binds sessions goes on as it was: {error}"));
        }
    }
}

impl From<BindError> for Refusal {
    fn from(error: BindError) -> Self {
        match error {
            BindError::Scope(_) => Self::BadIntent(error.to_string()),
            BindError::TooMany => Self::TooManyIntents(error.to_string()),
            BindError::Places(_) | BindError::Kernel(_) => Self::Unable(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_around_a_session_is_known_behind_one_that_ended() {
        let mut all = AllSessions {
            parents: [(1, None), (2, Some(1)), (3, Some(2)), (5, Some(4))].into(),
            living: [1, 3, 5].into(),
        };
        let around = |all: &AllSessions, session| all.around(session, |_| None);
        assert_eq!(around(&all, 3), (vec![3, 2, 1], true));
        assert_eq!(around(&all, 1), (vec![1], true));
        // Nobody knows what was around the one in between, or only the kernel does.
        assert_eq!(around(&all, 5), (vec![5, 4], false));
        assert_eq!(all.around(5, |number| (number == 4).then_some(Some(1))), (vec![5, 4, 1], true));
        // What cannot be is no endless search.
        all.parents.insert(1, Some(3));
        assert!(!around(&all, 3).1);
    }
}
