//! Programs that the kernel skipped, since they ran on the same CPU already: `recursion_misses` in the information on
//! each program's descriptor, since 5.12.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
};

use aya::{
    maps::MapInfo,
    programs::{ProgramFd, loaded_programs},
};

use super::probes::PROBES;

/// Bytes of a program's name that the kernel keeps.
const NAME_BYTES: usize = 15;
/// Programs whose skipping is no loss by itself: another one does the same. What both miss of execs and exits is counted in the
/// kernel. That both miss a message to a delegate takes three tasks that preempt each other within it on one CPU.
const DOUBLED: [&str; 5] =
    ["process_exec", "process_exec_2", "process_exit", "delegate_heard", "delegate_heard_2"];
/// Tables of which every program that can lose something uses one.
const TABLES: [&str; 3] = ["PROCESSES", "CONTROL", "CGROUPS"];

/// The loaded programs, to be asked how often they were skipped.
#[derive(Debug, Default)]
pub struct Programs(Vec<(&'static str, ProgramFd)>);

impl Programs {
    /// Those that use the tables pinned in this folder.
    #[must_use]
    pub fn of(dir: &Path) -> Self {
        let id = |name: &&str| MapInfo::from_pin(dir.join(name)).ok().map(|map| map.id());
        let tables: Vec<u32> = TABLES.iter().filter_map(id).collect();
        let mut found = Vec::new();
        for program in loaded_programs().filter_map(Result::ok) {
            let Some(name) = program.name_as_str().and_then(full_name) else { continue };
            let maps = program.map_ids().ok().flatten().unwrap_or_default();
            if maps.iter().any(|map| tables.contains(map))
                && let Ok(fd) = program.fd()
            {
                found.push((name, fd));
            }
        }
        Self(found)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Those that were skipped and should not have been, each with how often.
    pub fn skipped(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let of = |(name, fd): &(&'static str, ProgramFd)| {
            let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
            let misses = misses_in(&fs::read_to_string(path).ok()?)?;
            (misses > 0 && !DOUBLED.contains(name)).then_some((*name, misses))
        };
        self.0.iter().filter_map(of)
    }
}

/// Our name of the program that the kernel names like this.
fn full_name(kept: &str) -> Option<&'static str> {
    PROBES.iter().map(|probe| probe.program).find(|name| name.get(..NAME_BYTES).unwrap_or(name) == kept)
}

/// The number in what the kernel tells of a descriptor.
fn misses_in(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("recursion_misses:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_keeps_enough_of_each_name() {
        for probe in PROBES {
            let kept = probe.program.get(..NAME_BYTES).unwrap_or(probe.program);
            assert_eq!(full_name(kept), Some(probe.program));
        }
        for name in DOUBLED {
            assert!(PROBES.iter().any(|probe| probe.program == name), "{name}");
        }
    }

    #[test]
    fn the_number_is_read() {
        let text = "pos:\t0\nflags:\t02000002\nprog_type:\t29\nrun_cnt:\t0\nrecursion_misses:\t7\nverified_insns:\t9\n";
        assert_eq!(misses_in(text), Some(7));
        assert_eq!(misses_in("pos:\t0\n"), None);
    }
}
