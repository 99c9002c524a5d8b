//! What this kernel can do for agentwatch, as a type: `doctor` and every claim come from it.

use serde::Serialize;

use super::probes::{PROBES, Probe};
use crate::{
    event::{Kind, Op},
    policy::{Guard, Mode},
};

/// Name of the ability to judge at all.
pub const RULES: &str = "rules";
/// Name of the ability to learn what sessions are told that names stand for.
pub const LEARNING: &str = "names as sessions are told them";

/// How well something works here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As documented.
    Full,
    /// Works, but for what the reason names.
    Degraded,
    /// Does not work.
    Absent,
}

/// One thing that agentwatch does, and how well it works here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ability {
    /// What it is, such as `file.open`.
    pub name: String,
    /// How well it works.
    pub state: State,
    /// Why not fully, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Ability {
    /// Its name with the reason.
    fn named(&self) -> String {
        match &self.reason {
            Some(reason) => format!("{} ({reason})", self.name),
            None => self.name.clone(),
        }
    }
}

/// What deciding about an operation rests on, by the names that [`super::probes`] gives.
const fn needed_for(op: Op) -> &'static [&'static str] {
    match op {
        Op::Exec => &["rules on programs", "rules on programs that others load"],
        Op::Run => &["sessions by program"],
        Op::Read => &["file.open", "file.receive"],
        Op::Write => &[
            "file.open",
            "file.receive",
            "file.create",
            "file.mkdir",
            "file.rename",
            "file.link",
            "file.symlink",
            "file.truncate",
            "file.truncate of open files",
            "file.mode",
            "file.owner",
            "file.xattr",
            "file.xattr removal",
            "file.xattr of access control lists",
            "file.times",
            "file.flags",
        ],
        Op::Delete => {
            &["file.open", "file.delete", "file.rmdir", "file.rename", "file.link", "file.truncate"]
        }
        Op::Connect => &[
            "net.connect",
            "net.send",
            "net.receive",
            "net.connect to Unix sockets",
            "net.send to Unix sockets",
        ],
        Op::Listen => &["net.bind", "net.listen"],
    }
}

/// What is about Unix sockets alone, by the end of its name.
const UNIX: &str = "Unix sockets";

/// The kernel's hooks at which an operation is decided about; for connections those of Unix sockets, or of all others.
#[must_use]
pub fn hooks_for(op: Op, is_unix: bool) -> Vec<&'static str> {
    let of_family = |gives: &str| op != Op::Connect || gives.ends_with(UNIX) == is_unix;
    hooks(|probe| needed_for(op).contains(&probe.gives) && of_family(probe.gives))
}

/// The kernel's hooks at which a kind of event is made and decided about.
#[must_use]
pub fn hooks_of(kind: Kind, op: Option<Op>, is_unix: bool) -> Vec<&'static str> {
    let name = kind.name();
    let exact = match (kind, op) {
        (Kind::ProcessExec, Some(Op::Run)) => "sessions by program",
        (Kind::ProcessExec, _) => "rules on programs",
        (Kind::FileMap, _) => "rules on programs that others load",
        (Kind::ProcessFork, _) => "refusal of children that cannot be followed",
        _ => name,
    };
    let of_guard = name.strip_prefix("guard.");
    hooks(|probe| {
        // What is named after the kind can be said more closely.
        let closer = |gives: &str| gives.strip_prefix(name).is_some_and(|rest| rest.starts_with(' '));
        let of_name = probe.gives == exact || exact == name && closer(probe.gives);
        let of_family = !name.starts_with("net.") || probe.gives.ends_with(UNIX) == is_unix;
        of_name && of_family || of_guard.is_some() && guard_of(probe.gives) == of_guard
    })
}

fn hooks(is_meant: impl Fn(&Probe) -> bool) -> Vec<&'static str> {
    let mut all = Vec::new();
    for probe in PROBES.iter().filter(|probe| is_meant(probe)) {
        if !all.contains(&probe.hook) {
            all.push(probe.hook);
        }
    }
    all
}

/// The guard that an ability is about, by its name.
fn guard_of(ability: &str) -> Option<&str> {
    ability.strip_prefix("guard ")
}

fn is_among(guards: &[Guard], name: &str) -> bool {
    guards.iter().any(|guard| guard.as_str() == name)
}

/// All that agentwatch does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Abilities(pub Vec<Ability>);

impl Abilities {
    /// Notes that something works.
    pub fn full(&mut self, name: impl Into<String>) {
        self.note(name, State::Full, None);
    }

    /// Notes that something works in part, and why.
    pub fn degraded(&mut self, name: impl Into<String>, reason: impl Into<String>) {
        self.note(name, State::Degraded, Some(reason.into()));
    }

    /// Notes that something does not work, and why.
    pub fn absent(&mut self, name: impl Into<String>, reason: impl Into<String>) {
        self.note(name, State::Absent, Some(reason.into()));
    }

    /// The worse of two notes on the same thing stays.
    fn note(&mut self, name: impl Into<String>, state: State, reason: Option<String>) {
        let name = name.into();
        match self.0.iter_mut().find(|known| known.name == name) {
            Some(known) if known.state == State::Full => {
                known.state = state;
                known.reason = reason;
            }
            Some(_) => {}
            None => self.0.push(Ability { name, state, reason }),
        }
    }

