//! What guards are about, in the words of the event.

use agentwatch_common::{
    kind::{GuardAct, RecordKind},
    record::PathDesc,
    rules::guard,
};

use super::file;
use crate::places::Mounts;
use crate::{
    decode::{FileAct, GuardRecord, PathText},
    event::{File, Guarded, Kind},
};

/// A guard's name as events and policies have it, and what it refuses.
pub const WORDS: [(&str, &str); guard::COUNT as usize] = [
    ("ptrace", "the guard `ptrace` keeps sessions out of processes that are not their own"),
    ("signal", "the guard `signal` keeps sessions from signalling or slowing agentwatch"),
    ("mount", "the guard `mount` keeps sessions from changing what is mounted where"),
    ("namespace", "the guard `namespace` keeps sessions from user namespaces and from another root"),
    ("module", "the guard `module` keeps sessions from loading code into the kernel"),
    ("bpf", "the guard `bpf` keeps sessions from programs and tables of the kernel's BPF"),
    ("raw-device", "the guard `raw-device` keeps sessions from disks as a whole and from memory"),
    ("raw-socket", "the guard `raw-socket` keeps sessions from packets that no rule on addresses sees"),
    ("delegate", "the guard `delegate` keeps sessions from asking others to act for them"),
    ("agentwatch", "no session changes agentwatch's own files, uses its control socket or sets its clock"),
];

/// Kind of the event of a record on a guard.
#[must_use]
pub fn kind_of(act: &GuardRecord<'_>) -> Option<Kind> {
    Some(match u32::from(act.guard) {
        guard::PTRACE => Kind::GuardPtrace,
        guard::SIGNAL => Kind::GuardSignal,
        guard::NAMESPACE => Kind::GuardNamespace,
        guard::MODULE => Kind::GuardModule,
        guard::BPF => Kind::GuardBpf,
        guard::RAW_SOCKET => Kind::GuardRawSocket,
        guard::DELEGATE => Kind::GuardDelegate,
        guard::OWN => Kind::GuardAgentwatch,
        _ => return None,
    })
}

/// Whether a process was looked into by its files in `/proc`, which make EACCES of the refusal.
#[must_use]
pub fn is_by_proc(act: &GuardRecord<'_>) -> bool {
    const PTRACE_MODE_FSCREDS: u32 = 8;
    act.act == GuardAct::Attach && act.detail & PTRACE_MODE_FSCREDS != 0
}

/// What was tried.
#[must_use]
pub fn describe(act: &GuardRecord<'_>) -> Guarded {
    let there = act.target_pid != 0;
    Guarded {
        act: name_of(act.act).to_owned(),
        detail: detail_of(act),
        pid: there.then_some(act.target_pid),
        start_time: there.then_some(act.target_start_ns),
    }
}

/// The file that it is about, if it is about one.
#[must_use]
pub fn file_of(act: &GuardRecord<'_>, mounts: &Mounts) -> Option<File> {
    if act.path.desc == PathDesc::default() {
        return None;
    }
    let (path, path_fs, none) = (act.path, act.path_fs, PathText::default());
    let (uid, gid) = (u32::MAX, u32::MAX);
    let act = FileAct {
        ino: 0,
        ino_to: 0,
        flags: 0,
        mode: 0,
        uid,
        gid,
        path,
        path_fs,
        path_to: none,
        path_to_fs: none,
    };
    Some(file::file_of(RecordKind::Guard, &act, mounts))
}

const fn name_of(act: GuardAct) -> &'static str {
    match act {
        GuardAct::Attach => "attach",
        GuardAct::Signal => "signal",
        GuardAct::Limit => "limit",
        GuardAct::Schedule => "schedule",
        GuardAct::UserNamespace => "user-namespace",
        GuardAct::PivotRoot => "pivot-root",
        GuardAct::Chroot => "chroot",
        GuardAct::Load => "load",
        GuardAct::Bpf => "bpf",
        GuardAct::RawSocket => "raw-socket",
        GuardAct::Keys => "keys",
        GuardAct::Clock => "clock",
        GuardAct::Unknown(_) => "unknown",
    }
}

fn detail_of(act: &GuardRecord<'_>) -> Option<String> {
    let number = act.detail;
    match act.act {
        GuardAct::Signal => Some(number.to_string()),
        GuardAct::Limit => Some(named("RLIMIT_", &LIMITS, number)),
        GuardAct::Bpf => Some(named("BPF_", &BPF_COMMANDS, number)),
        GuardAct::RawSocket => Some(packets(number & 0xffff)),
        GuardAct::Keys => Some(if number == TIOCSTI { "TIOCSTI" } else { "TIOCLINUX" }.to_owned()),
        _ => None,
    }
}

