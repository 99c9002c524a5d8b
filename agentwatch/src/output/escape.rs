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

fn is_unsafe(character: char) -> bool {
    character == '\\'
        || character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_shows_is_kept() {
        assert!(matches!(escape("/home/ü/日本 😀 `x` %FF"), Cow::Borrowed("/home/ü/日本 😀 `x` %FF")));
    }

    #[test]
    fn what_a_terminal_obeys_is_escaped() {
        assert_eq!(escape("a\n\r\t\u{1b}[2J\u{7f}"), "a\\n\\r\\t\\x1b[2J\\x7f");
        assert_eq!(escape("\u{9b}2J\u{202e}\u{200b}\u{2028}"), "\\u{9b}2J\\u{202e}\\u{200b}\\u{2028}");
        assert_eq!(escape("\\n"), "\\\\n", "no text can look like an escaped one");
    }
}
