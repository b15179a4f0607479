//! Numbers for policies: rules and flows carry 32 bits, management names policies by text.

use std::sync::Arc;

use foldhash::HashMap;

/// Numbers by text. The same text has the same number after a restart, but for rare collisions: flows outlive the daemon.
#[derive(Clone, Debug, Default)]
pub struct Ids {
    by_text: HashMap<Arc<str>, Slot>,
    by_number: HashMap<u32, Arc<str>>,
    generation: u64,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    number: u32,
    used: u64,
}

impl Ids {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of `text`, never 0.
    pub fn number(&mut self, text: &Arc<str>) -> u32 {
        let generation = self.generation;
        if let Some(slot) = self.by_text.get_mut(text) {
            slot.used = generation;
            return slot.number;
        }
        let mut number = hash(text.as_bytes());
        while number == 0 || self.by_number.contains_key(&number) {
            number = number.wrapping_add(1);
        }
        self.by_text.insert(Arc::clone(text), Slot { number, used: generation });
        self.by_number.insert(number, Arc::clone(text));
        number
    }

    /// Text of `number`, if it belongs to the map in force or the one before.
    #[must_use]
    pub fn text(&self, number: u32) -> Option<&str> {
        self.by_number.get(&number).map(|text| &**text)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_text.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_text.is_empty()
    }

    /// A new map begins: what the last one did not use is forgotten.
    pub(crate) fn begin(&mut self) {
        let last = self.generation;
        self.by_text.retain(|_, slot| slot.used >= last);
        let by_text = &self.by_text;
        self.by_number.retain(|_, text| by_text.contains_key(text));
        self.generation += 1;
    }
}

/// FNV-1a, 32 bits (draft-eastlake-fnv): stable over versions of the compiler, which the standard library's is not.
fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_while_in_use_and_one_map_longer() {
        let mut ids = Ids::new();
        let (first, second) = (Arc::from("first"), Arc::from("second"));
        ids.begin();
        let numbers = (ids.number(&first), ids.number(&second));
        assert_eq!((ids.text(numbers.0), ids.text(numbers.1)), (Some("first"), Some("second")));
        ids.begin();
        assert_eq!(ids.number(&first), numbers.0);
        assert_eq!(ids.text(numbers.1), Some("second"), "events of the last map may still come");
        ids.begin();
        assert_eq!((ids.text(numbers.0), ids.text(numbers.1)), (Some("first"), None));
        assert_eq!(ids.len(), 1);
        assert_eq!(Ids::new().number(&second), numbers.1, "another process gives the same number");
    }

    #[test]
    fn texts_that_collide_have_numbers_of_their_own() {
        // Of equal FNV-1a.
        let (one, other): (Arc<str>, Arc<str>) = (Arc::from("costarring"), Arc::from("liquid"));
        assert_eq!(hash(one.as_bytes()), hash(other.as_bytes()));
        let mut ids = Ids::new();
        ids.begin();
        assert_ne!(ids.number(&one), ids.number(&other));
        assert_eq!(ids.text(ids.by_text[&other].number), Some("liquid"));
    }
}
