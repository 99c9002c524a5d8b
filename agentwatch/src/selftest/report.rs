//! What came of a self-test.

use super::{
    Subject,
    tries::{TRIES, Try},
};
use crate::{
    control::selftest::{SelfTestResult, SelfTestView},
    event::time::{format_time, now_ns},
};

/// What came of one try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was refused, as it must be.
    Refused,
    /// It went through.
    WentThrough,
    /// It ended with another error than a refusal, by its number.
    Other(i32),
    /// This host has no such thing.
    Absent,
    /// The canary said nothing of it.
    Unknown,
}

/// What came of a self-test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// When it ended: nanoseconds since 1970.
    pub when_ns: u64,
    /// What came of each try, in the order of [`TRIES`].
    pub outcomes: Vec<Outcome>,
    /// Why it broke off.
    pub trouble: Option<String>,
}

impl Report {
    /// A self-test of which nothing is known yet, or that could not be made.
    #[must_use]
    pub fn without_outcomes(trouble: Option<String>) -> Self {
        Self { when_ns: now_ns(), outcomes: vec![Outcome::Unknown; TRIES.len()], trouble }
    }

    fn tries(&self, about: Subject) -> impl Iterator<Item = (&Try, Outcome)> {
        let outcomes = self.outcomes.iter().copied().chain(std::iter::repeat(Outcome::Unknown));
        TRIES.iter().zip(outcomes).filter(move |(one, _)| one.about == about)
    }

    /// Why something is not proved to be refused, in a sentence; nothing where it is.
    #[must_use]
    pub fn unproved(&self, about: Subject) -> Option<String> {
        let not_refused: Vec<String> =
            self.tries(about).filter_map(|(one, outcome)| said(one, outcome)).collect();
        let proved = self.tries(about).any(|(_, outcome)| outcome == Outcome::Refused);
        if not_refused.is_empty() && proved {
            return None;
        }
        if let Some(trouble) = &self.trouble {
            return Some(format!("the self-test did not prove it: {trouble}"));
        }
        if not_refused.is_empty() {
            return Some("the self-test did not prove it: this host has nothing to try it on".to_owned());
        }
        Some(format!("the self-test did not prove it: {}", not_refused.join("; ")))
    }

    /// Those of these that are not proved, each with the reason.
    #[must_use]
    pub fn unproved_of(&self, about: impl IntoIterator<Item = Subject>) -> Vec<(Subject, String)> {
        let mut found: Vec<(Subject, String)> = Vec::new();
        for subject in about {
            if !found.iter().any(|(known, _)| *known == subject)
                && let Some(why) = self.unproved(subject)
            {
                found.push((subject, why));
            }
        }
        found
    }

    /// Whether it tells the same as another, whenever that was.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.outcomes == other.outcomes && self.trouble.is_some() == other.trouble.is_some()
    }

    /// In one sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let unproved = self.unproved_of(Subject::all());
        if unproved.is_empty() {
            let refused = self.outcomes.iter().filter(|one| **one == Outcome::Refused).count();
            return format!("each of {refused} forbidden things that the self-test tried was refused");
        }
        if let Some(trouble) = &self.trouble {
            return format!("the self-test proved nothing: {trouble}");
        }
        let list: Vec<String> = unproved.iter().map(|(subject, _)| subject.name()).collect();
        let tries = TRIES.iter().zip(&self.outcomes).filter_map(|(one, outcome)| said(one, *outcome));
        format!(
            "NOT ENFORCED: {}; of the self-test {}",
            list.join(", "),
            tries.collect::<Vec<_>>().join("; ")
        )
    }

    /// As the control API gives it.
    #[must_use]
    pub fn view(&self) -> SelfTestView {
        let result = |subject: Subject| SelfTestResult {
            name: subject.name(),
            proved: self.unproved(subject).is_none(),
            tries: self.tries(subject).filter(|(_, outcome)| *outcome != Outcome::Absent).count() as u64,
            reason: self.unproved(subject),
        };
        SelfTestView {
            time: Some(format_time(self.when_ns)),
            skipped: None,
            results: Subject::all().map(result).collect(),
        }
    }
}

/// What is to be said of a try that was not refused.
fn said(one: &Try, outcome: Outcome) -> Option<String> {
    let what = one.what;
    match outcome {
        Outcome::Refused | Outcome::Absent => None,
        Outcome::WentThrough => Some(format!("`{what}` went through")),
        Outcome::Other(errno) => {
            let error = std::io::Error::from_raw_os_error(errno);
            Some(format!("`{what}` was not refused, and gave: {error}"))
        }
        Outcome::Unknown => Some(format!("`{what}` was not tried")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Op, policy::Guard};

    fn report(change: impl Fn(&Try) -> Outcome) -> Report {
        Report { when_ns: 0, outcomes: TRIES.iter().map(change).collect(), trouble: None }
    }

    #[test]
    fn what_is_reported_is_tried() {
        for subject in Subject::all() {
            assert!(TRIES.iter().any(|one| one.about == subject), "{}", subject.name());
        }
        assert!(TRIES.iter().all(|one| Subject::all().any(|subject| subject == one.about)));
    }

    #[test]
    fn all_refused_is_all_proved() {
        let report = report(|_| Outcome::Refused);
        assert_eq!(report.unproved_of(Subject::all()), []);
        assert!(report.view().results.iter().all(|one| one.proved && one.reason.is_none() && one.tries > 0));
    }

    #[test]
    fn one_that_gets_through_unproves_its_kind_and_no_other() {
        let read = Subject::Op(Op::Read);
        for outcome in [Outcome::WentThrough, Outcome::Other(111), Outcome::Unknown] {
            let report = report(|one| if one.about == read { outcome } else { Outcome::Refused });
            let unproved = report.unproved_of(Subject::all());
            assert_eq!(
                unproved.iter().map(|(subject, _)| *subject).collect::<Vec<_>>(),
                [read],
                "{outcome:?}"
            );
            assert!(report.sentence().starts_with("NOT ENFORCED: read;"), "{}", report.sentence());
        }
    }

    #[test]
    fn what_the_host_does_not_have_proves_nothing_by_itself() {
        let socket = Subject::Guard(Guard::RawSocket);
        let all = report(|one| if one.about == socket { Outcome::Absent } else { Outcome::Refused });
        assert!(all.unproved(socket).is_some_and(|why| why.contains("nothing to try it on")));
        let one = report(|one| if one.what.contains("IPv6") { Outcome::Absent } else { Outcome::Refused });
        assert_eq!(one.unproved(Subject::Op(Op::Connect)), None);
    }

    #[test]
    fn a_canary_that_does_not_sing_proves_nothing() {
        let report = Report::without_outcomes(Some("it did not start".into()));
        assert_eq!(report.unproved_of(Subject::all()).len(), Subject::all().count());
        assert!(report.sentence().contains("it did not start"), "{}", report.sentence());
    }
}
