//! What versions of the official client can do.

/// Whether a peer of this version may be left unconnected until somebody wants it (0.45 and later, and builds without a
/// version). One that may not expects offers at all times.
#[must_use]
pub fn can_be_lazy(agent_version: &str) -> bool {
    if agent_version == "development" || agent_version.starts_with("ci-") || agent_version.starts_with("dev-") {
        return true;
    }
    let version = agent_version.strip_prefix(['v', 'a']).unwrap_or(agent_version);
    let version = version.split('-').next().unwrap_or_default();
    let mut numbers = version.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (0, 45),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lazy_peers_came_with_0_45() {
        for version in ["0.45.0", "0.45", "v0.66.2", "a0.77.1", "1.0.0", "0.77.1-rc1", "development", "ci-1", "dev-abc"]
        {
            assert!(can_be_lazy(version), "{version}");
        }
        for version in ["0.44.9", "0.28.0", "", "77", "abc", "v", "0.x", ".", "-0.77.1", "0.99999999999.1"] {
            assert!(!can_be_lazy(version), "{version}");
        }
    }
}
