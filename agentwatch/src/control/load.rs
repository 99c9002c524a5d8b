//! How much one caller may ask for: connections at once and launches a second.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use tokio::task::AbortHandle;

use super::limits;

/// The open connections of one socket. Where there are too many, the one that has kept silent longest
/// makes room: whoever means it has sent a request long before. Connections that are being answered are
/// never closed for others.
#[derive(Debug)]
pub struct Connections {
    most: usize,
    most_per_user: usize,
    next: u64,
    open: BTreeMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    uid: u32,
    silent: bool,
    task: Option<AbortHandle>,
}

impl Connections {
    /// None open yet.
    pub const fn new(most: usize, most_per_user: usize) -> Self {
        Self { most, most_per_user, next: 0, open: BTreeMap::new() }
    }

    /// Makes room for one more connection of a user and counts it; `None` where all others are being
    /// answered.
    pub fn admit(&mut self, uid: u32) -> Option<u64> {
        if self.open.values().filter(|other| other.uid == uid).count() >= self.most_per_user {
            self.close_longest_silent(|other| other.uid == uid)?;
        } else if self.open.len() >= self.most {
            self.close_longest_silent(|_| true)?;
        }
        let id = self.next;
        self.next += 1;
        self.open.insert(id, Connection { uid, silent: true, task: None });
        Some(id)
    }

    fn close_longest_silent(&mut self, among: impl Fn(&Connection) -> bool) -> Option<()> {
        let (&id, _) = self.open.iter().find(|(_, other)| other.silent && among(other))?;
        if let Some(task) = self.open.remove(&id).and_then(|closed| closed.task) {
            task.abort();
        }
        Some(())
    }

    /// Says which task answers the connection.
    pub fn answered_by(&mut self, id: u64, task: AbortHandle) {
        if let Some(connection) = self.open.get_mut(&id) {
            connection.task = Some(task);
        }
    }

    /// Its whole request has arrived.
    pub fn has_asked(&mut self, id: u64) {
        if let Some(connection) = self.open.get_mut(&id) {
            connection.silent = false;
        }
    }

    /// It is closed.
    pub fn remove(&mut self, id: u64) {
        self.open.remove(&id);
    }
}

/// Launches a second of each process and user.
#[derive(Debug)]
pub struct LaunchRates {
    processes: Rates,
    users: Rates,
}

impl LaunchRates {
    /// Nobody has asked yet.
    pub fn new() -> Self {
        Self::of(limits::LAUNCHES_PER_PROCESS, limits::LAUNCHES_PER_USER)
    }

    /// Of what harnesses and relays tell.
    pub fn of_tools() -> Self {
        Self::of(limits::TOOLS_PER_PROCESS, limits::TOOLS_PER_USER)
    }

    /// Of refusals that are told.
    pub fn of_refusals() -> Self {
        Self::of(limits::REFUSALS_PER_PROCESS, limits::REFUSALS_PER_USER)
    }

    fn of(process: (u32, u32), user: (u32, u32)) -> Self {
        Self { processes: Rates::new(process), users: Rates::new(user) }
    }

    /// Counts a launch that is asked for; says whether it may be.
    #[must_use]
    pub fn allows(&mut self, pid: u32, uid: u32, now: Instant) -> bool {
        // The process first: one that asks in a loop does not use up its user's share.
        self.processes.allows(pid.into(), 1, now) && self.users.allows(uid.into(), 1, now)
    }
}

/// A bucket of tokens for each caller.
#[derive(Debug)]
pub struct Rates {
    burst: f64,
    per_second: f64,
    buckets: HashMap<u64, (f64, Instant)>,
}

impl Rates {
    /// So many at once, and a second after that.
    pub fn new((burst, per_second): (u32, u32)) -> Self {
        Self { burst: burst.into(), per_second: per_second.into(), buckets: HashMap::new() }
    }

    fn filled(&self, (tokens, then): (f64, Instant), now: Instant) -> f64 {
        now.saturating_duration_since(then).as_secs_f64().mul_add(self.per_second, tokens).min(self.burst)
    }

