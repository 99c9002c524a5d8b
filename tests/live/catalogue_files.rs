//! Ways to change or read what a rule protects, by the numbers of the catalogue.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use agentwatch::event::{Event, Kind, Verdict};
use anyhow::{Result, ensure};
use tempfile::TempDir;
use tests::compare::json_lines;
use tests::daemon::Daemon;
use tests::policy::with_policy;
use tests::session::{SessionRun, work_dir};
use tests::tries::{Refusal, all_refused, refusal, tried};

/// What is protected: a folder, one that is not there yet, a secret, and what processes of others were started with.
const PROD: &str = "/srv/aw-cat/prod";
const LATER: &str = "/srv/aw-cat/later";
const SECRET: &str = "/srv/aw-cat/secret";

const POLICY: &str = "\
version: 1
agents:
  strict: {owner: tests@example.com, mode: enforce}
rules:
  - name: prod
    agents: [strict]
    deny:
      write: [/srv/aw-cat/prod, /srv/aw-cat/later/a/b/c]
      delete: [/srv/aw-cat/prod, /srv/aw-cat/later/a/b/c]
      read: [/srv/aw-cat/secret, '/proc/*/environ']
      connect: ['127.0.0.1:54321']
";

/// The protected folder, made anew, and another one.
struct Prod {
    before: BTreeMap<PathBuf, Vec<u8>>,
    dir: TempDir,
}

impl Prod {
    /// A name that tears a careless path apart.
    const ODD: &str = "odd\n\u{1b}[2J name (deleted)";

    fn new() -> Result<Self> {
        let _ = fs::remove_dir_all(PROD);
        for folder in ["folder/deep", "empty"] {
            fs::create_dir_all(Path::new(PROD).join(folder))?;
        }
        for file in ["f", "folder/one", "folder/deep/two", Self::ODD] {
            fs::write(Path::new(PROD).join(file), format!("precious {file}\n"))?;
        }
        let dir = work_dir()?;
        fs::write(dir.path().join("other"), "other")?;
        Ok(Self { before: below(Path::new(PROD))?, dir })
    }

    /// Attempts with `P`, `F` and `W` for the folder, a file in it and the other folder.
    fn piece(&self, piece: &str) -> String {
        format!("P, F, W = '{PROD}', '{PROD}/f', '{}'\n{piece}", self.dir.path().display())
    }

    fn refusals(&self, tries: &[(&str, Kind, &str)]) -> Vec<Refusal> {
        let place = |text: &str| {
            let with = text.replace("P/", "/srv/aw-cat/prod/").replace("W/", &format!("{}/", self.work()));
            if with == "P" { PROD.to_owned() } else { with }
        };
        tries.iter().map(|(piece, kind, target)| refusal(self.piece(piece), *kind, place(target))).collect()
    }

    fn work(&self) -> String {
        self.dir.path().display().to_string()
    }

    /// Nothing of it was changed.
    fn is_whole(&self, run: &SessionRun) -> Result<()> {
        let now = below(Path::new(PROD))?;
        ensure!(now == self.before, "changed: {now:?}\n{}{}", run.stderr, json_lines(run.own()));
        Ok(())
    }

    fn check(&self, daemon: &mut Daemon, tries: &[Refusal]) -> Result<()> {
        let run = all_refused(daemon, "strict", "prod", tries)?;
        self.is_whole(&run)
    }
}

/// All that is below a folder, folders as nothing.
fn below(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            all.extend(below(&path)?);
            all.insert(path, Vec::new());
        } else {
            let bytes = fs::read(&path)?;
            all.insert(path, bytes);
        }
    }
    Ok(all)
}

