//! What things are called on this host, as far as a policy is about them.

use std::{fs::File, path::Path};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{start::StartError, watch::Changes};
use crate::{
    places::{self, Mounts, Places},
    policy::{Mode, Policy},
};

/// The mounts of the initial namespace.
const MOUNTINFO: &str = "/proc/1/mountinfo";
/// Its root folder, which is another where the daemon runs in a container.
const ROOT: &str = "/proc/1/root";

/// Nanoseconds after which links are looked at again: nobody tells that one leads somewhere else, or of a new one.
const LINKS_NS: u64 = 60_000_000_000;

/// Notices when things may be called otherwise.
#[derive(Debug)]
pub(super) struct Surroundings {
    mountinfo: File,
    changes: Changes,
    looked_ns: u64,
}

impl Surroundings {
    /// From now on.
    ///
    /// # Errors
    /// The mounts cannot be read.
    pub fn new() -> Result<Self, StartError> {
        let mountinfo =
            File::open(MOUNTINFO).map_err(|source| StartError::Host { path: MOUNTINFO, source })?;
        // The first answer is about what was before.
        let mut this = Self { mountinfo, changes: Changes::default(), looked_ns: super::boot_ns() };
        this.mounts_changed();
        Ok(this)
    }

    /// Whether to look now.
    pub fn is_due(&mut self, now_ns: u64) -> bool {
        if self.mounts_changed() {
            self.changes.note(now_ns);
        }
        let is_due = self.changes.take(now_ns) || now_ns.saturating_sub(self.looked_ns) >= LINKS_NS;
        if is_due {
            self.looked_ns = now_ns;
        }
        is_due
    }

    /// Milliseconds after which to ask again, where a change has not come to rest.
    pub fn due_in_ms(&self) -> Option<i64> {
        self.changes.due_in_ms()
    }

    /// The last look came to nothing.
    pub fn look_again(&mut self, now_ns: u64) {
        self.changes.note(now_ns);
    }

    /// Whether something was mounted or unmounted since this was asked last.
    fn mounts_changed(&mut self) -> bool {
        let mut polled = [PollFd::new(&self.mountinfo, PollFlags::PRI)];
        matches!(poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1..))
    }
}

/// Looks at the mounts, and at the links on the way to what the policy names, hard ones too. Where nobody is judged, at
/// nothing.
///
/// # Errors
/// The mounts cannot be read.
pub(super) fn look(policy: &Policy) -> Result<Places, StartError> {
    if policy.agents.iter().all(|agent| agent.spec.mode == Mode::Observe) {
        return Ok(Places::default());
    }
    let mounts = mounts()?;
    let found = places::find(Path::new(ROOT), &mounts, policy.path_globs());
    Ok(Places::new(&mounts, found))
}

/// The mounts of the initial namespace.
///
/// # Errors
/// They cannot be read.
pub(super) fn mounts() -> Result<Mounts, StartError> {
    let mountinfo =
        std::fs::read(MOUNTINFO).map_err(|source| StartError::Host { path: MOUNTINFO, source })?;
    Ok(Mounts::parse(&mountinfo))
}

/// What rules on files may not cover since there was more than is looked at: a sentence each.
pub(super) fn lacking(places: &Places) -> Vec<&'static str> {
    let mut found = Vec::new();
    if places.truncated {
        found.push(
            "not every symbolic link was found on the way to what the rules name: there is too much that their \
             wildcards fit; name what the links lead to",
        );
    }
    if places.linked_truncated {
        found.push(
            "not every file was found that has other names (hard links) than those that the rules cover: there is too \
             much below the folders behind which their patterns have `**`; by the names that were not found such a file is \
             judged as another one",
        );
    }
    found
}

/// Says where there was more than is looked at.
pub(super) fn tell(places: &Places) {
    for sentence in lacking(places) {
        tracing::warn!("{sentence}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_looked_each_minute_whoever_tells_of_a_change() {
        let mut surroundings = Surroundings::new().unwrap();
        let first = surroundings.looked_ns;
        // What others mount on this machine meanwhile counts as well.
        let mut looked = Vec::new();
        for seconds in 1..=180 {
            if surroundings.is_due(first + seconds * 1_000_000_000) {
                looked.push(seconds);
            }
        }
        let gaps = std::iter::once(0).chain(looked.clone()).zip(looked.iter().chain([&180]));
        assert!(looked.len() >= 3 && gaps.into_iter().all(|(from, to)| to - from <= 60), "{looked:?}");
        assert!(!Surroundings::new().unwrap().is_due(first), "at once");
    }
}