    /// What the rules of agents in this mode and these guards need and does not work here, with the reasons; nothing where
    /// all is there.
    #[must_use]
    pub fn lacking_for_mode(&self, mode: Mode, guards: &[Guard]) -> Option<String> {
        let needed = |ability: &&Ability| {
            ability.state == State::Absent
                && match mode {
                    Mode::Observe => false,
                    Mode::Recommend => ability.name == RULES,
                    Mode::Approve | Mode::Enforce | Mode::Plan => {
                        !ability.name.starts_with("sessions by")
                            && ability.name != "vsock"
                            && ability.name != LEARNING
                            && guard_of(&ability.name).is_none_or(|name| is_among(guards, name))
                    }
                }
        };
        let lacking: Vec<String> = self.0.iter().filter(needed).map(Ability::named).collect();
        (!lacking.is_empty()).then(|| lacking.join("; "))
    }

    /// Why a guard does not work here; nothing where it does. What guards rest on besides, rules do too.
    #[must_use]
    pub fn lacking_for_guard(&self, guard: Guard) -> Option<String> {
        let own = |name: &str| name == RULES || guard_of(name) == Some(guard.as_str());
        let mut absent = self.0.iter().filter(|ability| ability.state == State::Absent);
        absent.find(|ability| own(&ability.name)).map(Ability::named)
    }

    /// Why nothing is learned of what sessions are told that names stand for; nothing where it is.
    #[must_use]
    pub fn lacking_for_learning(&self) -> Option<&str> {
        let absent = self.0.iter().find(|one| one.name == LEARNING && one.state == State::Absent)?;
        Some(absent.reason.as_deref().unwrap_or("it does not work here"))
    }

    /// What deciding about an operation needs and does not work here, with the reasons; nothing where all is there.
    #[must_use]
    pub fn lacking_for(&self, op: Op) -> Option<String> {
        let lacking: Vec<String> = (self.0.iter())
            .filter(|ability| {
                ability.state == State::Absent
                    && (ability.name == RULES || needed_for(op).contains(&ability.name.as_str()))
            })
            .map(Ability::named)
            .collect();
        (!lacking.is_empty()).then(|| lacking.join("; "))
    }

    /// True where everything works fully.
    #[must_use]
    pub fn all_full(&self) -> bool {
        self.0.iter().all(|ability| ability.state == State::Full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_decided_about_has_hooks() {
        assert_eq!(hooks_for(Op::Run, false), ["bprm_committed_creds"]);
        assert_eq!(hooks_for(Op::Read, false), ["file_open", "file_receive"]);
        assert_eq!(hooks_for(Op::Connect, true), ["unix_stream_connect", "unix_may_send"]);
        assert_eq!(hooks_for(Op::Connect, false), ["socket_connect", "socket_sendmsg", "file_receive"]);
        for op in Op::ALL {
            assert!(!hooks_for(*op, false).is_empty(), "{op:?}");
        }
        assert_eq!(hooks_of(Kind::FileDelete, Some(Op::Delete), false), ["path_unlink"]);
        assert_eq!(hooks_of(Kind::FileTruncate, Some(Op::Write), false), ["path_truncate", "file_truncate"]);
        assert_eq!(hooks_of(Kind::NetConnect, Some(Op::Connect), false), ["socket_connect"]);
        assert_eq!(hooks_of(Kind::NetConnect, Some(Op::Connect), true), ["unix_stream_connect"]);
        assert_eq!(hooks_of(Kind::ProcessExec, Some(Op::Run), false), ["bprm_committed_creds"]);
        assert_eq!(hooks_of(Kind::ProcessExec, Some(Op::Exec), false), ["bprm_check_security"]);
        assert_eq!(hooks_of(Kind::GuardPtrace, None, false), ["ptrace_access_check"]);
        assert!(hooks_of(Kind::DaemonStart, None, false).is_empty());
    }

    #[test]
    fn what_operations_rest_on_has_the_names_of_probes() {
        for name in Op::ALL.iter().flat_map(|op| needed_for(*op)) {
            assert!(PROBES.iter().any(|probe| probe.gives == *name), "{name}");
        }
    }

    #[test]
    fn a_guard_that_does_not_work_is_lacking_only_where_it_is_on() {
        let mut abilities = Abilities::default();
        abilities.full("guard mount");
        abilities.absent("guard namespace", "no hook");
        let said = Some("guard namespace (no hook)".to_owned());
        assert_eq!(abilities.lacking_for_mode(Mode::Enforce, &[Guard::Mount]), None);
        assert_eq!(abilities.lacking_for_mode(Mode::Enforce, &Guard::ALL), said);
        assert_eq!(abilities.lacking_for_mode(Mode::Recommend, &Guard::ALL), None);
        assert_eq!(abilities.lacking_for_guard(Guard::Namespace), said);
        assert_eq!(abilities.lacking_for_guard(Guard::Mount), None);
        for guard in PROBES.iter().filter_map(|probe| guard_of(probe.gives)) {
            assert!(Guard::ALL.iter().any(|known| known.as_str() == guard), "{guard}");
        }
    }

    #[test]
    fn only_what_an_operation_needs_is_lacking_for_it() {
        let mut abilities = Abilities::default();
        abilities.full("file.open");
        abilities.absent("net.bind", "no hook");
        abilities.degraded("file.truncate of open files", "seen otherwise");
        assert_eq!(abilities.lacking_for(Op::Listen).as_deref(), Some("net.bind (no hook)"));
        assert_eq!(abilities.lacking_for(Op::Write), None);
        assert_eq!(abilities.lacking_for(Op::Connect), None);
    }
}
