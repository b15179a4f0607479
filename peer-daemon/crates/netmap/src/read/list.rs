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

/// A list that is known, but not made yet.
pub(super) struct Next<T> {
    places: Places,
    sources: Vec<Source<T>>,
}

/// Where an entry comes from.
enum Source<T> {
    /// It stands at this place of the list before.
    Known(usize),
    /// The same as this entry, further ahead in this list.
    Again(usize),
    New(Entry<T>),
}

impl<T: Clone> List<T> {
    /// The list whose entries are at `places` of the second text; this one's are in the first.
    pub(super) fn next(
        &self,
        (last, text): (&[u8], &[u8]),
        places: Places,
        work: &mut Work,
        mut decode: impl FnMut(&[u8]) -> Result<Entry<T>, DecodeError>,
    ) -> Result<Next<T>, DecodeError> {
        let mut sources = Vec::with_capacity(places.len());
        let mut finder = Finder { text: last, places: &self.places, next: 0, misses: 0, all: None };
        let mut taken: Vec<Option<usize>> = vec![None; self.entries.len()];
        for (at, place) in places.iter().enumerate() {
            let bytes = &text[place.clone()];
            sources.push(match finder.find(bytes) {
                Some(known) => {
                    work.reused += 1;
                    taken[known].map_or_else(
                        || {
                            taken[known] = Some(at);
                            Source::Known(known)
                        },
                        Source::Again,
                    )
                }
                None => {
                    work.decoded += 1;
                    Source::New(decode(bytes)?)
                }
            });
        }
        Ok(Next { places, sources })
    }

    /// Is `next` from now on. Entries move: to share each of a large mesh, and to end sharing it, takes longer than to find it.
    pub(super) fn turn_into(&mut self, next: Next<T>) {
        let mut last: Vec<_> = std::mem::take(&mut self.entries).into_iter().map(Some).collect();
        let mut entries: Vec<Entry<T>> = Vec::with_capacity(next.sources.len());
        for source in next.sources {
            let entry = match source {
                Source::Known(at) => last.get_mut(at).and_then(Option::take),
                Source::Again(at) => entries.get(at).cloned(),
                Source::New(entry) => Some(entry),
            };
            entries.extend(entry);
        }
        *self = Self { places: next.places, entries };
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