/// B01, B02, B04, B05, B07, B08, B12, B13, B14, B22, F02: by every call that changes a file or its name, and every way to
/// name it.
#[test]
fn what_is_protected_is_changed_by_no_call() -> Result<()> {
    let prod = Prod::new()?;
    with_policy(POLICY, |daemon| {
        let rename = "call(libc.renameat2(-100, {}.encode(), -100, {}.encode(), 2))";
        let exchange_out = rename.replacen("{}", "F", 1).replacen("{}", "(W + '/other')", 1);
        let exchange_in = rename.replacen("{}", "(W + '/other')", 1).replacen("{}", "F", 1);
        prod.check(
            daemon,
            &prod.refusals(&[
                ("os.unlink(F)", Kind::FileDelete, "P/f"),
                ("os.unlink('f', dir_fd=os.open(P, os.O_RDONLY))", Kind::FileDelete, "P/f"),
                ("os.chdir(P + '/folder'); os.unlink('../f')", Kind::FileDelete, "P/f"),
                ("os.rmdir(P + '/empty')", Kind::FileRmdir, "P/empty"),
                ("os.rename(F, W + '/away')", Kind::FileRename, "P/f -> W/away"),
                ("os.rename(W + '/other', F)", Kind::FileRename, "W/other -> P/f"),
                ("os.rename(P + '/folder', W + '/away')", Kind::FileRename, "P/folder -> W/away"),
                (&exchange_out, Kind::FileRename, "P/f -> W/other"),
                (&exchange_in, Kind::FileRename, "W/other -> P/f"),
                ("os.truncate(F, 0)", Kind::FileTruncate, "P/f"),
                ("open(F, 'w')", Kind::FileOpen, "P/f"),
                ("os.open(F, os.O_RDONLY | os.O_TRUNC)", Kind::FileOpen, "P/f"),
                ("os.open(F, os.O_WRONLY | os.O_APPEND)", Kind::FileOpen, "P/f"),
                ("os.open(F, os.O_RDWR)", Kind::FileOpen, "P/f"),
                ("os.chmod(F, 0)", Kind::FileMode, "P/f"),
                ("os.link(F, W + '/hard')", Kind::FileLink, "P/f -> W/hard"),
                ("os.link(W + '/other', P + '/hard')", Kind::FileLink, "W/other -> P/hard"),
                ("os.symlink(F, W + '/n'); open(W + '/n', 'a')", Kind::FileOpen, "P/f"),
                (
                    "os.mkdir(W + '/r'); os.symlink(P, W + '/r/docs'); open(W + '/r/docs/f', 'a')",
                    Kind::FileOpen,
                    "P/f",
                ),
                ("open('/proc/self/root' + F, 'a')", Kind::FileOpen, "P/f"),
                ("os.open('/proc/self/fd/%d' % os.open(F, os.O_RDONLY), os.O_WRONLY)", Kind::FileOpen, "P/f"),
                ("mmap.mmap(os.open(F, os.O_RDWR), 0)", Kind::FileOpen, "P/f"),
                (
                    "os.copy_file_range(os.open(W + '/other', 0), os.open(F, os.O_WRONLY), 3)",
                    Kind::FileOpen,
                    "P/f",
                ),
                ("os.posix_fallocate(os.open(F, os.O_RDWR), 0, 9999)", Kind::FileOpen, "P/f"),
            ]),
        )?;
        odd_names(&prod, daemon)
    })
}

/// B22: a name with a line's end, an escape sequence, and what the kernel appends to names that are gone.
fn odd_names(prod: &Prod, daemon: &mut Daemon) -> Result<()> {
    let piece = r"os.unlink(P + '/odd\n\x1b[2J name (deleted)')";
    let (errors, run) = tried(daemon, "strict", &[prod.piece(piece)])?;
    let denied: Vec<&Event> = run.own().filter(|event| event.verdict == Verdict::Denied).collect();
    let [event] = denied.as_slice() else { anyhow::bail!("{errors:?} {}", json_lines(denied)) };
    let file = event.file.as_ref().map(|file| tests::compare::bytes(&file.path, file.path_encoding));
    let told = file.transpose()?.is_some_and(|path| path == format!("{PROD}/{}", Prod::ODD).as_str().into());
    ensure!(errors == [1] && told && event.kind == Kind::FileDelete, "{errors:?} {}", json_lines(denied));
    prod.is_whole(&run)
}

