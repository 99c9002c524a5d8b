//! What happens to a test that never ends: it says where it stands, and takes no more time of the others' machine.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::exit;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How long one test may take on an emulated machine; those that take longest take a third of it.
const MOST: Duration = Duration::from_secs(900);
/// Exit status of a test program that ended this way.
const STUCK: i32 = 70;

/// A test that is watched until this value goes.
#[must_use]
pub struct Watched(u64);

/// Number of the latest test, and whether it runs.
static RUNNING: Mutex<(u64, bool)> = Mutex::new((0, false));
static CHANGED: Condvar = Condvar::new();

/// Begins to watch a test. One runs at a time.
pub fn watch() -> Watched {
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    *running = (running.0 + 1, true);
    let number = running.0;
    thread::spawn(move || guard(number));
    Watched(number)
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        if running.0 == self.0 {
            running.1 = false;
        }
        drop(running);
        CHANGED.notify_all();
    }
}

fn guard(number: u64) {
    let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    let waits = |(latest, runs): &mut (u64, bool)| *latest == number && *runs;
    let waited = CHANGED.wait_timeout_while(running, MOST, waits);
    let (_running, result) = waited.unwrap_or_else(PoisonError::into_inner);
    if result.timed_out() {
        eprintln!("the test did not end within {MOST:?}; what waits on this machine:\n{}", who_waits());
        exit(STUCK);
    }
}

/// All threads that are no kernel's, and where in the kernel they are.
fn who_waits() -> String {
    let mut text = String::new();
    for process in folders(Path::new("/proc")) {
        let command = fs::read(process.join("cmdline")).unwrap_or_default();
        if command.is_empty() {
            continue;
        }
        for task in folders(&process.join("task")) {
            let read = |name: &str| fs::read_to_string(task.join(name)).unwrap_or_default();
            let (stat, stack) = (read("stat"), read("stack"));
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}: {}\n{stack}", stat.trim(), command.escape_ascii());
        }
    }
    text
}

/// What in a folder of `/proc` has a number as its name.
fn folders(path: &Path) -> impl Iterator<Item = std::path::PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let is_number = |name: &std::ffi::OsStr| name.to_str().is_some_and(|name| name.parse::<u32>().is_ok());
    entries.filter(move |entry| is_number(&entry.file_name())).map(|entry| entry.path())
}
