//! What one access to memory costs that no cache foresees: the yardstick for tables that do not fit into it.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;

use super::Scale;
use super::report::Report;

const MIB: usize = 1 << 20;
/// Memory of each measurement, MiB: what tables of thousands to a million flows take.
const SIZES: [usize; 6] = [1, 8, 16, 24, 64, 192];
/// Accesses of a round.
const ACCESSES: u32 = 1_000_000;

/// A line of cache that names the next one.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(usize);

/// Follows lines at random through memory of several sizes. Each access waits for the one before. Pages are of 4 KiB, as
/// those that the kernel gives to maps, where `/sys/kernel/mm/transparent_hugepage/enabled` is not `always`.
pub(super) fn measure(scale: &Scale, report: &mut Report) -> Result<()> {
    for size in SIZES {
        let lines = cycle(size * MIB / size_of::<Line>());
        let mut at = 0;
        for _ in 0..scale.rounds {
            let start = Instant::now();
            for _ in 0..ACCESSES {
                at = lines.get(at).map_or(0, |line| line.0);
            }
            black_box(at);
            let took = start.elapsed().as_secs_f64() * 1e9 / f64::from(ACCESSES);
            report.add(&format!("a random access in {size:>3} MiB, ns"), took);
        }
    }
    Ok(())
}

/// One circle through all lines in random order (Sattolo's algorithm), the same at each run.
fn cycle(count: usize) -> Vec<Line> {
    let mut lines: Vec<Line> = (0..count).map(Line).collect();
    let mut state = 1_u64;
    for last in (1..count).rev() {
        // Knuth's MMIX generator; its high bits are the good ones.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let other = usize::try_from(state >> 33).unwrap_or(0) % last;
        lines.swap(last, other);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_circle_comes_by_every_line() {
        let lines = cycle(1000);
        let mut at = 0;
        let steps = (1..).find(|_| {
            at = lines[at].0;
            at == 0
        });
        assert_eq!(steps, Some(1000));
    }
}
