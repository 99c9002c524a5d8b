//! Ways to start a program that a rule keeps from being started, by the numbers of the catalogue.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use agentwatch::event::{Kind, Op, Verdict};
use anyhow::{Result, ensure};
use tempfile::TempDir;
use tests::compare::json_lines;
use tests::daemon::Daemon;
use tests::policy::with_policy;
use tests::session::work_dir;
use tests::tries::{Refusal, all_refused, refusal, tried};

const POLICY: &str = "\
version: 1
agents:
  strict: {owner: tests@example.com, mode: enforce}
rules:
  - {name: tools, agents: [strict], deny: {exec: ['/srv/aw-cat/bin', '/memfd:*']}}
";

/// A program that may not be started, and a file that only it would make.
struct Tool {
    dir: TempDir,
    effect: PathBuf,
}

impl Tool {
    const PROGRAM: &str = "/srv/aw-cat/bin/tool";
    const SCRIPT: &str = "/srv/aw-cat/bin/script";

    fn new() -> Result<Self> {
        fs::create_dir_all("/srv/aw-cat/bin")?;
        fs::copy("/usr/bin/touch", Self::PROGRAM)?;
        let dir = work_dir()?;
        // Others than root start it too.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777))?;
        let effect = dir.path().join("effect");
        fs::write(Self::SCRIPT, format!("#!/bin/sh\n/usr/bin/touch {}\n", effect.display()))?;
        fs::set_permissions(Self::SCRIPT, fs::Permissions::from_mode(0o755))?;
        symlink(Self::PROGRAM, dir.path().join("link"))?;
        Ok(Self { dir, effect })
    }

    /// The attempts, which must be refused as the start of this file, with `T`, `S`, `E` and `L` for the program, the
    /// script, the effect and a link.
    fn refusals(&self, target: &str, pieces: &[&str]) -> Vec<Refusal> {
        let names = format!(
            "T, S, E, L = '{}', '{}', '{}', '{}'\n",
            Self::PROGRAM,
            Self::SCRIPT,
            self.effect.display(),
            self.dir.path().join("link").display()
        );
        pieces.iter().map(|piece| refusal(format!("{names}{piece}"), Kind::ProcessExec, target)).collect()
    }

    fn check(&self, daemon: &mut Daemon, tries: &[Refusal]) -> Result<()> {
        let run = all_refused(daemon, "strict", "tools", tries)?;
        ensure!(!self.effect.exists(), "it ran: {}", json_lines(run.own()));
        let execs = run.of_kind(Kind::ProcessExec).filter(|event| event.verdict == Verdict::Denied);
        ensure!(execs.into_iter().all(|event| event.op == Some(Op::Exec)), "{}", json_lines(run.own()));
        Ok(())
    }
}

/// A01, A13, A16, A17, A18, A20, D11: whatever it is called by, whatever stands before it, whoever starts it.
#[test]
fn a_program_is_not_started_by_any_way_to_call_it() -> Result<()> {
    let tool = Tool::new()?;
    with_policy(POLICY, |daemon| {
        let tries = tool.refusals(
            Tool::PROGRAM,
            &[
                // A01: other names of the same file.
                "run('/proc/self/root' + T, E)",
                "run('/srv//aw-cat/./bin/../bin/tool', E)",
                "run(L, E)",
                "os.chdir('/srv/aw-cat/bin'); run('./tool', E)",
                "fd = os.open(T, os.O_RDONLY); child(lambda: os.execv('/proc/self/fd/%d' % fd, ['x', E]))",
                "fd = os.open(T, os.O_PATH); child(lambda: os.execve(fd, ['x', E], {}))",
                // A13: programs that start others.
                "sh(f\"timeout 50 nice env stdbuf -oL nohup sh -c '{T} {E}'\")",
                "sh(f\"PATH=/srv/aw-cat/bin:$PATH; x() {{ tool {E}; }}; x\")",
                "run('runuser', '-u', 'daemon', '--', T, E, not_started=1)",
                // A16: what it is told lies, is odd, long, or nothing.
                "child(lambda: os.execv(T, ['ls', E] + ['a' * 100000] * 10))",
                r"child(lambda: os.execv(T, [b'\xff\n\x1b[2J', E]))",
                "child(lambda: call(libc.execv(T.encode(), None)))",
                // A17: a thread that is not the first.
                "def start():\n    try: os.execv(T, ['x', E])\n    except OSError as error: os._exit(error.errno)\n\
                 def thread():\n    it = threading.Thread(target=start)\n    it.start()\n    it.join()\nchild(thread)",
                // A18: a child that shares its parent's memory.
                "os.posix_spawn(T, ['x', E], {})",
                // A20: other namespaces.
                "sh(f'unshare --pid --fork --mount --propagation unchanged {T} {E}')",
            ],
        );
        tool.check(daemon, &tries)
    })
}

/// A06, A08, A11: programs without a name, scripts, and programs under the name of another.
#[test]
fn a_script_and_a_program_in_memory_are_not_started() -> Result<()> {
    let tool = Tool::new()?;
    with_policy(POLICY, |daemon| {
        let mut tries = tool.refusals(Tool::SCRIPT, &["run(S)", "sh(f'exec {S}')"]);
        // What a script starts is refused as what anybody starts.
        tries.extend(tool.refusals(
            Tool::PROGRAM,
            &[
                "run('bash', '-c', f'exec -a ls {T} {E}')",
                "sh(f'echo {T} {E} | sh')",
                "sh(f'. /dev/stdin <<.\\n{T} {E}\\n.')",
                "run('perl', '-e', 'exec { $ARGV[0] } \"ls\", $ARGV[1]; exit 126', T, E)",
            ],
        ));
        let in_memory = "fd = os.memfd_create('x'); os.write(fd, open('/usr/bin/touch', 'rb').read())\n";
        for start in ["os.execve(fd, ['x', E], {})", "os.execv('/proc/self/fd/%d' % fd, ['x', E])"] {
            tries.extend(tool.refusals("/memfd:x", &[&format!("{in_memory}child(lambda: {start})")]));
        }
        tool.check(daemon, &tries)?;
        // A script that is only read is told as such: a rule on reading keeps it from that.
        let (errors, run) = tried(daemon, "strict", &[format!("sh('. {}')", Tool::SCRIPT)])?;
        let read = |path: &str| path == Tool::SCRIPT;
        let told = run.of_kind(Kind::FileOpen).filter_map(|event| event.file.as_ref());
        ensure!(errors == [0] && tool.effect.exists(), "{errors:?} {}", run.stderr);
        ensure!(told.filter(|file| read(&file.path.0)).count() == 1, "{}", json_lines(run.own()));
        ensure!(Path::new(Tool::SCRIPT).exists());
        Ok(())
    })
}
