//! Files that others run lines of, or start programs by, and that are no programs: tables of cron, and units of systemd.

use std::collections::BTreeSet;

use agentwatch_common::maps::{job, source};

/// What a file of jobs is, by its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Lines of a user.
    Crontab,
    /// Lines of the host, which name a user each.
    SystemCrontab,
    /// Lines of a period, a delay, a name and a command.
    Anacrontab,
    /// A unit, or part of one.
    Unit,
}

/// Folders of units. What of them is a home, whose it may be, is `*`.
const UNITS: &[&[&str]] = &[
    &["etc", "systemd", "system"],
    &["etc", "systemd", "user"],
    &["run", "systemd", "system"],
    &["run", "systemd", "user"],
    &["lib", "systemd", "system"],
    &["usr", "lib", "systemd", "system"],
    &["usr", "lib", "systemd", "user"],
    &["usr", "local", "lib", "systemd", "system"],
    &["usr", "local", "lib", "systemd", "user"],
    &["root", ".config", "systemd", "user"],
    &["root", ".local", "share", "systemd", "user"],
    &["home", "*", ".config", "systemd", "user"],
    &["home", "*", ".local", "share", "systemd", "user"],
    &["run", "user", "*", "systemd", "user"],
    &["run", "systemd", "generator"],
    &["run", "systemd", "generator.early"],
    &["run", "systemd", "generator.late"],
    &["run", "user", "*", "systemd", "generator"],
    &["run", "user", "*", "systemd", "generator.early"],
    &["run", "user", "*", "systemd", "generator.late"],
    &["run", "systemd", "transient"],
    &["run", "user", "*", "systemd", "transient"],
];

/// Units that start programs, and those that start such a unit: what names it there.
const STARTED: &[&str] = &[".service", ".socket", ".mount", ".swap"];
const STARTING: &[(&str, &str)] = &[(".timer", "Unit"), (".path", "Unit"), (".socket", "Service")];

impl Table {
    /// Of a path in the host's own name space.
    #[must_use]
    pub fn at(path: &str) -> Option<Self> {
        let names: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        match names.as_slice() {
            ["etc", "crontab"] | ["etc", "cron.d", _] => Some(Self::SystemCrontab),
            ["etc", "anacrontab"] => Some(Self::Anacrontab),
            ["var", "spool", "cron", _] | ["var", "spool", "cron", "crontabs", _] => Some(Self::Crontab),
            _ => unit_at(path).map(|_| Self::Unit),
        }
    }

    /// Whether systemd itself writes what is at this path, for whoever asks it.
    #[must_use]
    pub fn is_transient(path: &str) -> bool {
        path.starts_with("/run/") && path.contains("/systemd/transient/")
    }

    /// Whether each of its jobs is its own, so that one that was there before is nobody's.
    #[must_use]
    pub const fn has_lines(self) -> bool {
        !matches!(self, Self::Unit)
    }

    /// Keys of the jobs that a file makes: see [`agentwatch_common::maps::job`].
    #[must_use]
    pub fn keys(self, path: &str, text: &[u8]) -> BTreeSet<u64> {
        let lines = text.split(|byte| *byte == b'\n');
        let of_cron =
            |line, more| [false, true].map(|halves| cron_command(line, more, halves)).into_iter().flatten();
        match self {
            Self::Unit => units(path, text).iter().map(|name| unit_key(name)).collect(),
            Self::Crontab => lines.flat_map(|line| of_cron(line, 0)).map(line_key).collect(),
            Self::SystemCrontab => lines.flat_map(|line| of_cron(line, 1)).map(line_key).collect(),
            Self::Anacrontab => lines.filter_map(|line| behind(line, 3)).map(line_key).collect(),
        }
    }
}

