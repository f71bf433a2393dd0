//! What is remembered of a text that may be run again without being read again.
//!
//! Owns the packing: a mark for each thing it may do, and what was known of the tenant's functions when it was read.

/// What was known of a tenant's functions at some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::track) struct Knowledge(u32);

impl Knowledge {
    /// What was known when it had changed so many times.
    pub(super) const fn of_version(version: u32) -> Self {
        Self(version & Self::MASK)
    }

    /// It starts again after a hundred million changes.
    const MASK: u32 = (1 << 27) - 1;
}

/// What a text may do that is run again without being read again: five marks and, below them, what was known when it was
/// read. Every client has one, so it is no larger than that.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::track) struct Says(u32);

impl Says {
    /// It may run functions that leave something behind.
    pub(super) const LOUD: u32 = 1 << 31;
    /// It may change settings that decide what texts mean.
    pub(super) const DECIDES: u32 = 1 << 30;
    /// It makes functions, or what runs them.
    pub(super) const MAKES: u32 = 1 << 29;
    /// It may change settings that decide how the texts behind it are read.
    pub(super) const REENCODES: u32 = 1 << 28;
    /// It may make a table without saying where.
    pub(super) const CREATES: u32 = 1 << 27;

    /// What may be said of a text that nobody has read.
    pub(in crate::track) const fn anything() -> Self {
        Self(Self::LOUD | Self::DECIDES | Self::REENCODES | Self::CREATES)
    }

    pub(super) const fn nothing(behind: Knowledge) -> Self {
        Self(behind.0)
    }

    pub(super) const fn and(self, mark: u32, holds: bool) -> Self {
        if holds { Self(self.0 | mark) } else { self }
    }

    /// The same of one that may make functions, or what runs them.
    pub(in crate::track) const fn making(self, makes: bool) -> Self {
        self.and(Self::MAKES, makes)
    }

    pub(super) const fn has(self, mark: u32) -> bool {
        self.0 & mark != 0
    }

    pub(super) const fn behind(self) -> Knowledge {
        Knowledge(self.0 & Knowledge::MASK)
    }

    /// Whether it may change settings that decide what texts mean.
    pub(in crate::track) const fn decides(self) -> bool {
        self.has(Self::DECIDES)
    }
}
