//! Where an operator changes what a node does: remedies name that place and no other.

/// What a remedy can name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Configuration {
    /// Sections and keys of a file.
    #[default]
    File,
    /// NetBird's dashboard, and variables of the daemon (`NB_…`).
    NetBird,
}

impl Configuration {
    /// The one of two texts that fits.
    #[must_use]
    pub const fn choose<'a>(self, file: &'a str, netbird: &'a str) -> &'a str {
        match self {
            Self::File => file,
            Self::NetBird => netbird,
        }
    }
}
