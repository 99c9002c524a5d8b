//! Makes texts of observed processes safe for a terminal.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The text with everything escaped that a terminal obeys or does not show: control characters, changes of
/// direction, characters without width, separators of lines. `\` becomes `\\`, so that nothing else looks
/// like an escape and the text can be had back.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        // Writing to a String cannot fail.
        let _ = match character {
            '\\' => safe.write_str("\\\\"),
            '\n' => safe.write_str("\\n"),
            '\r' => safe.write_str("\\r"),
            '\t' => safe.write_str("\\t"),
            _ if !is_unsafe(character) => safe.write_char(character),
            _ if character.is_ascii() => write!(safe, "\\x{:02x}", u32::from(character)),
            _ => write!(safe, "\\u{{{:x}}}", u32::from(character)),
        };
    }
    Cow::Owned(safe)
}

/// As [`escape`], for bytes that may not be UTF-8: those that are not become `\xff`.
#[must_use]
pub fn escape_bytes(bytes: &[u8]) -> String {
    let mut safe = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        safe.push_str(&escape(chunk.valid()));
        for byte in chunk.invalid() {
            // Writing to a String cannot fail. Escaped ASCII has other digits: below 80.
            let _ = write!(safe, "\\x{byte:02x}");
        }
    }
    safe
}

/// A line of JSON with the same characters escaped as `\uXXXX`: the same value, safe for a terminal.
pub fn escape_json(line: &str, safe: &mut String) {
    for character in line.chars() {
        // Writing to a String cannot fail.
        let _ = match character {
            '\\' => safe.write_char('\\'),
            // JSON has them between its tokens only.
            '\t' | '\n' | '\r' => safe.write_char(' '),
            _ if is_unsafe(character) => {
                let mut units = [0; 2];
                character.encode_utf16(&mut units).iter().try_for_each(|unit| write!(safe, "\\u{unit:04x}"))
            }
            _ => safe.write_char(character),
        };
    }
}

fn is_unsafe(character: char) -> bool {
    match character {
        '\\' => true,
        ' '..='~' => false,
        _ => character.is_control() || is_hidden(character),
    }
}

/// Whether a terminal shows nothing for it, or changes how it shows others.
fn is_hidden(character: char) -> bool {
    // Letters and marks that have no shape of their own. The standard library takes them for printable.
    let shapeless = matches!(character,
        '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{2800}'
        | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}');
    // Its table of printable characters leaves out formats, separators, spaces, private and unknown ones.
    // Behind a letter, so that accents are not taken for standing alone.
    let mut behind_letter = [b'a', 0, 0, 0, 0];
    let length = behind_letter.get_mut(1..).map_or(0, |rest| character.encode_utf8(rest).len());
    let text =
        behind_letter.get(..=length).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default();
    shapeless || text.escape_debug().nth(1) != Some(character)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_terminal_shows_is_kept() {
        assert!(matches!(escape("/home/ü/日本 😀 `x` %FF"), Cow::Borrowed("/home/ü/日本 😀 `x` %FF")));
    }

    #[test]
    fn what_a_terminal_obeys_is_escaped() {
        assert_eq!(escape("a\n\r\t\u{1b}[2J\u{7f}"), "a\\n\\r\\t\\x1b[2J\\x7f");
        assert_eq!(escape("\u{9b}2J\u{202e}\u{200b}\u{2028}"), "\\u{9b}2J\\u{202e}\\u{200b}\\u{2028}");
        assert_eq!(escape("\\n"), "\\\\n", "no text can look like an escaped one");
        assert_eq!(escape("a\u{a0}\u{3164}\u{fe0f}\u{e000}"), "a\\u{a0}\\u{3164}\\u{fe0f}\\u{e000}");
        assert_eq!(
            escape("e\u{301} \u{939}\u{93f}"),
            "e\u{301} \u{939}\u{93f}",
            "accents and vowel signs show"
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_told_from_text_that_looks_like_them() {
        assert_eq!(escape_bytes(b"/tmp/\xff\xc3(\n"), "/tmp/\\xff\\xc3(\\n");
        assert_eq!(escape_bytes(b"/tmp/\\xff"), "/tmp/\\\\xff");
    }

    /// Whether a character may reach a terminal.
    fn is_harmless(character: char) -> bool {
        let bidi = matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}');
        let width =
            matches!(character, '\u{200b}'..='\u{200d}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{85}');
        !(character.is_control() || bidi || width)
    }

    proptest! {
        #[test]
        fn nothing_harmful_is_left_and_different_bytes_stay_different(
            a in hostile(), b in hostile(),
        ) {
            let (first, second) = (escape_bytes(&a), escape_bytes(&b));
            prop_assert!(first.chars().all(is_harmless), "{first:?}");
            prop_assert_eq!(first == second, a == b);
        }

        #[test]
        fn json_keeps_its_value(bytes in hostile()) {
            let value = String::from_utf8_lossy(&bytes).into_owned();
            let mut safe = String::new();
            escape_json(&serde_json::to_string(&value).unwrap(), &mut safe);
            prop_assert!(safe.chars().all(is_harmless), "{safe:?}");
            prop_assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), value);
        }
    }

    /// Bytes made of what is likely to break something.
    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            any::<u8>().prop_map(|byte| vec![byte]),
            any::<char>().prop_map(|character| character.to_string().into_bytes()),
            proptest::char::range('\u{80}', '\u{a0}')
                .prop_map(|character| character.to_string().into_bytes()),
            proptest::char::range('\u{2000}', '\u{206f}')
                .prop_map(|character| character.to_string().into_bytes()),
            proptest::sample::select(vec![
                "\n",
                "\\",
                "\\n",
                "\\x1b",
                "\\xff",
                "\\u{202e}",
                "\x1b[2J",
                "\"",
                "x"
            ])
            .prop_map(|text| text.as_bytes().to_vec()),
        ];
        proptest::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
    }
}
