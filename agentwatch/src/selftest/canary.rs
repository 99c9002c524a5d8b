//! The canary itself: a process that the daemon starts.
//!
//! It says `ready` once everything is at hand, waits until the daemon has made it a session and closes its standard input,
//! and then says what came of each try, a line each: its number, and the error's number or a word.

use std::{
    io::{self, Read as _, Write as _},
    path::Path,
};

use super::{Outcome, scene::Scene, tries::TRIES};

/// The word that starts a canary: no command of users.
pub const COMMAND: &str = "selftest-canary";
/// What it says when it can be made a session.
pub const READY: &str = "ready";

/// Runs it in this folder, to its end.
///
/// # Errors
/// It cannot prepare, or nobody listens.
pub fn sing(folder: &Path) -> io::Result<()> {
    let scene = Scene::new(folder)?;
    let mut out = io::stdout().lock();
    writeln!(out, "{READY}")?;
    out.flush()?;
    let mut word = String::new();
    io::stdin().read_to_string(&mut word)?;
    // The daemon ended before it made a session of this process.
    if word.is_empty() {
        return Ok(());
    }
    for (number, one) in TRIES.iter().enumerate() {
        let line = format!("{number} {}\n", word_of(one.make(&scene)));
        out.write_all(line.as_bytes())?;
    }
    out.flush()
}

fn word_of(outcome: Outcome) -> String {
    match outcome {
        Outcome::Refused => "refused".to_owned(),
        Outcome::WentThrough => "through".to_owned(),
        Outcome::Absent => "absent".to_owned(),
        Outcome::Other(errno) => errno.to_string(),
        Outcome::Unknown => "unknown".to_owned(),
    }
}

/// Reads what a canary said into what is known of its tries. What is no such line is passed over.
pub fn hear(said: &str, outcomes: &mut [Outcome]) {
    for line in said.lines() {
        let Some((number, word)) = line.split_once(' ') else { continue };
        let Some(place) = number.parse().ok().and_then(|number: usize| outcomes.get_mut(number)) else {
            continue;
        };
        *place = match word {
            "refused" => Outcome::Refused,
            "through" => Outcome::WentThrough,
            "absent" => Outcome::Absent,
            errno => errno.parse().map_or(Outcome::Unknown, Outcome::Other),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_heard() {
        let all =
            [Outcome::Refused, Outcome::WentThrough, Outcome::Absent, Outcome::Other(111), Outcome::Unknown];
        let said: String = (0..).zip(all).map(|(n, one)| format!("{n} {}\n", word_of(one))).collect();
        let mut heard = [Outcome::Unknown; 5];
        hear(&format!("ready\n9 through\nx\n{said}"), &mut heard);
        assert_eq!(heard, all);
    }

    #[test]
    fn everything_can_be_prepared() {
        let folder = tempfile::tempdir().unwrap();
        let scene = Scene::new(folder.path()).unwrap();
        assert!(scene.path("stream").exists() && scene.bound.is_some());
    }
}
