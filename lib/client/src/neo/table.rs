//! Requests in flight, found by their id in one step.
//!
//! Ids count up and are never used twice on a connection. A request lives in the slot that the low bits of its id name;
//! an id whose slot is still taken by a long request is left out.

/// What is kept of each request in flight.
#[derive(Debug)]
pub(crate) struct Table<T> {
    slots: Vec<Option<(u64, T)>>,
    next: u64,
    used: usize,
    limit: usize,
}

const FIRST_SLOTS: usize = 64;

impl<T> Table<T> {
    /// Makes a table for at most so many requests at a time.
    pub(crate) fn new(limit: usize) -> Self {
        Self { slots: std::iter::repeat_with(|| None).take(FIRST_SLOTS).collect(), next: 1, used: 0, limit }
    }

    pub(crate) const fn len(&self) -> usize {
        self.used
    }

    pub(crate) const fn is_full(&self) -> bool {
        self.used >= self.limit
    }

    /// Takes a request in; gives its id, or none when the table is full.
    #[inline]
    pub(crate) fn insert(&mut self, value: T) -> Option<u64> {
        if self.is_full() {
            return None;
        }
        if self.used * 2 >= self.slots.len() {
            self.grow();
        }
        // Half of the slots are free, so a free one is near.
        loop {
            let id = self.next;
            self.next += 1;
            let slot = self.slot(id);
            if let Some(free @ None) = self.slots.get_mut(slot) {
                *free = Some((id, value));
                self.used += 1;
                return Some(id);
            }
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut T> {
        let slot = self.slot(id);
        match self.slots.get_mut(slot) {
            Some(Some((found, value))) if *found == id => Some(value),
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn remove(&mut self, id: u64) -> Option<T> {
        let index = self.slot(id);
        let slot = self.slots.get_mut(index)?;
        if slot.as_ref().is_none_or(|(found, _)| *found != id) {
            return None;
        }
        self.used -= 1;
        slot.take().map(|(_, value)| value)
    }

    /// Takes all requests out.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> + '_ {
        self.used = 0;
        self.slots.iter_mut().filter_map(Option::take).map(|(_, value)| value)
    }

    #[allow(clippy::cast_possible_truncation, reason = "only the low bits count")]
    const fn slot(&self, id: u64) -> usize {
        id as usize & (self.slots.len() - 1)
    }

    /// Doubles the slots. Ids that differ in their low bits differ in one bit more as well, so nothing collides.
    fn grow(&mut self) {
        let size = self.slots.len() * 2;
        let old = std::mem::take(&mut self.slots);
        self.slots.resize_with(size, || None);
        for entry in old.into_iter().flatten() {
            let slot = self.slot(entry.0);
            if let Some(free) = self.slots.get_mut(slot) {
                *free = Some(entry);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn ids_count_up_and_pass_long_requests_by() {
        let mut table = Table::new(5000);
        let long = table.insert(0).unwrap();
        assert_eq!(long, 1);
        let mut last = long;
        for round in 1..20_000 {
            let id = table.insert(round).unwrap();
            assert!(id > last && table.get_mut(id).copied() == Some(round));
            assert_eq!(table.remove(id), Some(round));
            assert_eq!(table.remove(id), None);
            last = id;
        }
        assert_eq!((table.get_mut(long).copied(), table.len()), (Some(0), 1));
    }

    #[test]
    fn a_full_table_takes_no_more_and_loses_nothing_while_it_grows() {
        let mut table = Table::new(5000);
        let ids: Vec<u64> = (0..5000).map(|value| table.insert(value).unwrap()).collect();
        assert!(table.is_full() && table.insert(9).is_none());
        for (value, id) in ids.iter().enumerate() {
            assert_eq!(table.get_mut(*id), Some(&mut i32::try_from(value).unwrap()));
        }
        assert_eq!(table.remove(ids[7]), Some(7));
        assert!(table.insert(7).is_some());
        assert_eq!(table.drain().count(), 5000);
        assert_eq!(table.len(), 0);
    }
}
