//! Pages of lists.

/// Which part of a list is wanted. Pages count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest {
    /// The page, from 1.
    pub page: u32,
    /// How many items a page has, 1 to 1000.
    pub limit: u32,
    /// Whether the rest of the list is left out; if not, up to 10,000 items come at once.
    pub paginate: bool,
}

impl PageRequest {
    /// The most items that a list without pages returns.
    pub const UNPAGED_LIMIT: u32 = 10_000;

    /// How many items to skip and how many to take.
    #[must_use]
    pub const fn offset_and_limit(&self) -> (u64, u64) {
        if self.paginate {
            (self.page.saturating_sub(1) as u64 * self.limit as u64, self.limit as u64)
        } else {
            (0, Self::UNPAGED_LIMIT as u64)
        }
    }
}

impl Default for PageRequest {
    fn default() -> Self {
        Self { page: 1, limit: 10, paginate: true }
    }
}

/// A part of a list and how long the whole is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// How many items there are in all.
    pub total: u64,
}
