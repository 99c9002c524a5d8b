//! What no rule can open: the guard on delegates, and agentwatch's own files.

use std::path::Path;
use std::sync::LazyLock;

use agentwatch_common::rules::guard;

use super::address::Unix;
use super::{Address, AddressPattern, Agent, Canary, Guard, Mode, Operation, Policy, Target};
use crate::event::Op;
use crate::matcher::{GlobError, PathGlob};

/// Unix sockets of those who start programs for whoever asks. Paths are those of the sockets themselves: `/var/run` is a
/// link to `/run`.
pub const DELEGATE_SOCKETS: &[&str] = &[
    // Container engines.
    "/run/docker.sock",
    "/run/docker/*.sock",
    "/run/user/*/docker.sock",
    "/run/containerd/*.sock*",
    "/run/docker/containerd/*.sock*",
    "/run/k3s/containerd/*.sock*",
    "/run/crio/*.sock",
    "/run/podman/*.sock",
    "/run/user/*/podman/*.sock",
    "/run/buildkit/*.sock",
    "/run/user/*/buildkit/*.sock",
    "/run/libvirt/*sock*",
    "/var/lib/lxd/unix.socket",
    "/var/snap/lxd/common/lxd/unix.socket",
    "/var/lib/incus/unix.socket",
    // systemd, by itself and by D-Bus.
    "/run/systemd/private",
    "/run/user/*/systemd/private",
    "/run/dbus/system_bus_socket",
    "/run/user/*/bus",
    // Terminals that somebody else opened.
    "/tmp/tmux-*/*",
    "/run/tmux/*/*",
    "/run/user/*/tmux-*/*",
    "/run/screen/S-*/*",
    "/run/user/*/zellij/**",
];

/// Files and folders in which orders are left for cron and at.
pub const DELEGATE_SPOOLS: &[&str] = &[
    "/var/spool/cron",
    "/var/spool/at",
    "/var/spool/anacron",
    "/etc/crontab",
    "/etc/anacrontab",
    "/etc/cron.d",
    "/etc/cron.hourly",
    "/etc/cron.daily",
    "/etc/cron.weekly",
    "/etc/cron.monthly",
];

/// The list, as patterns.
static DELEGATES: LazyLock<[Vec<PathGlob>; 2]> = LazyLock::new(|| {
    // A test reads every one of them.
    let globs = |texts: &[&str]| texts.iter().filter_map(|text| PathGlob::parse(text).ok()).collect();
    [globs(DELEGATE_SOCKETS), globs(DELEGATE_SPOOLS)]
});

/// What changes a file.
pub const CHANGES: &[Op] = &[Op::Write, Op::Delete];
/// What asks somebody.
pub const ASKS: &[Op] = &[Op::Connect];
/// Both.
pub const CHANGES_AND_ASKS: &[Op] = &[Op::Write, Op::Delete, Op::Connect];

/// agentwatch's own files and sockets, which the daemon knows: empty where there is no daemon.
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// What no session changes.
    pub files: Vec<PathGlob>,
    /// The folders above them, which no session moves away: another in their place would be another policy.
    pub folders: Vec<PathGlob>,
    /// To what no session connects.
    pub sockets: Vec<PathGlob>,
    /// Where every session may declare things, whatever its agent's default is and was declared for it: it only narrows.
    pub open_sockets: Vec<PathGlob>,
    /// What the self-test is about.
    pub canary: Canary,
}

impl Own {
    /// Whether an operation is to declare something.
    pub(super) fn is_open(&self, operation: &Operation) -> bool {
        let Target::Address(Address::Unix(Unix::Path(path))) = &operation.target else { return false };
        operation.op == Op::Connect && self.open_sockets.iter().any(|glob| glob.matches(path))
    }
}

/// A pattern for a path as it is, and for all below it.
///
/// # Errors
/// It is not absolute, not plain, not UTF-8, or too long.
pub fn literal(path: &Path) -> Result<PathGlob, GlobError> {
    PathGlob::parse(&escaped(path).collect::<String>())
}

/// A pattern for a path as it is, without what is below it.
///
/// # Errors
/// As [`literal`].
pub fn exact(path: &Path) -> Result<PathGlob, GlobError> {
    // A pattern with a wildcard, if only a class of one letter, is one for itself alone.
    let mut open = true;
    let texts = escaped(path).map(|text| {
        if open && text.chars().all(|one| one.is_ascii_alphanumeric()) {
            open = false;
            return format!("[{text}]");
        }
        text
    });
    PathGlob::parse(&texts.collect::<String>())
}

