//! Spans: of tool calls, told when a call is over and held against what its session did in that time, and of what was
//! retrieved for a model.

use super::{Daemon, calls::Harness};
use crate::{
    calls::{CallRef, Spanned, is_writer},
    control::{
        Caller, Member, Refusal,
        state::{AbilityState, AbilityView, ProcessId},
        tool::Reported,
    },
    event::{CallBy, Context, Event, Kind, SpanRef, time::format_time},
    otlp::{Done, Export, Refused, Retrieval, Span, Tool},
};

const NS_PER_S: u64 = 1_000_000_000;
/// How far in the future a span may end: clocks are read at different moments.
const FUTURE_NS: u64 = 60 * NS_PER_S;
/// Time between two events about requests of nobody.
const STRANGERS_NS: u64 = 60 * NS_PER_S;

/// Requests of those who are in no session.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Strangers {
    count: u64,
    /// User id of the latest.
    uid: u32,
    told_ns: Option<u64>,
}

impl Daemon {
    /// Who can be a sender.
    pub(super) fn members(&self) -> Vec<Member> {
        let living = self.state.processes.all_living();
        living.map(|(pid, process)| Member { pid, session: process.session }).collect()
    }

    /// Takes up the spans of a session: its own words, of itself alone, which the kernel says.
    pub(super) fn spans(&mut self, export: Export, caller: &Caller, now: u64) -> Result<Refused, Refusal> {
        let Some(session) = self.session_of(caller) else {
            self.strangers.count += 1;
            self.strangers.uid = caller.uid;
            return Err(Refusal::UnknownSender);
        };
        // What was done in their time is counted first.
        self.pipeline.drain(&mut self.maps.events, &mut self.state, &mut self.log);
        self.pipeline.flush(&mut self.state, &mut self.log);
        let sender = Harness { session, process: self.process_of(caller), now };
        let Export { spans, mut refused } = export;
        let all = spans.len() as u64 + refused.count;
        for span in spans {
            match self.misplaced(session, &span, now) {
                Some(why) => refused.add(why),
                None => self.take_span(sender, &span),
            }
        }
        if let Some(why) = &refused.why {
            let mut event = self.harness_event(Kind::ToolRefused, sender);
            event.reason = Some(format!("{} of {all} spans refused: {why}", refused.count));
            event.count = refused.count;
            self.log.append(&mut event);
        }
        Ok(refused)
    }

    fn process_of(&self, caller: &Caller) -> ProcessId {
        let pid = caller.pid.unwrap_or_default();
        let start_time = self.state.processes.living(pid).map_or(0, |process| process.start_ns);
        ProcessId { pid, start_time }
    }

    /// Why a span cannot be, by its times.
    fn misplaced(&self, session: u64, span: &Span, now: u64) -> Option<String> {
        let began_ns = self.state.sessions.get(session).map_or(0, |session| session.began.since_ns);
        misplaced(span, began_ns, self.state.host.unix_ns(now)).map(str::to_owned)
    }

    fn take_span(&mut self, sender: Harness, span: &Span) {
        if !self.state.calls.is_new_span(sender.session, span) {
            return;
        }
        let mut event = match &span.done {
            Done::Tool(tool) => self.of_tool(sender, span, tool),
            Done::Retrieval(retrieval) => self.of_retrieval(sender, span, retrieval),
        };
        event.span = Some(Box::new(in_event(span)));
        self.log.append(&mut event);
    }

    fn of_tool(&self, sender: Harness, span: &Span, tool: &Tool) -> Event {
        let spanned = self.state.calls.span(sender.session, span, tool);
        let mut event = match &spanned {
            Spanned::Known(whose) => self.call_event(Kind::ToolReported, sender, whose),
            Spanned::New(_) => {
                self.call_event(Kind::ToolReported, sender, &CallRef::of_span(span, tool, sender.process))
            }
        };
        let reported = if span.failed { Reported::Failure } else { Reported::Success };
        event.reason = Some(match spanned {
            Spanned::New(Some(seen)) => {
                event.outcome = Some(seen.outcome(Some(reported), span.output.as_deref()));
                if let Some(call) = &mut event.tool_call {
                    call.by = Some(CallBy::Time);
                }
                seen.sentence(Some(reported), is_writer(&tool.name))
            }
            Spanned::New(None) => {
                format!("reported {}; what was done in its time is not kept any more", reported.word())
            }
            Spanned::Known(_) => format!("reported {}; the call was told of before", reported.word()),
        });
        if let Some(call) = &mut event.tool_call {
            call.input.clone_from(&tool.input);
        }
        event
    }

