//! Small values: numbers, durations, moments.

use super::Reader;
use crate::event::time::parse_time;
use crate::policy::{Code, Node};

/// The longest duration that a policy can name: a year.
const DURATION_S_MAX: u64 = 366 * 86_400;

impl Reader<'_> {
    /// A number from 1.
    pub(super) fn number(&mut self, node: &Node) -> Option<u32> {
        let text = self.text(node, "this is a number")?;
        let count = text.parse().ok().filter(|&count| count > 0);
        if count.is_none() {
            let message = format!("`{text}` is no number from 1 to {}", u32::MAX);
            self.report(Code::BadValue, node.place, message, None);
        }
        count
    }

    /// A duration, in seconds.
    pub(super) fn duration(&mut self, node: &Node) -> Option<u64> {
        let text = self.text(node, "a duration is a text such as 10m")?;
        let seconds = seconds(text).filter(|seconds| (1..=DURATION_S_MAX).contains(seconds));
        if seconds.is_none() {
            let message = format!("`{text}` is no duration from a second to a year");
            let help = "write it as `60s`, `10m`, `1h30m` or `2d`".to_owned();
            self.report(Code::BadValue, node.place, message, help);
        }
        seconds
    }

    /// A moment, in nanoseconds since 1970.
    pub(super) fn moment(&mut self, node: &Node) -> Option<u64> {
        let text = self.text(node, "a time is a text such as 2026-12-20T00:00:00Z")?;
        let moment = parse_time(text);
        if moment.is_none() {
            let message = format!("`{text}` is no time");
            let help = if text.len() == "2026-12-20".len()
                && text.bytes().filter(|byte| *byte == b'-').count() == 2
            {
                format!("write `{text}T00:00:00Z`, if midnight in UTC is meant")
            } else {
                "write it with its date and offset (RFC 3339), such as `2026-12-20T00:00:00Z`".to_owned()
            };
            self.report(Code::BadTime, node.place, message, help);
        }
        moment
    }
}

/// `1h30m` in seconds.
#[must_use]
pub fn seconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let mut tail = tail.chars();
        let unit = match tail.next()? {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return None,
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(unit)?)?;
        rest = tail.as_str();
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn durations() {
        for (text, expected) in [
            ("60s", Some(60)),
            ("10m", Some(600)),
            ("1h30m", Some(5_400)),
            ("2d", Some(172_800)),
            ("0s", Some(0)),
            ("", Some(0)),
            ("60", None),
            ("m", None),
            ("1w", None),
            ("-1s", None),
            ("99999999999999999999s", None),
            ("999999999999999999d", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}
