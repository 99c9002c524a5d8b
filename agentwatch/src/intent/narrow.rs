//! What was declared for a session, and what a tool call was told: both say what is about to be done.

use crate::event::{Alignment, IntentRef};

/// What an event is beside both. What a harness tells only narrows: it makes nothing aligned that is outside of what was
/// declared, and what it does not speak of is as it was declared.
#[must_use]
pub fn narrower(declared: Option<IntentRef>, told: Option<IntentRef>) -> Option<IntentRef> {
    let of = |intent: &Option<IntentRef>| intent.as_ref().and_then(|intent| intent.alignment);
    match (of(&declared), of(&told)) {
        (_, None) | (Some(Alignment::Aligned), Some(Alignment::Aligned)) => declared,
        (Some(Alignment::Outside | Alignment::Expired), _) => declared,
        _ => told,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_harness_tells_only_narrows() {
        use Alignment::{Aligned, Expired, Outside, Undeclared};
        let declared = |alignment| Some(IntentRef::of(&"int-1".into(), alignment));
        let told = |alignment| Some(IntentRef::of(&"toolu_1".into(), alignment));
        for alignment in [Aligned, Outside, Undeclared, Expired] {
            assert_eq!(narrower(declared(alignment), None), declared(alignment));
        }
        assert_eq!(narrower(None, None), None);
        for alignment in [Aligned, Outside] {
            assert_eq!(narrower(None, told(alignment)), told(alignment));
            assert_eq!(narrower(declared(Undeclared), told(alignment)), told(alignment));
            assert_eq!(narrower(declared(Outside), told(alignment)), declared(Outside));
            assert_eq!(narrower(declared(Expired), told(alignment)), declared(Expired));
        }
        assert_eq!(narrower(declared(Aligned), told(Aligned)), declared(Aligned));
        assert_eq!(narrower(declared(Aligned), told(Outside)), told(Outside));
    }
}
