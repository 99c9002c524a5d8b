//! Calls of harnesses that give them no ids: the hooks at both ends of a call make the same one of what it is told, and here
//! calls that are alike are counted.

use super::{Calls, OfSession};
use crate::control::tool::ToolCall;

/// What stands between an id and its count.
const MARK: char = '.';

impl Calls {
    /// Gives a call that begins an id that no other of its session has.
    pub fn number(&mut self, session: u64, call: &mut ToolCall) {
        if !call.counted {
            return;
        }
        let of = self.by_session.entry(session).or_default();
        of.counted += 1;
        call.id = format!("{}{MARK}{}", call.id, of.counted);
    }

    /// The id of a call that ends: of several that are alike the one that began first.
    #[must_use]
    pub fn counted(&self, session: u64, id: String) -> String {
        self.by_session.get(&session).and_then(|of| of.first_open(&id)).unwrap_or(id)
    }
}

impl OfSession {
    fn first_open(&self, id: &str) -> Option<String> {
        let is = |own: &str| {
            let count = own.strip_prefix(id).and_then(|rest| rest.strip_prefix(MARK));
            count.is_some_and(|count| count.parse::<u64>().is_ok())
        };
        let found = self.calls.iter().find(|call| call.ended_ns.is_none() && is(&call.whose.id));
        found.map(|call| call.whose.id.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::state::ProcessId;
    use crate::control::tool::{Begin, End};

    #[test]
    fn calls_that_are_alike_are_told_apart() {
        let mut calls = Calls::default();
        let mut begin = |counted| {
            let mut call = ToolCall { id: "g-1".into(), counted, ..ToolCall::default() };
            calls.number(7, &mut call);
            let begin = Begin { tool: call, ..Begin::default() };
            calls.begin(7, ProcessId { pid: 1, start_time: 1 }, &begin, 5).id.to_string()
        };
        assert_eq!([begin(true), begin(true), begin(false)], ["g-1.1", "g-1.2", "g-1"]);
        let end = |calls: &mut Calls, id: &str| {
            let id = calls.counted(7, id.to_owned());
            calls.end(7, &End { id: id.clone(), ..End::default() }, 9);
            id
        };
        assert_eq!(end(&mut calls, "g-1"), "g-1.1");
        assert_eq!(end(&mut calls, "g-1"), "g-1.2");
        assert_eq!(end(&mut calls, "g-1"), "g-1", "no counted one is open");
        assert_eq!(end(&mut calls, "g"), "g");
    }
}
