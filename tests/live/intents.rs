//! Intents: what was declared stands beside what is done, and who declared it is what the kernel says.

use std::fs;
use std::path::Path;
use std::process::Output;

use agentwatch::control::intent::{DeclaredBy, IntentState, IntentView, IntentsView};
use agentwatch::control::state::SessionsView;
use agentwatch::event::{Alignment, Check, Event, Kind};
use anyhow::{Context as _, Result, ensure};
use tests::compare::json_lines;
use tests::daemon::{Daemon, Place, Shared};
use tests::policy::with_policy;
use tests::session::work_dir;

use crate::restarts::{Shell, is_creation};

/// What a program said, and how it ended.
pub fn said(output: &Output) -> String {
    format!(
        "{}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// `agentwatch intent` from outside all sessions, as root.
pub fn intent(place: &Place, words: &[&str]) -> Result<Output> {
    Ok(place.agentwatch([&["intent"][..], words].concat()).output()?)
}

/// Declares as root from outside; gives the intent's id.
pub fn declared(place: &Place, words: &[&str]) -> Result<String> {
    let output = intent(place, &[&["declare"][..], words].concat())?;
    ensure!(output.status.success(), "{}", said(&output));
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

fn list(place: &Place) -> Result<Vec<IntentView>> {
    let output = intent(place, &["list", "--all", "-o", "json"])?;
    let view: IntentsView = serde_json::from_slice(&output.stdout).with_context(|| said(&output))?;
    Ok(view.intents)
}

fn session_of(place: &Place, shell: &Shell) -> Result<String> {
    let output = place.agentwatch(["agents", "-o", "json"]).output()?;
    let view: SessionsView = serde_json::from_slice(&output.stdout).with_context(|| said(&output))?;
    let found = view.sessions.into_iter().find(|one| one.root_pid == shell.id()).context("no session")?;
    Ok(found.id.to_string())
}

/// A shell in a session, and two folders.
pub struct Setting {
    /// The shell.
    pub shell: Shell,
    /// The session's id.
    pub session: String,
    dir: tempfile::TempDir,
}

impl Setting {
    /// Begins it.
    pub fn new(daemon: &Daemon) -> Result<Self> {
        Self::of(daemon, "test")
    }

    /// Begins it as this agent.
    pub fn of(daemon: &Daemon, agent: &str) -> Result<Self> {
        let mut shell = Shell::start_as(daemon, agent)?;
        shell.ask("echo ready")?;
        let session = session_of(daemon.place(), &shell)?;
        let dir = work_dir()?;
        for name in ["in", "out"] {
            fs::create_dir(dir.path().join(name))?;
        }
        Ok(Self { shell, session, dir })
    }

    /// The path of something in the folder of both.
    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_string_lossy().into_owned()
    }

    /// Has the session make a file; gives what the log says of that.
    pub fn makes(&mut self, daemon: &mut Daemon, name: &str) -> Result<(Option<Alignment>, Option<String>)> {
        let path = self.path(name);
        self.shell.ask(&format!("echo x > {path}; echo done"))?;
        let events = daemon.wait_for("the file", |event| is_creation(event, &path))?;
        Ok(stands(events.last().context("no event")?))
    }
}

fn stands(event: &Event) -> (Option<Alignment>, Option<String>) {
    let intent = event.intent.as_ref();
    let id = intent.and_then(|intent| intent.id.as_ref()).map(ToString::to_string);
    (intent.and_then(|intent| intent.alignment), id)
}

/// `slo` says of a session what the log does.
fn adds_up(place: &Place, session: &str) -> Result<()> {
    let output = place.agentwatch(["slo", "--by", "session", "-o", "json"]).output()?;
    let view: serde_json::Value = serde_json::from_slice(&output.stdout).with_context(|| said(&output))?;
    let rows = view.get("rows").and_then(serde_json::Value::as_array).context("no rows")?;
    let of_session = |row: &&serde_json::Value| row.get("session").is_some_and(|one| one == session);
    let row = rows.iter().find(of_session).context("no row of the session")?;
    let number = |name: &str| row.get(name).and_then(serde_json::Value::as_u64);
    let output = place.agentwatch(["events", "--session", session, "-o", "json"]).output()?;
    let events: Vec<Event> = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect();
    let count = |alignment: Alignment| {
        let aligned = events.iter().filter(|event| stands(event).0 == Some(alignment));
        aligned.map(|event| event.count).sum::<u64>()
    };
    for alignment in [Alignment::Aligned, Alignment::Outside, Alignment::Undeclared, Alignment::Expired] {
        let told = number(alignment.name());
        ensure!(told == Some(count(alignment)), "{alignment:?}: {row} and {}", count(alignment));
    }
    let checks = (number("checks_passed"), number("checks_failed"));
    ensure!(checks == (Some(1), Some(1)) && number("aligned") > Some(0), "{row}");
    Ok(())
}

#[test]
fn what_is_done_stands_beside_what_an_operator_declared() -> Result<()> {
    Shared::with(|daemon| {
        let mut setting = Setting::new(daemon)?;
        let place = daemon.place().clone();
        ensure!(setting.makes(daemon, "in/before")? == (None, None));
        let (session, within) = (setting.session.clone(), setting.path("in"));
        let words =
            ["--session", &session, "--task", "tidy up", "--write", &within, "--exec", "/usr/bin/true"];
        let id = declared(&place, &words)?;
        let told = daemon.wait_for("the declaration", |event| event.kind == Kind::IntentDeclared)?;
        let told = told.last().context("no event")?;
        ensure!(
            *told.session == *session && told.reason.as_deref() == Some("declared by operator: tidy up"),
            "{told:?}"
        );
        let with = |alignment| (Some(alignment), Some(id.clone()));
        ensure!(setting.makes(daemon, "in/a")? == with(Alignment::Aligned));
        ensure!(setting.makes(daemon, "out/a")? == with(Alignment::Outside));
        // Programs that were said, and others; reading is not held against it.
        setting.shell.ask("/usr/bin/true; /usr/bin/env true < /etc/hostname; echo done")?;
        let exec = |event: &Event| event.kind == Kind::ProcessExec && *event.session == *session;
        let mut events = daemon.wait_for("the first program", exec)?;
        events.extend(daemon.wait_for("the other program", exec)?);
        let found: Vec<_> = events.iter().filter(|event| exec(event)).map(stands).collect();
        ensure!(found == [with(Alignment::Aligned), with(Alignment::Outside)], "{}", json_lines(&events));
        let output = intent(&place, &["close", &id])?;
        ensure!(output.status.success() && said(&output).contains("closed"), "{}", said(&output));
        ensure!(setting.makes(daemon, "in/b")? == with(Alignment::Expired));
        ensure!(setting.makes(daemon, "out/b")? == (Some(Alignment::Undeclared), None));
        let checked = |event: &Event| event.kind == Kind::IntentChecked;
        let output = intent(&place, &["check", &id, "--failed", "--note", "b is too much"])?;
        ensure!(output.status.success() && said(&output).contains("failed"), "{}", said(&output));
        let told = daemon.wait_for("the check", checked)?;
        let told = told.last().context("no event")?;
        ensure!(told.reason.as_deref() == Some("failed, by operator: b is too much"), "{told:?}");
        ensure!(told.intent.as_ref().and_then(|one| one.check) == Some(Check::Failed), "{told:?}");
        setting.shell.ask(&format!("agentwatch intent check {id} --passed > /dev/null; echo done"))?;
        let told = daemon.wait_for("the other check", checked)?;
        let told = told.last().and_then(|event| event.reason.as_deref());
        ensure!(told == Some("passed, by agent"), "{told:?}");
        let view = list(&place)?.into_iter().find(|one| *one.id == *id).context("it is not listed")?;
        let by: Vec<_> = view.checks.iter().map(|check| (check.passed, check.checked_by)).collect();
        ensure!(by == [(false, DeclaredBy::Operator), (true, DeclaredBy::Agent)], "{view:?}");
        ensure!(view.state == IntentState::Closed && view.declared_by == DeclaredBy::Operator, "{view:?}");
        ensure!(view.aligned >= 2 && view.outside >= 2 && view.uid == 0, "{view:?}");
        setting.shell.end()?;
        let is_end = |event: &Event| event.kind == Kind::SessionEnd && *event.session == *session;
        daemon.wait_for("the end of the session", is_end)?;
        adds_up(&place, &session)
    })
}

#[test]
fn a_session_declares_for_itself_alone() -> Result<()> {
    Shared::with(|daemon| {
        let mut other = Setting::new(daemon)?;
        let mut setting = Setting::new(daemon)?;
        let place = daemon.place().clone();
        let within = setting.path("in");
        let id = setting
            .shell
            .ask(&format!("agentwatch intent declare --task mine --write {within} --expires 10m"))?;
        ensure!(setting.makes(daemon, "in/a")? == (Some(Alignment::Aligned), Some(id.clone())));
        let view = list(&place)?.into_iter().find(|one| *one.id == *id).context("it is not listed")?;
        // Though its user is root.
        ensure!(view.declared_by == DeclaredBy::Agent && *view.session == *setting.session, "{view:?}");
        // For another one, as an operator, and closing what an operator declared.
        let ask = |setting: &mut Setting, words: &str| {
            setting.shell.ask(&format!("agentwatch intent {words} 2>&1 | tr '\\n' ' '; echo"))
        };
        let forged = format!("declare --session {} --write /", other.session);
        let answer = ask(&mut setting, &forged)?;
        ensure!(answer.contains("cannot declare for"), "{answer}");
        let refused = daemon.wait_for("the refusal", |event| event.kind == Kind::IntentRefused)?;
        ensure!(
            refused.last().is_some_and(|event| *event.session == *setting.session),
            "{}",
            json_lines(&refused)
        );
        let words = ["--session", &setting.session, "--write", &within];
        let of_operator = declared(&place, &words)?;
        let answer = ask(&mut setting, &format!("close {of_operator}"))?;
        ensure!(answer.contains("the operator declared it"), "{answer}");
        ensure!(other.makes(daemon, "in/a")? == (None, None));
        // Nobody's process speaks for nobody.
        let output = intent(&place, &["declare", "--write", "/tmp"])?;
        ensure!(
            output.status.code() == Some(6) && said(&output).contains("is in no session"),
            "{}",
            said(&output)
        );
        for (words, code) in [
            (&["declare", "--session", "none", "--write", "/tmp"][..], 2),
            (&["declare", "--session", &setting.session, "--write", "tmp"], 2),
            (&["declare", "--session", &setting.session, "--write", "/tmp", "--expires", "99d"], 2),
            (&["close", "int-000000"], 2),
        ] {
            let output = intent(&place, words)?;
            ensure!(output.status.code() == Some(code), "{words:?}: {}", said(&output));
        }
        setting.shell.end()?;
        other.shell.end()
    })
}

#[test]
fn a_plan_is_judged_before_anything_runs_and_holds_what_does() -> Result<()> {
    Shared::with(|daemon| {
        let mut shell = Shell::start_as(daemon, "strict")?;
        shell.ask("echo ready")?;
        let session = session_of(daemon.place(), &shell)?;
        let place = daemon.place().clone();
        let dir = work_dir()?;
        let file = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        let plan = |steps: &str| -> Result<Output> {
            fs::write(file("plan"), steps)?;
            intent(&place, &["declare", "--session", &session, "--plan", &file("plan")])
        };
        let output = plan(&format!("write {}\nread /srv/aw-prod/f\n", file("a")))?;
        let answer = said(&output);
        ensure!(output.status.code() == Some(3), "{answer}");
        ensure!(
            answer.contains("refuses 1 of the 2 steps") && answer.contains("step 2: read /srv/aw-prod/f"),
            "{answer}"
        );
        let told = daemon.wait_for("the refusal", |event| event.kind == Kind::IntentRefused)?;
        let reason = told.last().and_then(|event| event.reason.clone()).unwrap_or_default();
        ensure!(reason.contains("step 2: read /srv/aw-prod/f") && !reason.contains('\n'), "{reason}");
        ensure!(list(&place)?.iter().all(|one| *one.session != *session), "something was declared");
        let output = plan(&format!("# a note\nwrite {}\n", file("a")))?;
        ensure!(output.status.success(), "{}", said(&output));
        for (name, wanted) in [("a", Alignment::Aligned), ("b", Alignment::Outside)] {
            shell.ask(&format!("echo x > {}; echo done", file(name)))?;
            let events = daemon.wait_for("the file", |event| is_creation(event, &file(name)))?;
            let found = events.last().map(stands).and_then(|(alignment, _)| alignment);
            ensure!(found == Some(wanted), "{name}: {found:?}");
        }
        shell.end()
    })
}

#[test]
fn what_a_command_is_for_is_declared_before_it_begins() -> Result<()> {
    Shared::with(|daemon| {
        let dir = work_dir()?;
        let file = |name: &str| dir.path().join(name);
        fs::write(
            file("task.yaml"),
            format!("task: one file\nscope: {{write: ['{}']}}\nexpires: 10m\n", file("a").display()),
        )?;
        fs::write(file("bad.yaml"), "task: nothing\nscope: {write: [relative]}\n")?;
        let exec = |daemon: &mut Daemon, intent: &Path| {
            let mut command = daemon.place().agentwatch(["exec", "--agent", "test", "--intent"]);
            let close = "agentwatch intent close $(agentwatch intent list | grep 'one file' | grep -o 'int-[a-z0-9]*')";
            let script =
                format!("echo x > {}; echo x > {}; {close}; true", file("a").display(), file("b").display());
            command.arg(intent).args(["--", "bash", "-c", &script]);
            daemon.run_session(command)
        };
        let run = exec(daemon, &file("task.yaml"))?;
        ensure!(run.status.success(), "{}", run.stderr);
        // By what became its first process: a tool of the agent would be another one.
        let declared = run.of_kind(Kind::IntentDeclared).next().context("nothing was declared")?;
        let reason = declared.reason.as_deref().unwrap_or_default();
        ensure!(reason.starts_with("declared by harness"), "{}", json_lines([declared]));
        ensure!(run.stderr.contains("the harness declared it"), "a tool closed it: {}", run.stderr);
        let of = |name: &str| {
            let path = file(name).to_string_lossy().into_owned();
            run.own().find(|event| is_creation(event, &path)).map(|event| stands(event).0)
        };
        ensure!(
            of("a") == Some(Some(Alignment::Aligned)) && of("b") == Some(Some(Alignment::Outside)),
            "{}",
            json_lines(&run.events)
        );
        fs::remove_file(file("a"))?;
        let run = exec(daemon, &file("bad.yaml"))?;
        ensure!(
            run.status.code() == Some(2) && run.stderr.contains("the scope cannot be used"),
            "{}",
            run.stderr
        );
        ensure!(!file("a").exists(), "the command ran though it could not be declared what for");
        Ok(())
    })
}

#[test]
fn a_spike_of_refusals_is_an_event() -> Result<()> {
    // An agent that nobody else uses: what others did within the hour is usual for them.
    let policy = "version: 1\nagents:\n  spiky: {owner: tests@example.com, mode: enforce}\nrules:\n  \
                  - {name: nothing there, agents: [spiky], deny: {read: [/srv/aw-spike]}}\n";
    with_policy(policy, |daemon| {
        fs::create_dir_all("/srv/aw-spike")?;
        let script = "for n in $(seq 24); do cat /srv/aw-spike/$n; done; true";
        for number in 1..=24 {
            fs::write(format!("/srv/aw-spike/{number}"), "x")?;
        }
        let command = daemon.exec_as("spiky", ["sh", "-c", script]);
        let run = daemon.run_session(command)?;
        let spikes: Vec<&Event> = run.events.iter().filter(|event| event.kind == Kind::SloSpike).collect();
        // One, or one of each of two minutes: half of it is one still.
        let spike = spikes.first().with_context(|| json_lines(&run.events))?;
        let reason = spike.reason.as_deref().unwrap_or_default();
        ensure!(
            &*spike.agent == "spiky" && reason.starts_with("10 operations of the agent were denied"),
            "{reason}"
        );
        ensure!(spikes.len() <= 2, "{} spikes", spikes.len());
        Ok(())
    })
}

#[test]
fn whoever_may_connect_to_nothing_can_declare() -> Result<()> {
    let policy = "version: 1\nagents:\n  shut: {owner: tests@example.com, mode: enforce, default: {connect: deny}}\n  \
                  planner: {owner: tests@example.com, mode: plan}\n  \
                  silent: {owner: tests@example.com, mode: enforce}\nrules:\n  \
                  - {name: no word, agents: [silent], deny: {connect: ['**/declare.sock']}}\n";
    with_policy(policy, |daemon| {
        for (agent, can) in [("shut", true), ("planner", true), ("silent", false)] {
            let script = "agentwatch intent declare --read /etc 2>&1 | tail -n 1; true";
            let run = daemon.run_session(daemon.exec_as(agent, ["sh", "-c", script]))?;
            let said = String::from_utf8_lossy(&run.stdout);
            ensure!(said.starts_with("int-") == can, "{agent}: {said}{}", run.stderr);
        }
        Ok(())
    })
}
