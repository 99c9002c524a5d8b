//! Where the demo runs: on this host if that can enforce, else in a virtual machine.

use std::fs;
use std::path::Path;

use crate::daemon;
use crate::paths;

/// What the agent of the demo needs.
const PROGRAMS: [&str; 4] = ["git", "python3", "setsid", "sh"];

/// What decides.
#[derive(Debug, Clone)]
pub struct Facts {
    /// We are root.
    pub is_root: bool,
    /// `/sys/kernel/security/lsm`, empty where it cannot be read.
    pub lsm: String,
    /// The kernel describes its types.
    pub has_btf: bool,
    /// Another daemon's kernel programs are here.
    pub is_watched: bool,
    /// Programs that are missing.
    pub missing: Vec<&'static str>,
}

/// Where to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Here.
    Host,
    /// In a virtual machine.
    Vm {
        /// Why not here, after "since".
        reason: String,
    },
}

impl Facts {
    /// Of this machine.
    pub fn gather() -> Self {
        Self {
            is_root: rustix::process::geteuid().is_root(),
            lsm: fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default(),
            has_btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
            is_watched: daemon::is_pinned(),
            missing: PROGRAMS.into_iter().filter(|name| paths::find_program(name).is_none()).collect(),
        }
    }
}

/// Decides.
#[must_use]
pub fn choose(facts: &Facts) -> Place {
    let reason = if !facts.is_root {
        "you are not root".to_owned()
    } else if !facts.has_btf {
        "this kernel does not describe its types (no /sys/kernel/btf/vmlinux)".to_owned()
    } else if !facts.lsm.trim().split(',').any(|name| name == "bpf") {
        "this kernel does not ask BPF programs for permission (no `bpf` in /sys/kernel/security/lsm)"
            .to_owned()
    } else if facts.is_watched {
        format!("agentwatch runs on this host already (its programs are in {})", daemon::PINS)
    } else if !facts.missing.is_empty() {
        format!("this host lacks {}, which the agent of the demo uses", facts.missing.join(", "))
    } else {
        return Place::Host;
    };
    Place::Vm { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_that_is_missing_leads_to_the_vm_and_is_named() {
        let able = Facts {
            is_root: true,
            lsm: "lockdown,capability,bpf\n".to_owned(),
            has_btf: true,
            is_watched: false,
            missing: Vec::new(),
        };
        assert_eq!(choose(&able), Place::Host);
        let unable = [
            (Facts { is_root: false, ..able.clone() }, "root"),
            (Facts { lsm: "capability,bpfx".to_owned(), ..able.clone() }, "/sys/kernel/security/lsm"),
            (Facts { has_btf: false, ..able.clone() }, "btf"),
            (Facts { is_watched: true, ..able.clone() }, "already"),
            (Facts { missing: vec!["git"], ..able }, "git"),
        ];
        for (facts, word) in unable {
            let Place::Vm { reason } = choose(&facts) else { panic!("on the host with {facts:?}") };
            assert!(reason.contains(word), "{reason}");
        }
    }
}
