//! Figures, medians, ratios.

use std::collections::BTreeMap;

use serde_json::json;

use super::Scale;

/// All figures by name, each with all its rounds.
#[derive(Debug)]
pub(crate) struct Report {
    scale: Scale,
    rounds: BTreeMap<String, Vec<f64>>,
    ratios: BTreeMap<&'static str, f64>,
}

impl Report {
    pub(super) fn new(scale: Scale) -> Self {
        Self { scale, rounds: BTreeMap::new(), ratios: BTreeMap::new() }
    }

    /// Adds a round of a figure.
    pub(super) fn add(&mut self, name: &str, value: f64) {
        self.rounds.entry(name.to_owned()).or_default().push(value);
    }

    /// The median of a figure; not a number if it was never measured.
    pub(super) fn median(&self, name: &str) -> f64 {
        self.rounds.get(name).map_or(f64::NAN, |rounds| median(rounds))
    }

    pub(super) fn ratio(&mut self, name: &'static str, ratio: f64) {
        self.ratios.insert(name, ratio);
    }

    /// The ratio of two figures round by round, as its median: what the machine does meanwhile happens to both.
    pub(super) fn paired(&mut self, name: &'static str, over: &str, under: &str) {
        self.ratios.insert(name, self.ratio_of(over, under));
    }

    /// The median over all rounds of the ratio of two figures.
    pub(super) fn ratio_of(&self, over: &str, under: &str) -> f64 {
        let none = Vec::new();
        let (over, under) = (self.rounds.get(over).unwrap_or(&none), self.rounds.get(under).unwrap_or(&none));
        let ratios: Vec<f64> = over.iter().zip(under).map(|(over, under)| over / under).collect();
        median(&ratios)
    }

    /// Prints a table; with `json` the same as one object in the last line.
    pub(super) fn print(&self, json: bool) {
        let Scale { rounds, repeat, turns, packets, .. } = self.scale;
        println!("medians of {rounds} rounds of {repeat} runs of a program, or {turns} turns of {packets} packets");
        for (name, values) in &self.rounds {
            let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(*v), high.max(*v)));
            println!("  {name:<44} {:>10.1}   ({low:.1} to {high:.1})", median(values));
        }
        println!("ratios");
        for (name, ratio) in &self.ratios {
            println!("  {name:<44} {ratio:>10.2}");
        }
        if json {
            let figures: BTreeMap<&String, f64> = self.rounds.iter().map(|(name, v)| (name, median(v))).collect();
            println!("{}", json!({ "figures": figures, "ratios": self.ratios }));
        }
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
