//! A set of byte values.

/// A set of byte values.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ByteSet {
    low: u128,
    high: u128,
}

impl ByteSet {
    /// No byte.
    pub const NONE: Self = Self { low: 0, high: 0 };
    /// Every byte.
    pub const ALL: Self = Self { low: u128::MAX, high: u128::MAX };

    /// One byte.
    #[must_use]
    pub fn of(byte: u8) -> Self {
        let mut set = Self::NONE;
        set.insert(byte);
        set
    }

    /// Adds a byte.
    pub fn insert(&mut self, byte: u8) {
        if byte < 128 {
            self.low |= 1 << byte;
        } else {
            self.high |= 1 << (byte - 128);
        }
    }

    /// Whether the byte is in the set.
    #[must_use]
    pub fn contains(self, byte: u8) -> bool {
        if byte < 128 { self.low >> byte & 1 == 1 } else { self.high >> (byte - 128) & 1 == 1 }
    }

    /// The only byte in the set.
    #[must_use]
    pub fn only(self) -> Option<u8> {
        let byte =
            self.low.trailing_zeros().min(if self.low == 0 { 128 + self.high.trailing_zeros() } else { 128 });
        let byte = u8::try_from(byte).ok()?;
        (self == Self::of(byte)).then_some(byte)
    }

    /// The set without this byte.
    #[must_use]
    pub fn without(self, byte: u8) -> Self {
        let one = Self::of(byte);
        Self { low: self.low & !one.low, high: self.high & !one.high }
    }

    /// The bytes that are in both sets.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { low: self.low & other.low, high: self.high & other.high }
    }

    /// The bytes that are not in the set.
    #[must_use]
    pub fn complement(self) -> Self {
        Self { low: !self.low, high: !self.high }
    }
}

impl std::fmt::Debug for ByteSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries((0..=u8::MAX).filter(|&byte| self.contains(byte)).map(char::from)).finish()
    }
}