/// The unit that a file is, or is a part of, by its path.
fn unit_at(path: &str) -> Option<&str> {
    let names: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    let is_folder = |folder: &[&str]| {
        UNITS.iter().any(|units| {
            units.len() == folder.len()
                && units.iter().zip(folder).all(|(unit, name)| *unit == "*" || unit == name)
        })
    };
    match names.as_slice() {
        [folder @ .., part, name] if is_folder(folder) && name.ends_with(".conf") => part.strip_suffix(".d"),
        [folder @ .., name] if is_folder(folder) => Some(*name),
        _ => None,
    }
    .filter(|name| is_unit(name))
}

fn is_unit(name: &str) -> bool {
    STARTED.iter().chain(STARTING.iter().map(|(kind, _)| kind)).any(|kind| name.ends_with(kind))
}

/// Names of the units whose programs a file has a part in.
fn units(path: &str, text: &[u8]) -> BTreeSet<String> {
    let Some(unit) = unit_at(path) else { return BTreeSet::new() };
    let mut all = BTreeSet::new();
    if STARTED.iter().any(|kind| unit.ends_with(kind)) {
        all.insert(unit.to_owned());
    }
    for (kind, names) in STARTING {
        let Some(stem) = unit.strip_suffix(kind) else { continue };
        let named: Vec<String> =
            text.split(|byte| *byte == b'\n').filter_map(|line| value(line, names)).collect();
        if named.is_empty() {
            all.insert(format!("{stem}.service"));
        }
        all.extend(named);
    }
    all
}

/// What a line of a unit says of a name.
fn value(line: &[u8], name: &str) -> Option<String> {
    let (said, value) = std::str::from_utf8(line).ok()?.split_once('=')?;
    (said.trim() == name && !value.trim().is_empty()).then(|| value.trim().to_owned())
}

/// The command of a line of a table, with `more` words between the times and it; none where it is a comment, or sets a
/// variable. What follows a `%` without a backslash is for the command to read. Of two backslashes some crons make one, which is
/// said by `halves`.
fn cron_command(line: &[u8], more: usize, halves: bool) -> Option<Vec<u8>> {
    let first = line.trim_ascii_start().first()?;
    let words = match first {
        b'@' => 1 + more,
        b'0'..=b'9' | b'*' | b'-' | b'~' => 5 + more,
        _ => return None,
    };
    let rest = behind(line, words)?;
    let mut command = Vec::new();
    let mut escaped = false;
    for byte in rest {
        if byte == b'%' && !escaped {
            break;
        }
        if escaped && (byte == b'%' || halves && byte == b'\\') {
            command.pop();
        }
        command.push(byte);
        escaped = byte == b'\\' && !escaped;
    }
    (!command.is_empty()).then_some(command)
}

/// What follows so many words.
fn behind(line: &[u8], words: usize) -> Option<Vec<u8>> {
    let mut rest = line.trim_ascii_start();
    for _ in 0..words {
        let end = rest.iter().position(u8::is_ascii_whitespace)?;
        rest = rest.get(end..)?.trim_ascii_start();
    }
    (!rest.is_empty() && rest.first() != Some(&b'#')).then(|| rest.to_vec())
}

/// The key of a command. One that is longer than the kernel looks at is never found there.
fn line_key(command: Vec<u8>) -> u64 {
    command.into_iter().fold(job::LINE, source::with)
}