    fn of_retrieval(&self, sender: Harness, span: &Span, retrieval: &Retrieval) -> Event {
        let mut event = self.harness_event(Kind::ContextRetrieved, sender);
        event.reason = Some(said_of(span, retrieval));
        let Retrieval { source, documents } = retrieval.clone();
        let documents = documents.unwrap_or_default();
        event.context = Some(Box::new(Context { source, documents: documents.ids, count: documents.count }));
        event
    }

    /// Says that nobody's requests were refused: the first at once, the others at most once a minute.
    pub(super) fn tell_strangers(&mut self, now: u64) {
        let Strangers { count, uid, told_ns } = self.strangers;
        if count == 0 || told_ns.is_some_and(|told| now.saturating_sub(told) < STRANGERS_NS) {
            return;
        }
        self.strangers = Strangers { count: 0, uid, told_ns: Some(now) };
        let reason =
            format!("requests with spans refused: they came from no session, the latest of user {uid}");
        tracing::warn!("{count} {reason}");
        let mut event: Event = self.state.host_event(Kind::ToolRefused, now, Some(reason));
        event.count = count;
        self.log.append(&mut event);
    }

    /// The receiver, where there is one.
    pub(super) fn span_ability(&self) -> Option<AbilityView> {
        let name = format!("spans at {}", self.otlp?);
        Some(AbilityView { name: name.into(), state: AbilityState::Full, reason: None })
    }
}

fn misplaced(span: &Span, began_ns: u64, now_ns: u64) -> Option<&'static str> {
    if span.end_ns < span.start_ns {
        Some("a span ends before it begins")
    } else if span.end_ns > now_ns.saturating_add(FUTURE_NS) {
        Some("a span ends more than a minute in the future")
    } else if span.start_ns < began_ns {
        Some("a span begins before its session")
    } else {
        None
    }
}

/// What was retrieved, in one sentence.
fn said_of(span: &Span, Retrieval { source, documents }: &Retrieval) -> String {
    let what = match documents {
        Some(documents) if documents.count == 1 => "1 document".to_owned(),
        Some(documents) => format!("{} documents", documents.count),
        None => "documents that it does not name".to_owned(),
    };
    let from = source.as_ref().map(|source| format!(" from `{source}`")).unwrap_or_default();
    let failed =
        span.failed.then(|| span.error.as_deref().or(span.output.as_deref()).unwrap_or("no reason given"));
    match failed {
        Some(why) => format!("reported that retrieving{from} failed: {why}"),
        None => format!("reported that it retrieved {what}{from}"),
    }
}

fn in_event(span: &Span) -> SpanRef {
    SpanRef {
        trace_id: span.trace.clone(),
        id: span.id.clone(),
        parent: span.parent.clone(),
        start: format_time(span.start_ns),
        end: format_time(span.end_ns),
        conversation: span.conversation.clone(),
        error: span.error.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::Documents;

    #[test]
    fn what_was_retrieved_is_said_in_one_sentence() {
        let documents = |count| Some(Documents { ids: Vec::new(), count });
        let ok = Span::default();
        let failed = Span { failed: true, error: Some("timeout".into()), ..Span::default() };
        for (span, source, documents, said) in [
            (&ok, Some("kb"), documents(1), "reported that it retrieved 1 document from `kb`"),
            (&ok, None, documents(0), "reported that it retrieved 0 documents"),
            (&ok, Some("kb"), None, "reported that it retrieved documents that it does not name from `kb`"),
            (&failed, Some("kb"), None, "reported that retrieving from `kb` failed: timeout"),
        ] {
            let retrieval = Retrieval { source: source.map(str::to_owned), documents };
            assert_eq!(said_of(span, &retrieval), said);
        }
    }

    #[test]
    fn a_span_lies_between_the_sessions_start_and_now() {
        let (began, now) = (100 * NS_PER_S, 200 * NS_PER_S);
        let said = |start_ns, end_ns| {
            misplaced(&Span { start_ns, end_ns, ..Span::default() }, began, now).unwrap_or_default()
        };
        assert_eq!(said(began, began), "");
        assert_eq!(said(began, now + FUTURE_NS), "");
        for (start_ns, end_ns, why) in [
            (now, now - 1, "before it begins"),
            (now, now + FUTURE_NS + 1, "in the future"),
            (now, u64::MAX, "in the future"),
            (began - 1, now, "before its session"),
            (0, 0, "before its session"),
        ] {
            assert!(said(start_ns, end_ns).contains(why), "{start_ns} {end_ns}");
        }
    }
}
