//! Figures that somebody writes and a registry shows.

use std::fmt::{self, Debug};
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

/// Figures that can be written as metrics.
pub trait Figures: Debug + Send + Sync + 'static {
    /// Writes them as they are now.
    ///
    /// # Errors
    /// When the text cannot be written.
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result;
}

/// Shows shared figures at each scrape.
#[derive(Debug)]
pub struct Shown<F>(pub Arc<F>);

impl<F: Figures> Collector for Shown<F> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.encode(&mut encoder)
    }
}