/// The key of a unit.
fn unit_key(name: &str) -> u64 {
    let len = name.bytes().position(|byte| byte == job::OF_TEMPLATE).map_or(name.len(), |at| at + 1);
    name.bytes().take(len).fold(job::UNIT, source::with)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str, more: usize) -> Option<String> {
        cron_command(line.as_bytes(), more, false).map(|command| String::from_utf8(command).unwrap())
    }

    #[test]
    fn lines_give_what_the_shell_is_given() {
        assert_eq!(command("* * * * * echo x > /tmp/y", 0).as_deref(), Some("echo x > /tmp/y"));
        assert_eq!(command("  */5 1-3\t* * 1  true  ", 0).as_deref(), Some("true  "));
        assert_eq!(command("@reboot root /bin/x y", 1).as_deref(), Some("/bin/x y"));
        assert_eq!(command("0 4 * * * root  run", 1).as_deref(), Some("run"));
        assert_eq!(command(r"0 4 * * * date +\%F%input%more", 0).as_deref(), Some("date +%F"));
        assert_eq!(command(r"0 4 * * * echo \n", 0).as_deref(), Some(r"echo \n"));
        assert_eq!(command(r"0 4 * * * echo \\%x", 0).as_deref(), Some(r"echo \\"));
        assert_eq!(cron_command(br"0 4 * * * echo \\%x", 0, true), Some(br"echo \".to_vec()));
        for none in
            ["", "# 0 4 * * * x", "MAILTO=me", "SHELL = /bin/sh", "0 4 * * *", "0 4 * * * ", "0 4 * * * %x"]
        {
            assert_eq!(command(none, 0), None, "{none}");
        }
    }

    #[test]
    fn tables_are_known_by_their_paths() {
        for (path, table) in [
            ("/etc/crontab", Some(Table::SystemCrontab)),
            ("/etc/cron.d/job", Some(Table::SystemCrontab)),
            ("/etc/cron.daily/job", None),
            ("/etc/anacrontab", Some(Table::Anacrontab)),
            ("/var/spool/cron/crontabs/root", Some(Table::Crontab)),
            ("/var/spool/cron/root", Some(Table::Crontab)),
            ("/var/spool/cron/atjobs/a1", None),
            ("/etc/systemd/system/x.service", Some(Table::Unit)),
            ("/etc/systemd/system/x.service.d/o.conf", Some(Table::Unit)),
            ("/etc/systemd/system/x.service.d/o.txt", None),
            ("/etc/systemd/system/x.target", None),
            ("/etc/systemd/system/x.wants/y.service", None),
            ("/home/me/.config/systemd/user/x.timer", Some(Table::Unit)),
            ("/run/systemd/transient/run-u1.timer", Some(Table::Unit)),
            ("/run/systemd/generator.late/x.service", Some(Table::Unit)),
            ("/run/user/1000/systemd/transient/x.service", Some(Table::Unit)),
            ("/home/me/src/systemd/user/x.timer", None),
            ("/srv/image/etc/systemd/system/x.service", None),
            ("etc/crontab", None),
        ] {
            assert_eq!(Table::at(path), table, "{path}");
        }
    }

    fn keys(path: &str, text: &str) -> BTreeSet<u64> {
        Table::at(path).unwrap().keys(path, text.as_bytes())
    }

    #[test]
    fn units_stand_for_what_they_start() {
        let of = |names: &[&str]| names.iter().map(|name| unit_key(name)).collect::<BTreeSet<_>>();
        let system = |name: &str| format!("/etc/systemd/system/{name}");
        assert_eq!(keys(&system("x.service"), ""), of(&["x.service"]));
        assert_eq!(keys(&system("x.service.d/o.conf"), ""), of(&["x.service"]));
        assert_eq!(keys(&system("x.timer"), "[Timer]\nOnBootSec=5\n"), of(&["x.service"]));
        assert_eq!(keys(&system("x.timer"), "[Timer]\n Unit = y.service \n"), of(&["y.service"]));
        assert_eq!(keys(&system("x.socket"), ""), of(&["x.socket", "x.service"]));
        assert_eq!(unit_key("x@.service"), unit_key("x@1.service"));
        assert_ne!(unit_key("x@.service"), unit_key("x.service"));
    }

    #[test]
    fn a_table_has_a_key_for_each_command() {
        let text = "SHELL=/bin/sh\n# no\n0 4 * * * root a b\n@daily root c\n0 5 * * * root a b\n";
        let of = ["a b", "c"].map(|command| line_key(command.as_bytes().to_vec()));
        assert_eq!(keys("/etc/cron.d/x", text), BTreeSet::from(of));
        let text = "START_HOURS_RANGE=3-22\n1\t5\tcron.daily\tnice run-parts /etc/cron.daily\n";
        let of = [line_key(b"nice run-parts /etc/cron.daily".to_vec())];
        assert_eq!(keys("/etc/anacrontab", text), BTreeSet::from(of));
    }
}