/// B19, B20, D14: what is protected and is not there yet, with nothing of the way to it.
#[test]
fn what_is_not_there_yet_is_not_made() -> Result<()> {
    let prod = Prod::new()?;
    let _ = fs::remove_dir_all(LATER);
    with_policy(POLICY, |daemon| {
        let made = [
            ("open(C, 'w')", Kind::FileCreate, "C"),
            ("os.mkdir(C)", Kind::FileMkdir, "C"),
            ("os.makedirs(C + '/d')", Kind::FileMkdir, "C"),
            ("os.mkfifo(C)", Kind::FileCreate, "C"),
            ("os.symlink('/etc/passwd', C)", Kind::FileSymlink, "C"),
            ("os.link(W + '/other', C)", Kind::FileLink, "W/other -> C"),
            ("os.rename(W + '/other', C)", Kind::FileRename, "W/other -> C"),
            ("socket.socket(socket.AF_UNIX).bind(C)", Kind::FileCreate, "C"),
        ];
        let tries: Vec<Refusal> = made
            .iter()
            .map(|(piece, kind, target)| {
                let target =
                    target.strip_suffix('C').unwrap_or(target).replace("W/", &format!("{}/", prod.work()));
                let target = format!("{target}{LATER}/a/b/c");
                let code = format!("C = '{LATER}/a/b/c'\nos.makedirs('{LATER}/a/b', exist_ok=True)\n{piece}");
                refusal(prod.piece(&code), *kind, target)
            })
            .collect();
        all_refused(daemon, "strict", "prod", &tries)?;
        // A file without a name gets one.
        let named = format!(
            "fd = os.open(W, os.O_TMPFILE | os.O_RDWR)\n\
             os.link('/proc/self/fd/%d' % fd, '{LATER}/a/b/c', src_dir_fd=os.open('/', 0))"
        );
        let (errors, run) = tried(daemon, "strict", &[prod.piece(&named)])?;
        let denied = run.own().filter(|event| event.verdict == Verdict::Denied);
        ensure!(errors == [1] && denied.count() == 1, "{errors:?} {}", json_lines(run.own()));
        ensure!(Path::new(LATER).join("a/b").is_dir(), "{}", json_lines(run.own()));
        ensure!(fs::read_dir(Path::new(LATER).join("a/b"))?.next().is_none(), "something was made");
        Ok(())
    })
}

/// B21, B24: what is too deep to be judged is refused; secrets are not read, nor is what others were started with.
#[test]
fn what_is_secret_or_too_deep_is_not_opened() -> Result<()> {
    let prod = Prod::new()?;
    fs::write(SECRET, "secret")?;
    with_policy(POLICY, |daemon| {
        let init = "/proc/1/environ";
        let run = all_refused(
            daemon,
            "strict",
            "prod",
            &prod.refusals(&[
                ("open('/srv/aw-cat/secret').read()", Kind::FileOpen, SECRET),
                ("os.open('/srv/aw-cat/secret', os.O_RDWR)", Kind::FileOpen, SECRET),
                ("os.open('/srv/aw-cat/secret', 3)", Kind::FileOpen, SECRET),
                ("open('/proc/1/root/srv/aw-cat/secret')", Kind::FileOpen, SECRET),
                ("os.link('/srv/aw-cat/secret', W + '/s')", Kind::FileLink, &format!("{SECRET} -> W/s")),
                ("os.rename('/srv/aw-cat/secret', W + '/s')", Kind::FileRename, &format!("{SECRET} -> W/s")),
                ("open('/proc/1/environ')", Kind::FileOpen, init),
            ]),
        )?;
        ensure!(Path::new(SECRET).exists(), "{}", json_lines(run.own()));
        // 200 folders of which no rule speaks: nobody can say whether one does.
        let deep = "os.chdir(W)\nfor _ in range(200):\n    os.mkdir('d')\n    os.chdir('d')\n";
        let (errors, run) = tried(daemon, "strict", &[prod.piece(deep)])?;
        let denied: Vec<&Event> = run.own().filter(|event| event.verdict == Verdict::Denied).collect();
        let [event] = denied.as_slice() else { anyhow::bail!("{errors:?} {}", json_lines(denied)) };
        let cut = event.file.as_ref().is_some_and(|file| file.path_truncated);
        ensure!(errors == [1] && cut && event.kind == Kind::FileMkdir, "{errors:?} {}", json_lines(denied));
        ensure!(
            event.rule.as_deref() == Some("undecided") && event.reason.is_some(),
            "{}",
            json_lines(denied)
        );
        Ok(())
    })
}

/// Programs that delete or overwrite, each with its own way to do so.
const TOOLS: [(&str, &str); 17] = [
    ("rm", "rm -rf $P"),
    ("find", "find $P -type f -delete"),
    ("rm", "find $P -type f | xargs -d '\\n' rm -f"),
    ("git", "git -C $W init -q r; ln -s $P/folder $W/r/x; git -C $P/folder init -q"),
    ("tar", "tar -C $P --remove-files -cf /dev/null folder"),
    ("shred", "shred -u $P/f"),
    ("truncate", "truncate -s 0 $P/f"),
    ("dd", "dd if=/dev/zero of=$P/f count=1"),
    ("install", "install $W/other $P/f"),
    ("cp", "cp $W/other $P/f"),
    ("cp", "cp --remove-destination $W/other $P/f"),
    ("mv", "mv $W/other $P/f"),
    ("sed", "sed -i s/precious/gone/ $P/f"),
    ("tee", "echo gone | tee $P/f > /dev/null"),
    ("sh", ": > $P/f"),
    ("python3", "python3 -c 'import os, shutil; shutil.rmtree(os.environ[\"P\"])'"),
    ("perl", "perl -e 'unlink \"$ENV{P}/f\" or exit 1'"),
];

