//! Policies that come into force while the daemon runs: applied, by a change of the files, one after the other under
//! load; what is in force is told as it is.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use agentwatch::control::policy::{AppliedView, PolicyOrigin, PolicyView, Standing};
use agentwatch::event::{Event, Kind, Op, Verdict};
use anyhow::{Context as _, Result, ensure};
use tests::compare::json;
use tests::daemon::{Daemon, POLICY, Place, Shared};
use tests::session::{SessionRun, contents, wait, work_dir};

/// Folder that the policies here are about.
const FOLDER: &str = "/srv/aw-turn";

fn file(name: &str) -> Result<String> {
    fs::create_dir_all(FOLDER)?;
    let path = format!("{FOLDER}/{name}");
    fs::write(&path, name)?;
    Ok(path)
}

/// A policy whose rule `name` keeps the agent `strict` from a file; `others` rules about other files come first.
fn policy(name: &str, denied: &str, others: usize) -> String {
    let mut text = String::from(
        "version: 1\nagents:\n  strict: {owner: tests@example.com, mode: enforce}\n  test: {owner: tests@example.com}\nrules:\n",
    );
    for other in 0..others {
        text.push_str(&format!(
            "  - {{name: other {other}, agents: [strict], deny: {{read: ['/srv/aw-other/{other}*/x']}}}}\n"
        ));
    }
    text.push_str(&format!("  - {{name: {name}, agents: [strict], deny: {{read: ['{denied}']}}}}\n"));
    text
}

fn output(place: &Place, args: &[&str]) -> Result<Output> {
    place.agentwatch(args).output().context("cannot start agentwatch")
}

