//! Counts the allocations of each thread: a test that links this shows that a data path makes none.

mod sys;

/// Allocations of this thread so far.
#[must_use]
pub fn allocations() -> u64 {
    sys::count()
}

/// Allocations of this thread while `work` runs.
pub fn allocations_of(work: impl FnOnce()) -> u64 {
    let before = allocations();
    work();
    allocations() - before
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;

    #[test]
    fn allocations_of_this_thread_are_counted_and_no_others() {
        assert_eq!(allocations_of(|| drop(black_box(vec![1_u8; 100]))), 1);
        assert_eq!(allocations_of(|| assert_eq!(black_box([1_u8; 100])[0], 1)), 0);
        let other = std::thread::spawn(|| allocations_of(|| drop(black_box(vec![1_u8; 100]))));
        let joined = allocations_of(|| assert_eq!(other.join().ok(), Some(1)));
        assert_eq!(joined, 0, "the other thread's are its own");
    }
}
