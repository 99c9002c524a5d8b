//! The `windows` part.

use super::{Item, Reader};
use crate::policy::{Code, Window, keys};

impl Reader<'_> {
    pub(super) fn window(&mut self, item: &Item<'_>) -> Window {
        self.source = item.source;
        let what = format!("the window `{}`", item.name);
        let (mut from, mut to) = (None, None);
        for (key, place, value) in self.entries(item.node, &what) {
            match key {
                "from" => from = Some((place, self.moment(value))),
                "to" => to = Some((value.place, self.moment(value))),
                _ => self.unknown_key(key, place, &what, &keys::WINDOW),
            }
        }
        for (key, moment) in [("from", &from), ("to", &to)] {
            if moment.is_none() {
                let message = format!("{what} does not say `{key}`");
                let help = format!("add `{key}: 2026-12-20T00:00:00Z`, or whenever it is");
                self.report(Code::MissingKey, item.place, message, help);
            }
        }
        if let (Some((_, Some(from))), Some((place, Some(to)))) = (from, to)
            && to <= from
        {
            let message = format!("{what} ends before it begins");
            self.report(Code::BadTime, place, message, "swap `from` and `to`".to_owned());
        }
        let ns = |moment: Option<(_, Option<u64>)>| moment.and_then(|(_, ns)| ns).unwrap_or(0);
        Window { name: item.name.to_owned(), at: self.at(item.place), from_ns: ns(from), to_ns: ns(to) }
    }
}
