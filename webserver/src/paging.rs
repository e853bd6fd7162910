//! The envelope of lists.

use overstory_store::PageRequest;
use serde::Serialize;
use utoipa::ToSchema;

/// Where in a list a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Meta {
    /// The page, from 1.
    pub page: u32,
    /// Items per page.
    pub per_page: u64,
    /// Pages in all, at least 1.
    pub page_count: u64,
    /// Items in all.
    pub total_count: u64,
}

impl Meta {
    /// Describes the page that `request` asked for of a list of `total`.
    #[must_use]
    pub fn new(request: PageRequest, total: u64) -> Self {
        if !request.paginate {
            let per_page = total.min(u64::from(PageRequest::UNPAGED_LIMIT));
            return Self { page: 1, per_page, page_count: 1, total_count: total };
        }
        let per_page = u64::from(request.limit.max(1));
        Self { page: request.page, per_page, page_count: total.div_ceil(per_page).max(1), total_count: total }
    }
}

/// A page of a list.
#[derive(Debug, Serialize)]
pub(crate) struct Listing<T> {
    /// The items.
    pub(crate) data: Vec<T>,
    /// Where they are in the list.
    pub(crate) meta: Meta,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_page_may_be_part_of_one_and_an_empty_list_has_one() {
        let request = PageRequest { page: 2, limit: 10, paginate: true };
        assert_eq!(Meta::new(request, 21), Meta { page: 2, per_page: 10, page_count: 3, total_count: 21 });
        assert_eq!(Meta::new(request, 0).page_count, 1);
        let all = PageRequest { paginate: false, ..request };
        assert_eq!(Meta::new(all, 21), Meta { page: 1, per_page: 21, page_count: 1, total_count: 21 });
    }
}
