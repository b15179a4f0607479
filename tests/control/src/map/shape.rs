//! How servers of different versions say the same.

/// A version, as far as peers notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// 0.77.
    #[default]
    Newest,
    /// 0.74.0: what goes to everybody after a change carries a configuration with nothing but metrics in it.
    V0_74_0,
    /// 0.66: no IPv6, rules with one address each, the map's peers also beside the map, route rules without sources.
    V0_66,
    /// Servers that knew no route rules: neither lists nor the flags that say that a list is empty.
    Ancient,
}

impl Shape {
    /// IPv6 on the overlay, and prefixes in rules.
    pub(crate) fn has_ipv6(self) -> bool {
        matches!(self, Self::Newest | Self::V0_74_0)
    }

    /// Peers beside the map, too.
    pub(crate) fn has_peers_beside_map(self) -> bool {
        !self.has_ipv6()
    }

    /// Rules of classic routes whose sources are all gone are sent without sources.
    pub(crate) fn has_rules_without_sources(self) -> bool {
        self == Self::V0_66
    }

    /// Rules of both kinds.
    pub(crate) fn has_rules(self) -> bool {
        self != Self::Ancient
    }

    /// Flags that tell an empty list from an unknown one.
    pub(crate) fn has_empty_flags(self) -> bool {
        self != Self::Ancient
    }
}