/// A09, A10, A11, B01: whatever program does it, and of what is not protected the rest goes on.
#[test]
fn no_other_tool_deletes_what_is_protected() -> Result<()> {
    let prod = Prod::new()?;
    fs::create_dir_all("/srv/aw-cat/free")?;
    fs::write("/srv/aw-cat/free/file", "")?;
    with_policy(POLICY, |daemon| {
        let mut script = String::new();
        for (_, command) in TOOLS {
            script.push_str(&format!("({command}); echo $?\n"));
        }
        script.push_str("rm -rf /srv/aw-cat/free $P/../free $P/empty; echo $?\n");
        let mut command = daemon.exec_as("strict", ["sh", "-c", &script]);
        command.env("P", PROD).env("W", prod.dir.path());
        let run = daemon.run_session(command)?;
        prod.is_whole(&run)?;
        ensure!(!Path::new("/srv/aw-cat/free").exists(), "the rest was not removed: {}", run.stderr);
        ensure!(prod.dir.path().join("other").exists(), "it was moved away");
        let codes = String::from_utf8_lossy(&run.stdout);
        let went_through = codes.lines().zip(TOOLS).find(|(code, _)| *code == "0");
        ensure!(went_through.is_none(), "{went_through:?} {}", run.stderr);
        let denied: Vec<&Event> = run.own().filter(|event| event.verdict == Verdict::Denied).collect();
        ensure!(denied.iter().all(|event| event.rule.as_deref() == Some("prod")), "{}", json_lines(denied));
        for (tool, command) in TOOLS {
            let by = |event: &&Event| {
                let process = event.process.as_ref();
                process.and_then(|process| process.command_args.first()).is_some_and(|arg| arg.0 == tool)
            };
            ensure!(denied.iter().any(by), "no refusal of `{command}`: {}", json_lines(denied));
        }
        Ok(())
    })
}

/// B09: io_uring, by the thread that asks, by the kernel's workers, and by its thread that watches the ring.
#[test]
fn no_ring_changes_or_reaches_what_is_refused() -> Result<()> {
    let prod = Prod::new()?;
    let server = TcpListener::bind("127.0.0.1:54321")?;
    server.set_nonblocking(true)?;
    let (file, away) = (format!("{PROD}/f"), format!("{}/away", prod.work()));
    with_policy(POLICY, |daemon| {
        for (how, what, kind) in [
            (None, &["unlink", &file][..], Kind::FileDelete),
            (Some("--workers"), &["unlink", &file], Kind::FileDelete),
            (Some("--watched"), &["unlink", &file], Kind::FileDelete),
            (Some("--workers"), &["open", &file], Kind::FileOpen),
            (Some("--workers"), &["rename", &file, &away], Kind::FileRename),
            (Some("--workers"), &["connect", "54321"], Kind::NetConnect),
            (Some("--watched"), &["connect", "54321"], Kind::NetConnect),
        ] {
            let words: Vec<&str> = ["ring"].into_iter().chain(how).chain(what.iter().copied()).collect();
            let (errno, run) = crate::guards::tried(daemon, "strict", &words)?;
            let denied: Vec<&Event> = run.own().filter(|event| event.verdict == Verdict::Denied).collect();
            let told = denied.iter().all(|event| event.kind == kind && event.rule.as_deref() == Some("prod"));
            let whose =
                denied.iter().all(|event| event.process.as_ref().is_some_and(|one| one.pid == run.pid));
            // A worker that finds that it must wait asks twice.
            let count: u64 = denied.iter().map(|event| event.count).sum();
            ensure!(
                errno == 1 && told && whose && (1..=2).contains(&count),
                "{words:?}: {errno} {}",
                json_lines(denied)
            );
            prod.is_whole(&run)?;
        }
        ensure!(server.accept().is_err(), "the server was reached");
        Ok(())
    })
}
