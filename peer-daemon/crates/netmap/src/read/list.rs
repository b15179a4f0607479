//! A list of entries, by their bytes.

use std::ops::Range;

use foldhash::{HashMap, HashMapExt as _};
use peer_netbird::sealed::DecodeError;

use super::Work;
use crate::wire::map::Entry;

/// Where the entries of a list are in their message.
pub(super) type Places = Vec<Range<usize>>;

/// So many entries ahead are looked at for the one that is wanted: some were removed or changed.
const AHEAD: usize = 4;
/// After so many that are not found there, all are put in order: the list was shuffled.
const MISSES: usize = 16;

/// Entries and what was made of them.
#[derive(Debug)]
pub(super) struct List<T> {
    places: Places,
    entries: Vec<Entry<T>>,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { places: Vec::new(), entries: Vec::new() }
    }
}

impl<T: Clone> List<T> {
    /// The list whose entries are at `places` of the second text; this one's are in the first.
    pub(super) fn next(
        &self,
        (last, text): (&[u8], &[u8]),
        places: Places,
        work: &mut Work,
        mut decode: impl FnMut(&[u8]) -> Result<Entry<T>, DecodeError>,
    ) -> Result<Self, DecodeError> {
        let mut entries = Vec::with_capacity(places.len());
        let mut finder = Finder { text: last, places: &self.places, next: 0, misses: 0, all: None };
        for place in &places {
            let bytes = &text[place.clone()];
            if let Some(known) = finder.find(bytes) {
                work.reused += 1;
                entries.push(self.entries[known].clone());
            } else {
                work.decoded += 1;
                entries.push(decode(bytes)?);
            }
        }
        Ok(Self { places, entries })
    }

    pub(super) fn entries(&self) -> &[Entry<T>] {
        &self.entries
    }
}

/// Finds entries of the list before.
struct Finder<'a> {
    text: &'a [u8],
    places: &'a [Range<usize>],
    /// The entry that most likely comes next.
    next: usize,
    misses: usize,
    /// All of them.
    all: Option<HashMap<&'a [u8], usize>>,
}

impl Finder<'_> {
    fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        let ahead = self.next..(self.next + AHEAD).min(self.places.len());
        let near = ahead.into_iter().find(|&at| &self.text[self.places[at].clone()] == bytes);
        let found = near.or_else(|| self.search(bytes));
        if let Some(found) = found {
            self.next = found + 1;
        }
        found
    }

    fn search(&mut self, bytes: &[u8]) -> Option<usize> {
        self.misses += 1;
        if self.misses <= MISSES {
            return None;
        }
        let (text, places) = (self.text, self.places);
        let all = self.all.get_or_insert_with(|| {
            let mut all = HashMap::with_capacity(places.len());
            all.extend(places.iter().enumerate().map(|(at, place)| (&text[place.clone()], at)));
            all
        });
        all.get(bytes).copied()
    }
}
