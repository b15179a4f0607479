//! Flags and variables of the official client that mean nothing here: they are taken, and said to be without effect.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, error::Error};

use super::values::go_bool;

/// What it is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Asks for something that we do not do.
    Flag,
    /// As [`Kind::Flag`], with a value.
    Value,
    /// Switches off what is never on here: nothing to warn of.
    Moot,
}

const IGNORED: [(&str, Kind); 34] = [
    ("admin-url", Kind::Value),
    ("allow-server-ssh", Kind::Flag),
    ("anonymize", Kind::Flag),
    ("anonymize-level", Kind::Value),
    ("auto-connect", Kind::Moot),
    ("custom-dns-address", Kind::Value),
    ("disable-auto-connect", Kind::Flag),
    ("disable-client-routes", Kind::Moot),
    ("disable-dns", Kind::Moot),
    ("disable-notifications", Kind::Moot),
    ("disable-profiles", Kind::Moot),
    ("disable-ssh-auth", Kind::Moot),
    ("disable-update-settings", Kind::Moot),
    ("disable-networks", Kind::Moot),
    ("dns-resolver-address", Kind::Value),
    ("dns-router-interval", Kind::Value),
    ("enable-capture", Kind::Flag),
    ("enable-json-socket", Kind::Flag),
    ("enable-lazy-connection", Kind::Flag),
    ("enable-rosenpass", Kind::Flag),
    ("enable-ssh-local-port-forwarding", Kind::Flag),
    ("enable-ssh-remote-port-forwarding", Kind::Flag),
    ("enable-ssh-root", Kind::Flag),
    ("enable-ssh-sftp", Kind::Flag),
    ("json-socket", Kind::Value),
    ("network-monitor", Kind::Flag),
    ("no-browser", Kind::Moot),
    ("profile", Kind::Value),
    ("qr", Kind::Moot),
    ("rosenpass-permissive", Kind::Flag),
    ("service", Kind::Value),
    ("service-env", Kind::Value),
    ("ssh-jwt-cache-ttl", Kind::Value),
    ("wg-kernel-disabled", Kind::Moot),
];

/// Single letters of the same.
const LETTERS: [(&str, char); 4] = [("anonymize", 'A'), ("network-monitor", 'N'), ("service", 's'), ("qr", 'Q')];

/// Those that were given on the command line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ignored {
    flags: Vec<String>,
}

impl Ignored {
    /// One line of all that was given and has no effect, by flag or by variable; nothing when there is none.
    pub(crate) fn warning(&self, variable: impl Fn(&str) -> Option<String>) -> Option<String> {
        let wanted = |kind, value: &str| match kind {
            Kind::Flag => go_bool(value) != Ok(false) && !value.is_empty(),
            Kind::Value => !value.is_empty(),
            Kind::Moot => false,
        };
        let by_variable = IGNORED.iter().filter_map(|(name, kind)| {
            let name = name.to_uppercase().replace('-', "_");
            // The former prefix, where the present one is not used.
            let names = ["NB_", "WT_"].map(|prefix| format!("{prefix}{name}"));
            let (name, value) = names.into_iter().find_map(|name| variable(&name).map(|value| (name, value)))?;
            wanted(*kind, &value).then_some(name)
        });
        let all: Vec<_> = self.flags.iter().cloned().chain(by_variable).collect();
        (!all.is_empty()).then(|| format!("without effect on a routing peer: {}", all.join(", ")))
    }
}

impl clap::FromArgMatches for Ignored {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let given = |(name, kind): &(&'static str, Kind)| {
            let value = matches.get_one::<String>(name)?;
            let wanted = *kind != Kind::Moot && (*kind == Kind::Value || go_bool(value) != Ok(false));
            wanted.then(|| format!("--{name}"))
        };
        Ok(Self { flags: IGNORED.iter().filter_map(given).collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Ignored {
    fn augment_args(command: Command) -> Command {
        IGNORED.iter().fold(command, |command, (name, kind)| {
            let mut arg = Arg::new(*name).long(*name).hide(true).action(ArgAction::Set);
            if *kind != Kind::Value {
                arg = arg.num_args(0..=1).require_equals(true).default_missing_value("true");
            }
            if let Some((_, letter)) = LETTERS.iter().find(|(other, _)| other == name) {
                arg = arg.short(*letter);
            }
            command.arg(arg)
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        ignored: Ignored,
    }

    fn warning(args: &[&str], variables: &[(&str, &str)]) -> Option<String> {
        let line = Line::try_parse_from([&["peer-daemon"], args].concat()).expect("taken");
        let value =
            |name: &str| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned());
        line.ignored.warning(value)
    }

    #[test]
    fn what_has_no_effect_is_said_in_one_line() {
        assert_eq!(warning(&[], &[]), None);
        assert_eq!(warning(&["--disable-dns", "--no-browser"], &[("NB_DISABLE_CLIENT_ROUTES", "true")]), None);
        assert_eq!(warning(&["--allow-server-ssh=false"], &[("NB_ENABLE_ROSENPASS", "false")]), None);
        assert_eq!(warning(&[], &[("WT_ENABLE_ROSENPASS", "true"), ("NB_ENABLE_ROSENPASS", "false")]), None);
        let former = warning(&[], &[("WT_ENABLE_ROSENPASS", "true")]);
        assert_eq!(former.as_deref(), Some("without effect on a routing peer: WT_ENABLE_ROSENPASS"));
        let all = warning(
            &["-N", "--dns-resolver-address", "1.2.3.4", "--allow-server-ssh"],
            &[("NB_ENABLE_ROSENPASS", "true"), ("NB_PROFILE", "")],
        );
        let expected = "without effect on a routing peer: --allow-server-ssh, --dns-resolver-address, --network-monitor, \
                        NB_ENABLE_ROSENPASS";
        assert_eq!(all.as_deref(), Some(expected));
    }
}