/// The command of `ioctl` for one key; the other one is for consoles.
const TIOCSTI: u32 = 0x5412;

fn named(prefix: &str, names: &[&str], number: u32) -> String {
    match usize::try_from(number).ok().and_then(|index| names.get(index)) {
        Some(name) => format!("{prefix}{name}"),
        None => number.to_string(),
    }
}

fn packets(family: u32) -> String {
    match family {
        2 => "ipv4".to_owned(),
        10 => "ipv6".to_owned(),
        17 => "packet".to_owned(),
        44 => "xdp".to_owned(),
        other => format!("family-{other}"),
    }
}

/// Limits by number, as on x86-64 and arm64.
const LIMITS: [&str; 16] = [
    "CPU",
    "FSIZE",
    "DATA",
    "STACK",
    "CORE",
    "RSS",
    "NPROC",
    "NOFILE",
    "MEMLOCK",
    "AS",
    "LOCKS",
    "SIGPENDING",
    "MSGQUEUE",
    "NICE",
    "RTPRIO",
    "RTTIME",
];

/// Commands of `bpf` by number (`enum bpf_cmd`).
const BPF_COMMANDS: [&str; 37] = [
    "MAP_CREATE",
    "MAP_LOOKUP_ELEM",
    "MAP_UPDATE_ELEM",
    "MAP_DELETE_ELEM",
    "MAP_GET_NEXT_KEY",
    "PROG_LOAD",
    "OBJ_PIN",
    "OBJ_GET",
    "PROG_ATTACH",
    "PROG_DETACH",
    "PROG_TEST_RUN",
    "PROG_GET_NEXT_ID",
    "MAP_GET_NEXT_ID",
    "PROG_GET_FD_BY_ID",
    "MAP_GET_FD_BY_ID",
    "OBJ_GET_INFO_BY_FD",
    "PROG_QUERY",
    "RAW_TRACEPOINT_OPEN",
    "BTF_LOAD",
    "BTF_GET_FD_BY_ID",
    "TASK_FD_QUERY",
    "MAP_LOOKUP_AND_DELETE_ELEM",
    "MAP_FREEZE",
    "BTF_GET_NEXT_ID",
    "MAP_LOOKUP_BATCH",
    "MAP_LOOKUP_AND_DELETE_BATCH",
    "MAP_UPDATE_BATCH",
    "MAP_DELETE_BATCH",
    "LINK_CREATE",
    "LINK_UPDATE",
    "LINK_GET_FD_BY_ID",
    "LINK_GET_NEXT_ID",
    "ENABLE_STATS",
    "ITER_CREATE",
    "LINK_DETACH",
    "PROG_BIND_MAP",
    "TOKEN_CREATE",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Guard;

    #[test]
    fn the_words_are_in_the_order_of_the_numbers() {
        for guard in Guard::ALL {
            let (name, reason) = WORDS[guard.number() as usize];
            assert_eq!(name, guard.as_str());
            assert!(reason.contains(&format!("`{name}`")));
        }
        assert_eq!(WORDS[guard::OWN as usize].0, "agentwatch");
        assert_eq!(Guard::ALL.len() + 1, WORDS.len());
    }

    #[test]
    fn an_act_is_told_with_its_target() {
        let act = GuardRecord {
            target_start_ns: 7,
            target_pid: 42,
            detail: 9,
            act: GuardAct::Signal,
            guard: guard::SIGNAL as u8,
            path: PathText::default(),
            path_fs: PathText::default(),
        };
        let told = describe(&act);
        assert_eq!((told.act.as_str(), told.detail.as_deref()), ("signal", Some("9")));
        assert_eq!((told.pid, told.start_time), (Some(42), Some(7)));
        assert_eq!((kind_of(&act), file_of(&act, &Mounts::default())), (Some(Kind::GuardSignal), None));
        let bpf = GuardRecord { act: GuardAct::Bpf, detail: 5, target_pid: 0, ..act };
        assert_eq!(describe(&bpf).detail.as_deref(), Some("BPF_PROG_LOAD"));
        assert_eq!(describe(&bpf).pid, None);
        let newer = GuardRecord { detail: 99, ..bpf };
        assert_eq!(describe(&newer).detail.as_deref(), Some("99"));
        assert_eq!(kind_of(&GuardRecord { guard: 200, ..act }), None);
    }
}
