//! What a session says that is broken, forged, too large or too much: refused with a sentence, told, and nobody else's harm.

use std::collections::BTreeMap;
use std::fs;

use agentwatch::event::{Alignment, Event, Kind};
use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use tests::compare::json_lines;
use tests::daemon::{Daemon, Shared};
use tests::session::{wait, work_dir};

use crate::intents::Setting;

/// How all was answered.
#[derive(Debug, Deserialize)]
struct Answered {
    /// Status by what was said; 0 where the daemon hung up first.
    answers: BTreeMap<String, u16>,
    /// How often which status, of the flood.
    flood: BTreeMap<String, u64>,
    refused: u64,
    taken: u64,
}

const EXPECTED: [(&str, &[u16]); 11] = [
    ("broken", &[400]),
    ("no text", &[400]),
    ("an operator", &[400]),
    ("for another", &[403]),
    ("of yesterday", &[422]),
    ("another's id", &[400]),
    ("100 MB, said before", &[413]),
    ("100 MB, sent", &[413, 0]),
    ("a broken call", &[400]),
    ("a call of another", &[400]),
    ("a call that is none", &[400]),
];

/// What events tell of the first that is refused.
const TOLD: [&str; 4] =
    ["the body must be JSON", "unknown field `declared_by`", "cannot declare for", "larger than 64 KiB"];

fn is_refusal(event: &Event) -> bool {
    matches!(event.kind, Kind::IntentRefused | Kind::ToolRefused)
}

/// Reads on until the log has told of as many refusals as there were.
fn told(daemon: &mut Daemon, session: &str, refused: u64) -> Result<Vec<Event>> {
    let (mut events, mut count) = (Vec::new(), 0);
    daemon.until("account of every refusal", |event| {
        if is_refusal(&event) {
            ensure!(event.session.is_empty() || *event.session == *session, "{}", json_lines(&[event]));
            count += event.count;
            events.push(event);
        }
        Ok(count >= refused)
    })?;
    Ok(events)
}

#[test]
fn what_a_session_should_not_say_is_refused_and_told() -> Result<()> {
    Shared::with(|daemon| {
        let mut other = Setting::new(daemon)?;
        let dir = work_dir()?;
        let (script, stop, out) =
            (dir.path().join("hostile.py"), dir.path().join("stop"), dir.path().join("out"));
        fs::write(&script, include_str!("bad_input/hostile.py"))?;
        let socket = daemon.place().run_dir().join("declare.sock");
        let words = [script.as_os_str(), socket.as_os_str(), other.session.as_ref(), stop.as_os_str()];
        let mut command = daemon.exec([&["python3".as_ref()][..], &words].concat());
        let mut child = command.stdout(fs::File::create(&out)?).spawn()?;
        let begun = daemon.wait_for("a refusal", is_refusal)?;
        let session = begun.last().map(|event| event.session.to_string()).context("no event")?;

        // Meanwhile another session says what it does, and does it.
        let within = other.path("in");
        let id = other.shell.ask(&format!("agentwatch intent declare --task mine --write {within}"))?;
        let path = other.path("in/a");
        other.shell.ask(&format!("echo x > {path}; echo done"))?;
        fs::write(&stop, "")?;
        ensure!(wait(&mut child)?.success(), "the session failed");
        let answered: Answered = serde_json::from_slice(&fs::read(&out)?)?;
        for (what, expected) in EXPECTED {
            let status = answered.answers.get(what).with_context(|| format!("{what}: {answered:?}"))?;
            ensure!(expected.contains(status), "{what}: {answered:?}");
        }
        ensure!(answered.answers.len() == EXPECTED.len(), "{answered:?}");
        let flooded = |status: &str| answered.flood.get(status).copied().unwrap_or_default();
        ensure!(
            flooded("429") > 200 && flooded("200") == answered.taken && answered.taken > 0,
            "{answered:?}"
        );
        ensure!(flooded("429") + flooded("200") == answered.flood.values().sum::<u64>(), "{answered:?}");

        // Another reader of the same log: the first has gone past what the other session did.
        let all = crate::restarts::all_events(daemon.place())?;
        let made = all.iter().find(|event| crate::restarts::is_creation(event, &path)).context("no file")?;
        let intent = made.intent.as_ref().context("nothing was declared")?;
        ensure!(
            intent.alignment == Some(Alignment::Aligned) && intent.id.as_deref() == Some(&*id),
            "{made:?}"
        );

        let first = begun.iter().filter(|event| is_refusal(event)).map(|event| event.count).sum::<u64>();
        let mut events = begun;
        events.extend(told(daemon, &session, answered.refused - first)?);
        let reasons: Vec<&str> = events.iter().filter_map(|event| event.reason.as_deref()).collect();
        for sentence in TOLD {
            ensure!(reasons.iter().any(|reason| reason.contains(sentence)), "`{sentence}`: {reasons:?}");
        }
        other.shell.end()
    })
}