/// The characters of a path, each as what stands for it in a pattern.
fn escaped(path: &Path) -> impl Iterator<Item = String> {
    let text = path.to_str().unwrap_or_default();
    text.chars().map(|one| if "*?[]{},\\".contains(one) { format!("\\{one}") } else { one.to_string() })
}

/// What protects something whatever the rules say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// A guard.
    Guard(Guard),
    /// It is agentwatch's own.
    Own,
}

impl Protection {
    /// Its number in the kernel's tables: see [`guard`].
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Guard(guard) => guard.number(),
            Self::Own => guard::OWN,
        }
    }
}

impl Protection {
    /// What events name as the rule.
    #[must_use]
    pub fn rule_name(self) -> String {
        let name = match self {
            Self::Guard(guard) => guard.as_str(),
            Self::Own => "agentwatch",
        };
        format!("guard: {name}")
    }
}

/// Paths and addresses that are protected from some operations of an agent.
#[derive(Clone, Copy, Debug)]
pub struct Protected<'p> {
    /// By what.
    pub by: Protection,
    /// From what.
    pub ops: &'static [Op],
    /// Paths.
    pub paths: &'p [PathGlob],
    /// More of them, as the policy has them.
    pub more: &'p [AddressPattern],
}

impl<'p> Protected<'p> {
    /// All paths.
    pub fn globs(&self) -> impl Iterator<Item = &'p PathGlob> + use<'p> {
        self.paths.iter().chain(self.more.iter().filter_map(AddressPattern::path))
    }

    fn covers(&self, operation: &Operation) -> bool {
        let path = |path: &[u8]| self.globs().any(|glob| glob.matches(path));
        self.ops.contains(&operation.op)
            && match &operation.target {
                Target::Path(target) => path(target),
                Target::Address(address) => {
                    // A path in `paths` reads the same as an address.
                    let here = match address {
                        Address::Unix(Unix::Path(target)) => path(target),
                        _ => false,
                    };
                    here || self.more.iter().any(|pattern| pattern.matches(address))
                }
                Target::Command(_) => false,
            }
    }
}

impl Policy {
    /// What is protected from an agent, in the order in which it is named. Nothing from one that is only observed.
    #[must_use]
    pub fn protected<'p>(&'p self, agent: &'p Agent) -> Vec<Protected<'p>> {
        if agent.spec.mode == Mode::Observe || agent.is_canary() {
            return Vec::new();
        }
        let own = |ops, paths| Protected { by: Protection::Own, ops, paths, more: &[] };
        let mut all = vec![
            own(CHANGES, self.own.files.as_slice()),
            own(&[Op::Delete], &self.own.folders),
            own(ASKS, &self.own.sockets),
        ];
        if agent.guards(Guard::Delegate) {
            let [sockets, spools] = &*DELEGATES;
            let by = Protection::Guard(Guard::Delegate);
            all.push(Protected { by, ops: ASKS, paths: sockets, more: &[] });
            all.push(Protected { by, ops: CHANGES, paths: spools, more: &[] });
            all.push(Protected { by, ops: CHANGES_AND_ASKS, paths: &[], more: &agent.delegates });
        }
        all.retain(|one| !one.paths.is_empty() || !one.more.is_empty());
        all
    }

    /// What protects the target of an operation from an agent. The operation's address must be in canonical form.
    pub(super) fn protection(&self, agent: &Agent, operation: &Operation) -> Option<Protection> {
        self.protected(agent).iter().find(|one| one.covers(operation)).map(|one| one.by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_of_the_list_can_be_read() {
        for text in DELEGATE_SOCKETS.iter().chain(DELEGATE_SPOOLS) {
            PathGlob::parse(text).unwrap_or_else(|problem| panic!("{text}: {problem}"));
        }
        assert_eq!(DELEGATES.each_ref().map(Vec::len), [DELEGATE_SOCKETS.len(), DELEGATE_SPOOLS.len()]);
    }

    #[test]
    fn a_path_stands_for_itself_and_what_is_below() {
        let glob = literal(Path::new("/srv/a[b]{c,d}*\\x")).unwrap();
        assert!(glob.matches(b"/srv/a[b]{c,d}*\\x") && glob.matches(b"/srv/a[b]{c,d}*\\x/y"));
        assert!(!glob.matches(b"/srv/abc\\x") && !glob.matches(b"/srv"));
        assert!(literal(Path::new("relative")).is_err());
        for path in ["/srv/a[b]{c,d}*\\x", "/etc", "/-/\u{e4}"] {
            let glob = exact(Path::new(path)).unwrap();
            assert!(glob.matches(path.as_bytes()), "{}", glob.text());
            assert!(path == "/-/\u{e4}" || !glob.matches(format!("{path}/y").as_bytes()), "{}", glob.text());
        }
    }
}
