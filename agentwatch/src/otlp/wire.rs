//! The wire format of protocol buffers, as far as spans need it: field after field, and nothing is believed.

use super::Malformed;

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2: a text, bytes or a message.
    Bytes(&'a [u8]),
    /// Wire type 5, of which spans have none that matters; or a group, which is skipped.
    Other,
}

/// The fields of a message, in the order in which they stand. Ends after the first that is malformed.
#[derive(Clone, Debug)]
pub struct Fields<'a>(&'a [u8]);

/// The fields of a message.
pub const fn fields(message: &[u8]) -> Fields<'_> {
    Fields(message)
}

/// The text of a field.
pub fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed("a text is not UTF-8"))
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u32, Value<'a>), Malformed> {
        let (number, wire_type) = self.tag()?;
        let value = match wire_type {
            3 => {
                self.skip_group(number)?;
                Value::Other
            }
            4 => return Err(Malformed("a group ends that did not begin")),
            other => self.value(other)?,
        };
        Ok((number, value))
    }

    fn tag(&mut self) -> Result<(u32, u8), Malformed> {
        let tag =
            u32::try_from(self.varint()?).map_err(|_| Malformed("the number of a field is too large"))?;
        match (tag >> 3, (tag & 7) as u8) {
            (0, _) => Err(Malformed("a field has the number 0")),
            found => Ok(found),
        }
    }

    fn value(&mut self, wire_type: u8) -> Result<Value<'a>, Malformed> {
        Ok(match wire_type {
            0 => Value::Varint(self.varint()?),
            1 => {
                let bytes = self.take(8)?.try_into().map_err(|_| Malformed("a field breaks off"))?;
                Value::Fixed64(u64::from_le_bytes(bytes))
            }
            2 => {
                let length = usize::try_from(self.varint()?);
                Value::Bytes(self.take(length.map_err(|_| Malformed("a field breaks off"))?)?)
            }
            5 => {
                self.take(4)?;
                Value::Other
            }
            _ => return Err(Malformed("a field has a type that there is not")),
        })
    }

    /// Skips a group, which nothing in use has: with a list of those that are open, whose length that of the message bounds.
    fn skip_group(&mut self, number: u32) -> Result<(), Malformed> {
        let mut open = vec![number];
        while let Some(innermost) = open.last() {
            match self.tag()? {
                (number, 3) => open.push(number),
                (number, 4) if number == *innermost => {
                    open.pop();
                }
                (_, 4) => return Err(Malformed("a group ends that did not begin")),
                (_, other) => {
                    self.value(other)?;
                }
            }
        }
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut found = 0_u64;
        for place in 0..10 {
            let [byte, rest @ ..] = self.0 else { return Err(Malformed("a number breaks off")) };
            self.0 = rest;
            if place == 9 && *byte > 1 {
                break;
            }
            found |= u64::from(byte & 0x7f) << (place * 7);
            if byte & 0x80 == 0 {
                return Ok(found);
            }
        }
        Err(Malformed("a number is longer than 64 bits"))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed("a field breaks off"))?;
        self.0 = rest;
        Ok(taken)
    }
}

/// Writes a message, in the order in which its fields are given. What is nothing is left out, as protocol buffers want it.
#[derive(Clone, Debug, Default)]
pub struct Message(Vec<u8>);

impl Message {
    /// Adds a number.
    #[must_use]
    pub fn number(mut self, field: u32, value: u64) -> Self {
        if value != 0 {
            self.varint(u64::from(field) << 3);
            self.varint(value);
        }
        self
    }

    /// Adds a text, bytes or a message.
    #[must_use]
    pub fn bytes(mut self, field: u32, bytes: &[u8]) -> Self {
        if !bytes.is_empty() {
            self.varint(u64::from(field) << 3 | 2);
            self.varint(bytes.len() as u64);
            self.0.extend_from_slice(bytes);
        }
        self
    }

    /// All of it.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<(u32, Value<'_>)>, Malformed> {
        fields(bytes).collect()
    }

    #[test]
    fn each_type_of_a_field_is_read() {
        let bytes = [0x08, 0x96, 0x01, 0x11, 1, 0, 0, 0, 0, 0, 0, 0, 0x1a, 2, b'h', b'i', 0x25, 1, 2, 3, 4];
        let found = read(&bytes).unwrap();
        assert_eq!(
            found,
            [(1, Value::Varint(150)), (2, Value::Fixed64(1)), (3, Value::Bytes(b"hi")), (4, Value::Other)]
        );
        let all = [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(read(&all).unwrap(), [(1, Value::Varint(u64::MAX))]);
    }

    #[test]
    fn what_breaks_off_or_is_none_is_malformed() {
        let whole = Message::default().number(1, 300).bytes(2, b"text").finish();
        for end in 1..whole.len() {
            let at_a_border = end == 3;
            assert_eq!(read(&whole[..end]).is_ok(), at_a_border, "{end}");
        }
        for (bytes, said) in [
            (&[0x00, 0x00][..], "number 0"),
            (&[0x0e], "a type that there is not"),
            (&[0x0c], "did not begin"),
            (&[0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02], "64 bits"),
            (&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], "breaks off"),
            (&[0xf8, 0xff, 0xff, 0xff, 0xff, 0x01, 0], "too large"),
        ] {
            assert!(read(bytes).unwrap_err().to_string().contains(said), "{bytes:x?}");
        }
    }

    #[test]
    fn groups_are_skipped_however_deep_they_are() {
        let inner = [0x0b, 0x13, 0x08, 0x01, 0x12, 0x01, b'x', 0x14, 0x0c, 0x10, 0x02];
        assert_eq!(read(&inner).unwrap(), [(1, Value::Other), (2, Value::Varint(2))]);
        assert!(read(&[0x0b, 0x14]).is_err(), "another one ends");
        let deep = [vec![0x0b; 1_000_000], vec![0x0c; 1_000_000]].concat();
        assert_eq!(read(&deep).unwrap(), [(1, Value::Other)]);
        assert!(read(&deep[..1_500_000]).is_err());
    }
}
