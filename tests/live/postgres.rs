//! A real PostgreSQL server that a policy keeps agents away from: out of reach by every address and name of it, there
//! for everybody else.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use agentwatch::event::{Event, Kind, Op, Verdict};
use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;
use tests::compare::json_lines;
use tests::daemon::{Daemon, PATIENCE};
use tests::policy::with_policy;
use tests::session::{SessionRun, work_dir};

/// The server's port, which names its Unix socket too.
const PORT: u16 = 55432;
/// The database that must not go.
const VICTIM: &str = "payments";
/// What the rules of the policy are called.
const NO_DATABASES: &str = "keep away from production databases";
const NO_PROGRAMS: &str = "destructive binaries";

/// A server of the user `postgres` that lives as long as this value.
struct Server {
    /// `data`, the folder of the socket, and further names of that.
    dir: TempDir,
    /// The folder of the server's own programs. Those in `/usr/bin` are scripts that start these.
    programs: PathBuf,
}

impl Server {
    fn start() -> Result<Self> {
        let dir = work_dir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let server = Self { dir, programs: programs()? };
        for folder in ["data", "sockets"] {
            let of_postgres = ["install", "-d", "-o", "postgres", "-m", "755"].map(OsStr::new);
            ran(of_postgres.into_iter().chain([server.path(folder).as_os_str()]))?;
        }
        let data = server.path("data");
        let log = server.path("data/log");
        server.by_postgres("initdb", &["-D", text(&data)?, "-A", "trust", "-N", "--locale=C"])?;
        let options = format!(
            "-p {PORT} -c listen_addresses=127.0.0.1,::1 -c fsync=off -k {}",
            server.path("sockets").display()
        );
        let words = ["start", "-W", "-D", text(&data)?, "-l", text(&log)?, "-o", &options];
        server.by_postgres("pg_ctl", &words)?;
        server.wait_until_ready()?;
        server.more_names()?;
        Ok(server)
    }

    fn by_postgres(&self, program: &str, args: &[&str]) -> Result<Output> {
        let program = self.programs.join(program);
        let words = ["runuser", "-u", "postgres", "--", text(&program)?];
        ran(words.iter().chain(args))
    }

