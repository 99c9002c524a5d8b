//! Users by name, from the passwd file alone: a static program has no other source of names.

use std::collections::HashMap;
use std::io;
use std::path::Path;

/// The users of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    by_name: HashMap<String, u32>,
}

impl Users {
    /// Reads a passwd file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(path: &Path) -> io::Result<Self> {
        Ok(Self::parse(&String::from_utf8_lossy(&std::fs::read(path)?)))
    }

    /// Reads the text of a passwd file. Lines that are none are passed over; of a name that repeats the
    /// first line counts, as in the C library.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut by_name = HashMap::new();
        for line in text.lines() {
            let mut fields = line.split(':');
            if let (Some(name), Some(_), Some(uid)) = (fields.next(), fields.next(), fields.next())
                && let Ok(uid) = uid.parse()
                && !name.is_empty()
            {
                by_name.entry(name.to_owned()).or_insert(uid);
            }
        }
        Self { by_name }
    }

    /// The number of a user, given by name or as a number.
    #[must_use]
    pub fn uid(&self, user: &str) -> Option<u32> {
        let is_number = !user.is_empty() && user.bytes().all(|byte| byte.is_ascii_digit());
        if is_number {
            // The largest number means "no user" to the kernel.
            return user.parse().ok().filter(|&uid| uid != u32::MAX);
        }
        self.by_name.get(user).copied()
    }

    /// The names, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }
}