    /// Counts what a caller asks for; says whether it may have that.
    #[must_use]
    pub fn allows(&mut self, caller: u64, times: usize, now: Instant) -> bool {
        if self.buckets.len() >= limits::RATED_CALLERS && !self.buckets.contains_key(&caller) {
            self.forget_quiet_callers(now);
            if self.buckets.len() >= limits::RATED_CALLERS {
                return false;
            }
        }
        let before = self.buckets.get(&caller).copied().unwrap_or((self.burst, now));
        let tokens = self.filled(before, now);
        let wanted = times as f64;
        let allowed = tokens >= wanted;
        self.buckets.insert(caller, (if allowed { tokens - wanted } else { tokens }, now));
        allowed
    }

    fn forget_quiet_callers(&mut self, now: Instant) {
        let busy = |bucket| self.filled(bucket, now) < self.burst;
        let kept = self.buckets.iter().filter(|&(_, &bucket)| busy(bucket)).map(|(&who, &what)| (who, what));
        self.buckets = kept.collect();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_longest_silent_connection_makes_room_and_an_answered_one_never_does() {
        let mut connections = Connections::new(3, 2);
        let first = connections.admit(1).unwrap();
        let second = connections.admit(1).unwrap();
        connections.has_asked(first);
        let third = connections.admit(1).unwrap();
        assert!(connections.open.contains_key(&first));
        assert!(!connections.open.contains_key(&second), "the user's own silent one is closed");
        let fourth = connections.admit(2).unwrap();
        let fifth = connections.admit(3).unwrap();
        assert_eq!(connections.open.keys().copied().collect::<Vec<_>>(), [first, fourth, fifth]);
        assert!(fifth > third);
        connections.has_asked(fourth);
        connections.has_asked(fifth);
        assert_eq!(connections.admit(4), None, "all are being answered");
        connections.remove(first);
        assert!(connections.admit(4).is_some());
    }

    #[test]
    fn a_caller_gets_its_burst_and_then_its_rate() {
        let mut rates = LaunchRates::new();
        let start = Instant::now();
        let (burst, per_second) = limits::LAUNCHES_PER_PROCESS;
        let asked =
            |rates: &mut LaunchRates, times: u32, now| (0..times).filter(|_| rates.allows(1, 1, now)).count();
        assert_eq!(asked(&mut rates, 100, start), burst as usize);
        assert_eq!(asked(&mut rates, 100, start + Duration::from_secs(3)), 3 * per_second as usize);
        assert!(rates.allows(2, 1, start), "another process of the user is not held up");
        let users_rest = (1000..2000).filter(|&pid| rates.allows(pid, 1, start)).count();
        assert!(users_rest < limits::LAUNCHES_PER_USER.0 as usize);
        assert!(!rates.allows(5000, 1, start), "the user's share is used up");
        assert!(rates.allows(5001, 2, start), "another user's is not");
    }

    #[test]
    fn callers_remembered_are_bounded_and_quiet_ones_forgotten() {
        let mut rates = Rates::new((2, 1));
        let start = Instant::now();
        let most = limits::RATED_CALLERS as u64;
        assert!((0..most).all(|caller| rates.allows(caller, 1, start)));
        assert!(!rates.allows(most, 1, start), "nobody can be forgotten yet");
        assert_eq!(rates.buckets.len(), limits::RATED_CALLERS);
        assert!(rates.allows(most, 1, start + Duration::from_secs(2)));
        assert_eq!(rates.buckets.len(), 1);
    }

    #[test]
    fn many_at_once_are_allowed_whole_or_not_at_all() {
        let mut rates = Rates::new(limits::SPANS_PER_SESSION);
        let start = Instant::now();
        assert!(rates.allows(1, 512, start) && rates.allows(1, 512, start));
        assert!(!rates.allows(1, 512, start) && !rates.allows(1, 1, start));
        assert!(rates.allows(1, 512, start + limits::SPANS_AGAIN), "as it was told");
        assert!(rates.allows(2, 512, start), "another session");
    }
}