    fn wait_until_ready(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Asks once, and waits for an answer.
            let output = outside(&format!("pg_isready -h 127.0.0.1 -p {PORT}"))?;
            if output.status.success() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let log = fs::read_to_string(self.path("data/log")).unwrap_or_default();
                bail!("PostgreSQL is not ready after {PATIENCE:?}; {output:?}; it said:\n{log}");
            }
        }
    }

    /// Other names of the folder of the socket, and of the socket, as only an administrator can make all of them.
    fn more_names(&self) -> Result<()> {
        symlink(self.path("sockets"), self.path("symlink"))?;
        for folder in ["hard-link", "symlink-to-socket", "bind-mount"] {
            fs::create_dir(self.path(folder))?;
        }
        fs::hard_link(self.socket("sockets"), self.socket("hard-link"))?;
        symlink(self.socket("sockets"), self.socket("symlink-to-socket"))?;
        let (from, to) = (self.path("sockets"), self.path("bind-mount"));
        ran(["mount", "--bind", text(&from)?, text(&to)?])?;
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn socket(&self, folder: &str) -> PathBuf {
        self.path(folder).join(format!(".s.PGSQL.{PORT}"))
    }

    /// The policy: the contract's, for this server.
    fn policy(&self) -> String {
        format!(
            "version: 1
resources:
  payments-db:
    why: silent failover target of the payment service; looks idle and is not
    owner: payments-oncall@example.com
    environment: production
    connect: ['127.0.0.1:{PORT}', '[::1]:{PORT}', '{}']
agents:
  strict: {{owner: tests@example.com, mode: enforce}}
  test: {{owner: tests@example.com}}
rules:
  - name: {NO_DATABASES}
    deny: {{connect: ['resource:payments-db']}}
    message: ask payments-oncall
  - name: {NO_PROGRAMS}
    deny: {{exec: ['/usr/lib/postgresql/*/bin/dropdb']}}
",
            self.socket("sockets").display()
        )
    }

    /// Makes the database, unless it is there.
    fn create(&self) -> Result<()> {
        if !self.has_database()? {
            let made = outside(&format!("createdb -h 127.0.0.1 -p {PORT} {VICTIM}"))?;
            ensure!(made.status.success(), "no database: {made:?}");
        }
        Ok(())
    }

    /// Whether the database is there, as seen by those that no rule is about.
    fn has_database(&self) -> Result<bool> {
        let sql = format!("select count(*) from pg_database where datname = '{VICTIM}'");
        let folder = self.path("sockets");
        let told = outside(&format!("psql -h {} -p {PORT} -XAtc \"{sql}\" postgres", folder.display()))?;
        match told.stdout.as_slice() {
            b"1\n" => Ok(true),
            b"0\n" => Ok(false),
            _ => bail!("PostgreSQL cannot be asked: {told:?}"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Whatever is left of it after that ends with the machine.
        let data = self.path("data").display().to_string();
        let _ = self.by_postgres("pg_ctl", &["stop", "-m", "immediate", "-D", &data]);
        let _ = Command::new("umount").arg(self.path("bind-mount")).status();
    }
}

/// Where Debian has the programs of the one version that is installed.
fn programs() -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").context("PostgreSQL is not installed")?;
    let version = versions.flatten().next().context("no version of PostgreSQL is installed")?;
    Ok(version.path().join("bin"))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}

/// Runs a command that must succeed.
fn ran(words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Output> {
    let mut words = words.into_iter();
    let program = words.next().context("no command")?;
    let mut command = Command::new(program);
    let output = command.args(words).current_dir("/").stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "{command:?}: {output:?}");
    Ok(output)
}

/// Sets what clients of the server go by.
fn as_client(command: &mut Command) -> &mut Command {
    command.env("PGUSER", "postgres").env("LC_ALL", "C").current_dir("/")
}

/// Runs a script outside any session.
fn outside(script: &str) -> Result<Output> {
    let mut command = Command::new("sh");
    as_client(command.args(["-c", script])).stdin(Stdio::null()).output().context("cannot start sh")
}

/// Runs a script in a session of an agent that the rules are enforced against.
fn inside(daemon: &mut Daemon, script: &str) -> Result<SessionRun> {
    let mut command = daemon.exec_as("strict", ["sh", "-c", script]);
    as_client(&mut command);
    daemon.run_session(command)
}

/// The refusals of a session, which are all of this rule and this kind; there is one at least.
fn refusals<'a>(run: &'a SessionRun, rule: &str, kinds: &[Kind]) -> Result<Vec<&'a Event>> {
    let said = || format!("{} {}{}", run.status, run.stderr, json_lines(run.own()));
    // Debian's script around `dropdb` says what refused it, and ends with 0.
    let failed = !run.status.success() || run.stderr.contains("Operation not permitted");
    ensure!(failed, "it went through: {}", said());
    let denied: Vec<_> = run.own().filter(|event| event.verdict == Verdict::Denied).collect();
    ensure!(!denied.is_empty(), "no refusal was told: {}", said());
    for event in &denied {
        let by_rule = event.rule.as_deref() == Some(rule) && event.policy.is_some();
        ensure!(by_rule && kinds.contains(&event.kind), "another refusal: {}", said());
        ensure!(event.errno.as_deref() == Some("EPERM") && &*event.agent == "strict", "{}", said());
    }
    Ok(denied)
}

/// Asks the server for something by each of its names, by PostgreSQL's own client.
fn questions(server: &Server) -> Vec<String> {
    let psql = |host: &str| format!("exec psql -h {host} -p {PORT} -XAtc 'select 6*7' postgres");
    let dir = server.dir.path().display();
    let mut scripts: Vec<String> = ["127.0.0.1", "0.0.0.0", "::ffff:127.0.0.1", "::1", "::", "localhost"]
        .into_iter()
        .map(psql)
        .collect();
    for folder in ["sockets", "symlink", "symlink-to-socket", "hard-link", "bind-mount", "./data/..//sockets"]
    {
        scripts.push(psql(&format!("{dir}/{folder}")));
    }
    scripts.push(psql(&format!("/proc/self/root{dir}/sockets")));
    // For psql a folder is an absolute path.
    scripts.push(format!("cd {dir}/sockets && {}", psql("/proc/self/cwd")));
    scripts
}

/// Speaks to the server by a relative path, which psql cannot: it answers with one letter whether it has TLS.
fn by_relative_path(server: &Server) -> String {
    let asks = format!(
        r#"import socket; s = socket.socket(socket.AF_UNIX); s.connect(".s.PGSQL.{PORT}")
s.send(b"\0\0\0\x08\x04\xd2\x16\x2f"); print(s.recv(1) in (b"N", b"S"))"#
    );
    format!("cd {} && exec python3 -c '{asks}'", server.path("sockets").display())
}