fn apply(place: &Place, path: &Path) -> Result<AppliedView> {
    let path = path.to_string_lossy();
    let output = output(place, &["policy", "apply", "-o", "json", &path])?;
    ensure!(output.status.success(), "not applied: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("no answer")
}

fn show(place: &Place) -> Result<PolicyView> {
    let output = output(place, &["policy", "show", "-o", "json"])?;
    ensure!(output.status.success(), "not shown: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("no answer")
}

fn read(daemon: &mut Daemon, path: &str) -> Result<SessionRun> {
    let command = daemon.exec_as("strict", ["cat", path]);
    daemon.run_session(command)
}

/// A look at the file is refused by this rule of the policy in force.
fn is_refused(daemon: &mut Daemon, path: &str, rule: &str) -> Result<()> {
    let run = read(daemon, path)?;
    ensure!(!run.status.success(), "`{path}` was read: {}", run.stderr);
    let in_force = show(daemon.place())?;
    let denied: Vec<_> = run.own().filter(|event| event.verdict == Verdict::Denied).collect();
    ensure!(denied.len() == 1, "{} refusals", denied.len());
    for event in denied {
        let by = event.policy.as_ref().context("no policy")?;
        ensure!(event.rule.as_deref() == Some(rule), "{}", json(event));
        ensure!((by.version, &by.hash) == (in_force.version, &in_force.hash), "{}", json(event));
    }
    Ok(())
}

fn is_read(daemon: &mut Daemon, path: &str) -> Result<()> {
    let run = read(daemon, path)?;
    ensure!(run.status.success(), "`{path}` was not read: {}", run.stderr);
    Ok(())
}

/// The next event about a policy, which must be of this kind and say this.
fn told(daemon: &mut Daemon, kind: Kind, what: &str) -> Result<Event> {
    let is_it = |event: &Event| matches!(event.kind, Kind::PolicyApplied | Kind::PolicyRefused);
    let event = daemon.wait_for("news of a policy", is_it)?.pop().context("no event")?;
    let reason = event.reason.clone().unwrap_or_default();
    ensure!(event.kind == kind && reason.contains(what), "{}", json(&event));
    ensure!(event.policy.is_some(), "{}", json(&event));
    Ok(event)
}

/// Another file in the place of the policy's, as editors write it.
fn replace(place: &Place, text: &str) -> Result<()> {
    let beside = place.policy().with_extension("new");
    fs::write(&beside, text)?;
    fs::rename(beside, place.policy()).context("cannot replace the policy")
}

fn write(dir: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    fs::write(&path, text)?;
    Ok(path)
}

/// Case E09.
#[test]
fn what_was_done_last_is_in_force() -> Result<()> {
    let machine = Shared::apart()?;
    let place = Place::new()?;
    let dir = work_dir()?;
    let (first, second) = (file("first")?, file("second")?);
    let unreachable = output(&place, &["policy", "show"])?;
    ensure!(unreachable.status.code() == Some(5), "{unreachable:?}");
    let mut daemon = Daemon::start(&place)?;
    told(&mut daemon, Kind::PolicyApplied, "the daemon started with it")?;
    let begun = show(&place)?;
    ensure!(begun.origin == PolicyOrigin::Files && begun.refused.is_none(), "{begun:?}");
    let declared = POLICY.matches("owner: ").count();
    ensure!(begun.path.as_deref() == place.policy().to_str() && begun.agents.len() == declared, "{begun:?}");
    let protected = begun.rules.iter().find(|rule| rule.name == "protected").context("no rule")?;
    ensure!(protected.status == Standing::Partly && protected.reasons.len() == 1, "{protected:?}");

    // Applied; and over a restart, since the files are what they were.
    let wanted = write(dir.path(), "first.yaml", &policy("first", &first, 0))?;
    let applied = apply(&place, &wanted)?;
    ensure!(applied.version == begun.version + 1 && applied.hash != begun.hash, "{applied:?}");
    told(&mut daemon, Kind::PolicyApplied, "policy apply")?;
    is_refused(&mut daemon, &first, "first")?;
    daemon.kill()?;
    let mut daemon = Daemon::start(&place)?;
    told(&mut daemon, Kind::PolicyApplied, "what was applied last")?;
    let after = show(&place)?;
    ensure!(after.origin == PolicyOrigin::Applied && after.hash == applied.hash, "{after:?}");
    ensure!(after.rules.iter().all(|rule| rule.status == Standing::Enforced), "{after:?}");
    is_refused(&mut daemon, &first, "first")?;

    // A bad one changes nothing.
    let bad = write(dir.path(), "bad.yaml", "version: 1\nrules: [{name: x, deny: {reed: [/x]}}]\n")?;
    let refused = output(&place, &["policy", "apply", &bad.to_string_lossy()])?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(refused.status.code() == Some(4) && said.contains("reed") && said.contains("AW"), "{said}");
    let asks = write(dir.path(), "asks.yaml", "version: 1\nagents: {strict: {owner: x, mode: approve}}\n")?;
    let refused = output(&place, &["policy", "apply", &asks.to_string_lossy()])?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(refused.status.code() == Some(4) && said.contains("asks.yaml:2:"), "by the daemon: {said}");
    told(&mut daemon, Kind::PolicyRefused, "approve")?;
    ensure!(show(&place)?.version == after.version);
    is_refused(&mut daemon, &first, "first")?;

    // The files change: replaced, bad, in place.
    replace(&place, &policy("second", &second, 3))?;
    told(&mut daemon, Kind::PolicyApplied, "the files changed")?;
    is_refused(&mut daemon, &second, "second")?;
    is_read(&mut daemon, &first)?;
    replace(&place, "version: 1\nrulez: []\n")?;
    told(&mut daemon, Kind::PolicyRefused, "rulez")?;
    let stays = show(&place)?;
    ensure!(stays.refused.as_ref().is_some_and(|why| why.contains("rulez")), "{stays:?}");
    is_refused(&mut daemon, &second, "second")?;
    fs::write(place.policy(), policy("again", &first, 1))?;
    told(&mut daemon, Kind::PolicyApplied, "the files changed")?;
    ensure!(show(&place)?.refused.is_none());
    is_refused(&mut daemon, &first, "again")?;

    // Asked for, they take the place of what was applied.
    apply(&place, &write(dir.path(), "second.yaml", &policy("second", &second, 0))?)?;
    told(&mut daemon, Kind::PolicyApplied, "policy apply")?;
    is_refused(&mut daemon, &second, "second")?;
    daemon.reload()?;
    told(&mut daemon, Kind::PolicyApplied, "SIGHUP")?;
    is_refused(&mut daemon, &first, "again")?;
    fs::write(place.policy(), POLICY)?;
    told(&mut daemon, Kind::PolicyApplied, "the files changed")?;
    daemon.stop()?;
    drop(machine);
    Ok(())
}

/// Runs `agentwatch policy simulate` over the last hour.
fn simulate(place: &Place, policy: &Path, since: &str) -> Result<(Option<i32>, serde_json::Value)> {
    let policy = policy.to_string_lossy();
    let output = output(place, &["policy", "simulate", "--since", since, "-o", "json", &policy])?;
    let answer = serde_json::from_slice(&output.stdout);
    Ok((output.status.code(), answer.with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?))
}

#[test]
fn the_past_tells_what_a_policy_would_refuse() -> Result<()> {
    Shared::with(|daemon| {
        let path = file("past")?;
        let dir = work_dir()?;
        let command = daemon.exec_as("test", ["sh", "-c", &format!("cat {path}; cat {path}; : > /dev/null")]);
        let run = daemon.run_session(command)?;
        ensure!(run.status.success());
        // Other tests used the same daemon before.
        let since = run.own().next().context("no event")?.time.clone();
        let agents = "version: 1\nagents: {test: {owner: x, mode: enforce}}\n";
        let strict = format!("{agents}rules: [{{name: past, agents: [test], deny: {{read: ['{path}']}}}}]\n");
        let strict = write(dir.path(), "strict.yaml", &strict)?;
        let mild = write(dir.path(), "mild.yaml", agents)?;

        let (code, answer) = simulate(daemon.place(), &strict, &since)?;
        ensure!(code == Some(3), "{answer}");
        let rows = answer["differences"].as_array().context("no differences")?;
        let row = rows.iter().find(|row| row["target"] == *path).with_context(|| answer.to_string())?;
        ensure!(row["count"] == 2 && row["then"] == "allowed" && row["now"] == "denied", "{row}");
        ensure!(row["rule"] == "past" && row["agent"] == "test" && row["op"] == "read", "{row}");
        ensure!(answer["summary"]["newly_denied"] == 2, "{answer}");

        let (code, answer) = simulate(daemon.place(), &mild, &since)?;
        ensure!(code == Some(0) && answer["summary"]["newly_denied"] == 0, "{answer}");
        ensure!(answer["summary"]["operations"].as_u64() > Some(5), "{answer}");
        Ok(())
    })
}

/// Opens one file that both policies deny and one that both allow, until told to stop. Prints how often, and how often
/// it was not as it must be.
const OPENS: &str = "
import os, sys
never, always, stop = sys.argv[1:]
rounds = wrong = 0
while not os.path.exists(stop):
    for _ in range(20):
        rounds += 1
        try:
            os.close(os.open(never, os.O_RDONLY))
            wrong += 1
        except PermissionError:
            pass
        try:
            os.close(os.open(always, os.O_RDONLY))
        except OSError:
            wrong += 1
print(rounds, wrong)
";

/// Policies that follow each other in the test of reloads.
const TURNS: usize = 16;

/// Case E10.
#[test]
fn no_moment_is_without_a_policy_and_no_event_is_judged_by_two() -> Result<()> {
    Shared::with(|daemon| {
        let (never, always) = (file("never")?, file("always")?);
        let dir = work_dir()?;
        let stop = dir.path().join("stop");
        let one = write(dir.path(), "one.yaml", &policy("one", &never, 0))?;
        let two = write(dir.path(), "two.yaml", &policy("two", &never, 25))?;
        let mut known = vec![apply(daemon.place(), &one)?];
        let script = write(dir.path(), "opens.py", OPENS)?;
        let mut command = daemon.exec_as("strict", ["python3".as_ref(), script.as_os_str()]);
        command.args([Path::new(&never), Path::new(&always), &stop]);
        let printed = tempfile::tempfile()?;
        let mut child = command.stdout(printed.try_clone()?).stderr(Stdio::inherit()).spawn()?;
        for turn in 0..TURNS {
            known.push(apply(daemon.place(), if turn % 2 == 0 { &two } else { &one })?);
        }
        fs::write(&stop, "")?;
        ensure!(wait(&mut child)?.success(), "the session failed");
        let mut events = Vec::new();
        daemon.until("the end of the session", |event| {
            let is_end = event.kind == Kind::SessionEnd;
            events.push(event);
            Ok(is_end)
        })?;
        apply(daemon.place(), &daemon.place().policy())?;
        let printed = String::from_utf8(contents(&printed)?)?;
        let numbers: Vec<u64> = printed.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [rounds, wrong] = numbers.as_slice() else { anyhow::bail!("it printed {printed}") };
        ensure!(*wrong == 0, "{wrong} of {rounds} rounds went wrong");
        judged_by_one_each(&events, &known, &never, *rounds)
    })
}

/// Each refusal names a policy that was in force, and the rule of that one. All are told.
fn judged_by_one_each(events: &[Event], known: &[AppliedView], never: &str, rounds: u64) -> Result<()> {
    let is_never = |event: &&Event| {
        event.op == Some(Op::Read) && event.file.as_ref().is_some_and(|file| file.path.0 == never)
    };
    let (mut refusals, mut versions) = (0, std::collections::BTreeSet::new());
    for event in events.iter().filter(is_never) {
        let by = event.policy.as_ref().with_context(|| format!("no policy: {}", json(event)))?;
        let place = known.iter().position(|one| one.version == by.version);
        let place = place.with_context(|| format!("never in force: {}", json(event)))?;
        ensure!(known.get(place).is_some_and(|one| one.hash == by.hash), "{}", json(event));
        let rule = if place % 2 == 0 { "one" } else { "two" };
        ensure!(event.rule.as_deref() == Some(rule), "not its rule: {}", json(event));
        ensure!(event.verdict == Verdict::Denied, "{}", json(event));
        refusals += event.count;
        versions.insert(by.version);
    }
    let lost: u64 = events.iter().filter_map(|event| Some(event.loss.as_ref()?.count)).sum();
    ensure!(refusals + lost >= rounds && refusals <= rounds, "{refusals} of {rounds} refusals, {lost} lost");
    ensure!(versions.len() > TURNS / 2, "too few policies judged: {versions:?}");
    Ok(())
}

/// Gives a hook a tool call, with or without a beginning; says how it ended and what it said.
fn hook(place: &Place, harness: &str, event: &str) -> Result<(Option<i32>, String)> {
    let mut command = place.agentwatch(["hook", harness]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let call = r#""prompt_id":"p","tool_use_id":"t","tool_name":"Bash","tool_input":{"command":"true"}"#;
    let told = format!(r#"{{"hook_event_name":"{event}",{call}}}"#);
    child.stdin.take().context("no input")?.write_all(told.as_bytes())?;
    let output = child.wait_with_output()?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

#[test]
fn hooks_that_the_policy_requires_stop_what_a_dead_daemon_is_not_told_of() -> Result<()> {
    let machine = Shared::apart()?;
    let place = Place::new()?;
    let usual = fs::read_to_string(place.policy())?;
    replace(&place, &format!("{usual}\nhooks:\n  required: [claude-code]\n"))?;
    Daemon::start(&place)?.kill()?;
    let (code, said) = hook(&place, "claude-code", "PreToolUse")?;
    ensure!(code == Some(2) && said.contains("This was stopped"), "{code:?}: {said}");
    let (code, said) = hook(&place, "claude-code", "PostToolUse")?;
    ensure!(code == Some(0), "what is over is stopped: {code:?}: {said}");
    let (code, said) = hook(&place, "codex", "PreToolUse")?;
    ensure!(code == Some(0) && !said.contains("This was stopped"), "{code:?}: {said}");
    let mut daemon = Daemon::start(&place)?;
    let script = r#"printf '{"hook_event_name":"PreToolUse","prompt_id":"p","tool_use_id":"t","tool_name":"Bash","tool_input":{"command":"true"}}' | agentwatch hook claude-code"#;
    let run = daemon.session(["bash", "-c", script])?;
    ensure!(run.status.success(), "what is told is stopped: {}: {}", run.status, run.stderr);
    // A policy that does not require it.
    replace(&place, &usual)?;
    let path = place.policy();
    apply(&place, &path)?;
    daemon.kill()?;
    let (code, said) = hook(&place, "claude-code", "PreToolUse")?;
    ensure!(code == Some(0), "{code:?}: {said}");
    Daemon::start(&place)?.stop()?;
    drop(machine);
    Ok(())
}
