//! The table at the end.

use std::io::{self, Write as _};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Counts, Part};

/// Prints what came of every part, and a last line with the sums.
///
/// # Errors
/// If the standard output is closed.
pub fn print(parts: &[Part], took: Duration) -> Result<()> {
    io::stdout().lock().write_all(table(parts, took).as_bytes()).context("the standard output is closed")
}

fn table(parts: &[Part], took: Duration) -> String {
    let width = parts.iter().map(|part| part.name.len()).max().unwrap_or_default();
    let mut text = format!("\n{:width$}  result  passed  failed  skipped   time\n", "part");
    let mut sums = Counts::default();
    for part in parts {
        let Counts { passed, failed, skipped } = part.counts;
        let result = if part.is_good() { "ok" } else { "FAILED" };
        let time = minutes(part.took);
        text +=
            &format!("{:width$}  {result:6}  {passed:6}  {failed:6}  {skipped:7}  {time:>5}\n", part.name);
        sums += part.counts;
        // A part that failed without a failed test is one failure.
        sums.failed += u64::from(!part.is_good() && failed == 0);
    }
    for part in parts.iter().filter(|part| !part.is_good()) {
        text += &format!("\n{} FAILED\n", part.name);
        text.extend(part.failures.iter().map(|failure| format!("  {failure}\n")));
        if part.failures.is_empty() {
            text += "  no test ran\n";
        }
    }
    let skipped = if sums.skipped == 0 { String::new() } else { format!(", {} skipped", sums.skipped) };
    text + &format!("\n{} passed, {} failed{skipped} in {}\n", sums.passed, sums.failed, minutes(took))
}

fn minutes(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_has_the_sums() {
        let part = |name: &str, passed, failed, skipped, failures: &[&str]| Part {
            name: name.to_owned(),
            counts: Counts { passed, failed, skipped },
            took: Duration::from_secs(61),
            failures: failures.iter().map(|&failure| failure.to_owned()).collect(),
        };
        let good = [part("format", 1, 0, 0, &[]), part("unit tests", 40, 0, 0, &[])];
        let text = table(&good, Duration::from_secs(600));
        assert!(text.ends_with("\n\n41 passed, 0 failed in 10:00\n"), "{text}");
        assert!(text.contains("\nunit tests  ok          40       0        0   1:01\n"), "{text}");

        let bad = [part("a", 3, 2, 1, &["x", "y"]), part("b", 0, 0, 0, &[])];
        let text = table(&bad, Duration::ZERO);
        assert!(text.contains("\na FAILED\n  x\n  y\n\nb FAILED\n  no test ran\n"), "{text}");
        assert!(text.ends_with("\n3 passed, 3 failed, 1 skipped in 0:00\n"), "{text}");
    }
}