/// Cases C01, C11.
#[test]
fn a_database_server_is_out_of_reach_by_every_name() -> Result<()> {
    let server = Server::start()?;
    with_policy(&server.policy(), |daemon| {
        let mut asked: Vec<_> = questions(&server).into_iter().map(|script| (script, "42")).collect();
        asked.push((by_relative_path(&server), "True"));
        // All in one session, since to start one takes its time.
        let script: String = asked.iter().map(|(script, _)| format!("({script}); echo $?\n")).collect();
        let output = outside(&script)?;
        let answers: String = asked.iter().map(|(_, answer)| format!("{answer}\n0\n")).collect();
        ensure!(output.stdout == answers.as_bytes(), "outside: {output:?}");
        let run = inside(daemon, &script)?;
        let said = String::from_utf8_lossy(&run.stdout);
        let codes: Vec<&str> = said.lines().collect();
        let failed = codes.len() == asked.len() && codes.iter().all(|code| matches!(*code, "1" | "2"));
        ensure!(failed, "{said} of {script}: {}", run.stderr);
        let mut told = BTreeSet::new();
        for event in refusals(&run, NO_DATABASES, &[Kind::NetConnect])? {
            ensure!(event.op == Some(Op::Connect), "{event:?}");
            ensure!(event.reason.as_deref() == Some("ask payments-oncall"), "{event:?}");
            let network = event.network.as_ref().context("no address")?;
            ensure!(network.peer_port == Some(u32::from(PORT)) || network.family == "unix", "{event:?}");
            told.insert(event.process.as_ref().context("no process")?.pid);
        }
        // Each was refused: some try two addresses.
        ensure!(told.len() == asked.len(), "{} of {}: {}", told.len(), asked.len(), json_lines(run.own()));
        Ok(())
    })
}

/// Ways to start `dropdb`, and the rule that each ends at.
fn drops(server: &Server) -> Result<Vec<(String, &'static str)>> {
    let (dropdb, dir) = (server.programs.join("dropdb"), server.dir.path().display());
    let (link, renamed) = (server.path("link"), server.path("renamed"));
    symlink(&dropdb, link)?;
    fs::copy(&dropdb, renamed)?;
    let (dropdb, to) = (dropdb.display(), format!("-h 127.0.0.1 -p {PORT} {VICTIM}"));
    let loader = "/lib64/ld-linux-x86-64.so.2";
    let in_memory = format!(
        "import os; fd = os.memfd_create(\"x\"); os.write(fd, open(\"{dropdb}\", \"rb\").read()); \
         os.execv(\"/proc/self/fd/%d\" % fd, \"x {to}\".split())"
    );
    let mut all = Vec::new();
    for program in [
        "dropdb".to_owned(),
        "/usr/bin/dropdb".to_owned(),
        dropdb.to_string(),
        format!("{dir}/link"),
        format!("/proc/self/root{dropdb}"),
        format!("{loader} {dropdb}"),
        format!("{loader} {dir}/link"),
    ] {
        all.push((format!("exec {program} {to}"), NO_PROGRAMS));
    }
    // Another name is refused before it is there.
    all.push((format!("ln {dropdb} {dir}/linked && exec {dir}/linked {to}"), NO_PROGRAMS));
    let moved = format!("mv {dropdb} {dir}/moved && {dir}/moved {to}");
    all.push((
        format!("{moved}; code=$?; test ! -e {dir}/moved || mv {dir}/moved {dropdb}; exit $code"),
        NO_PROGRAMS,
    ));
    // These are other files: what they do is refused.
    for script in [
        format!("cp {dropdb} {dir}/copy && exec {dir}/copy {to}"),
        format!("cp {dropdb} {dir}/copy && mv {dir}/copy {dir}/psql && exec {dir}/psql {to}"),
        format!("exec {dir}/renamed {to}"),
        format!("exec {loader} {dir}/renamed {to}"),
        format!("exec python3 -c '{in_memory}'"),
        format!("exec psql -h 127.0.0.1 -p {PORT} -Xc 'drop database {VICTIM}' postgres"),
    ] {
        all.push((script, NO_DATABASES));
    }
    Ok(all)
}

/// Cases A02, A03, A05, A14.
#[test]
fn a_database_is_not_dropped_by_any_copy_of_the_program() -> Result<()> {
    let server = Server::start()?;
    with_policy(&server.policy(), |daemon| {
        for (script, rule) in drops(&server)? {
            server.create()?;
            let run = inside(daemon, &script)?;
            ensure!(server.has_database()?, "`{script}` dropped it: {}", json_lines(run.own()));
            let kinds: &[Kind] = match rule {
                NO_PROGRAMS => &[Kind::ProcessExec, Kind::FileMap, Kind::FileLink, Kind::FileRename],
                _ => &[Kind::NetConnect],
            };
            refusals(&run, rule, kinds).context(script.clone())?;
            // What was refused would have dropped it.
            if rule == NO_DATABASES {
                let output = outside(&script)?;
                ensure!(output.status.success() && !server.has_database()?, "`{script}` outside: {output:?}");
            }
        }
        Ok(())
    })
}
