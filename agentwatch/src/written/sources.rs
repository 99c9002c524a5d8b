//! Which programs run what they read, by which endings such files are known, and which start programs for whoever asks.

use agentwatch_common::maps::source;

/// Interpreters, crons and delegates: their names without version, what kind they are, and why they are here.
const PROGRAMS: &[(&str, u32, &str)] = &[
    ("sh", source::SHELL, "a shell runs whatever file it is given or told to source, however that is called"),
    ("bash", source::SHELL, "as `sh`; reads `.bashrc`, `.profile` and their like at its start"),
    ("dash", source::SHELL, "is `sh` on Debian"),
    ("ash", source::SHELL, "is `sh` on Alpine, where it is no link"),
    ("busybox", source::SHELL, "holds a shell, and is all that the kernel tells of it"),
    ("zsh", source::SHELL, "as `bash`, with `.zshrc` and functions in files without an ending"),
    ("ksh", source::SHELL, "as `sh`"),
    ("mksh", source::SHELL, "as `sh`"),
    ("csh", source::SHELL, "as `sh`"),
    ("tcsh", source::SHELL, "as `sh`"),
    ("fish", source::SHELL, "as `sh`, with functions in files"),
    ("atd", source::SHELL, "has a process for each job, which opens what it is to run and becomes a shell"),
    (
        "python",
        source::INTERPRETER,
        "runs modules that it imports, and `.pth` files at its start; reads data too",
    ),
    ("pypy", source::INTERPRETER, "as `python`"),
    ("perl", source::INTERPRETER, "runs modules and required files; reads data too"),
    ("ruby", source::INTERPRETER, "runs required files, `Rakefile` and `Gemfile`; reads data too"),
    ("node", source::INTERPRETER, "runs required and imported modules; reads data too"),
    ("nodejs", source::INTERPRETER, "is `node` on Debian of old"),
    ("bun", source::INTERPRETER, "as `node`"),
    ("deno", source::INTERPRETER, "as `node`"),
    ("php", source::INTERPRETER, "runs included files; reads data too"),
    ("lua", source::INTERPRETER, "runs required files; reads data too"),
    ("luajit", source::INTERPRETER, "as `lua`"),
    ("tclsh", source::INTERPRETER, "runs sourced files; reads data too"),
    ("awk", source::INTERPRETER, "runs programs by `-f`; reads data mostly"),
    ("gawk", source::INTERPRETER, "as `awk`"),
    ("mawk", source::INTERPRETER, "as `awk`"),
    ("make", source::INTERPRETER, "runs the recipes of makefiles; looks at all else by its time alone"),
    ("gmake", source::INTERPRETER, "as `make`"),
    ("java", source::INTERPRETER, "runs classes, mostly out of archives; reads data too"),
    ("R", source::INTERPRETER, "runs sourced files and `.Rprofile`; reads data too"),
    ("Rscript", source::INTERPRETER, "as `R`"),
    ("cron", source::CRON, "has a shell run the lines of its tables"),
    ("crond", source::CRON, "is `cron` of other distributions"),
    ("fcron", source::CRON, "as `cron`"),
    ("anacron", source::CRON, "as `cron`, for hosts that are off at times"),
    ("systemd", source::ON_BUS, "starts units and transient ones, as process 1 and for each user"),
    ("dbus-daemon", source::DELEGATE, "starts services, and passes on what others are asked"),
    ("dbus-broker", source::DELEGATE, "passes on what others are asked, its launcher included"),
    ("dbus-broker-launch", source::ON_BUS, "asks systemd for services"),
    ("dockerd", source::ENGINE, "passes on to containerd what its clients ask"),
    ("containerd", source::ENGINE, "starts a shim for each container, which is followed"),
    ("containerd-shim", source::ENGINE, "starts what is asked for inside its container, as of `docker exec`"),
    ("containerd-shim-runc-v", source::ENGINE, "as `containerd-shim`, which it followed"),
    ("containerd-shim-runsc-v", source::ENGINE, "as `containerd-shim`, for gVisor"),
    ("crio", source::ENGINE, "starts containers"),
    ("podman", source::ENGINE, "starts containers where it runs as a service"),
    ("buildkitd", source::ENGINE, "runs the steps of builds"),
    ("libvirtd", source::ENGINE, "starts virtual machines"),
    ("virtqemud", source::ENGINE, "as `libvirtd`"),
    ("lxd", source::ENGINE, "starts containers"),
    ("incusd", source::ENGINE, "as `lxd`"),
    ("snapd", source::ENGINE, "runs hooks of packages"),
    ("supervisord", source::DELEGATE, "starts services, where it is a program of its own"),
    ("tmux", source::DELEGATE, "its server starts what windows show"),
    ("screen", source::DELEGATE, "as `tmux`"),
    ("zellij", source::DELEGATE, "as `tmux`"),
    ("dtach", source::DELEGATE, "as `tmux`, for one program"),
    ("abduco", source::DELEGATE, "as `dtach`"),
];

