//! Looks behind a damage for the place from which records are right again.

use memchr::memmem;

use super::records::{Proof, proof};
use super::{Damage, Shape, Step, Walker, to_usize};
use crate::format::v2::{BLOCK_HEADER, BlockHeader, IndexHeader, MAGIC_FRONT};
use crate::record::{Framing, Head};

/// How much is asked for while searching.
const WINDOW: u64 = 64 << 10;

/// The bytes of a key, and those of it that are not the same in all keys of a bucket, or only partly.
const KEY: usize = 8;
const KEY_LOW: usize = 2;

/// A damage whose end is not found yet.
#[derive(Default)]
pub(super) struct Search {
    from: u64,
    why: &'static str,
    begun: bool,
    finder: Option<Box<memmem::Finder<'static>>>,
}

/// What a search in a window came to.
enum Found {
    /// Reading goes on there.
    Here(usize),
    /// Nothing in front of that place; from there on as many bytes are needed.
    Need(usize, u64),
    /// Nothing up to the end of the file.
    Nothing,
}

impl Search {
    pub(super) fn new(from: u64, why: &'static str) -> Self {
        Self { from, why, ..Self::default() }
    }

    /// Looks from the walker's offset on, whatever is in front of it.
    pub(super) fn behind(from: u64, why: &'static str) -> Self {
        Self { from, why, begun: true, finder: None }
    }
}

impl Walker {
    /// Looks through the bytes of a window. Every place is tried once, in a time that does not depend on what is there.
    pub(super) fn search(&mut self, rest: &[u8], mut search: Search) -> Option<Step> {
        if !search.begun {
            search.begun = true;
            // What is damaged is itself no place to go on from.
            self.offset += 1;
            self.search = Some(search);
            return None;
        }
        let found = match self.shape {
            Shape::Plain => {
                // A file whose front is destroyed looks like a plain one: it may be any.
                let unsure = search.from == 0;
                match if unsure { self.find_block(rest) } else { Found::Nothing } {
                    Found::Here(at) => {
                        self.shape = Shape::Blocks(Box::default());
                        Found::Here(at)
                    }
                    // The front of a header is at the end of the window.
                    Found::Need(at, _) if at + MAGIC_FRONT.len() <= rest.len() => {
                        Found::Need(0, (rest.len() + BLOCK_HEADER) as u64)
                    }
                    Found::Need(..) | Found::Nothing => self.find_record(rest, &mut search, Framing::Plain, unsure),
                }
            }
            Shape::V1 => self.find_record(rest, &mut search, Framing::V1, false),
            Shape::Blocks(_) => self.find_block(rest),
        };
        match found {
            Found::Here(at) => self.offset += at as u64,
            Found::Nothing => self.offset = self.end,
            Found::Need(at, bytes) => {
                self.offset += at as u64;
                self.search = Some(search);
                return Some(Step::Need(to_usize(bytes.min(self.left()))));
            }
        }
        self.search = None;
        Some(Step::Damaged(Damage { offset: search.from, bytes: self.offset - search.from, why: search.why }))
    }

    /// A record in the bucket, with another one behind it, or the end.
    fn find_record(&mut self, rest: &[u8], search: &mut Search, framing: Framing, unsure: bool) -> Found {
        let left = self.left();
        let finder = search.finder.get_or_insert_with(|| {
            let key = self.number.first_key().to_le_bytes();
            Box::new(memmem::Finder::new(&key[KEY_LOW..]).into_owned())
        });
        let mut at = 0;
        loop {
            let Some(found) = rest.get(at + KEY_LOW..).and_then(|rest| finder.find(rest)) else {
                if rest.len() as u64 == left {
                    return Found::Nothing;
                }
                // A key may begin in the last bytes.
                return Found::Need(at.max(rest.len().saturating_sub(KEY - 1)), WINDOW);
            };
            at += found;
            let place = rest.get(at..).unwrap_or_default();
            let space = left - at as u64;
            if place.len() < framing.head() + usize::from(unsure) && (place.len() as u64) < space {
                return Found::Need(at, WINDOW);
            }
            let mut tried = Proof::Bad;
            if unsure {
                tried = self.try_record(place, space, Framing::V1);
                if matches!(tried, Proof::Good) {
                    self.shape = Shape::V1;
                }
            }
            if matches!(tried, Proof::Bad) {
                tried = self.try_record(place, space, framing);
            }
            match tried {
                Proof::Good => return Found::Here(at),
                Proof::Need(bytes) => return Found::Need(at, bytes as u64),
                Proof::Bad => at += zeros(place),
            }
        }
    }

    /// Whether a record is at the front of some bytes, of the `left` ones of the file, and proved by what is behind it.
    fn try_record(&self, place: &[u8], left: u64, framing: Framing) -> Proof {
        let Some(head) = Head::read(framing, place) else { return Proof::Bad };
        let space = left.saturating_sub(framing.head() as u64);
        if head.fault(self.number, space).is_some() {
            return Proof::Bad;
        }
        let size = framing.head() + to_usize(head.length);
        let Some(behind) = place.get(size..) else { return Proof::Need(size) };
        match proof(framing, self.number, behind, space - head.length) {
            Proof::Need(bytes) => Proof::Need(size + bytes),
            proof => proof,
        }
    }

    /// A block or an index.
    fn find_block(&self, rest: &[u8]) -> Found {
        let left = self.left();
        let mut at = 0;
        while let Some(found) = rest.get(at..).and_then(|rest| memmem::find(rest, MAGIC_FRONT)) {
            at += found;
            let place = rest.get(at..).unwrap_or_default();
            let space = left - at as u64;
            if place.len() < BLOCK_HEADER && (place.len() as u64) < space {
                return Found::Need(at, WINDOW);
            }
            let offset = self.offset + at as u64;
            let block = BlockHeader::read(place, offset).ok().map(|header| header.size());
            let size = block.or_else(|| IndexHeader::read(place, offset).map(IndexHeader::size));
            if size.is_some_and(|size| size as u64 <= space) {
                return Found::Here(at);
            }
            at += 1;
        }
        if rest.len() as u64 == left {
            return Found::Nothing;
        }
        Found::Need(at.max(rest.len().saturating_sub(MAGIC_FRONT.len() - 1)), WINDOW)
    }
}

/// How far the next place is that may be a head: one byte, or more through zeros, of which a head is never made.
fn zeros(place: &[u8]) -> usize {
    let run = place.iter().position(|byte| *byte != 0).unwrap_or(place.len());
    run.saturating_sub(Framing::Plain.head() - 1).max(1)
}
