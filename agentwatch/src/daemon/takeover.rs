//! Taking over: what the kernel's tables say is there, held against what is known here and against `/proc`.

use super::{
    facts,
    mark::{self, Numbers},
};
use crate::{
    attribution::{Attribution, Process},
    event::Event,
    kernel::maps::{Maps, Shared},
    selftest::SESSION,
};

/// Takes up what an earlier daemon left, and adopts what runs already.
pub fn take_up(maps: &mut Maps, state: &mut Attribution, now: u64, out: &mut Vec<Event>) -> Numbers {
    take_up_processes(maps, state, now, out);
    let known: Vec<u64> =
        maps.sessions.keys().flatten().chain(state.sessions.all().map(|one| one.number)).collect();
    let mut numbers = Numbers::after(known.into_iter());
    mark::cover_cgroups(maps, state, &mut numbers, now);
    let joined = mark::adopt_running(maps, state, &mut numbers, now, out);
    if joined > 0 {
        tracing::info!(joined, "processes of agents that already ran were adopted");
    }
    state.settle(now, out);
    numbers
}

/// Takes up the processes that the kernel's table names and that are not known here. What does not run any more is
/// taken out of the table, and its end told as unseen.
pub fn take_up_processes(maps: &mut Maps, state: &mut Attribution, now: u64, out: &mut Vec<Event>) {
    let entries: Vec<_> = maps.processes.iter().flatten().collect();
    for (pid, Shared(entry)) in entries {
        if entry.session == SESSION {
            continue;
        }
        let start_ns = mark::start_of(&entry);
        if state.processes.living(pid).is_some_and(|known| known.began_at(start_ns)) {
            continue;
        }
        match facts::process(pid).filter(|seen| mark::is_start(&entry, seen.start_ticks)) {
            Some(seen) => state.add_process(pid, Process::seen(entry.session, &seen), now, out),
            // The kernel took it out itself, then its record tells; or the number is another process's by now.
            None if maps.processes.get(pid) != Some(entry) => {}
            None => {
                let _ = maps.processes.remove(pid);
                state.was_there(pid, entry.session, start_ns, now, out);
            }
        }
    }
}

/// Living processes that the kernel's table does not have: they ended, and if the ring does not tell so, nothing
/// will.
pub fn missing(maps: &Maps, state: &Attribution) -> Vec<(u32, u64)> {
    let living = state.processes.all_living().map(|(pid, process)| (pid, process.start_ns));
    living.filter(|(pid, start_ns)| !is_followed(maps, *pid, *start_ns)).collect()
}

/// Ends those of [`missing`] that are still missing after the ring was read.
pub fn end_missing(
    maps: &Maps,
    state: &mut Attribution,
    missing: &[(u32, u64)],
    now: u64,
    out: &mut Vec<Event>,
) {
    for (pid, start_ns) in missing {
        let lives = state.processes.living(*pid).is_some_and(|process| process.began_at(*start_ns));
        if lives && !is_followed(maps, *pid, *start_ns) {
            state.end_unseen(*pid, now, out);
        }
    }
}

fn is_followed(maps: &Maps, pid: u32, start_ns: u64) -> bool {
    let entry = maps.processes.get(pid);
    entry.is_some_and(|entry| mark::is_start(&entry, start_ns / mark::NS_PER_TICK))
}