/// What follows the last dot of a program's name, or all of a name without a dot.
const TEXTS: &[&str] = &[
    "py",
    "pyc",
    "pyw",
    "pth",
    "pyz",
    "js",
    "mjs",
    "cjs",
    "jsx",
    "ts",
    "mts",
    "cts",
    "tsx",
    "rb",
    "rake",
    "gemspec",
    "Rakefile",
    "Gemfile",
    "pl",
    "pm",
    "t",
    "PL",
    "lua",
    "php",
    "phar",
    "inc",
    "tcl",
    "awk",
    "mk",
    "mak",
    "Makefile",
    "makefile",
    "GNUmakefile",
    "class",
    "jar",
    "war",
    "R",
    "r",
    "Rprofile",
];

/// The same of data that shells read: histories of theirs, and what `while read` goes through. A shell's `.txt` counts, as
/// nothing keeps a script from that name.
const DATA: &[&str] = &[
    "bash_history",
    "fish_history",
    "cache",
    "mo",
    "zsh_history",
    "history",
    "sh_history",
    "csv",
    "tsv",
    "json",
    "jsonl",
    "yaml",
    "yml",
    "xml",
    "md",
    "html",
    "log",
    "out",
    "gz",
    "xz",
    "zst",
    "zip",
    "tar",
    "png",
    "jpg",
    "pdf",
    "sqlite",
    "db",
    "lock",
    "pid",
];

/// Whole names of what the C library and shells' own line editing read in every process: who installs a package or makes a
/// user writes them, and every shell of the host that begins after that would be caused.
const NAMES: &[&str] = &[
    "passwd",
    "group",
    "shadow",
    "hosts",
    "services",
    "protocols",
    "networks",
    "nsswitch.conf",
    "resolv.conf",
    "host.conf",
    "gai.conf",
    "ld.so.preload",
    "ld.so.conf",
    "localtime",
    "timezone",
    "locale-archive",
    "locale.alias",
    "LC_ADDRESS",
    "LC_COLLATE",
    "LC_CTYPE",
    "LC_IDENTIFICATION",
    "LC_MEASUREMENT",
    "SYS_LC_MESSAGES",
    "LC_MONETARY",
    "LC_NAME",
    "LC_NUMERIC",
    "LC_PAPER",
    "LC_TELEPHONE",
    "LC_TIME",
    "inputrc",
    ".inputrc",
];

/// Keys and values of the kernel's table.
pub fn sources() -> impl Iterator<Item = (u64, u32)> {
    let key = |begin: u64, name: &str| name.bytes().fold(begin, source::with);
    let programs = PROGRAMS.iter().map(move |(name, kind, _)| (key(source::PROGRAM, name), *kind));
    let texts = TEXTS.iter().map(move |ending| (key(source::ENDING, ending), source::TEXT));
    let data = DATA.iter().map(move |ending| (key(source::ENDING, ending), source::DATA));
    let names = NAMES.iter().map(move |name| (key(source::NAME, name), source::DATA));
    programs.chain(texts).chain(data).chain(names)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use agentwatch_common::limits::SOURCES;

    use super::*;

    #[test]
    fn keys_differ_and_fit() {
        let all: Vec<_> = sources().collect();
        let keys: BTreeMap<u64, u32> = all.iter().copied().collect();
        assert_eq!(keys.len(), all.len(), "two names share a key");
        assert!(all.len() <= SOURCES as usize);
        for (name, _, why) in PROGRAMS {
            assert!(!why.is_empty() && !name.bytes().any(source::ends_program), "{name}");
        }
        assert!(TEXTS.iter().chain(DATA).all(|ending| !ending.contains('.')));
    }
}
