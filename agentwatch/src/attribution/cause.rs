//! Sessions that begin with the use of what another one left behind, or with what a delegate does for it.

use std::sync::Arc;

use agentwatch_common::{
    kind::CauseBy,
    maps::{FileKey, SESSION_OF_PAST},
    record::RecordHeader,
};

use super::{Attribution, Beginning, file, process::Text, session_id};
use crate::{
    control::state::{Recognised, RecognisedBy},
    decode::CauseRecord,
    event::{Cause, Event, How, UsedBy},
};

impl Attribution {
    /// A process outside every session uses what one left behind: it is a session of its own from here on.
    pub(super) fn cause(&mut self, header: &RecordHeader, act: &CauseRecord<'_>, out: &mut Vec<Event>) {
        if self.sessions.get(header.session).is_none() {
            let cause = Arc::new(self.cause_of(act));
            let writer = (act.writer & SESSION_OF_PAST == 0).then_some(act.writer);
            let pattern = Some(Arc::from(cause.path.0.as_str()));
            let declared = self.table.index_of(&cause.agent).is_some();
            let began = Beginning {
                agent: Arc::clone(&cause.agent),
                owner: cause.owner.clone(),
                mode: Arc::from("observe"),
                parent: writer,
                since_ns: self.host.unix_ns(header.time_ns),
                how: How::Caused,
                recognised: Recognised { by: RecognisedBy::Cause, pattern, declared },
                root_pid: header.pid,
            };
            self.sessions.begin(header.session, began);
            if let Some(session) = self.sessions.get_mut(header.session) {
                session.caused(Some(cause));
            }
        }
        self.process(header, out);
        let mut event = self.session_begun(header);
        event.cause = self.sessions.get(header.session).and_then(|session| session.cause.clone());
        out.push(event);
    }

    /// Who wrote what is used.
    fn cause_of(&mut self, act: &CauseRecord<'_>) -> Cause {
        self.refresh_mounts(&[&act.path]);
        let path = Text::from_vec(file::locate(&act.path, &act.path_fs, &self.mounts).path);
        let by = match act.by {
            CauseBy::Read => UsedBy::Read,
            CauseBy::Load => UsedBy::Load,
            CauseBy::Asked => UsedBy::Asked,
            CauseBy::Job => UsedBy::Job,
            CauseBy::Exec | CauseBy::Unknown(_) => UsedBy::Exec,
        };
        let key = FileKey { ino: act.ino, dev: act.path.desc.dev, pad: 0 };
        if by == UsedBy::Job
            && let Some(write) = self.jobs.by(act.ino)
        {
            // Which file told so the kernel does not know.
            return write.cause(write.path.clone(), write.path_encoding, by);
        }
        let known = match by {
            UsedBy::Asked => self.asked.by(act.writer, act.asker),
            UsedBy::Job => None,
            UsedBy::Exec | UsedBy::Read | UsedBy::Load => self.written.by(key, act.writer),
        };
        if let Some(write) = known {
            return Cause { others: act.others, ..write.cause(path.text, path.encoding, by) };
        }
        // The event of the write or of the connection is missing, or what it said was forgotten.
        let known = self.sessions.get(act.writer);
        let of_table = self.table.get(self.table.with_number(act.agent));
        let agent: Arc<str> = match (known, of_table) {
            (Some(session), _) => Arc::clone(&session.began.agent),
            (None, Some(agent)) => Arc::from(agent.name.as_str()),
            (None, None) => Arc::from("unknown"),
        };
        Cause {
            path: path.text,
            path_encoding: path.encoding,
            by,
            others: act.others,
            session: known.map_or_else(
                || session_id(&agent, &self.host.boot_id, act.writer),
                |session| Arc::clone(&session.id),
            ),
            owner: known.and_then(|session| session.began.owner.clone()),
            agent,
            tool_call: None,
            prompt_id: None,
            intent: None,
            policy: None,
            rule: None,
            time: None,
            seq: None,
            cause: known.and_then(|session| session.cause.clone()),
        }
    }

    /// Remembers what an event says of a file that its session wrote, or of a delegate that it may be about to ask.
    pub fn note_left_behind(&mut self, event: &Event, session: u64) {
        let cause = || self.sessions.get(session).and_then(|session| session.cause.clone());
        self.written.note(event, session, cause);
        self.asked.note(event, session, cause);
        self.jobs.note(event);
    }
}

/// What made a session, as the end of a sentence that begins with the process.
#[must_use]
pub fn sentence(cause: &Cause) -> String {
    let does = match cause.by {
        UsedBy::Exec => "runs",
        UsedBy::Read => "reads",
        UsedBy::Load => "loads",
        UsedBy::Asked => "was started by",
        UsedBy::Job => "is a job of",
    };
    let did = if cause.by == UsedBy::Asked { "asked" } else { "wrote" };
    let others = if cause.others { "; others asked it too" } else { "" };
    let when = cause.time.as_ref().map(|time| format!(" at {time}")).unwrap_or_default();
    let call =
        (cause.tool_call.as_ref()).map(|call| format!(" by the tool call {} ({})", call.id, call.name));
    let prompt = cause.prompt_id.as_ref().map(|prompt| format!(", prompt {prompt}")).unwrap_or_default();
    let call = call.unwrap_or_default();
    format!("{does} {}, which {} {did}{when}{call}{prompt}{others}", cause.path.0, cause.session)
}
